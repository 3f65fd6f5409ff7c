"""Regularised linear models of sparse n-grams, fitted in seconds: naive Bayes logistic regressions, and ridge.

Each n-gram is weighted by its naive Bayes log-count ratio before the logistic regression is fitted (Wang & Manning
2012, ACL P12-2018).
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression, Ridge

from bertcls_hf.data.labels import MULTI_LABEL, SINGLE_LABEL, LabelSet
from bertcls_hf.metrics.metrics import compute_metrics, greater_is_better
from bertcls_hf.models.modeling import lexical_columns, lexical_logits


# The penalties, from the strongest on: C of the logistic regressions, and alpha of the ridge regression.
INVERSE_PENALTIES, RIDGE_PENALTIES = (0.03, 0.1, 0.3, 1.0), (10.0, 3.0, 1.0, 0.3)
# The penalties where there is no validation data.
DEFAULT_INVERSE_PENALTY, DEFAULT_RIDGE_PENALTY = 0.1, 1.0
MOST_PASSES = 25
# The n-grams of the training texts times labels that are learned from; beyond them, those of a random sample of rows.
MOST_MARKS = 150_000_000
# Each label has a regression of its own; of more than these, the default penalty is taken, without a search.
MOST_SEARCHED = 500


def questions(labels: LabelSet) -> int:
    """The number of yes-or-no questions: one for two labels that exclude each other, else one per label."""
    return lexical_columns(len(labels.names), labels.problem_type == SINGLE_LABEL)


@dataclass(frozen=True)
class LinearModel:
    """One linear function of n-grams per question.

    Args:
        weights: (n-grams, questions) float32.
        biases: (questions,) float32.
        idf: (n-grams,) float32 inverse document frequencies, if the function reads TF-IDF weights of unit length
            instead of marks.
    """

    weights: np.ndarray
    biases: np.ndarray
    idf: np.ndarray | None = None

    def logits(self, chunks: Iterable[sparse.csr_array], labels: LabelSet) -> np.ndarray:
        """Returns (rows, labels) float32 logits; see [`lexical_logits`]."""
        decisions = torch.from_numpy(np.concatenate([self._decisions(marks) for marks in chunks]))
        return lexical_logits(decisions, len(labels.names), labels.problem_type == SINGLE_LABEL).numpy()

    def _decisions(self, marks: sparse.csr_array) -> np.ndarray:
        if self.idf is None:
            return marks @ self.weights + self.biases
        scaled = _unit_rows(_scaled(marks, self.idf))
        return scaled @ self.weights + self.biases


def best_model(
    fit: Callable[[float], LinearModel],
    penalties: Sequence[float],
    validation: Sequence[sparse.csr_array],
    gold: np.ndarray,
    labels: LabelSet,
    metric: str,
) -> tuple[float, LinearModel]:
    """Weakens the penalty until a metric on the validation rows no longer improves."""
    sign = 1 if greater_is_better(metric) else -1
    best: tuple[float, float, LinearModel] | None = None
    for penalty in penalties:
        model = fit(penalty)
        score = sign * compute_metrics(model.logits(validation, labels), gold, labels.problem_type)[metric]
        if best is not None and not score > best[0]:
            break
        best = score, penalty, model
    assert best is not None
    return best[1:]


def logistic_fitter(
    marks: sparse.csr_array, gold: np.ndarray, labels: LabelSet, class_weights: Sequence[float] | None
) -> Callable[[float], LinearModel]:
    """Returns a function that fits the logistic regressions with an inverse penalty C."""
    is_multi_label = labels.problem_type == MULTI_LABEL
    positions = [1] if questions(labels) == 1 and not is_multi_label else range(len(labels.names))
    weights = None if class_weights is None else np.asarray(class_weights)

    def fit(inverse_penalty: float) -> LinearModel:
        fitted = []
        for position in positions:
            is_positive = gold[:, position] > 0 if is_multi_label else gold == position
            row_weights = None
            if weights is not None:
                row_weights = np.where(is_positive, weights[position], 1) if is_multi_label else weights[gold]
            fitted.append(_naive_bayes_logistic(marks, is_positive, inverse_penalty, row_weights))
        return LinearModel(np.column_stack([w for w, _ in fitted]), np.array([b for _, b in fitted], np.float32))

    return fit


def _naive_bayes_logistic(
    marks: sparse.csr_array, is_positive: np.ndarray, inverse_penalty: float, row_weights: np.ndarray | None
) -> tuple[np.ndarray, float]:
    """Fits one yes-or-no question; returns the weights of unweighted marks, (n-grams,) float32, and the bias."""
    positives = int(is_positive.sum())
    if positives in (0, len(is_positive)):
        # With the usual half a row added to both sides, a question with one answer gets that answer.
        odds = (positives + 0.5) / (len(is_positive) - positives + 0.5)
        return np.zeros(marks.shape[1], dtype=np.float32), float(np.log(odds))
    with_positive, with_negative = (marks.T @ chosen.astype(np.float32) + 1 for chosen in (is_positive, ~is_positive))
    ratios = np.log(with_positive / with_positive.sum()) - np.log(with_negative / with_negative.sum())
    ratios = ratios.astype(np.float32)
    # The dual solver is several times as fast as L-BFGS on sparse rows of these lengths, and near enough to its end
    # after these passes.
    model = LogisticRegression(
        C=inverse_penalty, solver="liblinear", dual=True, tol=0.1, max_iter=MOST_PASSES, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(_scaled(marks, ratios), is_positive, sample_weight=row_weights)
    return (model.coef_[0] * ratios).astype(np.float32), float(model.intercept_[0])


def ridge_fitter(marks: sparse.csr_array, gold: np.ndarray) -> Callable[[float], LinearModel]:
    """Returns a function that fits a ridge regression with a penalty alpha."""
    idf = TfidfTransformer().fit(marks).idf_.astype(np.float32)
    scaled = _unit_rows(_scaled(marks, idf))

    def fit(penalty: float) -> LinearModel:
        model = Ridge(alpha=penalty, solver="sparse_cg", tol=1e-3).fit(scaled, gold)
        weights = model.coef_.reshape(-1, 1).astype(np.float32)
        return LinearModel(weights, np.array([model.intercept_], dtype=np.float32), idf)

    return fit


def _scaled(marks: sparse.csr_array, factors: np.ndarray) -> sparse.csr_array:
    """Multiplies each column by its factor."""
    return sparse.csr_array((marks.data * factors[marks.indices], marks.indices, marks.indptr), marks.shape)


def _unit_rows(values: sparse.csr_array) -> sparse.csr_array:
    lengths = np.sqrt(np.asarray(values.multiply(values).sum(axis=1)).reshape(-1))
    factors = (1 / np.maximum(lengths, 1e-9)).astype(np.float32)
    return sparse.csr_array((values.data * np.repeat(factors, np.diff(values.indptr)), values.indices, values.indptr),
                            values.shape)  # fmt: skip
