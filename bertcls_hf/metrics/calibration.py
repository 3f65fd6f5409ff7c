"""Calibration: a temperature and thresholds, fitted on validation data.

The temperature divides the logits, so that probabilities match how often they are right (Guo et al. 2017, arXiv
1706.04599). It changes neither the order of the labels nor the accuracy. A multi-label task also gets a threshold per
label, the one with the best F1.
"""

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_expit, log_softmax

from bertcls_hf.atomic_files import read_json, write_json_atomically
from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL, LabelSet
from bertcls_hf.errors import ArgumentsError, DivergedError
from bertcls_hf.manifests import WEIGHTS_KEY, is_of_other_weights
from bertcls_hf.metrics.probabilities import (
    DEFAULT_THRESHOLD,
    expected_calibration_error,
    predicted_labels,
    probabilities,
)


logger = logging.getLogger(__name__)

CALIBRATION_FILE = "calibration.json"
# The logarithms of the lowest and the highest temperature that are tried.
LOG_TEMPERATURES = (-12.0, 12.0)


@dataclass(frozen=True)
class Calibration:
    """The temperature and the thresholds of a model; by default, they change nothing.

    Args:
        temperature: divides the logits of a classification.
        thresholds: what a probability must exceed, see [`predicted_labels`].
    """

    temperature: float = 1.0
    thresholds: float | tuple[float, ...] | None = None

    def probabilities(self, logits: np.ndarray, labels: LabelSet) -> np.ndarray:
        """Turns (rows, labels) logits into (rows, labels) probabilities, or (rows,) numbers for regression."""
        return probabilities(logits, labels.problem_type, self.temperature)

    def predicted(self, outputs: np.ndarray, labels: LabelSet) -> np.ndarray:
        """Turns probabilities into labels by the thresholds, see [`predicted_labels`]."""
        return predicted_labels(outputs, labels.problem_type, self.thresholds)

    def predicted_of(self, logits: np.ndarray, labels: LabelSet) -> np.ndarray:
        """Turns (rows, labels) logits into labels."""
        return self.predicted(self.probabilities(logits, labels), labels)


def fit_temperature(logits: np.ndarray, gold: np.ndarray, problem_type: str) -> float:
    """Finds the temperature that makes the gold labels most likely; it is 1 where the likelihood has no peak.

    Args:
        logits: (rows, labels) float.
        gold: (rows,) positions, or (rows, labels) of 0 and 1.
        problem_type: names the task.
    """
    logits = np.asarray(logits, dtype=np.float64)
    reason = _why_no_peak(logits, gold, problem_type)
    if reason is not None:
        logger.warning("no temperature fits, since %s: it stays at 1", reason)
        return 1.0
    optimum = minimize_scalar(
        lambda log_temperature: negative_log_likelihood(logits / math.exp(log_temperature), gold, problem_type),
        bounds=LOG_TEMPERATURES,
        method="bounded",
        options={"xatol": 1e-6},
    )
    return math.exp(optimum.x)


def _why_no_peak(logits: np.ndarray, gold: np.ndarray, problem_type: str) -> str | None:
    """Says why the likelihood keeps growing towards a temperature of 0 or of infinity; None where it has a peak.

    It has one peak at most.
    """
    if problem_type == SINGLE_LABEL:
        of_gold = logits[np.arange(len(gold)), gold]
        is_right = (of_gold == logits.max(axis=-1)).all()
        lead = (of_gold - logits.mean(axis=-1)).mean()
    else:
        of_gold = np.where(gold > 0, logits, -logits)
        is_right, lead = (of_gold >= 0).all(), of_gold.mean()
    if is_right:
        return "the model is right in every row of the validation data"
    return None if lead > 0 else "the model does no better than chance on the validation data"


