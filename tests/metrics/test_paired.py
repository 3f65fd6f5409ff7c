"""Paired comparisons against plain resampling of rows and published figures."""

import numpy as np
import pytest

from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from bertcls_hf.metrics.metrics import compute_metrics
from bertcls_hf.metrics.paired import compare, mcnemar_p_value
from bertcls_hf.metrics.probabilities import probabilities
from tests.metrics.test_intervals import example


TASKS = [SINGLE_LABEL, MULTI_LABEL, REGRESSION]
HEADLINE = {SINGLE_LABEL: "accuracy", MULTI_LABEL: "micro_f1", REGRESSION: "rmse"}


def two_systems(task: str, rows: int = 250) -> tuple[np.ndarray, np.ndarray, np.ndarray, object]:
    """Logits of a system, of one like it with more noise, the gold labels, and the labels of the task."""
    logits, gold, labels = example(task, rows)
    noise = np.random.default_rng(7).normal(0, 1.0, logits.shape)
    return logits, logits + noise, gold, labels


def headline(task: str, logits: np.ndarray, gold: np.ndarray) -> float:
    """The metric of [`HEADLINE`], without the package's code and its other metrics."""
    if task == REGRESSION:
        return float(np.sqrt(np.mean((logits.reshape(-1) - gold) ** 2)))
    if task == SINGLE_LABEL:
        return float((logits.argmax(axis=1) == gold).mean())
    predicted = logits > 0
    return float(2 * (predicted * gold).sum() / (predicted.sum() + gold.sum()))


@pytest.mark.parametrize("task", TASKS)
def test_the_difference_is_that_of_the_metrics(task: str) -> None:
    logits, other, gold, labels = two_systems(task)
    found = compare(probabilities(logits, task), probabilities(other, task), gold, labels)
    ours, theirs = (compute_metrics(part, gold, task) for part in (logits, other))
    assert HEADLINE[task] in found.differences
    for name, difference in found.differences.items():
        assert difference.value == pytest.approx(ours[name] - theirs[name], abs=1e-9)
        assert difference.interval[0] <= difference.value <= difference.interval[1]


@pytest.mark.parametrize("task", TASKS)
def test_the_interval_agrees_with_plain_resampling_of_rows(task: str) -> None:
    logits, other, gold, labels = two_systems(task)
    found = compare(probabilities(logits, task), probabilities(other, task), gold, labels)
    generator, name = np.random.default_rng(3), HEADLINE[task]
    values = []
    for _ in range(300):
        rows = generator.integers(0, len(gold), len(gold))
        ours, theirs = (headline(task, part[rows], gold[rows]) for part in (logits, other))
        values.append(ours - theirs)
    low, high = np.quantile(values, (0.025, 0.975))
    assert found.differences[name].interval == pytest.approx((low, high), abs=0.25 * (high - low))


def test_it_is_narrower_than_two_intervals_of_independent_rows() -> None:
    logits, _, gold, labels = two_systems(SINGLE_LABEL, 2000)
    other = logits.copy()
    other[:20] = other[:20, ::-1]
    difference = compare(probabilities(logits, SINGLE_LABEL), probabilities(other, SINGLE_LABEL), gold, labels)
    low, high = difference.differences["accuracy"].interval
    assert high - low < 0.01


@pytest.mark.parametrize("task", TASKS)
def test_a_system_equals_itself(task: str) -> None:
    logits, _, gold, labels = two_systems(task)
    outputs = probabilities(logits, task)
    found = compare(outputs, outputs, gold, labels)
    assert all(difference.interval == (0, 0) for difference in found.differences.values())
    assert found.mcnemar_p == (None if task == REGRESSION else 1.0)


@pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL])
def test_rows_that_one_system_alone_has_right(task: str) -> None:
    logits, other, gold, labels = two_systems(task)
    found = compare(probabilities(logits, task), probabilities(other, task), gold, labels)
    back = compare(probabilities(other, task), probabilities(logits, task), gold, labels)
    assert (found.only_right, found.other_only_right) == (back.other_only_right, back.only_right)
    assert found.mcnemar_p == back.mcnemar_p
    share = {SINGLE_LABEL: "accuracy", MULTI_LABEL: "subset_accuracy"}[task]
    assert found.only_right - found.other_only_right == round(found.differences[share].value * len(gold))


def test_mcnemar_is_the_exact_binomial_test() -> None:
    # Two-sided binomial probabilities: 2 (C(6,0) + C(6,1)) / 2^6, and all of 10 on one side.
    assert mcnemar_p_value(1, 5) == pytest.approx(14 / 64)
    assert mcnemar_p_value(10, 0) == pytest.approx(2 / 1024)
    assert mcnemar_p_value(0, 0) == 1.0
