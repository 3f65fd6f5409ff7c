"""Which rows of a stream a process reads, in which order, and where it stands when a checkpoint is saved."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.trainer_pt_utils import get_length_grouped_indices


POSITION_FILE = "stream_position{}.json"


@dataclass(frozen=True)
class StreamOrder:
    """Which rows of a stream a process reads, and in what order.

    Args:
        seed: of the order of files and rows.
        rank: number of this process.
        ranks: number of processes.
        step_rows: rows of this process in an optimizer step, within which lengths are alike.
        strategy: as in `--train_sampling_strategy`.
        buffer_rows: rows that are read ahead, and within which the order is random.
    """

    seed: int
    rank: int
    ranks: int
    step_rows: int
    strategy: str
    buffer_rows: int

    def permutation(self, lengths: list[int], passes: int, block: int) -> list[int]:
        """The order of a block of rows with these lengths; the same whenever it is read."""
        if self.strategy == "sequential" or not lengths:
            return list(range(len(lengths)))
        mixed = np.random.SeedSequence((self.seed, self.rank, passes, block)).generate_state(1)[0]
        generator = torch.Generator().manual_seed(int(mixed))
        if self.strategy == "group_by_length":
            return get_length_grouped_indices(lengths, self.step_rows, generator=generator)
        return torch.randperm(len(lengths), generator=generator).tolist()


@dataclass(frozen=True)
class StreamPosition:
    """Where a process is in its share of a stream, from which another run goes on.

    Args:
        order: of the run that was there.
        rows: rows taken since the start.
        passes: times that the share was read to its end.
        block: number of the buffer within the pass.
        offset: rows taken from that buffer.
        shards: per interleaved part, its state before that buffer was filled; empty at the start of a pass.
    """

    order: StreamOrder
    rows: int
    passes: int
    block: int
    offset: int
    shards: list[dict[str, Any]]

    def write(self, folder: Path) -> None:
        """Adds the position to a checkpoint."""
        position_path(folder, self.order.rank, self.order.ranks).write_text(json.dumps(asdict(self)) + "\n")

    @classmethod
    def read(cls, folder: Path, rank: int, ranks: int) -> "StreamPosition":
        """The position that a checkpoint holds."""
        content = json.loads(position_path(folder, rank, ranks).read_text())
        return cls(**{**content, "order": StreamOrder(**content["order"])})


def position_path(folder: Path, rank: int, ranks: int) -> Path:
    """The file of one process, named as the Trainer names the states of random generators."""
    return folder / POSITION_FILE.format(f"_{rank}" if ranks > 1 else "")
