"""Reads what the demo page shows of a model's card: its text, and the examples in its metadata."""

import logging
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from bertcls_hf.errors import one_line


logger = logging.getLogger(__name__)

CARD_FILE = "README.md"


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
