"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Writes a Markdown table.

    Args:
        header: the titles of the columns.
        rows: escaped cells.
        left: so many columns hold words and are aligned to the left; the others hold numbers.
    """
    rule = ["---" if column < left else "---:" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))
