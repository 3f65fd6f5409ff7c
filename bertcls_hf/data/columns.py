"""Finds the columns that hold the texts, the label and the id."""

from collections.abc import Sequence
from dataclasses import dataclass

from bertcls_hf.errors import DataError


TEXT_COLUMN_NAMES = ("text", "sentence", "document", "review", "content")
PAIR_COLUMN_NAMES = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("text", "text_pair"),
    ("question1", "question2"),
)
LABEL_COLUMN_NAMES = ("label", "labels", "class", "category", "target")
ID_COLUMN_NAME = "id"
LONGEST_NAME = 40
KNOWN_COLUMNS = frozenset(TEXT_COLUMN_NAMES + LABEL_COLUMN_NAMES + sum(PAIR_COLUMN_NAMES, ()))


@dataclass(frozen=True)
class Columns:
    """The names of the used columns, as the source spells them.

    Args:
        texts: the text column, or the two columns of a sentence pair.
        label: the label column; None if the source has none.
        id: the id column; None if the source has none.
    """

    texts: tuple[str, ...]
    label: str | None
    id: str | None

    def standard_names(self) -> dict[str, str]:
        """Maps the source's column names to the standard names `text`, `text_pair`, `label` and `id`."""
        names = dict(zip(self.texts, ("text", "text_pair"), strict=False))
        if self.label is not None:
            names[self.label] = "label"
        if self.id is not None:
            names[self.id] = "id"
        return names


def resolve_columns(
    available: Sequence[str],
    text_column_names: Sequence[str] | None,
    label_column_name: str | None,
    source: str,
    needs_label: bool,
) -> Columns:
    """Finds the text and label columns by the names that the user gave, or else by usual names.

    Args:
        available: the names of the source's columns.
        text_column_names: the text column or the two of a sentence pair; None picks the first usual name.
        label_column_name: the label column; None picks the first usual name.
        source: the source's name in messages.
        needs_label: whether a source without a label column is refused.

    Raises:
        DataError: a column is missing; the message lists the available columns.
    """
    # Names are shortened, because a name is a whole text if a row was mistaken for the header.
    listed = f"{source} has the columns {', '.join(repr(name[:LONGEST_NAME]) for name in available)}"
    texts = tuple(text_column_names) if text_column_names else _usual_text_columns(available)
    if not texts:
        raise DataError(f"no text column: {listed}; name one (or two, for pairs) with --text_column_names")
    missing = [name for name in texts if name not in available]
    if missing:
        raise DataError(f"no text column {missing[0]!r}: {listed}; see --text_column_names")
    if label_column_name:
        label = label_column_name if label_column_name in available else None
    else:
        label = next(
            iter(_matching_columns(LABEL_COLUMN_NAMES, [name for name in available if name not in texts])), None
        )
    if label is None and needs_label:
        wanted = f" {label_column_name!r}" if label_column_name else ""
        raise DataError(f"no label column{wanted}: {listed}; name it with --label_column_name")
    has_id = ID_COLUMN_NAME in available and ID_COLUMN_NAME not in (*texts, label)
    return Columns(texts, label, ID_COLUMN_NAME if has_id else None)


def _usual_text_columns(available: Sequence[str]) -> tuple[str, ...]:
    for pair in PAIR_COLUMN_NAMES:
        if len(columns := _matching_columns(pair, available)) == 2:
            return columns
    return _matching_columns(TEXT_COLUMN_NAMES, available)[:1]


def _matching_columns(usual: Sequence[str], available: Sequence[str]) -> tuple[str, ...]:
    """Returns the available columns that have a usual name, in the order of `usual`; ignores case and outer blanks."""
    spelling = {name.strip().lower(): name for name in reversed(available)}
    return tuple(spelling[name] for name in usual if name in spelling)
