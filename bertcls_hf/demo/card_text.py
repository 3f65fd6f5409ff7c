"""Reads what the demo page shows of a model's card, its text and the examples in its metadata, and makes it harmless.

Importing this module needs the packages of requirements-deploy.txt.
"""

import logging
from pathlib import Path
from typing import Any

import nh3
import yaml
from huggingface_hub import ModelCard, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from markdown_it import MarkdownIt

from bertcls_hf.errors import one_line


logger = logging.getLogger(__name__)

CARD_FILE = "README.md"
# What a card may hold. Nothing of it makes a browser ask another server for something.
TAGS = frozenset({
    "a", "blockquote", "br", "code", "del", "details", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p",
    "pre", "s", "strong", "sub", "summary", "sup", "table", "tbody", "td", "th", "thead", "tr", "ul",
})  # fmt: skip
ATTRIBUTES = {"a": {"href", "title"}, "ol": {"start"}}
SCHEMES = frozenset({"http", "https", "mailto"})
# The rest of a longer card is left out.
MOST_CHARACTERS = 100_000


def read_card(model: str, revision: str) -> tuple[str, tuple[str, ...]]:
    """Returns the text of a model's card and the texts under `widget` in its metadata; both are empty without a card.

    Args:
        model: a folder, or an id on the Hub.
        revision: the branch, tag or commit on the Hub.
    """
    path = _card_path(model, revision)
    if path is None:
        return "", ()
    try:
        card = ModelCard(path.read_text(encoding="utf-8", errors="replace"), ignore_metadata_errors=True)
    except (ValueError, yaml.YAMLError) as error:
        logger.warning("the page shows no card, since %s cannot be read: %s", path, one_line(error))
        return "", ()
    return card.text.strip(), tuple(_widget_texts(card.data.to_dict().get("widget")))


def harmless_card(card: str) -> str:
    """Renders the Markdown of a card as HTML without pictures, scripts and styles.

    The text of a model from elsewhere is not to be trusted: a page that shows it must send no request to another
    server. The time grows with the length of the card, whatever it holds.
    """
    markdown = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    html = markdown.render(card[:MOST_CHARACTERS])
    return nh3.clean(html, tags=TAGS, attributes=ATTRIBUTES, url_schemes=SCHEMES)


def _card_path(model: str, revision: str) -> Path | None:
    if Path(model).is_dir():
        path = Path(model, CARD_FILE)
        return path if path.is_file() else None
    try:
        return Path(hf_hub_download(model, CARD_FILE, revision=revision))
    except EntryNotFoundError:
        return None


def _widget_texts(widget: Any) -> list[str]:
    """Returns the texts of the metadata `widget: [{text: …}]`; entries of other kinds of models have no text."""
    entries = widget if isinstance(widget, list) else []
    return [entry["text"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("text"), str)]
