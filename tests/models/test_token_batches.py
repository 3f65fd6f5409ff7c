"""Batches of about as many tokens each."""

import itertools

import numpy as np
import pytest

from bertcls_hf.models.token_batches import token_budget_batches


@pytest.mark.parametrize("budget", [1, 7, 64, 10_000])
def test_batches_keep_to_the_budget(budget: int) -> None:
    lengths = np.sort(np.random.default_rng(0).integers(1, 40, 200))[::-1]
    batches = list(token_budget_batches(lengths, budget))
    assert np.concatenate([np.arange(200)[batch] for batch in batches]).tolist() == list(range(200))
    for batch in batches:
        rows = lengths[batch]
        assert len(rows) * rows.max() <= budget or len(rows) == 1
    # Batches are as large as they may be: the next row would not fit.
    for batch, following in itertools.pairwise(batches):
        assert (batch.stop - batch.start + 1) * lengths[batch.start] > budget, following
