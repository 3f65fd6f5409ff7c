"""In which order rows are read: by seed and epoch in training, from long to short in evaluation."""

from collections.abc import Iterator, Sized
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import BatchSampler, Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from bertcls_hf.data.tokenization import token_lengths


class EpochSampler(Sampler[int]):
    """Rows in an order that depends on the seed and the epoch alone.

    Upstream's samplers draw from the global generator, so that the order of a resumed epoch is another one.

    Args:
        rows: number of rows.
        seed: of all epochs.
        lengths: tokens of each row; given, rows of like length come together.
        batch_size: rows of an optimizer step, within which lengths are alike.
    """

    def __init__(self, rows: int, seed: int, lengths: list[int] | None = None, batch_size: int = 1):
        self.rows, self.seed, self.lengths, self.batch_size = rows, seed, lengths, batch_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader at the start of each epoch."""
        self.epoch = epoch

    def order(self, epoch: int) -> list[int]:
        """All rows in the order of an epoch."""
        generator = torch.Generator().manual_seed(self.seed + epoch)
        if self.lengths is None:
            return torch.randperm(self.rows, generator=generator).tolist()
        return get_length_grouped_indices(self.lengths, self.batch_size, generator=generator)

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[int]:
        return iter(self.order(self.epoch))


class RankBatches(BatchSampler):
    """Batches that ranks take in turn, of which those of an epoch's last step share its rows evenly.

    Upstream fills up the last ranks' batches with rows of the epoch's start, so that an epoch counts these twice. Here
    47 rows in batches of 3 for 2 ranks end with one batch of 3 and one of 2; only a step with fewer rows than ranks
    repeats some.

    Args:
        sampler: all rows in their order.
        batch_size: most rows of a rank's batch.
        ranks: the number of processes.
    """

    def __init__(self, sampler: Any, batch_size: int, ranks: int):
        super().__init__(sampler, batch_size, drop_last=False)
        self.ranks = ranks

    def set_epoch(self, epoch: int) -> None:
        """Passes the epoch on."""
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return -(-len(cast(Sized, self.sampler)) // (self.batch_size * self.ranks)) * self.ranks

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self.sampler)
        for start in range(0, len(order), self.batch_size * self.ranks):
            rows = order[start : start + self.batch_size * self.ranks]
            rows = rows if len(rows) >= self.ranks else list(np.resize(rows, self.ranks))
            yield from (part.tolist() for part in np.array_split(rows, self.ranks))


def longest_first(dataset: Any) -> np.ndarray | None:
    """Row numbers from the longest text to the shortest, or None for a dataset that does not know the lengths."""
    lengths = token_lengths(dataset)
    return None if lengths is None else np.argsort(-lengths, kind="stable")
