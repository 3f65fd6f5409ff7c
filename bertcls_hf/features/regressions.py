"""Logistic regressions on the features of texts: a multinomial one for single labels, else one for each label."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_expit, log_softmax
from sklearn.linear_model import LogisticRegression


# The values of C, the inverse strength of the L2 penalty, from the strongest penalty to the weakest.
PENALTIES = (0.001, 0.01, 0.1, 1.0)
MAX_ITERATIONS = 200
# How far the logit of a label that no row has lies below the others.
NEVER = 20.0


@dataclass(frozen=True)
class Regression:
    """A linear function of features for each label.

    Args:
        weights: (labels, features) floats, float64 as they are fitted.
        biases: (labels,) floats.
    """

    weights: np.ndarray
    biases: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Returns the (rows, labels) logits of (rows, features) floats."""
        return features @ self.weights.T + self.biases

    def plus(self, other: "Regression") -> "Regression":
        """Returns the sum of both functions."""
        return Regression(self.weights + other.weights, self.biases + other.biases)


def fit_regressions(
    features: np.ndarray,
    gold: np.ndarray,
    labels: int,
    penalties: Sequence[float],
    class_weights: np.ndarray | None = None,
) -> list[Regression]:
    """Fits one regression for each penalty, each of which starts where the last one ended.

    Args:
        features: (rows, features) floats, scaled, of one row or more.
        gold: (rows,) label numbers, or (rows, labels) of 0 and 1.
        labels: the number of labels. One that no row has is never predicted if labels exclude each other.
        penalties: the values of C, best from the strongest penalty, which is the least C, on.
        class_weights: (labels,) floats. They weigh the rows of a label, or with several labels per text its positives.
    """
    if gold.ndim == 1:
        row_weights = None if class_weights is None else class_weights[gold]
        return _multinomial(features, gold, labels, penalties, row_weights)
    answers = []
    for label, is_positive in enumerate((gold > 0).T):
        row_weights = None if class_weights is None else np.where(is_positive, class_weights[label], 1.0)
        answers.append(_binary(features, is_positive, penalties, row_weights))
    return [
        Regression(np.concatenate([one.weights for one in of_penalty]), np.concatenate([o.biases for o in of_penalty]))
        for of_penalty in zip(*answers, strict=True)
    ]


def losses_of_rows(logits: np.ndarray, gold: np.ndarray, class_weights: np.ndarray | None = None) -> np.ndarray:
    """Returns (rows,) float64 log-losses; with several labels per text, the mean over the labels.

    Args:
        logits: (rows, labels) floats.
        gold: (rows,) label numbers, or (rows, labels) of 0 and 1.
        class_weights: (labels,) floats; see [`fit_regressions`]. Weights of rows are divided by their mean.
    """
    if gold.ndim == 1:
        losses = -log_softmax(logits, axis=1)[np.arange(len(gold)), gold]
        weights = np.ones(len(gold)) if class_weights is None else class_weights[gold]
        return losses * weights / weights.mean()
    positive = 1.0 if class_weights is None else class_weights
    return -(positive * gold * log_expit(logits) + (1 - gold) * log_expit(-logits)).mean(axis=1)


def _multinomial(
    features: np.ndarray, gold: np.ndarray, labels: int, penalties: Sequence[float], row_weights: np.ndarray | None
) -> list[Regression]:
    known = np.unique(gold)
    if len(known) == 1:
        biases = np.full(labels, -NEVER)
        biases[known] = 0.0
        return [Regression(np.zeros((labels, features.shape[1])), biases)] * len(penalties)
    return [_for_all_labels(fitted, labels) for fitted in _fitted(features, gold, penalties, row_weights)]


def _for_all_labels(fitted: LogisticRegression, labels: int) -> Regression:
    coefficients, intercepts = fitted.coef_, fitted.intercept_
    if len(coefficients) == 1:
        # Two classes: softmax of (-z/2, z/2) is the logistic function of z.
        coefficients, intercepts = (np.concatenate([-half, half]) for half in (coefficients / 2, intercepts / 2))
    weights, biases = np.zeros((labels, coefficients.shape[1])), np.full(labels, intercepts.min() - NEVER)
    weights[fitted.classes_], biases[fitted.classes_] = coefficients, intercepts
    return Regression(weights, biases)


def _binary(
    features: np.ndarray, is_positive: np.ndarray, penalties: Sequence[float], row_weights: np.ndarray | None
) -> list[Regression]:
    """Fits a yes-or-no question: (1, features) weights and a (1,) bias."""
    positives = int(is_positive.sum())
    if positives in (0, len(is_positive)):
        # With the usual half a row added to both sides, a question with one answer gets that answer.
        odds = (positives + 0.5) / (len(is_positive) - positives + 0.5)
        return [Regression(np.zeros((1, features.shape[1])), np.log([odds]))] * len(penalties)
    return [Regression(f.coef_, f.intercept_) for f in _fitted(features, is_positive, penalties, row_weights)]


def _fitted(
    features: np.ndarray, gold: np.ndarray, penalties: Sequence[float], row_weights: np.ndarray | None
) -> list[LogisticRegression]:
    regression = LogisticRegression(max_iter=MAX_ITERATIONS, warm_start=True)
    fitted = []
    for inverse_penalty in penalties:
        regression.set_params(C=inverse_penalty).fit(features, gold, sample_weight=row_weights)
        fitted.append(copy.deepcopy(regression))
    return fitted
