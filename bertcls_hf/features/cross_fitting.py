"""Logistic regressions of which none has seen the rows that it classifies, for training data that spares no row."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler


# The values of C, the inverse strength of the L2 penalty, from the strongest penalty to the weakest.
PENALTIES = (0.001, 0.01, 0.1, 1.0)
MAX_ITERATIONS = 200
FOLDS = 5
# The logarithm of the probability of a label without a training row.
NEVER = -20.0


@dataclass(frozen=True)
class CrossFit:
    """The regressions with the best penalty.

    Args:
        penalty: C.
        logits: (rows, labels) float64 logarithms of probabilities, each from a regression that was not fitted to the
            row, nor to one of the same text.
        loss: their mean log-loss, weighted like the rows.
    """

    penalty: float
    logits: np.ndarray
    loss: float


def held_out_parts(gold: np.ndarray, texts: np.ndarray, folds: int, seed: int) -> list[np.ndarray]:
    """Divides rows into parts with about equal shares of the labels, and each text in one part.

    Args:
        gold: (rows,) label numbers.
        texts: (rows,) numbers that rows of one text share.
        folds: the number of parts; there are fewer if a label has fewer texts.
        seed: of the order of the texts.

    Returns:
        The row numbers of each part; none if a label has only one text, which no other part would know.
    """
    fewest = min(len(np.unique(texts[gold == label])) for label in np.unique(gold))
    if fewest < 2:
        return []
    splitter = StratifiedGroupKFold(min(folds, fewest), shuffle=True, random_state=seed)
    return [held for _, held in splitter.split(gold, gold, texts)]


def cross_fit(
    features: np.ndarray | Sequence[np.ndarray],
    gold: np.ndarray,
    parts: Sequence[np.ndarray],
    labels: int,
    row_weights: np.ndarray | None = None,
) -> CrossFit:
    """Fits the regressions with each penalty, and returns those with the least loss on the rows that they did not see.

    Args:
        features: (rows, width) floats; or one such array per part, of an encoder that has not seen the part either.
        gold: (rows,) label numbers.
        parts: the rows of each part, which hold every row once; see [`held_out_parts`].
        labels: the number of labels, of which some may have no row.
        row_weights: (rows,) floats; equal ones by default.
    """
    weights = np.ones(len(gold)) if row_weights is None else row_weights
    of_part = [features] * len(parts) if isinstance(features, np.ndarray) else features
    logits = np.full((len(PENALTIES), len(gold), labels), NEVER)
    for values, held in zip(of_part, parts, strict=True):
        kept = np.setdiff1d(np.arange(len(gold)), held)
        scaler = StandardScaler().fit(values[kept])
        fitted = scaler.transform(values[kept]), gold[kept], weights[kept]
        for number, penalty in enumerate(PENALTIES):
            regression = LogisticRegression(C=penalty, max_iter=MAX_ITERATIONS).fit(*fitted)
            found = regression.predict_log_proba(scaler.transform(values[held])).clip(min=NEVER)
            logits[number][np.ix_(held, regression.classes_)] = found
    losses = [np.average(-found[np.arange(len(gold)), gold], weights=weights) for found in logits]
    best = int(np.argmin(losses))
    return CrossFit(PENALTIES[best], logits[best], float(losses[best]))
