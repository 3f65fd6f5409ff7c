"""Finds the columns that hold the texts, the label and the id, and reads a row's texts and label from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.errors import DataError


# If a source has several of these columns, the first one in this order is used.
TEXT_COLUMN_NAMES = ("text", "sentence", "document", "review", "content")
# These names are used if a source has exactly one of them.
OTHER_TEXT_COLUMN_NAMES = frozenset(
    "review_text review_body reviewtext reviewbody comment comments comment_text tweet tweet_text tweets message "
    "messages headline headlines body question questions utterance utterances query post sms email phrase title "
    "description sentences texts statement article article_text abstract summary narrative feedback".split()
)
PAIR_COLUMN_NAMES = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("text", "text_pair"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "answer"),
    ("query", "passage"),
    ("query", "document"),
    ("claim", "evidence"),
    ("title", "text"),
    ("title", "body"),
    ("title", "content"),
    ("title", "description"),
    ("title", "abstract"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("sentence_a", "sentence_b"),
    ("sent1", "sent2"),
)
LABEL_COLUMN_NAMES = ("label", "labels", "class", "category", "target")
OTHER_LABEL_COLUMN_NAMES = frozenset(
    "sentiment stars star rating polarity emotion emotions intent topic class_label gold_label is_duplicate "
    "class_index label_id class_id classes categories targets is_spam spam annotation relatedness_score "
    "similarity_score".split()
)
LABEL_COLUMN_SUFFIXES = ("_label", "_labels", "_sentiment", "_category", "_class")
ID_COLUMN_NAME = "id"
# The standard name of the list of probabilities that `--soft_label_columns` names.
SOFT_LABEL = "soft_label"
# How far the probabilities of a row may be from a sum of 1.
SUM_TOLERANCE = 0.01
LONGEST_NAME = 40
MOST_COLUMNS_LISTED = 20
KNOWN_COLUMNS = frozenset(
    {*TEXT_COLUMN_NAMES, *OTHER_TEXT_COLUMN_NAMES, *LABEL_COLUMN_NAMES, *OTHER_LABEL_COLUMN_NAMES}
    | {name for pair in PAIR_COLUMN_NAMES for name in pair}
)


@dataclass(frozen=True)
class Columns:
    """The names of the used columns, as the source spells them.

    Args:
        texts: the text column, the two columns of a sentence pair, or all columns that are joined by `text_delimiter`.
        labels: the label column, or several columns of 0 and 1, one per label; empty if the source has no label.
        id: the id column; None if the source has none.
        unused: the other columns.
        text_delimiter: joins the text columns into one text; None if two columns are a sentence pair.
        shares: the columns of a probability per label; empty without soft labels.
        share_labels: the labels of these columns.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()
    id: str | None = None
    unused: tuple[str, ...] = ()
    text_delimiter: str | None = None
    shares: tuple[str, ...] = ()
    share_labels: tuple[str, ...] = ()

    @property
    def label(self) -> str | None:
        """The label column; None if there is none, or if there are several."""
        return self.labels[0] if len(self.labels) == 1 else None

    @property
    def is_combined(self) -> bool:
        """Whether a text or a label is made of several columns."""
        return len(self.labels) > 1 or self._joins_texts or bool(self.shares)

    def standard_names(self) -> dict[str, str]:
        """Maps the source's column names to the standard names `text`, `text_pair`, `label` and `id`.

        Columns that are combined with others have no standard name of their own; see [`combined`].
        """
        names = {} if self._joins_texts else dict(zip(self.texts, ("text", "text_pair"), strict=False))
        if self.label is not None:
            names[self.label] = "label"
        if self.id is not None:
            names[self.id] = "id"
        return names | ({SOFT_LABEL: SOFT_LABEL} if self.shares == (SOFT_LABEL,) else {})

    @property
    def standard_columns(self) -> tuple[str, ...]:
        """The standard names of the columns that [`standard_row`] returns."""
        names = ["text"] if self._joins_texts else []
        names += self.standard_names().values()
        names += ["label"] if len(self.labels) > 1 or (self.shares and not self.labels) else []
        return (*names, SOFT_LABEL) if self.shares else tuple(names)

    @property
    def _joins_texts(self) -> bool:
        return self.text_delimiter is not None and len(self.texts) > 1

    def combined(self) -> "Columns":
        """Returns the columns of the rows that [`standard_row`] returns."""
        names = self.standard_columns
        return Columns(
            tuple(name for name in names if name.startswith("text")),
            ("label",) if "label" in names else (),
            "id" if "id" in names else None,
            shares=(SOFT_LABEL,) if self.shares else (),
        )

    def standard_row(self, record: Mapping[str, Any], place: str) -> dict[str, Any]:
        """Reads the texts, the label and the id of a row.

        Args:
            record: the row, under the source's own column names.
            place: the source and the row in messages.

        Returns:
            The row under its standard names. Several text columns are joined, where none of them is missing; several
            label columns become the list of those that hold 1, or None if one of them holds -1 or nothing. Soft labels
            become a list of numbers, whose greatest gives the label if there is no label column.

        Raises:
            DataError: one of several label columns holds something other than 0, 1 or -1, or soft labels are no
                probabilities.
        """
        row = {standard: record.get(name) for name, standard in self.standard_names().items()}
        if self._joins_texts:
            texts = [record.get(name) for name in self.texts]
            is_whole = all(isinstance(text, str) for text in texts)
            row["text"] = (self.text_delimiter or "").join(texts) if is_whole else None  # type: ignore[arg-type]
        if len(self.labels) > 1:
            marks = [_mark(record.get(name), name, place) for name in self.labels]
            names = [name for name, mark in zip(self.labels, marks, strict=True) if mark == 1]
            row["label"] = names if all(mark in (0, 1) for mark in marks) else None
        if self.shares:
            shares = _shares({name: record.get(name) for name in self.shares}, place)
            row[SOFT_LABEL] = shares
            if not self.labels:
                row["label"] = self.share_labels[shares.index(max(shares))]
        return row

    def description(self) -> str:
        """Says which columns are used, and which are not, as in `text: review; label: stars; unused: date`."""
        parts = [f"text: {', '.join(self.texts)}"]
        parts += [f"label: {', '.join(self.labels)}"] if self.labels else []
        parts += [f"soft labels: {', '.join(self.shares)}"] if self.shares else []
        parts += [f"id: {self.id}"] if self.id else []
        unused = [name for name in self.unused if name.strip()]
        more = f" and {len(unused) - MOST_COLUMNS_LISTED} more" if len(unused) > MOST_COLUMNS_LISTED else ""
        parts += [f"unused: {', '.join(unused[:MOST_COLUMNS_LISTED])}{more}"] if unused else []
        return "; ".join(parts)


