"""The order in which rows are read: random by seed and epoch in training, longest text first in evaluation."""

import itertools
from collections.abc import Iterator, Sized
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import BatchSampler, Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from bertcls_hf.data.tokenization import token_lengths


# Up to so many rows are shuffled at once, which takes 44 bytes of memory for each. More are taken in blocks of
# neighbouring rows: the blocks come in random order, and the rows of so many blocks are shuffled together.
SHUFFLED_ROWS = 2**20
BLOCKS_AT_ONCE = 16


class EpochSampler(Sampler[int]):
    """Yields all rows in a random order that depends only on the seed and the epoch.

    The Trainer's samplers draw from the global random generator, so a resumed epoch would get another order. They also
    hold the whole order in memory.

    Args:
        rows: the number of rows.
        seed: the seed of the order; the epoch number is added to it.
        lengths: the number of tokens of each row. If given, rows of similar length are put together.
        batch_size: the number of rows of an optimizer step, in which lengths are to be similar.
    """

    def __init__(self, rows: int, seed: int, lengths: list[int] | None = None, batch_size: int = 1):
        self.rows, self.seed, self.lengths, self.batch_size = rows, seed, lengths, batch_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, which the data loader does at the start of each epoch."""
        self.epoch = epoch

    def order(self, epoch: int) -> Iterator[int]:
        """Yields the numbers of all rows in the order of an epoch."""
        generator = torch.Generator().manual_seed(self.seed + epoch)
        if self.lengths is not None:
            yield from get_length_grouped_indices(self.lengths, self.batch_size, generator=generator)
        elif self.rows <= SHUFFLED_ROWS:
            yield from torch.randperm(self.rows, generator=generator).tolist()
        else:
            size = SHUFFLED_ROWS // BLOCKS_AT_ONCE
            for chosen in torch.randperm(-(-self.rows // size), generator=generator).split(BLOCKS_AT_ONCE):
                blocks = [torch.arange(size * block, min(size * (block + 1), self.rows)) for block in chosen.tolist()]
                rows = torch.cat(blocks)
                yield from rows[torch.randperm(len(rows), generator=generator)].tolist()

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[int]:
        return self.order(self.epoch)


class RankBatches(BatchSampler):
    """Yields batches that the ranks take in turn, and divides the rows of an epoch's last step evenly among the ranks.

    Upstream fills the last batches with rows from the start of the epoch, and so trains on these rows twice. Here, 47
    rows in batches of 3 for 2 ranks end with one batch of 3 rows and one of 2. Rows are repeated only if the last step
    has fewer rows than there are ranks.

    Args:
        sampler: yields all row numbers in their order.
        batch_size: the largest number of rows in a batch of one rank.
        ranks: the number of processes.
    """

    def __init__(self, sampler: Any, batch_size: int, ranks: int):
        super().__init__(sampler, batch_size, drop_last=False)
        self.ranks = ranks

    def set_epoch(self, epoch: int) -> None:
        """Passes the epoch on to the sampler."""
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return -(-len(cast(Sized, self.sampler)) // (self.batch_size * self.ranks)) * self.ranks

    def __iter__(self) -> Iterator[list[int]]:
        order = iter(self.sampler)
        while rows := list(itertools.islice(order, self.batch_size * self.ranks)):
            rows = rows if len(rows) >= self.ranks else list(np.resize(rows, self.ranks))
            yield from (part.tolist() for part in np.array_split(rows, self.ranks))


def longest_first(dataset: Any) -> np.ndarray | None:
    """Returns the row numbers from the longest text to the shortest, or None if the dataset has no text lengths."""
    lengths = token_lengths(dataset)
    return None if lengths is None else np.argsort(-lengths, kind="stable")
