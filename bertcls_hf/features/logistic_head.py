"""A closed-form start for a linear head: logistic regression on the cached features, by scikit-learn's L-BFGS."""

import logging

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from bertcls_hf.data.labels import SINGLE_LABEL
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.features.dataset import FeatureDataset
from bertcls_hf.models.modeling import TextClassifier, TextClassifierConfig


logger = logging.getLogger(__name__)

# Inverse strengths of the L2 penalty that are tried; the validation split chooses.
PENALTIES = (0.001, 0.01, 0.1, 1.0)
MAX_ITERATIONS = 200
# Rows that the regression reads; it holds them in memory, in double precision.
MOST_ROWS = 200_000


def check_head_init(asked: str, config: TextClassifierConfig) -> None:
    """Refuses a logistic start of what is not a linear head over classes.

    Raises:
        ArgumentsError: see above.
    """
    if asked == "logistic" and (config.head != "linear" or config.problem_type != SINGLE_LABEL):
        raise ArgumentsError(
            f"--head_init logistic needs a linear head and {SINGLE_LABEL}, not {config.head} and {config.problem_type}"
        )


def init_head_by_logistic_regression(
    model: TextClassifier, train: FeatureDataset, validation: FeatureDataset | None, seed: int
) -> None:
    """Copies the best of some logistic regressions into the model's linear head.

    The features are standardised for the solver, and the scaling is folded into the head's weights, so that the head
    reads plain features and the model can still be saved as a stock class.

    Args:
        model: a single-label classifier with a linear head.
        train: labelled features; beyond `MOST_ROWS` rows, a random sample of them.
        validation: chooses the penalty by its log-loss; without it the penalty is 0.1.
        seed: of the sample.
    """
    rows = np.random.default_rng(seed).permutation(len(train))[:MOST_ROWS]
    features, labels = _arrays(train, rows)
    scaler = StandardScaler().fit(features)
    scaled = scaler.transform(features)
    candidates = PENALTIES if validation is not None else (0.1,)
    fitted = [LogisticRegression(C=c, max_iter=MAX_ITERATIONS).fit(scaled, labels) for c in candidates]
    best = fitted[0] if validation is None else _best_on(validation, fitted, scaler)
    logger.info("logistic regression starts the head (C=%g)", best.C)
    weights, biases = _per_label(best, model.config.num_labels)
    weights = weights / scaler.scale_
    biases = biases - weights @ scaler.mean_
    with torch.no_grad():
        projection = model.head.out_proj
        projection.weight.copy_(torch.from_numpy(weights))
        projection.bias.copy_(torch.from_numpy(biases))


def _arrays(dataset: FeatureDataset, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    batch = dataset.__getitems__(rows.tolist())
    return batch["features"].double().numpy(), batch["labels"].numpy()


def _best_on(
    validation: FeatureDataset, fitted: list[LogisticRegression], scaler: StandardScaler
) -> LogisticRegression:
    features, gold = _arrays(validation, np.arange(len(validation)))
    known = np.isin(gold, fitted[0].classes_)
    scaled, gold = scaler.transform(features[known]), gold[known]
    return min(fitted, key=lambda c: log_loss(gold, c.predict_proba(scaled), labels=c.classes_))


def _per_label(regression: LogisticRegression, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """One row of weights and one bias per label of the model; labels without a training row are never chosen."""
    coefficients, intercepts = regression.coef_, regression.intercept_
    if len(coefficients) == 1:
        # Two classes: softmax of (-z/2, z/2) is the logistic function of z.
        coefficients, intercepts = (
            np.vstack([-coefficients, coefficients]) / 2,
            np.hstack([-intercepts, intercepts]) / 2,
        )
    weights, biases = np.zeros((labels, coefficients.shape[1])), np.full(labels, intercepts.min() - 20)
    weights[regression.classes_], biases[regression.classes_] = coefficients, intercepts
    return weights, biases
