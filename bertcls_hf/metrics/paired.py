"""Compares two systems on the same rows: paired differences of metrics, and McNemar's test.

Both systems are evaluated on the same resamples of the rows, so that rows that are hard for both do not widen the
interval of the difference (Efron & Tibshirani 1993, ch. 8; Dror et al. 2018, ACL P18-1128).
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.stats import binomtest

from bertcls_hf.data.labels import REGRESSION, LabelSet
from bertcls_hf.metrics.intervals import Interval, outcomes_of, percentiles
from bertcls_hf.metrics.metrics import METRIC_NAMES
from bertcls_hf.metrics.probabilities import predicted_labels


@dataclass(frozen=True)
class Difference:
    """The value of a metric for one system, minus its value for another.

    Args:
        value: the difference.
        interval: its 95 % interval.
    """

    value: float
    interval: Interval


@dataclass(frozen=True)
class PairedComparison:
    """A system against another on the same rows.

    Args:
        differences: by the name of the metric: of each metric that follows from counts of outcomes.
        mcnemar_p: the p-value of McNemar's exact test; None for a regression.
        only_right: the rows that the first system alone has right; None for a regression.
        other_only_right: the rows that the other system alone has right; None for a regression.
    """

    differences: dict[str, Difference]
    mcnemar_p: float | None = None
    only_right: int | None = None
    other_only_right: int | None = None


def compare(
    outputs: np.ndarray, other_outputs: np.ndarray, gold: np.ndarray, labels: LabelSet, seed: int = 0
) -> PairedComparison:
    """Compares the outputs of two systems.

    A row of several labels counts as right if all of them are right.

    Args:
        outputs: (rows, labels) probabilities, or (rows,) numbers for regression.
        other_outputs: the same of the other system.
        gold: (rows,) positions or numbers, or (rows, labels) of 0 and 1.
        labels: names the task.
        seed: of the resamples.
    """
    gold = np.asarray(gold)
    predicted, other = (predicted_labels(part, labels.problem_type) for part in (outputs, other_outputs))
    differences = _differences(predicted, other, gold, labels, seed)
    if labels.problem_type == REGRESSION:
        return PairedComparison(differences)
    is_right, other_is_right = ((part == gold).reshape(len(gold), -1).all(axis=1) for part in (predicted, other))
    only, other_only = int((is_right & ~other_is_right).sum()), int((other_is_right & ~is_right).sum())
    return PairedComparison(differences, mcnemar_p_value(only, other_only), only, other_only)


def mcnemar_p_value(only_right: int, other_only_right: int) -> float:
    """The two-sided p-value of McNemar's exact test (McNemar 1947), 1 where the systems never differ.

    Args:
        only_right: rows that the first system alone has right.
        other_only_right: rows that the second system alone has right.
    """
    differing = only_right + other_only_right
    return float(binomtest(only_right, differing).pvalue) if differing else 1.0


def _differences(
    predicted: np.ndarray, other: np.ndarray, gold: np.ndarray, labels: LabelSet, seed: int
) -> dict[str, Difference]:
    """The paired bootstrap, which draws the pairs of outcomes of both systems."""
    systems = [outcomes_of(part, gold, labels) for part in (predicted, other)]
    first, second = systems
    pairs, counts = np.unique(first.of_row * len(second.counts) + second.of_row, return_counts=True)
    marginals = [
        _marginal(pairs // len(second.counts), len(first.counts)),
        _marginal(pairs % len(second.counts), len(second.counts)),
    ]

    def statistics(draws: np.ndarray) -> dict[str, np.ndarray]:
        ours, theirs = (
            system.statistics(draws @ marginal) for system, marginal in zip(systems, marginals, strict=True)
        )
        with np.errstate(invalid="ignore"):  # Some metrics have no value for some resamples.
            return {name: ours[name] - theirs[name] for name in ours}

    observed = statistics(counts[None])
    intervals = percentiles(counts, statistics, seed)
    names = [name for name in METRIC_NAMES[labels.problem_type] if name in intervals]
    return {name: Difference(float(observed[name][0]), intervals[name]) for name in names}


def _marginal(outcome_of_pair: np.ndarray, outcomes: int) -> sparse.csr_array:
    """A (pairs, outcomes) matrix that sums counts of pairs to counts of one system's outcomes."""
    pairs = len(outcome_of_pair)
    return sparse.csr_array((np.ones(pairs), (np.arange(pairs), outcome_of_pair)), (pairs, outcomes))
