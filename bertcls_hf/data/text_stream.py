"""Streams of texts and labels: the raw rows of a source, and the same rows checked when they are read."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from datasets import IterableDataset

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.columns import Columns
from bertcls_hf.data.labels import LabelFormat, LabelSet, RawLabel, encode_labels, label_format, refuse_unseen_labels
from bertcls_hf.errors import DataError


LONGEST_QUOTE = 60
# The rows that show how a stream writes its labels.
SAMPLE_ROWS = 100


@dataclass(frozen=True)
class RawStream:
    """A stream of unchecked rows, with the names of the used columns.

    Args:
        name: the source's name in messages.
        dataset: the rows, under the source's own column names or the standard ones.
        columns: the names of the used columns in `dataset`.
        label_feature: the type of the label column; None if it is unknown.
    """

    name: str
    dataset: IterableDataset
    columns: Columns
    label_feature: Any = None

    @property
    def column_names(self) -> list[str]:
        """The standard names of the used columns."""
        return list(self.columns.standard_names().values())

    def label_format(self, args: DataArguments) -> LabelFormat:
        """Finds out from the first rows how the stream writes its labels; see [`label_format`]."""
        rows = self.standardised(list(itertools.islice(self.dataset, SAMPLE_ROWS)))
        return label_format(rows["label"], self.label_feature, args, self.name)

    def standardised(self, rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
        """Converts rows to columns under the standard names."""
        names = self.columns.standard_names()
        return {standard: [row.get(name) for row in rows] for name, standard in names.items()}


@dataclass(frozen=True)
class TextStream:
    """A stream whose rows are checked and whose labels are encoded.

    Args:
        source: the stream of unchecked rows.
        labels: the labels that the model learns.
        args: the data options, which say what to do with empty texts and missing labels, and how labels are separated.
    """

    source: RawStream
    labels: LabelSet
    args: DataArguments
    num_rows: None = field(default=None, init=False)

    @cached_property
    def _label_format(self) -> LabelFormat:
        return self.source.label_format(self.args)

    @property
    def column_names(self) -> list[str]:
        """The column `text`, and `text_pair`, `label` and `id` if the source has them."""
        return self.source.column_names

    def checked(self, rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
        """Checks rows and encodes their labels.

        Args:
            rows: rows of `source`.

        Returns:
            The columns `text`, `text_pair` (for pairs) and `label`, without the rows that the options drop.

        Raises:
            DataError: a text is not a string, a label is unknown, or a row has an empty text or no label and the
                options refuse it.
        """
        columns = self.source.standardised(rows)
        texts = [columns[name] for name in ("text", "text_pair") if name in columns]
        raw_labels = [self._label_format.read(value) for value in columns["label"]]
        is_kept = [self._keeps(row, label) for row, label in zip(zip(*texts, strict=True), raw_labels, strict=True)]
        refuse_unseen_labels(raw_labels, self.labels, "training", self._name_with_example(texts[0], raw_labels))
        columns["label"] = encode_labels(raw_labels, self.labels)
        columns.pop("id", None)
        return {name: list(itertools.compress(values, is_kept)) for name, values in columns.items()}

    def _keeps(self, texts: tuple[Any, ...], label: RawLabel) -> bool:
        non_text = next((text for text in texts if not isinstance(text, str | None)), None)
        if non_text is not None:
            raise DataError(
                f"{self.source.name}: a text is the {type(non_text).__name__} {non_text!r}: write a string"
            )
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

    def _name_with_example(self, texts: Sequence[Any], raw_labels: Sequence[RawLabel]) -> str:
        """Returns the source's name, followed by the text of the first row with an unknown label if there is one."""
        known = set(self.labels.names)
        for text, label in zip(texts, raw_labels, strict=True):
            names = label if isinstance(label, list) else [label]
            if any(name is not None and name not in known for name in names):
                return f"{self.source.name} (such as {_quoted(text)})"
        return self.source.name


def _quoted(text: Any) -> str:
    text = str(text or "")
    return repr(text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}…")
