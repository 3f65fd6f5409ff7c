"""Confidence intervals of metrics, computed from the predictions of one evaluation.

A share of texts, such as accuracy, gets Wilson's interval (Wilson 1927), which also holds near 0 and 1. Every other
metric gets the interval of the percentile bootstrap (Efron 1979) over the evaluated rows.

Rows with the same outcome, such as the same cell of the confusion matrix, count alike. A resample is therefore drawn
as the number of times that each distinct outcome occurs, and a thousand resamples cost a few matrix products.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.stats import binomtest

from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL, LabelSet
from bertcls_hf.metrics.metrics import METRIC_NAMES
from bertcls_hf.metrics.probabilities import predicted_labels


CONFIDENCE = 0.95
MOST_RESAMPLES, FEWEST_RESAMPLES = 1000, 100
# Resamples times distinct outcomes. Beyond it fewer resamples are drawn: many rows make the intervals narrow anyway.
MOST_DRAWS = 5_000_000
# The same for the resamples that are in memory together.
DRAWS_AT_ONCE = 1_000_000
# The metric of each task that is a share of texts.
SHARES = {SINGLE_LABEL: "accuracy", MULTI_LABEL: "subset_accuracy"}

Interval = tuple[float, float]
# Turns (resamples, outcomes) counts into (resamples,) values of each metric.
Statistics = Callable[[np.ndarray], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Outcomes:
    """The outcome of each evaluated row, such as its cell of the confusion matrix.

    Args:
        of_row: (rows,) the number of each row's outcome; every number below the greatest occurs.
        statistics: turns (resamples, outcomes) counts into (resamples,) values of each metric.
    """

    of_row: np.ndarray
    statistics: Statistics

    @cached_property
    def counts(self) -> np.ndarray:
        """(outcomes,) rows with each outcome."""
        return np.bincount(self.of_row)


def wilson_interval(hits: int, rows: int) -> Interval:
    """The 95 % interval of a share, `hits` of `rows`; (0, 1) without rows."""
    if rows == 0:
        return 0.0, 1.0
    low, high = binomtest(hits, rows).proportion_ci(CONFIDENCE, method="wilson")
    return float(low), float(high)


def metric_intervals(outputs: np.ndarray, gold: np.ndarray, labels: LabelSet, seed: int = 0) -> dict[str, Interval]:
    """Computes 95 % intervals of those metrics of the task that follow from counts of outcomes.

    Args:
        outputs: (rows, labels) probabilities, or (rows,) numbers for regression.
        gold: (rows,) positions or numbers, or (rows, labels) of 0 and 1.
        labels: names the task.
        seed: of the resamples.

    Returns:
        Intervals by the name of the metric; one with an end that is not finite is left out.
    """
    predicted = predicted_labels(outputs, labels.problem_type)
    gold = np.asarray(gold)
    outcomes = outcomes_of(predicted, gold, labels)
    intervals = percentiles(outcomes.counts, outcomes.statistics, seed)
    share = SHARES.get(labels.problem_type)
    if share is not None:
        is_right = (predicted == gold).reshape(len(gold), -1).all(axis=1)
        intervals[share] = wilson_interval(int(is_right.sum()), len(gold))
    return intervals


def outcomes_of(predicted: np.ndarray, gold: np.ndarray, labels: LabelSet) -> Outcomes:
    """Finds the outcome of each row.

    Args:
        predicted: (rows,) positions or numbers, or (rows, labels) of 0 and 1.
        gold: like `predicted`.
        labels: names the task.
    """
    return _OUTCOMES[labels.problem_type](predicted, np.asarray(gold), len(labels.names))


def percentiles(counts: np.ndarray, statistics: Statistics, seed: int) -> dict[str, Interval]:
    """The bootstrap: draws resamples from (outcomes,) counts, and takes the percentiles of each metric over them."""
    rows = int(counts.sum())
    resamples = min(max(MOST_DRAWS // len(counts), FEWEST_RESAMPLES), MOST_RESAMPLES)
    at_once = min(max(DRAWS_AT_ONCE // len(counts), 1), resamples)
    generator = np.random.default_rng(seed)
    parts = [
        statistics(generator.multinomial(rows, counts / rows, size=min(at_once, resamples - start)))
        for start in range(0, resamples, at_once)
    ]
    tail = (1 - CONFIDENCE) / 2
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    ends = {name: np.quantile(value, (tail, 1 - tail)) for name, value in values.items()}
    return {name: (float(low), float(high)) for name, (low, high) in ends.items() if np.isfinite([low, high]).all()}


def _single_label(predicted: np.ndarray, gold: np.ndarray, labels: int) -> Outcomes:
    """An outcome is a cell of the confusion matrix that holds rows."""
    cells, of_row = np.unique(gold * labels + predicted, return_inverse=True)
    gold_of, predicted_of = cells // labels, cells % labels
    is_gold, is_predicted = _indicator(gold_of, labels), _indicator(predicted_of, labels)
    is_right = sparse.diags_array((gold_of == predicted_of).astype(float)) @ is_gold

    def statistics(draws: np.ndarray) -> dict[str, np.ndarray]:
        right, positive, claimed = draws @ is_right, draws @ is_gold, draws @ is_predicted
        values = _averages(right, positive, claimed, ("macro", "weighted"))
        hits = right.sum(axis=1)
        return values | {"accuracy": hits / positive.sum(axis=1), "mcc": _matthews(hits, positive, claimed)}

    return Outcomes(of_row, statistics)


def _indicator(positions: np.ndarray, labels: int) -> sparse.csr_array:
    """A (positions, labels) matrix with a 1 in each row, at its position."""
    return sparse.csr_array(
        (np.ones(len(positions)), (np.arange(len(positions)), positions)), (len(positions), labels)
    )


def _averages(
    right: np.ndarray, positive: np.ndarray, claimed: np.ndarray, averages: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Computes averaged precision, recall and F1; a score that is undefined counts as 0.

    Args:
        right: (resamples, labels) counts of rows that have the label and were predicted to have it.
        positive: (resamples, labels) counts of rows that have the label.
        claimed: (resamples, labels) counts of rows that were predicted to have it.
        averages: macro or weighted.
    """
    figures = {
        "precision": _share(right, claimed),
        "recall": _share(right, positive),
        "f1": _share(2 * right, positive + claimed),
    }
    weights = positive / np.maximum(positive.sum(axis=1, keepdims=True), 1)
    means = {"macro": lambda values: values.mean(axis=1), "weighted": lambda values: (values * weights).sum(axis=1)}
    return {f"{average}_{name}": means[average](values) for name, values in figures.items() for average in averages}


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(np.shape(part)), where=whole > 0)


