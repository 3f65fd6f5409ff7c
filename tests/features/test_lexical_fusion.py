"""The factors of the head and of the lexical features."""

import math

import numpy as np
import pytest

from bertcls_hf.data.labels import MULTI_LABEL, SINGLE_LABEL
from bertcls_hf.features.lexical_fusion import fitted_factors


GENERATOR = np.random.default_rng(0)


def noisy_logits(gold: np.ndarray, labels: int, strength: float) -> np.ndarray:
    right = np.eye(labels)[gold] if gold.ndim == 1 else 2.0 * gold - 1
    return (strength * right + GENERATOR.normal(size=right.shape)).astype(np.float32)


@pytest.mark.parametrize(("task", "gold"), [
    (SINGLE_LABEL, GENERATOR.integers(3, size=3000)),
    (MULTI_LABEL, GENERATOR.integers(2, size=(3000, 3))),
])  # fmt: skip
def test_a_part_counts_as_much_as_it_knows(task: str, gold: np.ndarray) -> None:
    good, poor, noise = (noisy_logits(gold, 3, strength) for strength in (1.5, 0.5, 0.0))
    head_factor, wide_factor = fitted_factors(good, poor, gold, task, None)
    assert head_factor > 2 * wide_factor > 0.2
    assert abs(fitted_factors(good, noise, gold, task, None)[1]) < 0.15
    # Logits twice as large need half the factor.
    assert fitted_factors(2 * good, poor, gold, task, None) == pytest.approx((head_factor / 2, wide_factor), rel=0.02)


def test_class_weights_weigh_the_rows() -> None:
    gold = np.array([0] * 900 + [1] * 100)
    # The head always says 0, and the lexical features say 1.
    head, wide = np.tile([[1.0, 0.0]], (1000, 1)), np.tile([[0.0, 1.0]], (1000, 1))
    plain = fitted_factors(head, wide, gold, SINGLE_LABEL, None)
    weighted = fitted_factors(head, wide, gold, SINGLE_LABEL, [1.0, 9.0])
    assert plain[0] - plain[1] == pytest.approx(np.log(9), abs=0.01)
    assert weighted[0] - weighted[1] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("gold", [np.arange(20) % 2, np.tile([[0, 1], [1, 0]], (10, 1))], ids=["single", "multi"])
def test_a_prior_takes_rows_to_move(gold: np.ndarray) -> None:
    task = SINGLE_LABEL if gold.ndim == 1 else MULTI_LABEL
    right = np.eye(2)[gold] if gold.ndim == 1 else gold
    # The head knows nothing, and the lexical features are right in three rows of four.
    wide = np.where((np.arange(20) % 4 > 0)[:, None], right, 1 - right).astype(float)
    head = np.zeros_like(wide)

    def factors(times: int, deviation: float = math.inf) -> tuple[float, float]:
        rows = [np.tile(array, (times, *[1] * (array.ndim - 1))) for array in (head, wide, gold)]
        return fitted_factors(*rows, task, None, deviation)

    believed = [factors(times, 0.5)[1] for times in (1, 10, 1000)]
    assert 0 < believed[0] < believed[1] < believed[2]
    assert believed[2] == pytest.approx(factors(1000)[1], rel=0.02)
    assert factors(1, 0.001) == pytest.approx((1, 0), abs=0.01)
