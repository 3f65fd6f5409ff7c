"""Guesses what the columns of a table hold from their values, for headers that say nothing and for advice."""

import re
from collections.abc import Sequence


# A column may be the label if at most this share of its values is distinct.
MOST_DISTINCT_LABELS = 0.5
LONGEST_LABEL = 60
_PLAIN_NAME = re.compile(r"[^\W\d]\w*(?:[ .\-]\w+)?")


def is_plain_name(cell: str) -> bool:
    """Says whether a cell could be a column's name: one or two words of letters, digits and `_`."""
    return len(cell.strip()) <= 40 and _PLAIN_NAME.fullmatch(cell.strip()) is not None


def is_sentence(cell: str) -> bool:
    """Says whether a cell has three words or more, or more letters than a name."""
    return len(cell.split()) >= 3 or len(cell.strip()) > 40


def _column(rows: Sequence[Sequence[str]], position: int) -> list[str]:
    return [row[position].strip() for row in rows if len(row) > position and row[position].strip()]


def _may_be_label(values: Sequence[str]) -> bool:
    distinct = set(values)
    is_short = all(len(value) <= LONGEST_LABEL for value in distinct)
    return is_short and 2 <= len(distinct) <= len(values) * MOST_DISTINCT_LABELS


def guess_label_position(rows: Sequence[Sequence[str]]) -> int | None:
    """Returns the position of the column that looks like the label, or None if no column does.

    A label has short values that recur. If the last column looks like one, it is chosen, else the column with the
    fewest different values.

    Args:
        rows: rows without a header.
    """
    width = max(map(len, rows), default=0)
    columns = {position: _column(rows, position) for position in range(width)}
    candidates = [position for position, values in columns.items() if _may_be_label(values)]
    last = max((position for position, values in columns.items() if values), default=-1)
    if last in candidates:
        return last
    return min(candidates, key=lambda position: len(set(columns[position])), default=None)


def guess_text_position(rows: Sequence[Sequence[str]], label: int | None) -> int:
    """Returns the position of the column with the longest values on average, other than the label."""
    width = max(map(len, rows), default=1)

    def mean_length(position: int) -> float:
        values = _column(rows, position)
        return sum(map(len, values)) / max(len(values), 1)

    return max((position for position in range(width) if position != label), key=mean_length, default=0)


def looks_swapped(rows: Sequence[Sequence[str]]) -> bool:
    """Says whether the last column of a table without header is not the label, but another column looks like it."""
    label = guess_label_position(rows)
    return label is not None and label != max(map(len, rows), default=0) - 1


def advice_for_columns_without_header(rows: Sequence[Sequence[str]]) -> str:
    """Says why the columns of a table without header cannot be told apart, and which `--column_names` would help."""
    width = max(map(len, rows), default=0)
    label = guess_label_position(rows)
    text = guess_text_position(rows, label)
    names = ["_"] * width
    names[text] = "text"
    problem = f"{width} columns and no header"
    if label is not None:
        names[label] = "label"
        values = _column(rows, label)
        problem += (
            f": column {label + 1} looks like the label ({len(set(values)):,} different values in {len(values):,} "
            f"rows) and column {text + 1} like the text"
        )
    return (
        f"{problem}: pass --column_names {' '.join(names)} (_ for a column that is not used), or --csv_header true if "
        "line 1 is a header"
    )
