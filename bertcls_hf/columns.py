"""Which columns hold the texts and the label."""

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
KNOWN_COLUMNS = frozenset(TEXT_COLUMN_NAMES + LABEL_COLUMN_NAMES + sum(PAIR_COLUMN_NAMES, ()))


@dataclass(frozen=True)
class Columns:
    """The columns of a source that are used; `label` and `id` are None where it has none."""

    texts: tuple[str, ...]
    label: str | None
    id: str | None

    def standard_names(self) -> dict[str, str]:
        """From the source's column names to `text`, `text_pair`, `label` and `id`."""
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
    """Picks the text and label columns, as named by the user or by their usual names.

    Raises:
        DataError: a column is missing; the message lists the columns that there are.
    """
    there = f"{source} has the columns {', '.join(map(repr, available))}"
    texts = tuple(text_column_names) if text_column_names else _usual_text_columns(available)
    if not texts:
        raise DataError(f"no text column: {there}; name one (or two, for pairs) with --text_column_names")
    missing = [name for name in texts if name not in available]
    if missing:
        raise DataError(f"no text column {missing[0]!r}: {there}; see --text_column_names")
    label = label_column_name or next((name for name in LABEL_COLUMN_NAMES if name in available), None)
    if label is not None and label not in available:
        label = None
    if label is None and needs_label:
        wanted = f" {label_column_name!r}" if label_column_name else ""
        raise DataError(f"no label column{wanted}: {there}; name it with --label_column_name")
    has_id = ID_COLUMN_NAME in available and ID_COLUMN_NAME not in (*texts, label)
    return Columns(texts, label, ID_COLUMN_NAME if has_id else None)


def _usual_text_columns(available: Sequence[str]) -> tuple[str, ...]:
    for pair in PAIR_COLUMN_NAMES:
        if set(pair) <= set(available):
            return pair
    return next(((name,) for name in TEXT_COLUMN_NAMES if name in available), ())
