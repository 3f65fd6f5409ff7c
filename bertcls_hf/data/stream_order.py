"""The order in which a process reads its rows of a stream, and its position in the stream at a checkpoint."""

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
    """Determines which rows of a stream a process reads, and in which order.

    Args:
        seed: the seed of the order of files and rows.
        rank: the number of this process, from 0.
        ranks: the number of processes.
        step_rows: the number of rows of this process per optimizer step. With `group_by_length`, the rows of a step
            have similar lengths.
        strategy: the value of `--train_sampling_strategy`.
        buffer_rows: the number of rows in the buffer that is read ahead, and within which the order is random.
    """

    seed: int
    rank: int
    ranks: int
    step_rows: int
    strategy: str
    buffer_rows: int

    def permutation(self, lengths: list[int], passes: int, block: int) -> list[int]:
        """Returns the order in which the rows of a buffer are taken. The same arguments always give the same order.

        Args:
            lengths: the number of tokens of each row of the buffer.
            passes: the number of complete passes before this one.
            block: the number of the buffer within the pass.

        Returns:
            The indices of the rows.
        """
        if self.strategy == "sequential" or not lengths:
            return list(range(len(lengths)))
        block_seed = np.random.SeedSequence((self.seed, self.rank, passes, block)).generate_state(1)[0]
        generator = torch.Generator().manual_seed(int(block_seed))
        if self.strategy == "group_by_length":
            return get_length_grouped_indices(lengths, self.step_rows, generator=generator)
        return torch.randperm(len(lengths), generator=generator).tolist()


@dataclass(frozen=True)
class StreamPosition:
    """The position of a process in its share of a stream, from which another run can continue.

    Args:
        order: the order of the run that saved the position.
        rows: the number of rows taken since the start of the training.
        passes: the number of times that the share was read to its end.
        block: the number of the buffer within the pass.
        offset: the number of rows taken from that buffer.
        shards: the state of each interleaved part before that buffer was filled; empty for the first buffer of a pass.
    """

    order: StreamOrder
    rows: int
    passes: int
    block: int
    offset: int
    shards: list[dict[str, Any]]

    def write(self, folder: Path) -> None:
        """Writes the position into the folder of a checkpoint."""
        position_path(folder, self.order.rank, self.order.ranks).write_text(json.dumps(asdict(self)) + "\n")

    @classmethod
    def read(cls, folder: Path, rank: int, ranks: int) -> "StreamPosition":
        """Reads the position of a process from the folder of a checkpoint."""
        content = json.loads(position_path(folder, rank, ranks).read_text())
        return cls(**{**content, "order": StreamOrder(**content["order"])})


def position_path(folder: Path, rank: int, ranks: int) -> Path:
    """Returns the path of the position of one process, named like the Trainer's files of random states."""
    return folder / POSITION_FILE.format(f"_{rank}" if ranks > 1 else "")
