"""Intervals against closed forms, scikit-learn and plain resampling."""

import numpy as np
import pytest
from transformers import EvalPrediction

from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL, LabelSet
from bertcls_hf.metrics import intervals
from bertcls_hf.metrics.intervals import metric_intervals, wilson_interval
from bertcls_hf.metrics.metrics import METRIC_NAMES, build_compute_metrics
from bertcls_hf.metrics.probabilities import predicted_labels, probabilities


def example(task: str, rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, LabelSet]:
    """Outputs that are right more often than not."""
    generator = np.random.default_rng(seed)
    if task == REGRESSION:
        gold = generator.normal(3, 1, rows)
        return gold + generator.normal(0, 0.5, rows), gold, LabelSet(REGRESSION, ("score",))
    names = ("a", "b", "c", "d")
    if task == MULTI_LABEL:
        gold = (generator.random((rows, 4)) < 0.3).astype(float)
        return (1.5 * gold - 0.7 + generator.normal(0, 1, (rows, 4))), gold, LabelSet(MULTI_LABEL, names)
    gold = generator.integers(0, 4, rows)
    return np.eye(4)[gold] * 2 + generator.normal(0, 1, (rows, 4)), gold, LabelSet(SINGLE_LABEL, names)


@pytest.mark.parametrize(
    ("hits", "rows", "interval"),
    # Newcombe 1998, table I: the score method without continuity correction.
    [(81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0.0, 0.1611)), (29, 29, (0.8830, 1.0))],
)
def test_wilson_against_published_figures(hits: int, rows: int, interval: tuple[float, float]) -> None:
    assert wilson_interval(hits, rows) == pytest.approx(interval, abs=5e-5)


def test_wilson_without_rows_says_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL, REGRESSION])
def test_the_plain_sample_gives_the_metrics_themselves(task: str) -> None:
    """The statistics of the undisturbed counts are scikit-learn's figures."""
    logits, gold, labels = example(task, 300)
    scores = probabilities(logits, task)
    outcomes = intervals.outcomes_of(predicted_labels(scores, task), gold, labels)
    assert outcomes.counts.sum() == 300
    values = {name: value[0] for name, value in outcomes.statistics(outcomes.counts[None]).items()}
    expected = build_compute_metrics(labels)(EvalPrediction(logits, gold))
    assert set(values) <= set(METRIC_NAMES[task])
    assert values == pytest.approx({name: expected[name] for name in values}, abs=1e-9)


@pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL, REGRESSION])
def test_intervals_agree_with_plain_resampling_of_rows(task: str) -> None:
    logits, gold, labels = example(task, 250)
    found = metric_intervals(probabilities(logits, task), gold, labels)
    compute = build_compute_metrics(labels)
    generator = np.random.default_rng(1)
    name = {SINGLE_LABEL: "macro_f1", MULTI_LABEL: "micro_f1", REGRESSION: "pearson"}[task]
    values = []
    for _ in range(80):
        rows = generator.integers(0, 250, 250)
        values.append(compute(EvalPrediction(logits[rows], gold[rows]))[name])
    low, high = np.quantile(values, [0.025, 0.975])
    assert found[name] == pytest.approx((low, high), abs=0.4 * (high - low))
    assert found == metric_intervals(probabilities(logits, task), gold, labels)


def test_the_interval_of_accuracy_is_wilsons() -> None:
    logits, gold, labels = example(SINGLE_LABEL, 120)
    hits = int((logits.argmax(axis=1) == gold).sum())
    assert metric_intervals(probabilities(logits, SINGLE_LABEL), gold, labels)["accuracy"] == wilson_interval(
        hits, 120
    )


def test_an_undefined_metric_has_no_interval() -> None:
    gold = np.arange(6.0)
    found = metric_intervals(np.full(6, 2.0), gold, LabelSet(REGRESSION, ("score",)))
    assert "pearson" not in found
    assert {"mse", "mae"} <= set(found)


def test_many_rows_stay_quick_and_within_memory() -> None:
    logits, gold, labels = example(REGRESSION, 30_000)
    low, high = metric_intervals(logits, gold, labels)["rmse"]
    assert 0.48 < low < 0.5 < high < 0.52
