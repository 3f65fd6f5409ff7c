"""Initialises a linear head by scikit-learn's logistic regression (L-BFGS) on the cached features."""

import copy
import logging
from collections.abc import Sequence

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from bertcls_hf.data.labels import SINGLE_LABEL
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.features.cross_fitting import FOLDS, MAX_ITERATIONS, PENALTIES, CrossFit, cross_fit, held_out_parts
from bertcls_hf.features.dataset import FeatureDataset
from bertcls_hf.features.lexical_fusion import EQUAL_FACTORS, fitted_factors, fuse
from bertcls_hf.models.modeling import TextClassifier, TextClassifierConfig


logger = logging.getLogger(__name__)

# C without anything to choose it by.
DEFAULT_PENALTY = 0.1
# The regression uses at most this many rows, because it holds them in memory.
MOST_ROWS = 200_000
# The rows that choose the penalty where there is no validation data; each of them is read several times.
MOST_CROSS_FITTED = 5_000


def check_head_init(asked: str, config: TextClassifierConfig, is_trained_further: bool) -> None:
    """Checks that the classifier can be initialised by a logistic regression, if `head_init` asks for it.

    Args:
        asked: `--head_init`.
        config: the classifier's configuration.
        is_trained_further: whether the Trainer trains the head after the regression, with the loss of `config`.

    Raises:
        ArgumentsError: if `asked` is `logistic`, and the head is not linear, the task is not single-label, the head
            learns how to pool windows, or the final head would be fitted with another loss than the options name.
    """
    if asked != "logistic":
        return
    if config.head != "linear" or config.problem_type != SINGLE_LABEL:
        raise ArgumentsError(
            f"--head_init logistic needs a linear head and {SINGLE_LABEL}, not {config.head} and {config.problem_type}"
        )
    if config.window_pooling == "attention":
        raise ArgumentsError(
            "--head_init logistic fits one vector per text, and --window_pooling attention learns how to make it: use "
            "mean or max"
        )
    ignored = ["--loss focal"] if config.loss == "focal" else []
    ignored += ["--label_smoothing_factor"] if config.label_smoothing else []
    if ignored and not is_trained_further:
        raise ArgumentsError(
            "--head_init logistic fits plain cross-entropy, and --num_train_epochs 0 leaves the head as it is: "
            f"{' and '.join(ignored)} would have no effect; leave it out, or give more --num_train_epochs"
        )


def init_head_by_logistic_regression(
    model: TextClassifier, train: FeatureDataset, validation: FeatureDataset | None, seed: int
) -> None:
    """Fits logistic regressions with different penalties, and copies the best one into the model's linear head.

    The features are standardised for the solver, and the scaling is folded into the head's weights, so that the head
    reads plain features and the model can still be saved as a stock class. The class weights of the model's loss weigh
    the rows, in the regressions and in the choice between them.

    Args:
        model: a single-label classifier with a linear head.
        train: labelled features. If there are more than `MOST_ROWS` rows, a random sample is used.
        validation: labelled features, on which the regression with the lowest log-loss is chosen, and the lexical
            features are weighed. Without them, cross-validation on the training rows does both.
        seed: the seed of the random sample and of the folds.
    """
    rows = np.random.default_rng(seed).permutation(len(train))[:MOST_ROWS]
    features, labels = _arrays(train, rows)
    scaler = StandardScaler(copy=False).fit(features)
    scaled = scaler.transform(features)
    class_weights = np.asarray(model.config.class_weights or [1.0] * model.config.num_labels)
    crossed: CrossFit | None = None
    candidates: Sequence[float] = PENALTIES
    if validation is None:
        texts = train.text_numbers[rows]
        crossed = _cross_fitted(scaled, labels, texts, model.config.num_labels, class_weights, seed)
        candidates = (DEFAULT_PENALTY if crossed is None else crossed.penalty,)
    fitted = _regressions(candidates, scaled, labels, class_weights[labels])
    best = fitted[0] if validation is None else _best_on(validation, fitted, scaler, class_weights)
    weighed = ", rows weighed by --class_weights" if model.config.class_weights else ""
    logger.info("logistic regression starts the head (C=%g%s)", best.C, weighed)
    weights, biases = folded_weights(best, scaler, model.config.num_labels)
    with torch.no_grad():
        projection = model.head.out_proj
        projection.weight.copy_(torch.from_numpy(weights))
        projection.bias.copy_(torch.from_numpy(biases))
    if model.lexical is not None:
        factors = _lexical_factors(model, train, validation, rows, crossed)
        fuse(model, factors, "logistic regression")


