"""Classifies each training row by models that were not trained on it: on an encoder's features, and on n-grams.

Both are logistic regressions that are fitted anew without each fold; the penalty is the one that is best on the first
fold. Their logits are weighed by two numbers that fit all rows best.
"""

import logging
from collections.abc import Sequence

import numpy as np
from scipy import sparse

from bertcls_hf.data.labels import LabelSet
from bertcls_hf.features.dataset import FeatureDataset
from bertcls_hf.features.lexical_fusion import fitted_factors
from bertcls_hf.features.linear_models import (
    DEFAULT_INVERSE_PENALTY,
    INVERSE_PENALTIES,
    MOST_MARKS,
    MOST_SEARCHED,
    best_model,
    logistic_fitter,
    questions,
)
from bertcls_hf.features.logistic_head import MOST_ROWS
from bertcls_hf.features.regressions import PENALTIES, fit_regressions
from bertcls_hf.features.scaling import Scaling, Vectors
from bertcls_hf.metrics.metrics import compute_metrics


logger = logging.getLogger(__name__)

# The rows whose features are read at once.
READ_ROWS = 10_000
METRIC = "log_loss"


def weighed_sum(encoder: np.ndarray, ngrams: np.ndarray, gold: np.ndarray, labels: LabelSet) -> np.ndarray:
    """Adds the (rows, labels) logits of both models, each times the number that makes their sum fit all rows best."""
    factors = fitted_factors(encoder, ngrams, gold, labels.problem_type, None)
    logger.info("out of fold, the encoder counts %.2f times, the n-grams %.2f times", *factors)
    return factors[0] * encoder + factors[1] * ngrams


def encoder_logits(
    features: FeatureDataset, gold: np.ndarray, labels: LabelSet, folds: Sequence[np.ndarray]
) -> np.ndarray:
    """Fits regressions on the features without each fold, and returns (rows, labels) float64 logits of its rows.

    Args:
        features: of all rows, one vector per text.
        gold: (rows,) positions, or (rows, labels) of 0 and 1.
        labels: the labels of the task.
        folds: the rows that each fold holds out; every row is in one.
    """
    logits = np.empty((len(gold), len(labels.names)))
    penalty: float | None = None
    for number, held in enumerate(folds, start=1):
        kept = np.setdiff1d(np.arange(len(gold)), held)
        if len(kept) > MOST_ROWS:
            kept = np.sort(np.random.default_rng(0).choice(kept, MOST_ROWS, replace=False))
        fitted, held_features = _read(features, kept), _read(features, held)
        if penalty is None:
            penalty, logits[held] = _best_regression(fitted, gold[kept], held_features, gold[held], labels)
        else:
            logits[held] = _regression_logits(penalty, fitted, gold[kept], held_features, labels)
        logger.info("encoder: fold %d of %d (C=%g)", number, len(folds), penalty)
    return logits


def _read(features: FeatureDataset, rows: np.ndarray) -> np.ndarray:
    """Returns the (rows, size) float32 features of some rows."""
    starts = range(0, len(rows), READ_ROWS)
    return np.concatenate([features.__getitems__(rows[start : start + READ_ROWS])["features"].numpy()
                           for start in starts])  # fmt: skip


def _best_regression(
    fitted: np.ndarray, gold: np.ndarray, held: np.ndarray, held_gold: np.ndarray, labels: LabelSet
) -> tuple[float, np.ndarray]:
    """Weakens the penalty until the held rows are no longer predicted better; returns it, and their logits."""
    best: tuple[float, float, np.ndarray] | None = None
    for penalty in PENALTIES if questions(labels) <= MOST_SEARCHED else PENALTIES[:1]:
        found = _regression_logits(penalty, fitted, gold, held, labels)
        loss = compute_metrics(found, held_gold, labels.problem_type)[METRIC]
        if best is not None and not loss < best[0]:
            break
        best = loss, penalty, found
    assert best is not None
    return best[1:]


def _regression_logits(
    penalty: float, fitted: np.ndarray, gold: np.ndarray, held: np.ndarray, labels: LabelSet
) -> np.ndarray:
    """Fits with an inverse penalty C, and returns (held rows, labels) logits."""
    scaling = Scaling.fit(Vectors(fitted))
    [regression] = fit_regressions(scaling.transform(fitted), gold, len(labels.names), [penalty])
    return regression.logits(scaling.transform(held))


def ngram_logits(
    marks: sparse.csr_array, gold: np.ndarray, labels: LabelSet, folds: Sequence[np.ndarray]
) -> np.ndarray:
    """Fits regressions on n-grams without each fold, and returns (rows, labels) float32 logits of its rows.

    Args:
        marks: (rows, n-grams) float32 of 0 and 1.
        gold: (rows,) positions, or (rows, labels) of 0 and 1.
        labels: the labels of the task.
        folds: the rows that each fold holds out; every row is in one.
    """
    logits = np.empty((len(gold), len(labels.names)), dtype=np.float32)
    penalty: float | None = None
    for number, held in enumerate(folds, start=1):
        kept = np.setdiff1d(np.arange(len(gold)), held)
        most = int(MOST_MARKS / max(marks.nnz * questions(labels), 1) * len(gold))
        if most < len(kept):
            kept = np.sort(np.random.default_rng(0).choice(kept, max(most, 1), replace=False))
        fit = logistic_fitter(marks[kept], gold[kept], labels, None)
        if penalty is None:
            searched = INVERSE_PENALTIES if questions(labels) <= MOST_SEARCHED else (DEFAULT_INVERSE_PENALTY,)
            penalty, model = best_model(fit, searched, [marks[held]], gold[held], labels, METRIC)
        else:
            model = fit(penalty)
        logits[held] = model.logits([marks[held]], labels)
        logger.info("n-grams: fold %d of %d (C=%g)", number, len(folds), penalty)
    return logits
