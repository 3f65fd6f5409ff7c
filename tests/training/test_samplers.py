"""The batches of ranks: each row once in an epoch, as evenly divided as its last step allows."""

import pytest

from bertcls_hf.training.samplers import EpochSampler, RankBatches


@pytest.mark.parametrize(
    ("rows", "size", "ranks", "sizes"),
    [
        (47, 3, 2, [3] * 14 + [3, 2]),
        (48, 3, 2, [3] * 16),
        (47, 4, 3, [4] * 9 + [4, 4, 3]),
        (37, 4, 3, [4] * 9 + [1, 1, 1]),
        (7, 4, 1, [4, 3]),
        (6, 8, 2, [3, 3]),
    ],
)
def test_each_row_comes_once_and_evenly(rows: int, size: int, ranks: int, sizes: list[int]) -> None:
    batches = RankBatches(range(rows), size, ranks)
    found = list(batches)
    repeated = sum(sizes) - rows
    assert [row for batch in found for row in batch][:rows] == list(range(rows))
    assert repeated in (0, 2)
    assert [len(batch) for batch in found] == sizes
    assert len(batches) == len(found)
    assert not batches.drop_last


def test_rows_are_repeated_where_the_last_step_has_fewer_than_ranks() -> None:
    assert list(RankBatches(range(13), 4, 3)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12], [12], [12]]


def test_an_epoch_is_that_of_the_sampler() -> None:
    sampler = EpochSampler(20, seed=3)
    batches, plain = RankBatches(sampler, 4, 2), RankBatches(range(4), 2, 1)
    orders = []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        plain.set_epoch(epoch)
        orders.append(list(batches))
    assert orders[0] == orders[2] != orders[1]