def _matthews(right: np.ndarray, positive: np.ndarray, claimed: np.ndarray) -> np.ndarray:
    rows = positive.sum(axis=1)
    spread = (rows**2 - (claimed**2).sum(axis=1)) * (rows**2 - (positive**2).sum(axis=1))
    return _share(right * rows - (positive * claimed).sum(axis=1), np.sqrt(spread))


def _multi_label(predicted: np.ndarray, gold: np.ndarray, labels: int) -> Outcomes:
    """An outcome is a distinct pair of a gold and a predicted set of labels."""
    outcomes, of_row = np.unique(np.hstack([gold, predicted]).astype(np.int8), axis=0, return_inverse=True)
    gold_of, predicted_of = np.hsplit(outcomes.astype(float), 2)
    right_of = gold_of * predicted_of
    is_right = (gold_of == predicted_of).all(axis=1).astype(float)
    samples_f1 = _share(2 * right_of.sum(axis=1), (gold_of + predicted_of).sum(axis=1))
    wrong_of = (gold_of != predicted_of).mean(axis=1)

    def statistics(draws: np.ndarray) -> dict[str, np.ndarray]:
        right, positive, claimed = draws @ right_of, draws @ gold_of, draws @ predicted_of
        averages = _averages(right, positive, claimed, ("macro", "weighted"))
        values = {name: value for name, value in averages.items() if name in METRIC_NAMES[MULTI_LABEL]}
        values["micro_f1"] = _share(2 * right.sum(axis=1), (positive + claimed).sum(axis=1))
        means = {"subset_accuracy": is_right, "samples_f1": samples_f1, "hamming_loss": wrong_of}
        return values | {name: draws @ of_outcome / draws.sum(axis=1) for name, of_outcome in means.items()}

    return Outcomes(of_row.reshape(-1), statistics)


def _regression(predicted: np.ndarray, gold: np.ndarray, labels: int) -> Outcomes:
    """An outcome is a row of its own. Spearman's correlation has no interval, since counts do not tell ranks."""
    gold, predicted = gold.reshape(-1).astype(float), predicted.reshape(-1).astype(float)
    # Centred numbers keep the digits that the variances would lose.
    x, y = predicted - predicted.mean(), gold - gold.mean()
    error = predicted - gold
    columns = np.column_stack([error**2, np.abs(error), x, y, x * x, y * y, x * y])

    def statistics(draws: np.ndarray) -> dict[str, np.ndarray]:
        mse, mae, x_mean, y_mean, xx, yy, xy = (draws @ columns / len(gold)).T
        x_var, y_var, covariance = xx - x_mean**2, yy - y_mean**2, xy - x_mean * y_mean
        with np.errstate(divide="ignore", invalid="ignore"):
            fits = {"r2": 1 - mse / y_var, "pearson": covariance / np.sqrt(x_var * y_var)}
        return {"mse": mse, "rmse": np.sqrt(mse), "mae": mae, **fits}

    return Outcomes(np.arange(len(gold)), statistics)


_OUTCOMES = {SINGLE_LABEL: _single_label, MULTI_LABEL: _multi_label, REGRESSION: _regression}