def _mark(value: Any, column: str, place: str) -> int | None:
    """Returns 0, 1 or -1 for a cell of a label column, and None for an empty one."""
    text = str(value).strip().lower()
    if value is None or text in ("", "nan", "none"):
        return None
    marks = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1, "-1": -1, "-1.0": -1}
    if text not in marks:
        raise DataError(
            f"{place}: the label column {column!r} holds {str(value)[:LONGEST_NAME]!r}: several label columns hold 0 "
            "and 1, or -1 for a row without labels"
        )
    return marks[text]


def _shares(values: Mapping[str, Any], place: str) -> list[float]:
    """Returns the probabilities in the cells of a row."""
    shares = []
    for name, value in values.items():
        try:
            share = float(value)
        except (TypeError, ValueError):
            share = -1.0
        if not 0 <= share <= 1:
            raise DataError(f"{place}: the column {name!r} holds {str(value)[:LONGEST_NAME]!r}, and no probability")
        shares.append(share)
    if abs(sum(shares) - 1) > SUM_TOLERANCE:
        raise DataError(f"{place}: the probabilities of {', '.join(values)} have the sum {sum(shares):g}, and not 1")
    return shares


def resolve_columns(
    available: Sequence[str],
    args: DataArguments,
    source: str,
    needs_label: bool,
    rows: Sequence[Mapping[str, Any]] = (),
) -> Columns:
    """Finds the text and label columns by the names that the user gave, or else by usual names.

    Args:
        available: the names of the source's columns.
        args: the data options, which can name the columns.
        source: the source's name in messages.
        needs_label: whether a source without a label column is refused.
        rows: the first rows, for the examples and the advice in a refusal.

    Raises:
        DataError: a column is missing; the message lists the available columns with an example value each.
    """
    shares = tuple(name for name in args.soft_label_columns or () if name in available)
    told = (*(args.label_column_name or ()), *shares)
    texts = tuple(args.text_column_names or ()) or _usual_text_columns(available, told)
    others = [name for name in available if name not in texts and name not in shares]
    labels = tuple(args.label_column_name or ()) or _usual_label_column(others, rows)
    missing_labels = [name for name in labels if name not in available]
    problems = _missing_texts(texts, available)
    if missing_labels and not needs_label:
        labels = ()
    elif missing_labels or (not labels and not shares and needs_label):
        problems.append(f"no label column{f' {missing_labels[0]!r}' if missing_labels else ''}")
    if shares and len(shares) < len(args.soft_label_columns or ()):
        lacking = next(name for name in args.soft_label_columns or () if name not in available)
        raise DataError(f"{source}: no column {lacking!r}, which --soft_label_columns names beside {shares[0]!r}")
    if problems:
        raise DataError(_refusal(problems, available, texts, source, rows))
    repeated = sorted({name for name in (*texts, *labels) if list(available).count(name) > 1})
    if repeated:
        raise DataError(f"{source}: the header names column {repeated[0]!r} twice")
    has_id = list(available).count(ID_COLUMN_NAME) == 1 and ID_COLUMN_NAME not in (*texts, *labels, *shares)
    identifier = ID_COLUMN_NAME if has_id else None
    unused = tuple(name for name in available if name not in {*texts, *labels, *shares, identifier})
    share_labels = tuple(args.label_names or ()) if shares else ()
    return Columns(texts, labels, identifier, unused, args.text_column_delimiter, shares, share_labels)


