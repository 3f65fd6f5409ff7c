"""Each row is classified by models that were not fitted to it."""

from typing import Any

import numpy as np
import torch
from scipy import sparse

from bertcls_hf.audit.held_out_logits import encoder_logits, ngram_logits, weighed_sum
from bertcls_hf.data.labels import MULTI_LABEL, SINGLE_LABEL, LabelSet


class Features:
    """What is read of cached features."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = torch.from_numpy(values.astype(np.float32))

    def __getitems__(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        return {"features": self.values[rows]}


def logits_of(values: np.ndarray, gold: np.ndarray, labels: LabelSet) -> list[np.ndarray]:
    """The logits of features and of n-grams with the same values."""
    folds = [np.arange(len(gold))[start::5] for start in range(5)]
    features: Any = Features(values)
    marks = sparse.csr_array(values.astype(np.float32))
    return [encoder_logits(features, gold, labels, folds), ngram_logits(marks, gold, labels, folds)]


def test_a_row_alone_knows_nothing() -> None:
    """Each row has a column of its own, by which a model that was fitted to it would tell its label."""
    gold = np.random.default_rng(0).integers(0, 2, 60)
    for logits in logits_of(np.eye(60), gold, LabelSet(SINGLE_LABEL, ("a", "b"))):
        assert (logits.argmax(axis=1) == gold).mean() < 0.7


def test_three_labels_one_of_which_has_one_row() -> None:
    gold = np.array([0, 1] * 30 + [2])
    values = np.column_stack([gold == 0, gold == 1, np.ones_like(gold)])
    labels = LabelSet(SINGLE_LABEL, ("a", "b", "c"))
    encoder, ngrams = logits_of(values, gold, labels)
    for logits in (encoder, ngrams, weighed_sum(encoder, ngrams, gold, labels)):
        assert np.isfinite(logits).all()
        assert (logits.argmax(axis=1) == gold)[:60].all()


def test_several_labels_one_of_which_all_rows_have() -> None:
    gold = np.column_stack([np.arange(60) % 2, np.ones(60)]).astype(np.float32)
    labels = LabelSet(MULTI_LABEL, ("a", "b"))
    encoder, ngrams = logits_of(np.column_stack([gold[:, 0], 1 - gold[:, 0]]), gold, labels)
    for logits in (encoder, ngrams, weighed_sum(encoder, ngrams, gold, labels)):
        assert np.isfinite(logits).all()
        assert ((logits > 0) == gold).all()
