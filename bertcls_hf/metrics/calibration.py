"""Probabilities that can be taken at their word: a temperature and thresholds, fitted on validation data.

The temperature divides the logits (Guo et al. 2017, arXiv 1706.04599). It changes neither the order of the labels nor
the accuracy. A threshold per label, for multi-label tasks, is the one with the best F1.
"""

import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_expit, log_softmax
from sklearn.metrics import f1_score

from bertcls_hf.atomic_files import write_atomically
from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL, LabelSet
from bertcls_hf.errors import ArgumentsError, DivergedError
from bertcls_hf.metrics.probabilities import (
    DEFAULT_THRESHOLD,
    expected_calibration_error,
    predicted_labels,
    probabilities,
)


logger = logging.getLogger(__name__)

CALIBRATION_FILE = "calibration.json"
# Logarithms of the lowest and the highest temperature that are tried.
LOG_TEMPERATURES = (-12.0, 12.0)


@dataclass(frozen=True)
class Calibration:
    """What stands between logits and labels; as it is, nothing does.

    Args:
        temperature: divides the logits of a classification.
        thresholds: see [`predicted_labels`].
    """

    temperature: float = 1.0
    thresholds: float | tuple[float, ...] | None = None

    def probabilities(self, logits: np.ndarray, labels: LabelSet) -> np.ndarray:
        """(rows, labels) probabilities from (rows, labels) logits, or (rows,) numbers for regression."""
        return probabilities(logits, labels.problem_type, self.temperature)

    def predicted(self, scores: np.ndarray, labels: LabelSet) -> np.ndarray:
        """What [`predicted_labels`] makes of probabilities."""
        return predicted_labels(scores, labels.problem_type, self.thresholds)


def fit_temperature(logits: np.ndarray, gold: np.ndarray, problem_type: str) -> float:
    """The temperature that makes the gold labels most likely; 1 where the likelihood has no peak.

    Args:
        logits: (rows, labels).
        gold: (rows,) positions, or (rows, labels) of 0 and 1.
        problem_type: names the task.
    """
    logits = np.asarray(logits, dtype=np.float64)
    problem = _unfit(logits, gold, problem_type)
    if problem is not None:
        logger.warning("no temperature fits, since %s: it stays at 1", problem)
        return 1.0
    found = minimize_scalar(
        lambda log_temperature: negative_log_likelihood(logits / math.exp(log_temperature), gold, problem_type),
        bounds=LOG_TEMPERATURES,
        method="bounded",
        options={"xatol": 1e-6},
    )
    return math.exp(found.x)


def _unfit(logits: np.ndarray, gold: np.ndarray, problem_type: str) -> str | None:
    """Why the likelihood, which has one peak at most, grows towards a temperature of 0 or without end; or None."""
    if problem_type == SINGLE_LABEL:
        of_gold = logits[np.arange(len(gold)), gold]
        is_right = (of_gold == logits.max(axis=-1)).all()
        gain = (of_gold - logits.mean(axis=-1)).mean()
    else:
        of_gold = np.where(gold > 0, logits, -logits)
        is_right, gain = (of_gold >= 0).all(), of_gold.mean()
    if is_right:
        return "the model is right in every row of the validation data"
    return None if gain > 0 else "the model does no better than chance on the validation data"


def negative_log_likelihood(logits: np.ndarray, gold: np.ndarray, problem_type: str) -> float:
    """Mean over the rows, and over the labels of a multi-label task."""
    logits = np.asarray(logits, dtype=np.float64)
    if problem_type == SINGLE_LABEL:
        return float(-log_softmax(logits, axis=-1)[np.arange(len(gold)), gold].mean())
    return float(-log_expit(np.where(gold > 0, logits, -logits)).mean())