def _missing_texts(texts: Sequence[str], available: Sequence[str]) -> list[str]:
    if not texts:
        return ["no text column"]
    return [f"no text column {name!r}" for name in texts if name not in available][:1]


def _refusal(
    problems: Sequence[str],
    available: Sequence[str],
    texts: Sequence[str],
    source: str,
    rows: Sequence[Mapping[str, Any]],
) -> str:
    """Says which columns are missing, which there are, and which option names them."""
    options = [option for kind, option in
               (("text", "--text_column_names (two for pairs)"), ("label", "--label_column_name"))
               if any(problem.startswith(f"no {kind}") for problem in problems)]  # fmt: skip
    marked = columns_of_marks([name for name in available if name not in texts], rows)
    advice = f"; for several labels per text: --label_column_name {' '.join(marked)}" if len(marked) > 1 else ""
    return (
        f"{' and '.join(problems)}: {source} has the columns {_listed(available, rows)}; name "
        f"{'it' if len(problems) == 1 else 'them'} with {' and '.join(options)}{advice}"
    )


def _listed(available: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Lists the columns, each with an example value."""
    listed = []
    for name in [name for name in available if name.strip()][:MOST_COLUMNS_LISTED]:
        example = next((row[name] for row in rows if row.get(name) not in (None, "")), None)
        # Names are shortened, because a name is a whole text if a row was mistaken for the header.
        listed.append(f"{name[:LONGEST_NAME]!r}{'' if example is None else f' ({_shortened(example)})'}")
    more = len([name for name in available if name.strip()]) - len(listed)
    return ", ".join(listed) + (f" and {more} more" if more else "")


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}…"


def columns_of_marks(available: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the columns whose values in all rows are 0, 1 or -1, if one of them holds both 0 and 1."""
    marked = [name for name in available if _holds_marks(name, rows)]
    has_both = any({"0", "1"} <= {str(row.get(name)).strip() for row in rows} for name in marked)
    return marked if has_both else []


def _holds_marks(name: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    return bool(rows) and {str(row.get(name)).strip() for row in rows} <= {"0", "1", "-1"}


def _usual_text_columns(available: Sequence[str], labels: Sequence[str]) -> tuple[str, ...]:
    available = [name for name in available if name not in labels]
    for pair in PAIR_COLUMN_NAMES:
        if len(columns := _matching_columns(pair, available)) == 2:
            return columns
    if first := _matching_columns(TEXT_COLUMN_NAMES, available)[:1]:
        return first
    others = _matching_columns(sorted(OTHER_TEXT_COLUMN_NAMES), available)
    return others if len(others) == 1 else ()


def _usual_label_column(available: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    if first := _matching_columns(LABEL_COLUMN_NAMES, available)[:1]:
        return first
    others = _matching_columns(sorted(OTHER_LABEL_COLUMN_NAMES), available)
    if not others:
        others = tuple(name for name in available if usual_spelling(name).endswith(LABEL_COLUMN_SUFFIXES))
    if len(others) != 1 or (_holds_marks(others[0], rows) and len({*columns_of_marks(available, rows), *others}) > 1):
        # One of several columns of 0 and 1 is probably not the only label.
        return ()
    return others


def _matching_columns(usual: Sequence[str], available: Sequence[str]) -> tuple[str, ...]:
    """Returns the available columns that have a usual name, in the order of `usual`; ignores case and outer blanks."""
    spelling = {usual_spelling(name): name for name in reversed(available)}
    return tuple(spelling[name] for name in usual if name in spelling)


def usual_spelling(name: str) -> str:
    """Returns a column's name in lower case, without outer blanks, and with `_` for inner blanks and dashes."""
    return "_".join(name.strip().lower().replace("-", " ").split())
