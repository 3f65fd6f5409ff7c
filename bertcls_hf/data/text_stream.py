"""Streamed texts and labels: the rows of a source as they come, and the same rows checked when they are read."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from datasets import IterableDataset

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.columns import Columns
from bertcls_hf.data.labels import LabelSet, RawLabel, encode_labels, raw_label, refuse_unseen_labels
from bertcls_hf.errors import DataError


LONGEST_QUOTE = 60


@dataclass(frozen=True)
class RawStream:
    """The rows of a source as they come, and which of their columns are used.

    Args:
        name: of the source, for messages.
        dataset: the rows.
        columns: the used ones.
        label_feature: type of the label column, where the source says it.
    """

    name: str
    dataset: IterableDataset
    columns: Columns
    label_feature: Any = None

    @property
    def column_names(self) -> list[str]:
        """The standard names of the used columns."""
        return list(self.columns.standard_names().values())

    def standardised(self, rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
        """Standard column names and their values."""
        names = self.columns.standard_names()
        return {standard: [row.get(name) for row in rows] for name, standard in names.items()}


@dataclass(frozen=True)
class TextStream:
    """A stream whose rows are checked and whose labels are encoded.

    Args:
        source: the rows as they come.
        labels: those that the model learns.
        args: what to do with empty texts and missing labels, and how labels are written.
    """

    source: RawStream
    labels: LabelSet
    args: DataArguments
    num_rows: None = field(default=None, init=False)

    @property
    def column_names(self) -> list[str]:
        """`text`, and where there are some `text_pair`, `label` and `id`."""
        return self.source.column_names

    def checked(self, rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
        """The columns `text`, (`text_pair`) and `label` of some rows, without those that the options drop.

        Raises:
            DataError: an empty text, a missing or unknown label, or a text that is no string.
        """
        columns = self.source.standardised(rows)
        texts = [columns[name] for name in ("text", "text_pair") if name in columns]
        raw = [raw_label(value, self.source.label_feature, self.args.label_delimiter) for value in columns["label"]]
        keep = [self._keeps(row, label) for row, label in zip(zip(*texts, strict=True), raw, strict=True)]
        refuse_unseen_labels(raw, self.labels, "training", self._place(texts[0], raw))
        columns["label"] = encode_labels(raw, self.labels)
        columns.pop("id", None)
        return {name: list(itertools.compress(values, keep)) for name, values in columns.items()}

    def _keeps(self, texts: tuple[Any, ...], label: RawLabel) -> bool:
        wrong = next((text for text in texts if not isinstance(text, str | None)), None)
        if wrong is not None:
            raise DataError(f"{self.source.name}: a text is the {type(wrong).__name__} {wrong!r}: write a string")
        is_empty = any(text is None or not text.strip() for text in texts)
        if is_empty and self.args.empty_text == "error":
            raise DataError(
                f"{self.source.name}: a row with label {label!r} has an empty text: mend it, or pass --empty_text drop"
            )
        if label is None and self.args.missing_label == "error":
            raise DataError(
                f"{self.source.name}: no label for {_quoted(texts[0])}: add it, or pass --missing_label drop"
            )
        return label is not None and not (is_empty and self.args.empty_text == "drop")

    def _place(self, texts: Sequence[Any], raw: Sequence[RawLabel]) -> str:
        """The source's name, and the text of the first row that has an unknown label."""
        known = set(self.labels.names)
        for text, label in zip(texts, raw, strict=True):
            names = label if isinstance(label, list) else [label]
            if any(name is not None and name not in known for name in names):
                return f"{self.source.name} (such as {_quoted(text)})"
        return self.source.name


def _quoted(text: Any) -> str:
    text = str(text or "")
    return repr(text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}…")