def fit_threshold(scores: np.ndarray, gold: np.ndarray) -> float:
    """The threshold with the best F1; 0.5 where it is as good as any, or where there is nothing to find.

    Args:
        scores: (rows,) probabilities of one label.
        gold: (rows,) of 0 and 1.
    """
    if not gold.any():
        return DEFAULT_THRESHOLD
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    predicted = np.arange(1, len(scores) + 1)
    f1 = 2 * np.cumsum(gold[order]) / (predicted + gold.sum())
    # A cut lies below each distinct score: equal ones fall on one side of it.
    below = np.append(ordered[1:], 0.0)
    cuts = np.flatnonzero(ordered > below)
    best = cuts[np.isclose(f1[cuts], f1[cuts].max(), rtol=0, atol=1e-12)]
    thresholds = np.array([_inside(below[cut], ordered[cut]) for cut in best])
    return float(thresholds[np.argmin(np.abs(thresholds - DEFAULT_THRESHOLD))])


def _inside(low: float, high: float) -> float:
    """A threshold from `low` on that `high` exceeds: the usual one where it lies there, else the middle."""
    if low <= DEFAULT_THRESHOLD < high:
        return DEFAULT_THRESHOLD
    middle = (low + high) / 2
    return middle if middle < high else low


def fit_calibration(logits: np.ndarray, gold: np.ndarray, labels: LabelSet) -> Calibration:
    """Temperature, and for multi-label thresholds of the probabilities that it gives.

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
    scores = probabilities(logits, labels.problem_type, temperature)
    return Calibration(temperature, tuple(fit_threshold(scores[:, c], gold[:, c]) for c in range(len(labels.names))))


def calibration_figures(
    logits: np.ndarray, gold: np.ndarray, labels: LabelSet, calibration: Calibration
) -> dict[str, float]:
    """Negative log-likelihood, expected calibration error and, where there are thresholds to judge, macro F1.

    The calibration error of a multi-label task is that of all its yes-or-no decisions.
    """
    scores = calibration.probabilities(logits, labels)
    nll = negative_log_likelihood(logits / calibration.temperature, gold, labels.problem_type)
    if labels.problem_type == SINGLE_LABEL:
        return {"nll": nll, "expected_calibration_error": expected_calibration_error(scores, gold)}
    decisions = np.stack([1 - scores, scores], axis=-1).reshape(-1, 2)
    return {
        "nll": nll,
        "expected_calibration_error": expected_calibration_error(decisions, gold.reshape(-1).astype(int)),
        "macro_f1": float(f1_score(gold, calibration.predicted(scores, labels), average="macro", zero_division=0)),
    }


def write_calibration(path: Path, logits: np.ndarray, gold: np.ndarray, labels: LabelSet) -> None:
    """Fits a calibration on the validation split and writes it, with what it changes there.

    Args:
        path: of the file.
        logits: (rows, labels).
        gold: (rows,) positions, or (rows, labels) of 0 and 1.
        labels: of a classification.

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
        "before": before,
        "after": after,
    }
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    changes = ", ".join(f"{name} {before[name]:.4f} to {after[name]:.4f}" for name in before)
    logger.info("calibration: temperature %.3f, %s", calibration.temperature, changes)


def read_calibration(path: Path, labels: LabelSet) -> Calibration:
    """What a run with `--calibrate` left beside its model.

    Raises:
        ArgumentsError: not such a file, or one of another model.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        temperature, thresholds = content["temperature"], content["thresholds"]
        return _checked(temperature, thresholds, labels)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArgumentsError(
            f"{path}: not the calibration of this model ({type(error).__name__}: {error}); calibrate it anew with "
            "--do_eval --calibrate, or leave the file aside with --no_calibration"
        ) from error


def _checked(temperature: Any, thresholds: Any, labels: LabelSet) -> Calibration:
    if labels.problem_type == REGRESSION:
        raise ValueError("a regression has no probabilities")
    if not 0 < float(temperature) < math.inf:
        raise ValueError(f"temperature is {temperature}")
    if thresholds is None:
        return Calibration(float(temperature))
    if labels.problem_type != MULTI_LABEL or list(thresholds) != list(labels.names):
        raise ValueError(f"thresholds for {', '.join(thresholds)}, but the model has {', '.join(labels.names)}")
    return Calibration(float(temperature), tuple(float(thresholds[name]) for name in labels.names))
