"""Uncertainty, k-center and doubts, on arrays."""

import numpy as np
import pytest

from bertcls_hf.data.labels import MULTI_LABEL, SINGLE_LABEL
from bertcls_hf.labelling.strategies import doubts, highest, k_center, uncertainty


def test_single_labels_are_uncertain_by_their_margin() -> None:
    outputs = np.array([[0.5, 0.5, 0.0], [0.4, 0.3, 0.3], [0.0, 1.0, 0.0]])
    assert uncertainty(outputs, SINGLE_LABEL) == pytest.approx([1, 0.9, 0])


def test_several_labels_are_uncertain_by_their_entropies() -> None:
    outputs = np.array([[0.5, 0.5], [0.5, 1.0], [0.0, 1.0]])
    assert uncertainty(outputs, MULTI_LABEL) == pytest.approx([2 * np.log(2), np.log(2), 0])


@pytest.mark.parametrize("number", [1, 2, 3, 5, 9])
def test_the_highest_come_first_and_earlier_rows_win_ties(number: int) -> None:
    values = np.array([1, 3, 2, 3, 2], dtype=np.float32)
    assert highest(values, number).tolist() == [1, 3, 2, 4, 0][:number]


def test_k_center_takes_the_farthest_each_time() -> None:
    points = np.array([[0], [1], [10], [11], [-6]], dtype=np.float32)
    # 11 is 11 away from the center, -6 is 6 away; then 1 is as far from 0 as 10 is from 11.
    assert k_center(points, np.zeros((1, 1), np.float32), 3).tolist() == [3, 4, 1]


def test_k_center_without_centers_starts_in_the_middle() -> None:
    points = np.array([[0], [5], [10], [9]], dtype=np.float32)
    assert k_center(points, np.zeros((0, 1), np.float32), 2).tolist() == [1, 0]


def test_k_center_takes_no_point_twice() -> None:
    points = np.ones((3, 2), dtype=np.float32)
    assert sorted(k_center(points, points[:1], 7)) == [0, 1, 2]
    assert k_center(points[:0], points, 2).tolist() == []


def test_k_center_looks_at_all_centers() -> None:
    generator = np.random.default_rng(0)
    points, centers = (generator.normal(size=(rows, 4)).astype(np.float32) for rows in (50, 1100))
    distances = ((points[:, None] - centers) ** 2).sum(-1).min(1)
    assert k_center(points, centers, 1).tolist() == [distances.argmax()]


def test_a_label_is_doubted_where_another_is_more_probable() -> None:
    outputs = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]])
    assert doubts(outputs, np.array([0, 1]), SINGLE_LABEL) == pytest.approx([-0.5, 0.5])
    several = np.array([[0.9, 0.2], [0.9, 0.2]])
    assert doubts(several, np.array([[1, 0], [1, 1]]), MULTI_LABEL) == pytest.approx([-0.6, 0.6])
