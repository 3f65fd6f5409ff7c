"""Refuses labels that are almost surely a mistake, and warns of those that may be one."""

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.labels import MOST_LISTED, RawLabel, list_in_text
from bertcls_hf.data.sources import Source
from bertcls_hf.data.texts import rows_of_texts
from bertcls_hf.errors import DataError


logger = logging.getLogger(__name__)

# With fewer rows, nearly as many labels as rows can be meant.
FEWEST_ROWS = 12
# The share of distinct labels among the rows from which on the label column is probably another one.
MOST_DISTINCT = 0.8
CELL_DELIMITERS = (",", ";", "|")
NAMES_OF_MISSING_LABELS = frozenset({"na", "n/a", "#n/a", "<na>", "none", "null", "nil", "-", "--", "?"})


def refuse_doubtful_labels(source: Source, values: Sequence[RawLabel], args: DataArguments) -> None:
    """Refuses single labels that are nearly all distinct, or that are several labels in one cell.

    `--problem_type` says that such labels are meant.

    Args:
        source: the training data, with raw labels.
        values: its labels as names.
        args: the data options.

    Raises:
        DataError: the labels are doubtful; the message names the option that helps.
    """
    names = [value for value in values if isinstance(value, str)]
    if len(names) >= FEWEST_ROWS and len(set(names)) > MOST_DISTINCT * len(names):
        raise DataError(_as_many_labels_as_rows(source, names))
    delimiter = None if args.label_delimiter else _cell_delimiter(set(names))
    if delimiter is not None:
        joined = next(name for name in names if delimiter in name)
        raise DataError(
            f"{source.name}: the label {joined!r} seems to be several labels in one cell: pass --label_delimiter "
            f"{delimiter!r}, or --problem_type single_label_classification if it is one label"
        )


def _as_many_labels_as_rows(source: Source, names: Sequence[str]) -> str:
    label, text = source.columns.labels[0], source.columns.texts[0]
    labels, rows = len(set(names)), len(names)
    problem = f"{source.name}: the label column {label!r} has {labels:,} different labels in {rows:,} rows"
    texts = {row[0] for row in rows_of_texts(source.dataset)}
    if len(texts) < labels / 2:
        return (
            f"{problem}, and the text column {text!r} only {len(texts):,} different texts, so that it looks like the "
            f"label: pass --text_column_names {label} --label_column_name {text} (without a header: --column_names "
            "label text)"
        )
    return (
        f"{problem}: name the right one with --label_column_name (without a header: --column_names), or pass "
        "--problem_type: regression for numbers, single_label_classification if so many labels are meant"
    )


def _cell_delimiter(names: set[str]) -> str | None:
    """Returns the delimiter of several labels in a cell.

    A name is taken for several labels only if each of its parts is also in another name.
    """
    for delimiter in CELL_DELIMITERS:
        parts_of = {name: [part.strip() for part in name.split(delimiter)] for name in names}
        counts = Counter(part for parts in parts_of.values() for part in set(parts))
        joined = [parts for parts in parts_of.values() if len(parts) > 1]
        if joined and all(counts[part] > 1 for parts in joined for part in parts):
            return delimiter
    return None


def warn_of_doubtful_labels(source: Source, values: Sequence[RawLabel], args: DataArguments) -> None:
    """Warns of labels that differ only in case, of names of missing labels, of blanks, and of lists of one label.

    Args:
        source: the training data, with raw labels.
        values: its labels as names.
        args: the data options.
    """
    counts = Counter(name for value in values for name in (value if isinstance(value, list) else [value]) if name)
    spellings = defaultdict(list)
    for name in counts:
        spellings[name.casefold()].append(name)
    for names in [names for names in spellings.values() if len(names) > 1][:MOST_LISTED]:
        listed = ", ".join(f"{name!r} ({counts[name]:,} rows)" for name in sorted(names))
        logger.warning(
            "%s: labels that differ only in case are different labels: %s; --lowercase_labels true makes them one",
            source.name,
            listed,
        )
    for name in sorted(name for name in counts if name.casefold() in NAMES_OF_MISSING_LABELS)[:MOST_LISTED]:
        logger.warning(
            "%s: %r is taken for a label (%s rows); --missing_label_names %s makes it a missing one",
            source.name,
            name,
            f"{counts[name]:,}",
            name,
        )
    _warn_of_outer_blanks(source)
    lists = [value for value in values if isinstance(value, list)]
    if lists and all(len(value) == 1 for value in lists):
        logger.warning(
            "%s: every row has exactly one label, in a list, so the task is multi-label; --problem_type "
            "single_label_classification makes it single-label",
            source.name,
        )


def _warn_of_outer_blanks(source: Source) -> None:
    raw = [value for value in source.dataset["label"][:] if isinstance(value, str)]
    padded = [value for value in raw if value.strip() and value != value.strip() and value == list_in_text(value)]
    if padded:
        logger.warning(
            "%s: %s labels have blanks around them, which are left out, such as %r",
            source.name,
            f"{len(padded):,}",
            padded[0],
        )
