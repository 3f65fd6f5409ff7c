"""Confident learning on probabilities of which the answer is known."""

import numpy as np
import pytest

from bertcls_hf.audit.label_errors import find_label_errors
from bertcls_hf.data.labels import MULTI_LABEL, SINGLE_LABEL, LabelSet


SINGLE = LabelSet(SINGLE_LABEL, ("a", "b", "c"))


def logits_of(probabilities: list[list[float]]) -> np.ndarray:
    return np.log(np.array(probabilities))


def test_a_label_that_is_confidently_contradicted_comes_first() -> None:
    sure = [[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]]
    logits = logits_of([*sure, *sure, [0.05, 0.9, 0.05]])
    errors = find_label_errors(logits, np.array([0, 1, 2, 0, 1, 2, 0]), SINGLE)
    assert errors.order[0] == 6
    assert errors.suggested[6] == 1
    assert np.flatnonzero(errors.is_likely_wrong).tolist() == [6]
    assert (errors.given_probability[6], errors.suggested_probability[6]) == pytest.approx((0.05, 0.9))
    # Of the three rows with the first label, one is contradicted.
    assert errors.estimated == pytest.approx(1)


def test_each_label_has_a_threshold_of_its_own() -> None:
    """Models are never sure of b: 0.4 of it is as much as its own rows have, and more than enough."""
    logits = logits_of([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4], [0.6, 0.4]])
    errors = find_label_errors(logits, np.array([0, 0, 1, 1, 0]), LabelSet(SINGLE_LABEL, ("a", "b")))
    assert errors.order[0] == 4
    assert errors.is_likely_wrong[4]
    assert not errors.is_likely_wrong[2:4].any()


def test_a_label_without_rows_is_not_suggested() -> None:
    logits = logits_of([[0.6, 0.3, 0.1], [0.3, 0.6, 0.1], [0.1, 0.1, 0.8]])
    errors = find_label_errors(logits, np.array([0, 1, 0]), SINGLE)
    assert not errors.is_likely_wrong.any()


def test_of_several_labels_the_most_doubtful_answer_counts() -> None:
    gold = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [1, 1]], dtype=np.float32)
    logits = np.array([[4, -4], [4, -4], [-4, 4], [-4, 4], [4, -4]], dtype=float)
    errors = find_label_errors(logits, gold, LabelSet(MULTI_LABEL, ("a", "b")))
    assert errors.order[0] == 4
    assert errors.suggested[4].tolist() == [1, 0]
    assert np.flatnonzero(errors.is_likely_wrong).tolist() == [4]
    # The other rows differ from their suggestion in one answer, too.
    assert (np.abs(errors.suggested - gold).sum(axis=1) == 1).all()


def test_equal_rows_stay_in_the_order_of_the_data() -> None:
    logits = logits_of([[0.8, 0.2]] * 40 + [[0.2, 0.8]] * 40)
    errors = find_label_errors(logits, np.repeat([0, 1], 40), LabelSet(SINGLE_LABEL, ("a", "b")))
    assert errors.order.tolist() == list(range(80))
