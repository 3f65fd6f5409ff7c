"""Chooses on labelled rows from which confidence on to trust an answer, so that a risk stays below a limit.

Rows are ordered by confidence, and a threshold lets the most confident through. What such a threshold promises of new
texts holds with a stated confidence if they are like these rows, by the exact binomial bound (Clopper & Pearson 1934).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta


# The thresholds that are tried let through so many shares of the rows.
STEPS_OF_SHARES = 100
STEPS_OF_RATES = 20


@dataclass(frozen=True)
class Threshold:
    """A threshold, and what it lets through of the rows that it was chosen on.

    Args:
        value: rows of at least this confidence pass.
        coverage: the share of the rows that pass.
        errors: how many of these are wrong.
        upper_bound: what the risk stays below, with the confidence that was asked for.
    """

    value: float
    coverage: float
    errors: int
    upper_bound: float


def upper_bound(errors: int, rows: int, confidence: float) -> float:
    """Returns what a probability stays below, with a confidence, if so many of the rows are errors."""
    return 1.0 if errors >= rows else float(beta.ppf(confidence, errors + 1, rows - errors))


def fewest_rows(limit: float, confidence: float) -> int:
    """Returns how many rows without an error it takes to show that a risk is below a limit."""
    return int(np.ceil(np.log(1 - confidence) / np.log(1 - limit)))


def threshold_by_share(margins: np.ndarray, is_wrong: np.ndarray, limit: float, confidence: float) -> Threshold | None:
    """Lets as many rows pass as it can while few of *all* rows pass and are wrong.

    This share never falls when the threshold does, so that the first threshold whose bound exceeds the limit ends the
    search, and no correction for the number of thresholds is needed (Bates et al. 2021, arXiv 2101.02703).

    Args:
        margins: (rows,) the confidence of each row.
        is_wrong: (rows,) booleans.
        limit: of the share of all rows.
        confidence: that the share of new rows is below the limit, such as 0.95.

    Returns:
        The threshold; None if there is none.
    """
    chosen = None
    for value, passed, errors in _candidates(margins, is_wrong, STEPS_OF_SHARES):
        bound = upper_bound(errors, len(margins), confidence)
        if bound > limit:
            break
        chosen = Threshold(value, passed / len(margins), errors, bound)
    return chosen


def threshold_by_rate(margins: np.ndarray, is_wrong: np.ndarray, limit: float, confidence: float) -> Threshold | None:
    """Lets as many rows pass as it can while few of those that *pass* are wrong (Geifman & El-Yaniv 2017).

    This rate can rise and fall with the threshold, so that each of the thresholds that are tried has its part of the
    doubt (Bonferroni).

    Args:
        margins: (rows,) the confidence of each row.
        is_wrong: (rows,) booleans.
        limit: of the share of the rows that pass.
        confidence: that the share of new rows is below the limit, such as 0.95.

    Returns:
        The threshold; None if there is none.
    """
    each = 1 - (1 - confidence) / STEPS_OF_RATES
    chosen = None
    for value, passed, errors in _candidates(margins, is_wrong, STEPS_OF_RATES):
        bound = upper_bound(errors, passed, each)
        if bound <= limit:
            chosen = Threshold(value, passed / len(margins), errors, bound)
    return chosen


def risk_curve(margins: np.ndarray, is_wrong: np.ndarray) -> list[tuple[float, int]]:
    """Returns the coverage and the errors of thresholds, from the highest to the lowest."""
    return [(passed / len(margins), errors) for _, passed, errors in _candidates(margins, is_wrong, STEPS_OF_SHARES)]


def _candidates(margins: np.ndarray, is_wrong: np.ndarray, steps: int) -> Iterator[tuple[float, int, int]]:
    """Yields thresholds that let about 1/steps, 2/steps … of the rows pass; equal rows pass together.

    Yields:
        The threshold, the number of rows that pass, and how many of these are wrong.
    """
    ordered = np.sort(margins)[::-1]
    places = np.ceil(np.arange(1, steps + 1) * len(margins) / steps).astype(int) - 1
    for value in dict.fromkeys(ordered[places].tolist()):
        passes = margins >= value
        yield value, int(passes.sum()), int(is_wrong[passes].sum())