def negative_log_likelihood(logits: np.ndarray, gold: np.ndarray, problem_type: str) -> float:
    """The negative log-likelihood of the gold labels: its mean over the rows, and over the labels of multi-label.

    Args:
        logits: (rows, labels) float.
        gold: (rows,) positions, or (rows, labels) of 0 and 1.
        problem_type: names the task.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if problem_type == SINGLE_LABEL:
        return float(-log_softmax(logits, axis=-1)[np.arange(len(gold)), gold].mean())
    return float(-log_expit(np.where(gold > 0, logits, -logits)).mean())


def fit_threshold(of_label: np.ndarray, gold: np.ndarray) -> float:
    """Finds the threshold of one label with the best F1; of equally good ones, the one closest to 0.5.

    It is 0.5 where no row has the label.

    Args:
        of_label: (rows,) probabilities of the label.
        gold: (rows,) of 0 and 1.
    """
    if not gold.any():
        return DEFAULT_THRESHOLD
    order = np.argsort(-of_label, kind="stable")
    ordered = of_label[order]
    predicted = np.arange(1, len(of_label) + 1)
    f1 = 2 * np.cumsum(gold[order]) / (predicted + gold.sum())
    # Rows of equal probability fall on the same side of a threshold: a cut lies below each distinct probability.
    below = np.append(ordered[1:], 0.0)
    cuts = np.flatnonzero(ordered > below)
    best = cuts[np.isclose(f1[cuts], f1[cuts].max(), rtol=0, atol=1e-12)]
    thresholds = np.array([_inside(below[cut], ordered[cut]) for cut in best])
    return float(thresholds[np.argmin(np.abs(thresholds - DEFAULT_THRESHOLD))])


def _inside(low: float, high: float) -> float:
    """A threshold that `high` exceeds and `low` does not: the default where it lies between them, else the middle."""
    if low <= DEFAULT_THRESHOLD < high:
        return DEFAULT_THRESHOLD
    middle = (low + high) / 2
    return middle if middle < high else low


def fit_calibration(logits: np.ndarray, gold: np.ndarray, labels: LabelSet) -> Calibration:
    """Fits the temperature and, for multi-label, the thresholds of the probabilities that it gives.

    Args:
        logits: (rows, labels) of the validation data.
        gold: (rows,) positions, or (rows, labels) of 0 and 1.
        labels: of a classification.

    Raises:
        DivergedError: a logit is not finite.
    """
    if not np.isfinite(logits).all():
        raise DivergedError("--calibrate: the model's outputs are not finite")
    temperature = fit_temperature(logits, gold, labels.problem_type)
    if labels.problem_type == SINGLE_LABEL:
        return Calibration(temperature)
    outputs = probabilities(logits, labels.problem_type, temperature)
    thresholds = tuple(fit_threshold(outputs[:, c], gold[:, c]) for c in range(len(labels.names)))
    return Calibration(temperature, thresholds)


def calibration_figures(
    logits: np.ndarray, gold: np.ndarray, labels: LabelSet, calibration: Calibration
) -> dict[str, float]:
    """Computes what a calibration changes: negative log-likelihood, expected calibration error, multi-label macro F1.

    Each label of each row of a multi-label task is a yes-or-no decision, and the calibration error is over all of
    them.

    Args:
        logits: (rows, labels) float.
        gold: (rows,) positions, or (rows, labels) of 0 and 1.
        labels: of a classification.
        calibration: is applied to the logits.
    """
    outputs = calibration.probabilities(logits, labels)
    nll = negative_log_likelihood(logits / calibration.temperature, gold, labels.problem_type)
    if labels.problem_type == SINGLE_LABEL:
        return {"nll": nll, "expected_calibration_error": expected_calibration_error(outputs, gold)}
    # Importing it takes a second, for which predictions, which only read a calibration, need not wait.
    from sklearn.metrics import f1_score

    decisions = np.stack([1 - outputs, outputs], axis=-1).reshape(-1, 2)
    return {
        "nll": nll,
        "expected_calibration_error": expected_calibration_error(decisions, gold.reshape(-1).astype(int)),
        "macro_f1": float(f1_score(gold, calibration.predicted(outputs, labels), average="macro", zero_division=0)),
    }


def write_calibration(
    path: Path, logits: np.ndarray, gold: np.ndarray, labels: LabelSet, weights: str | None = None
) -> None:
    """Fits a calibration on the validation split, and writes it with its figures before and after.

    Args:
        path: of the file.
        logits: (rows, labels) float.
        gold: (rows,) positions, or (rows, labels) of 0 and 1.
        labels: of a classification.
        weights: the digest of the model's weights, see [`weights_digest`].

    Raises:
        DivergedError: a logit is not finite.
        StorageError: the disk is full, or cannot be written.
    """
    calibration = fit_calibration(logits, gold, labels)
    thresholds = calibration.thresholds
    before = calibration_figures(logits, gold, labels, Calibration())
    after = calibration_figures(logits, gold, labels, calibration)
    content = {
        "temperature": calibration.temperature,
        "thresholds": dict(zip(labels.names, thresholds, strict=True)) if isinstance(thresholds, tuple) else None,
        "split": "validation",
        "rows": len(gold),
        WEIGHTS_KEY: weights,
        "before": before,
        "after": after,
    }
    write_json_atomically(path, content)
    changes = ", ".join(f"{name} {before[name]:.4f} to {after[name]:.4f}" for name in before)
    logger.info("calibration: temperature %.3f, %s", calibration.temperature, changes)


def read_calibration(path: Path, labels: LabelSet) -> Calibration:
    """Reads the file that a run with `--calibrate` wrote beside its model.

    Raises:
        ArgumentsError: the file holds no calibration, or that of another model.
    """
    try:
        content = read_json(path)
        temperature, thresholds = content["temperature"], content["thresholds"]
        if is_of_other_weights(content, path.parent):
            raise ValueError("it was fitted for other weights")
        return _checked_calibration(temperature, thresholds, labels)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArgumentsError(
            f"{path}: not the calibration of this model ({type(error).__name__}: {error}); calibrate it anew with "
            "--do_eval --calibrate, or leave the file aside with --no_calibration"
        ) from error


def _checked_calibration(temperature: Any, thresholds: Any, labels: LabelSet) -> Calibration:
    if labels.problem_type == REGRESSION:
        raise ValueError("a regression has no probabilities")
    if not 0 < float(temperature) < math.inf:
        raise ValueError(f"temperature is {temperature}")
    if thresholds is None:
        return Calibration(float(temperature))
    if labels.problem_type != MULTI_LABEL or list(thresholds) != list(labels.names):
        raise ValueError(f"thresholds for {', '.join(thresholds)}, but the model has {', '.join(labels.names)}")
    return Calibration(float(temperature), tuple(float(thresholds[name]) for name in labels.names))
