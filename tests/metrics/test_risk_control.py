"""Thresholds that keep a risk: what they promise holds for new rows as often as they say."""

from collections.abc import Callable

import numpy as np
import pytest

from bertcls_hf.metrics.risk_control import (
    Threshold,
    fewest_rows,
    risk_curve,
    threshold_by_rate,
    threshold_by_share,
    upper_bound,
)


Search = Callable[[np.ndarray, np.ndarray, float, float], Threshold | None]
DRAWS, ROWS = 400, 2000


def test_the_bound_is_that_of_clopper_and_pearson() -> None:
    # The rule of three, and a table of exact limits.
    assert upper_bound(0, 1000, 0.95) == pytest.approx(0.00299, abs=1e-5)
    assert upper_bound(5, 100, 0.95) == pytest.approx(0.10225, abs=1e-5)
    assert upper_bound(4, 4, 0.95) == 1.0


def test_the_fewest_rows_are_those_that_could_suffice() -> None:
    rows = fewest_rows(0.005, 0.95)
    assert upper_bound(0, rows, 0.95) <= 0.005 < upper_bound(0, rows - 1, 0.95)


def drawn(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose chance of an error falls from 0.4 to 0 as their margin rises from 0 to 1."""
    margins = generator.random(ROWS)
    return margins, generator.random(ROWS) < 0.4 * (1 - margins)


def share(value: float) -> float:
    """The chance that a row passes and is wrong."""
    return 0.2 * (1 - value) ** 2


def rate(value: float) -> float:
    """The chance that a row that passes is wrong."""
    return 0.2 * (1 - value)


@pytest.mark.parametrize(("search", "risk"), [(threshold_by_share, share), (threshold_by_rate, rate)])
def test_a_limit_is_broken_as_seldom_as_promised(search: Search, risk: Callable[[float], float]) -> None:
    generator, limit = np.random.default_rng(0), 0.1
    found = [search(*drawn(generator), limit, 0.9) for _ in range(DRAWS)]
    assert sum(threshold is None for threshold in found) < DRAWS / 20
    risks = np.array([risk(threshold.value) for threshold in found if threshold is not None])
    # A tenth may be, and three standard errors of it.
    assert (risks > limit).sum() / DRAWS <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / DRAWS)
    # The search is of use: it goes close to the limit.
    assert np.median(risks) > limit / 2


def test_what_passes_is_counted() -> None:
    margins = np.arange(100) / 100
    is_wrong = margins < 0.3
    threshold = threshold_by_share(margins, is_wrong, 0.1, 0.95)
    assert threshold is not None
    passes = margins >= threshold.value
    assert threshold.coverage == passes.mean()
    assert threshold.errors == is_wrong[passes].sum()
    assert threshold.upper_bound == upper_bound(threshold.errors, 100, 0.95) <= 0.1


def test_equal_margins_pass_together() -> None:
    margins = np.array([2.0] * 50 + [1.0] * 50)
    for coverage, errors in risk_curve(margins, margins < 2):
        assert (coverage, errors) in {(0.5, 0), (1.0, 50)}


@pytest.mark.parametrize("search", [threshold_by_share, threshold_by_rate])
def test_there_is_none_where_the_surest_are_wrong(search: Search) -> None:
    margins = np.arange(100) / 100
    assert search(margins, margins > 0.5, 0.03, 0.95) is None
