"""Logistic regressions on a few labelled rows, and what they say of rows that they were not fitted to.

Few rows say little of how far each feature spreads. The features are therefore scaled by many texts without labels,
and the penalty is fixed.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler

from bertcls_hf.data.labels import SINGLE_LABEL, LabelSet
from bertcls_hf.features.cross_fitting import FOLDS
from bertcls_hf.features.dataset import FeatureDataset
from bertcls_hf.features.regressions import fit_regressions
from bertcls_hf.metrics.probabilities import probabilities


# C, the inverse strength of the L2 penalty.
INVERSE_PENALTY = 0.1
# The texts that say how far each feature spreads.
SCALED_BY = 10_000


@dataclass(frozen=True)
class LinearHead:
    """A linear function of features per label.

    Args:
        weights: (labels, features) float32.
        biases: (labels,) float32.
        problem_type: names the task.
    """

    weights: np.ndarray
    biases: np.ndarray
    problem_type: str

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Returns (rows, labels) float64 probabilities of (rows, features) float32 features."""
        return probabilities(features @ self.weights.T + self.biases, self.problem_type)


def fitted_scaler(features: FeatureDataset, generator: np.random.Generator) -> StandardScaler:
    """Fits a scaler, which brings every feature to mean 0 and deviation 1, to random rows, at most [`SCALED_BY`]."""
    rows = generator.permutation(len(features))[:SCALED_BY]
    return StandardScaler().fit(features.__getitems__(np.sort(rows))["features"].numpy())


def fit_head(features: np.ndarray, gold: np.ndarray, labels: LabelSet, scaler: StandardScaler) -> LinearHead:
    """Fits a multinomial logistic regression, or for several labels per text one regression per label.

    Args:
        features: (rows, features) float32, of one row or more.
        gold: (rows,) positions, or (rows, labels) of 0 and 1.
        labels: the labels of the task.
        scaler: fitted to features like these.
    """
    [fitted] = fit_regressions(scaler.transform(features), gold, len(labels.names), [INVERSE_PENALTY])
    head = fitted.with_scaling(scaler)
    return LinearHead(head.weights.astype(np.float32), head.biases.astype(np.float32), labels.problem_type)


def out_of_fold_probabilities(
    features: np.ndarray, gold: np.ndarray, texts: np.ndarray, labels: LabelSet, scaler: StandardScaler, seed: int
) -> np.ndarray | None:
    """Lets each row be classified by a head that was fitted without it, and without its text in other rows.

    Args:
        features: (rows, features) float32.
        gold: (rows,) positions, or (rows, labels) of 0 and 1.
        texts: (rows,) int, equal where the texts are equal.
        labels: the labels of the task; single labels are spread evenly over the folds.
        scaler: fitted to features like these.
        seed: of the folds.

    Returns:
        (rows, labels) float64 probabilities; None where there are too few rows to hold any out: fewer than two
        different texts, or single labels none of which two rows have.
    """
    is_single = labels.problem_type == SINGLE_LABEL
    most = [FOLDS, len(np.unique(texts))]
    if is_single:
        most.append(int(np.bincount(gold, minlength=1).max(initial=0)))
    folds = min(most)
    if folds < 2:
        return None
    splitter = (StratifiedGroupKFold if is_single else GroupKFold)(folds, shuffle=True, random_state=seed)
    outputs = np.zeros((len(gold), len(labels.names)))
    with warnings.catch_warnings():
        # A label with fewer rows than folds is held out in fewer of them.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        parts = list(splitter.split(features, gold if is_single else None, texts))
    for kept, held in parts:
        if len(held):
            outputs[held] = fit_head(features[kept], gold[kept], labels, scaler).probabilities(features[held])
    return outputs
