"""Initialises a linear head by scikit-learn's logistic regression (L-BFGS) on the cached features."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bertcls_hf.data.labels import REGRESSION
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.features.cross_fitting import FOLDS, CrossFit, cross_fit, held_out_parts
from bertcls_hf.features.dataset import FeatureDataset
from bertcls_hf.features.lexical_fusion import EQUAL_FACTORS, fitted_factors, fuse
from bertcls_hf.features.regressions import PENALTIES, Regression, fit_regressions, losses_of_rows
from bertcls_hf.features.scaling import Scaling, Vectors
from bertcls_hf.models.modeling import TextClassifier, TextClassifierConfig


logger = logging.getLogger(__name__)

# C without anything to choose it by.
DEFAULT_PENALTY = 0.1
# The regression uses at most this many rows, because it holds them in memory.
MOST_ROWS = 200_000
# The rows that choose the penalty where there is no validation data; each of them is read several times.
MOST_CROSS_FITTED = 5_000


@dataclass(frozen=True)
class HeldOutFit:
    """What was chosen by rows that the encoder had not learned from, where it has learned from all of them since.

    Args:
        penalty: C.
        factors: of the head and of the lexical features; None without these.
    """

    penalty: float
    factors: tuple[float, float] | None = None


def check_head_init(asked: str, config: TextClassifierConfig, is_trained_further: bool) -> None:
    """Checks that the classifier can be initialised by a logistic regression, if `head_init` asks for it.

    Args:
        asked: `--head_init`.
        config: the classifier's configuration.
        is_trained_further: whether the Trainer trains the head after the regression, with the loss of `config`.

    Raises:
        ArgumentsError: if `asked` is `logistic`, and the head is not linear, the task is a regression, the head
            learns how to pool windows, or the final head would be fitted with another loss than the options name.
    """
    if asked != "logistic":
        return
    if config.head != "linear" or config.problem_type == REGRESSION:
        raise ArgumentsError(
            f"--head_init logistic needs a linear head and classes, not {config.head} and {config.problem_type}"
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
    model: TextClassifier,
    train: FeatureDataset,
    validation: FeatureDataset | None,
    seed: int,
    descriptions: np.ndarray | None = None,
    held_out_fit: HeldOutFit | None = None,
) -> None:
    """Fits logistic regressions with different penalties, and copies the best one into the model's linear head.

    The features are standardised for the solver, and the scaling is folded into the head's weights, so that the head
    reads plain features and the model can still be saved as a stock class. With several labels per text, each label
    has a regression, and all have one penalty. The class weights of the model's loss weigh the rows, in the
    regressions and in the choice between them.

    Args:
        model: a classifier of one or several labels per text, with a linear head.
        train: labelled features. If there are more than `MOST_ROWS` rows, a random sample is used.
        validation: labelled features, on which the regression with the lowest log-loss is chosen, and the lexical
            features are weighed. Without them, cross-validation on the training rows does both.
        seed: the seed of the random sample and of the folds.
        descriptions: (labels, width) features of a text for each label, by which the regressions know what labels
            mean; None without such texts.
        held_out_fit: what stands for cross-validation without validation data, if the encoder has learned from the
            training rows.
    """
    rows = np.random.default_rng(seed).permutation(len(train))[:MOST_ROWS]
    features, labels = _arrays(train, rows)
    class_weights = None if model.config.class_weights is None else np.asarray(model.config.class_weights)
    crossed: CrossFit | None = None
    candidates: Sequence[float] = PENALTIES
    if validation is None and held_out_fit is not None:
        candidates = (held_out_fit.penalty,)
    elif validation is None:
        texts = train.text_numbers[rows]
        vectors = Vectors(features[:MOST_CROSS_FITTED], descriptions)
        crossed = _cross_fitted(vectors, labels, texts, model.config.num_labels, class_weights, seed)
        candidates = (DEFAULT_PENALTY if crossed is None else crossed.penalty,)
    scaling = Scaling.fit(Vectors(features, descriptions))
    scaled = scaling.transform(features, copy=False)
    fitted = fit_regressions(scaled, labels, model.config.num_labels, candidates, class_weights)
    best = 0 if validation is None else _best_on(validation, fitted, np.unique(labels), scaling, class_weights)
    weighed = ", rows weighed by --class_weights" if model.config.class_weights else ""
    described = "" if descriptions is None else ", with label descriptions"
    logger.info("logistic regression starts the head (C=%g%s%s)", candidates[best], weighed, described)
    _fill(model, scaling.of_features(fitted[best]))
    if model.lexical is not None:
        known = held_out_fit.factors if validation is None and held_out_fit is not None else None
        factors = _lexical_factors(model, train, validation, rows, crossed) if known is None else known
        fuse(model, factors, "logistic regression")


def init_head_by_descriptions(model: TextClassifier, texts: FeatureDataset, descriptions: np.ndarray) -> None:
    """Fills the linear head so that the label is the one whose description is nearest, by the cosine.

    Args:
        model: a single-label classifier with a linear head.
        texts: features whose mean the cosines are seen from. Of more than `MOST_ROWS`, the first ones.
        descriptions: (labels, width) features of a text for each label.
    """
    rows = texts.__getitems__(range(min(len(texts), MOST_ROWS)))["features"].float().numpy()
    _fill(model, Scaling.fit(Vectors(rows, descriptions)).nearest())
    logger.info("the nearest label description starts the head")


def _fill(model: TextClassifier, regression: Regression) -> None:
    with torch.no_grad():
        projection = model.head.out_proj
        projection.weight.copy_(torch.from_numpy(regression.weights))
        projection.bias.copy_(torch.from_numpy(regression.biases))


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
    return fitted_factors(head, wide, gold, model.config.problem_type, model.config.class_weights)


def _cross_fitted(
    vectors: Vectors, gold: np.ndarray, texts: np.ndarray, labels: int, class_weights: np.ndarray | None, seed: int
) -> CrossFit | None:
    """Cross-fits the first rows; returns None if a label has only one text."""
    gold, texts = gold[: len(vectors.rows)], texts[: len(vectors.rows)]
    parts = held_out_parts(gold, texts, FOLDS, seed)
    return cross_fit(vectors, gold, parts, labels, class_weights) if parts else None


def _arrays(dataset: FeatureDataset, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    batch = dataset.__getitems__(rows.tolist())
    return batch["features"].float().numpy(), batch["labels"].numpy()


def _best_on(
    validation: FeatureDataset,
    fitted: Sequence[Regression],
    known: np.ndarray,
    scaling: Scaling,
    class_weights: np.ndarray | None,
) -> int:
    """Returns the position of the regression with the least loss; single labels count that a training row has."""
    features, gold = _arrays(validation, np.arange(len(validation)))
    if gold.ndim == 1:
        is_known = np.isin(gold, known)
        features, gold = features[is_known], gold[is_known]
    scaled = scaling.transform(features)
    losses = [losses_of_rows(regression.logits(scaled), gold, class_weights).mean() for regression in fitted]
    return int(np.argmin(losses))
