"""What a model's logits mean: probabilities and labels, and how far the probabilities can be trusted.

Throughout this package, `outputs` are (rows, labels) probabilities of a classification, or (rows,) numbers of a
regression.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import expit, softmax

from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL


DEFAULT_THRESHOLD = 0.5
CALIBRATION_BINS = 15


def probabilities(logits: np.ndarray, problem_type: str, temperature: float = 1.0) -> np.ndarray:
    """Turns logits into outputs.

    Args:
        logits: (rows, labels) float.
        problem_type: names the task.
        temperature: divides the logits of a classification; above 1, the probabilities become less extreme.

    Returns:
        (rows, labels) float64 probabilities, or (rows,) float64 numbers for regression.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if problem_type == REGRESSION:
        return logits.reshape(-1)
    return softmax(logits / temperature, axis=-1) if problem_type == SINGLE_LABEL else expit(logits / temperature)


def predicted_labels(
    outputs: np.ndarray, problem_type: str, thresholds: float | Sequence[float] | None = None
) -> np.ndarray:
    """Turns outputs into labels.

    Args:
        outputs: (rows, labels) probabilities, or (rows,) numbers for regression.
        problem_type: names the task.
        thresholds: a label is predicted where its probability exceeds its threshold. For multi-label each label has
            one, by default 0.5. For single label with two labels it is that of the second label; by default, the most
            probable label is predicted.

    Returns:
        (rows,) int64 positions for single label, (rows, labels) int64 of 0 and 1 for multi-label, and the numbers
        themselves for regression.
    """
    if problem_type == REGRESSION:
        return outputs
    if problem_type == MULTI_LABEL:
        return (outputs > np.asarray(DEFAULT_THRESHOLD if thresholds is None else thresholds)).astype(int)
    return outputs.argmax(axis=-1) if thresholds is None else (outputs[:, 1] > np.asarray(thresholds)).astype(int)


def expected_calibration_error(outputs: np.ndarray, gold: np.ndarray, bins: int = CALIBRATION_BINS) -> float:
    """The mean gap between confidence and accuracy over bins of equal width (Guo et al. 2017, arXiv 1706.04599).

    Args:
        outputs: (rows, labels) probabilities.
        gold: (rows,) positions.
        bins: number of bins between 0 and 1.

    Returns:
        A share between 0 (calibrated) and 1.
    """
    confidence = outputs.max(axis=-1)
    is_right = outputs.argmax(axis=-1) == gold
    # A confidence of exactly 1 belongs to the last bin.
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, weights=is_right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(gold))