def _lexical_factors(
    model: TextClassifier,
    train: FeatureDataset,
    validation: FeatureDataset | None,
    rows: np.ndarray,
    crossed: CrossFit | None,
) -> tuple[float, float]:
    """Weighs the head and the lexical features by the validation rows, or by what `crossed` says of training rows.

    Args:
        model: the classifier, with its fitted head.
        train: the training rows.
        validation: the validation rows, or None.
        rows: the training rows in the order of `crossed`.
        crossed: the cross-fitted regressions of the first of them; None where nothing can be cross-fitted.
    """
    if validation is None and crossed is None:
        return EQUAL_FACTORS
    if validation is not None:
        batch = validation.__getitems__(range(len(validation)))
        with torch.no_grad():
            head = model.head.eval()(batch["features"]).numpy()
    else:
        assert crossed is not None
        head = crossed.logits
        batch = train.__getitems__(rows[: len(head)])
    wide, gold = batch["lexical_logits"].numpy(), batch["labels"].numpy()
    return fitted_factors(head, wide, gold, SINGLE_LABEL, model.config.class_weights)


def _cross_fitted(
    features: np.ndarray, gold: np.ndarray, texts: np.ndarray, labels: int, class_weights: np.ndarray, seed: int
) -> CrossFit | None:
    """Cross-fits the first rows; returns None if a label has only one text."""
    features, gold, texts = features[:MOST_CROSS_FITTED], gold[:MOST_CROSS_FITTED], texts[:MOST_CROSS_FITTED]
    parts = held_out_parts(gold, texts, FOLDS, seed)
    return cross_fit(features, gold, parts, labels, class_weights[gold]) if parts else None


def _regressions(
    penalties: Sequence[float], features: np.ndarray, labels: np.ndarray, row_weights: np.ndarray
) -> list[LogisticRegression]:
    """Fits one regression per penalty, from the strongest to the weakest; each starts where the last one ended."""
    regression = LogisticRegression(max_iter=MAX_ITERATIONS, warm_start=True)
    fitted = []
    for inverse_penalty in sorted(penalties):
        regression.set_params(C=inverse_penalty).fit(features, labels, sample_weight=row_weights)
        fitted.append(copy.deepcopy(regression))
    return fitted


def _arrays(dataset: FeatureDataset, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    batch = dataset.__getitems__(rows.tolist())
    return batch["features"].float().numpy(), batch["labels"].numpy()


def _best_on(
    validation: FeatureDataset, fitted: list[LogisticRegression], scaler: StandardScaler, class_weights: np.ndarray
) -> LogisticRegression:
    features, gold = _arrays(validation, np.arange(len(validation)))
    is_trained = np.isin(gold, fitted[0].classes_)
    scaled, gold = scaler.transform(features[is_trained]), gold[is_trained]
    row_weights = class_weights[gold]

    def weighted_loss(regression: LogisticRegression) -> float:
        probabilities = regression.predict_proba(scaled)
        return log_loss(gold, probabilities, labels=regression.classes_, sample_weight=row_weights)

    return min(fitted, key=weighted_loss)


def folded_weights(
    regression: LogisticRegression, scaler: StandardScaler, labels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Folds the scaling into a regression, so that it reads plain features.

    Args:
        regression: fitted to scaled features and the positions of labels.
        scaler: what scaled the features.
        labels: the number of labels of the task.

    Returns:
        (labels, features) float weights and (labels,) float biases. A label without a training row is never predicted.
    """
    weights, biases = _per_label(regression, labels)
    weights = weights / scaler.scale_
    return weights, biases - weights @ scaler.mean_


def _per_label(regression: LogisticRegression, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the weights, (labels, features), and the biases, (labels,), for all labels of the model.

    A label without a training row gets zero weights and a bias so low that it is never predicted.
    """
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
