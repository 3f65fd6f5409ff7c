"""The rows of all splits in one order, the training rows first, with their labels and their normalised texts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from datasets import Dataset

from bertcls_hf.data.labels import LabelSet
from bertcls_hf.data.load import ROW_COLUMN
from bertcls_hf.data.texts import rows_of_texts, text_columns


NO_LABEL = -1


@dataclass(frozen=True)
class LabelledRows:
    """All rows of a run. A row has one number throughout: its place in this order.

    Args:
        splits: the splits with their texts, the training split first.
        labels: the labels of the task.
        starts: the number of the first row of each split, and the number of all rows.
        label_of: (rows,) int64, equal for equal labels, or sets of labels; -1 without a label.
        text_of: (rows,) int64, the number of the first row with the same normalised text or texts.
    """

    splits: dict[str, Dataset]
    labels: LabelSet
    starts: np.ndarray
    label_of: np.ndarray
    text_of: np.ndarray

    @classmethod
    def of(cls, splits: Mapping[str, Dataset], labels: LabelSet) -> "LabelledRows":
        """Reads all rows, of which only labels and hashes of texts are kept."""
        ordered = {"train": splits["train"], **splits}
        starts = np.concatenate([[0], np.cumsum([len(split) for split in ordered.values()])])
        digests = np.fromiter(
            (xxhash.xxh3_64_intdigest(normalised(texts).encode("utf-8", "surrogatepass")) for split in ordered.values()
             for texts in rows_of_texts(split)), np.uint64, starts[-1],
        )  # fmt: skip
        _, first, text_of = np.unique(digests, return_index=True, return_inverse=True)
        return cls(ordered, labels, starts, _label_numbers(ordered.values()), first[text_of])

    @property
    def train_rows(self) -> int:
        """The number of training rows, which come first."""
        return int(self.starts[1])

    def texts(self, numbers: np.ndarray) -> Iterator[tuple[str | None, ...]]:
        """Yields the text or text pair of some rows, whose numbers ascend."""
        for (start, stop), split in zip(
            zip(self.starts, self.starts[1:], strict=False), self.splits.values(), strict=True
        ):
            inside = numbers[(numbers >= start) & (numbers < stop)] - start
            if len(inside):
                yield from rows_of_texts(split.select(inside))

    def description(self, number: int) -> dict[str, Any]:
        """A row's split, its number in the source from 1 on, and, where it has them, its id, texts and label."""
        place = int(np.searchsorted(self.starts, number, side="right")) - 1
        name = list(self.splits)[place]
        row = self.splits[name][int(number - self.starts[place])]
        known = {"split": name, ROW_COLUMN: row[ROW_COLUMN]}
        known |= {column: row[column] for column in ("id", *text_columns(self.splits[name])) if column in row}
        return known | ({"label": self.labels.readable(row["label"])} if "label" in row else {})


def normalised(texts: tuple[str | None, ...]) -> str:
    r"""Returns a text, or both of a pair, without differences in white space and case.

    >>> normalised(("Two  Words", None))
    'two words\n'
    """
    return "\n".join(" ".join((text or "").casefold().split()) for text in texts)


def _label_numbers(splits: Any) -> np.ndarray:
    """Numbers the labels of all splits, (rows,) int64; those of a split without labels get -1."""
    labelled = [np.asarray(split["label"][:]) for split in splits if "label" in split.column_names]
    _, numbers = np.unique(np.concatenate(labelled), axis=0, return_inverse=True)
    parts = iter(np.split(numbers.reshape(-1), np.cumsum([len(part) for part in labelled])[:-1]))
    return np.concatenate([
        next(parts) if "label" in split.column_names else np.full(len(split), NO_LABEL) for split in splits
    ])  # fmt: skip
