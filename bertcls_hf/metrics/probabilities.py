"""From a model's outputs to probabilities and labels, and how far these can be trusted."""

from collections.abc import Sequence

import numpy as np
from scipy.special import expit, softmax

from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL


DEFAULT_THRESHOLD = 0.5
CALIBRATION_BINS = 15


def probabilities(logits: np.ndarray, problem_type: str, temperature: float = 1.0) -> np.ndarray:
    """What the model's outputs mean: (rows, labels) probabilities, or (rows,) numbers for regression.

    Args:
        logits: (rows, labels).
        problem_type: names the task.
        temperature: divides the logits of a classification; above 1, the probabilities become less extreme.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if problem_type == REGRESSION:
        return logits.reshape(-1)
    return softmax(logits / temperature, axis=-1) if problem_type == SINGLE_LABEL else expit(logits / temperature)


def predicted_labels(
    scores: np.ndarray, problem_type: str, thresholds: float | Sequence[float] | None = None
) -> np.ndarray:
    """(rows,) positions for single label, (rows, labels) of 0 and 1 for multi-label, the numbers for regression.

    Args:
        scores: see [`probabilities`].
        problem_type: names the task.
        thresholds: what a probability must exceed: of each label for multi-label, 0.5 by default; of the second of
            two labels for single label, where the most probable one is the default.
    """
    if problem_type == REGRESSION:
        return scores
    if problem_type == MULTI_LABEL:
        return (scores > np.asarray(DEFAULT_THRESHOLD if thresholds is None else thresholds)).astype(int)
    return scores.argmax(axis=-1) if thresholds is None else (scores[:, 1] > np.asarray(thresholds)).astype(int)


def expected_calibration_error(scores: np.ndarray, gold: np.ndarray, bins: int = CALIBRATION_BINS) -> float:
    """Mean gap between confidence and accuracy over equal-width bins (Guo et al. 2017, arXiv 1706.04599).

    Args:
        scores: (rows, labels) probabilities.
        gold: (rows,) positions.
        bins: number of bins between 0 and 1.

    Returns:
        A share between 0 (calibrated) and 1.
    """
    confidence = scores.max(axis=-1)
    correct = scores.argmax(axis=-1) == gold
    # A confidence of exactly 1 belongs to the last bin.
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(gold))
