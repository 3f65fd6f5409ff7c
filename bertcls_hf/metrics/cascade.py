"""What `bertcls cascade` writes beside a model: which texts its lexical features answer, which a person should read.

Where the lexical features are sure of a text's label, the encoder need not read it (a cascade, Viola & Jones 2001).
Where the answer is unsure, it is marked (selective classification, El-Yaniv & Wiener 2010). `risk_control` chooses
both thresholds.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_expit, log_softmax, logit

from bertcls_hf.atomic_files import read_json
from bertcls_hf.data.labels import SINGLE_LABEL, LabelSet
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.manifests import is_of_other_weights
from bertcls_hf.metrics.calibration import Calibration
from bertcls_hf.metrics.probabilities import DEFAULT_THRESHOLD
from bertcls_hf.metrics.risk_control import Threshold


CASCADE_FILE = "cascade.json"
# The logarithms of the smallest and the largest factor that are tried.
LOG_FACTORS = (-6.0, 6.0)


@dataclass(frozen=True)
class Cascade:
    """The two thresholds, and how they were chosen.

    Args:
        lexical: from which margin on the lexical features answer; None if the encoder reads all texts.
        factor: multiplies the logits of the lexical features, where they answer.
        max_difference: the share of all labels that may differ from the whole model's.
        abstention: from which margin on an answer is trusted; None if all are.
        risk: the share of the trusted answers that may be wrong; None without abstention.
        confidence: with which both limits hold.
        rows: the validation rows that the thresholds were chosen on.
        max_seq_length: the number of tokens that the encoder read of a text at most.
    """

    lexical: Threshold | None
    factor: float
    max_difference: float
    abstention: Threshold | None
    risk: float | None
    confidence: float
    rows: int
    max_seq_length: int

    def answers(self, margins: np.ndarray) -> np.ndarray:
        """Says for (rows,) margins of the lexical features in which rows these answer, where they do."""
        assert self.lexical is not None
        return margins >= self.lexical.value

    def as_json(self) -> dict[str, Any]:
        """Returns the content of the file."""
        return asdict(self)


def label_margins(logits: np.ndarray, labels: LabelSet, calibration: Calibration) -> np.ndarray:
    """Returns how far the logits of each row are from another label.

    Args:
        logits: (rows, labels), before calibration.
        labels: of a classification.
        calibration: has the thresholds of a multi-label task.

    Returns:
        (rows,) float64: the lead of the first label over the second, or, for multi-label, the distance of the label
        that is closest to its threshold.
    """
    scaled = np.asarray(logits, dtype=np.float64) / calibration.temperature
    if labels.problem_type == SINGLE_LABEL:
        two = np.partition(scaled, -2, axis=-1)[:, -2:]
        return two[:, 1] - two[:, 0]
    thresholds = DEFAULT_THRESHOLD if calibration.thresholds is None else np.asarray(calibration.thresholds)
    return np.abs(scaled - logit(thresholds)).min(axis=-1)


def fitted_factor(lexical: np.ndarray, whole: np.ndarray, labels: LabelSet) -> float:
    """Returns the factor with which the lexical features' probabilities are closest to the whole model's.

    Args:
        lexical: (rows, labels) logits of the lexical features.
        whole: (rows, labels) logits of the model.
        labels: of a classification.
    """
    lexical, whole = np.asarray(lexical, dtype=np.float64), np.asarray(whole, dtype=np.float64)

    def loss(log_factor: float) -> float:
        scaled = np.exp(log_factor) * lexical
        if labels.problem_type == SINGLE_LABEL:
            return float(-(np.exp(log_softmax(whole, axis=-1)) * log_softmax(scaled, axis=-1)).mean())
        shares = np.exp(log_expit(whole))
        return float(-(shares * log_expit(scaled) + (1 - shares) * log_expit(-scaled)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=LOG_FACTORS, method="bounded").x))


def read_cascade(path: Path) -> Cascade:
    """Reads the file that `bertcls cascade` wrote beside a model.

    Raises:
        ArgumentsError: if the file does not hold a cascade.
    """
    try:
        file = read_json(path)
        content = file["cascade"]
        if is_of_other_weights(file, path.parent):
            raise ValueError("it was made for other weights")
        for name in ("lexical", "abstention"):
            if content[name] is not None:
                content[name] = Threshold(**content[name])
        return Cascade(**content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArgumentsError(
            f"{path}: holds no cascade ({type(error).__name__}: {error}); make it anew with bertcls cascade, or leave "
            "it aside with --no_cascade"
        ) from error
