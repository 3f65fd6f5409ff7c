"""The project's Markdown pages: their links, anchors, code and tables."""

import re
from pathlib import Path

from tests.helpers.reviews import ROOT


README = ROOT / "README.md"
PAGES = (README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
_FENCED = re.compile(r"^```.*?^```$", flags=re.MULTILINE | re.DOTALL)
# [text](target), also over a line's end, and pictures.
_LINK = re.compile(r"\[[^\]]*\]\(\s*([^)\s]+)\s*\)")
_CODE = re.compile(r"`([^`\n]+)`")


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return _FENCED.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    """The targets of all links and pictures."""
    return _LINK.findall(prose(page))


def code_spans(text: str) -> list[str]:
    """What stands in backticks."""
    return _CODE.findall(text)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site write them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def marked_code(page: Path, name: str) -> str:
    """The block of code below the comment `<!-- test: NAME -->`, for a test that runs it.

    For example `exec(marked_code(README, "python-api"))`.
    """
    (code,) = re.findall(rf"^<!-- test: {name} -->\n+```python\n(.*?)^```$", page.read_text(encoding="utf-8"),
                         flags=re.MULTILINE | re.DOTALL)  # fmt: skip
    return code


def table_rows(page: Path) -> list[list[str]]:
    """The cells of all tables' rows, without the lines below headers."""
    lines = [line for line in prose(page).splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
