"""Describes how many rows each label has, and how long its texts are."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from scipy import sparse
from sklearn.metrics import roc_auc_score
from transformers import PreTrainedTokenizerBase

from bertcls_hf.data.texts import READ_ROWS, text_columns
from bertcls_hf.data.tokenization import NO_LIMIT, encode_texts


QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
# A label is rare if it has less than this share of the rows of the most frequent one.
RARE = 0.1
# How far from a coin's 0.5 the area under the ROC curve of the length alone may be, and of how many rows it is taken.
TELLING_AUC, FEWEST_ROWS = 0.2, 20


@dataclass(frozen=True)
class LabelBalance:
    """The rows of a label, and their lengths.

    Args:
        label: its name.
        rows: its training rows.
        share: their share of all training rows.
        is_rare: whether it has less than a tenth of the rows of the most frequent label.
        lengths: the least number of tokens, the quartiles, and the greatest; empty without rows.
        length_auc: the area under the ROC curve if the length alone tells this label from the others: 0.5 is a coin,
            above it the label's texts are longer. None for fewer than 20 rows with or without the label.
        is_told_by_length: whether that area is 0.7 or more, or 0.3 or less.
    """

    label: str
    rows: int
    share: float
    is_rare: bool
    lengths: list[int]
    length_auc: float | None
    is_told_by_length: bool


def text_lengths(train: Dataset, tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Returns the (rows,) int64 tokens of each text or pair as a whole, with special tokens."""
    columns = train.select_columns(text_columns(train))
    return np.concatenate([
        [len(ids) for ids in encode_texts(tokenizer, batch["text"], batch.get("text_pair"), NO_LIMIT)["input_ids"]]
        for batch in columns.iter(READ_ROWS)
    ])  # fmt: skip


def label_balance(lengths: np.ndarray, has_label: sparse.csr_array, names: Iterable[str]) -> list[LabelBalance]:
    """Describes each label, in the order of the labels.

    Args:
        lengths: (rows,) tokens.
        has_label: (rows, labels) 1 where a row has a label.
        names: the names of the labels.
    """
    columns = sparse.csc_array(has_label)
    counts = np.diff(columns.indptr)
    found = []
    for name, count, start in zip(names, counts.tolist(), columns.indptr, strict=False):
        is_label = np.zeros(len(lengths), dtype=bool)
        is_label[columns.indices[start : start + count]] = True
        own = np.quantile(lengths[is_label], QUANTILES).round().astype(int).tolist() if count else []
        can_compare = min(count, len(lengths) - count) >= FEWEST_ROWS
        auc = float(roc_auc_score(is_label, lengths)) if can_compare else None
        is_told = auc is not None and abs(auc - 0.5) >= TELLING_AUC
        found.append(LabelBalance(
            name, count, count / len(lengths), bool(count < RARE * counts.max()), own, auc, is_told,
        ))  # fmt: skip
    return found
