"""Finds labels that are likely wrong, by confident learning (Northcutt, Jiang & Chuang 2021, arXiv 1911.00068).

A model that was not trained on a row says how probable each of its labels is. Models are surer of some labels than of
others, so a label counts as confidently predicted from a threshold of its own on: its mean probability over the rows
that have it. A row's margin is by how much more another label exceeds its threshold than the given label does.
"""

from dataclasses import dataclass

import numpy as np

from bertcls_hf.data.labels import SINGLE_LABEL, LabelSet
from bertcls_hf.metrics.probabilities import probabilities


@dataclass(frozen=True)
class LabelErrors:
    """How likely the label of each row is wrong.

    Of several labels per row, each is a question of its own, with the answers yes and no. A row then stands for the
    answer of it that is most likely wrong.

    Args:
        margins: (rows,) float64 from -2 to 2; the greater, the likelier the label is wrong.
        suggested: like the given labels: (rows,) positions, or (rows, labels) of 0 and 1, of which one differs.
        given_probability: (rows,) float64, the probability of the given label or answer.
        suggested_probability: (rows,) float64, that of the suggested one.
        is_likely_wrong: (rows,) bool, whether another label is confidently predicted.
        estimated: how many of the given labels or answers are wrong, from the counts of confident predictions.
    """

    margins: np.ndarray
    suggested: np.ndarray
    given_probability: np.ndarray
    suggested_probability: np.ndarray
    is_likely_wrong: np.ndarray
    estimated: float

    @property
    def order(self) -> np.ndarray:
        """(rows,) int64, the rows from the likeliest error on; equal ones in the order of the data."""
        return np.argsort(-self.margins, kind="stable")


def find_label_errors(logits: np.ndarray, gold: np.ndarray, labels: LabelSet) -> LabelErrors:
    """Compares given labels with what models predict that were not trained on the row.

    Args:
        logits: (rows, labels) float, out of fold.
        gold: (rows,) positions for single label, (rows, labels) of 0 and 1 for multi-label.
        labels: names the task, which is not regression.
    """
    outputs = probabilities(logits, labels.problem_type)
    if labels.problem_type == SINGLE_LABEL:
        return _one_question(outputs, gold.astype(np.int64))
    answers = gold.astype(np.int64)
    questions = [
        _one_question(np.column_stack([1 - outputs[:, label], outputs[:, label]]), answers[:, label])
        for label in range(outputs.shape[1])
    ]
    rows = np.arange(len(gold))
    worst = np.argmax([question.margins for question in questions], axis=0)
    suggested = gold.copy()
    suggested[rows, worst] = 1 - suggested[rows, worst]

    def of_worst(name: str) -> np.ndarray:
        return np.stack([getattr(question, name) for question in questions])[worst, rows]

    return LabelErrors(
        of_worst("margins"), suggested, of_worst("given_probability"), of_worst("suggested_probability"),
        of_worst("is_likely_wrong"), sum(question.estimated for question in questions),
    )  # fmt: skip


def _one_question(outputs: np.ndarray, gold: np.ndarray) -> LabelErrors:
    """Judges labels that exclude each other: (rows, labels) probabilities, and (rows,) positions."""
    rows = np.arange(len(gold))
    counts = np.bincount(gold, minlength=outputs.shape[1])
    sums = np.bincount(gold, outputs[rows, gold], minlength=outputs.shape[1])
    # A label without a row is never confidently predicted.
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), 1.0)
    above = outputs - thresholds
    others = above.copy()
    others[rows, gold] = -np.inf
    suggested = others.argmax(axis=1)
    margins = others[rows, suggested] - above[rows, gold]
    is_wrong = (others[rows, suggested] >= 0) & (margins > 0)
    is_right = (above[rows, gold] >= 0) & ~is_wrong
    return LabelErrors(
        margins, suggested, outputs[rows, gold], outputs[rows, suggested], is_wrong,
        _estimated(is_wrong, is_right, gold, counts),
    )  # fmt: skip


def _estimated(is_wrong: np.ndarray, is_right: np.ndarray, gold: np.ndarray, counts: np.ndarray) -> float:
    """Extends the share of errors among the confident predictions of each given label to all of its rows."""
    wrong, right = (np.bincount(gold[chosen], minlength=len(counts)) for chosen in (is_wrong, is_right))
    return float((counts * wrong / np.maximum(wrong + right, 1)).sum())
