"""Logistic regressions on a few labelled rows, and what they say of rows that they were not fitted to.

Few rows say little of how far each feature spreads. The features are therefore scaled by many texts without labels,
and the penalty is fixed.
"""

import warnings
from dataclasses import dataclass

import numpy as np

from bertcls_hf.data.labels import SINGLE_LABEL, LabelSet
from bertcls_hf.features.cross_fitting import FOLDS, divided_rows
from bertcls_hf.features.dataset import FeatureDataset
from bertcls_hf.features.regressions import Regression, fit_regressions
from bertcls_hf.features.scaling import Scaling, Vectors
from bertcls_hf.metrics.probabilities import probabilities


# C, the inverse strength of the L2 penalty.
INVERSE_PENALTY = 0.1
# The texts that say how far each feature spreads.
SCALED_BY = 10_000


@dataclass(frozen=True)
class LinearHead:
    """A regression, and what its logits mean.

    Args:
        regression: reads plain features, in float32.
        problem_type: names the task.
    """

    regression: Regression
    problem_type: str

    @classmethod
    def of(cls, regression: Regression, labels: LabelSet) -> "LinearHead":
        """Makes a head of a regression on plain features."""
        narrow = Regression(regression.weights.astype(np.float32), regression.biases.astype(np.float32))
        return cls(narrow, labels.problem_type)

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Returns (rows, labels) float64 probabilities of (rows, features) float32 features."""
        return probabilities(self.regression.logits(features), self.problem_type)


def fitted_scaling(
    features: FeatureDataset, generator: np.random.Generator, descriptions: np.ndarray | None = None
) -> Scaling:
    """Fits a scaling to random rows, at most [`SCALED_BY`].

    Args:
        features: the features of the rows.
        generator: draws the rows.
        descriptions: (labels, width) features of a text for each label, or None.
    """
    rows = generator.permutation(len(features))[:SCALED_BY]
    return Scaling.fit(Vectors(features.__getitems__(np.sort(rows))["features"].numpy(), descriptions))


def fit_head(features: np.ndarray, gold: np.ndarray, labels: LabelSet, scaling: Scaling) -> LinearHead:
    """Fits a multinomial logistic regression, or for several labels per text one regression per label.

    Args:
        features: (rows, features) float32, of one row or more.
        gold: (rows,) positions, or (rows, labels) of 0 and 1.
        labels: the labels of the task.
        scaling: fitted to features like these.
    """
    [fitted] = fit_regressions(scaling.transform(features), gold, len(labels.names), [INVERSE_PENALTY])
    return LinearHead.of(scaling.of_features(fitted), labels)


def out_of_fold_probabilities(
    features: np.ndarray, gold: np.ndarray, texts: np.ndarray, labels: LabelSet, scaling: Scaling, seed: int
) -> np.ndarray | None:
    """Lets each row be classified by a head that was fitted without it, and without its text in other rows.

    Args:
        features: (rows, features) float32.
        gold: (rows,) positions, or (rows, labels) of 0 and 1.
        texts: (rows,) int, equal where the texts are equal.
        labels: the labels of the task; single labels are spread evenly over the folds.
        scaling: fitted to features like these.
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
    outputs = np.zeros((len(gold), len(labels.names)))
    with warnings.catch_warnings():
        # A label with fewer rows than folds is held out in fewer of them.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        parts = divided_rows(gold, texts, folds, seed, is_single_label=is_single)
    for held in parts:
        if len(held):
            kept = np.setdiff1d(np.arange(len(gold)), held)
            outputs[held] = fit_head(features[kept], gold[kept], labels, scaling).probabilities(features[held])
    return outputs
