"""The order in which the rows of a stream are trained on, and the position in it at a checkpoint."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.trainer_pt_utils import get_length_grouped_indices

from bertcls_hf.atomic_files import read_json


POSITION_FILE = "stream_position{}.json"
# A step takes at least as many rows of a part, so that a batch of texts of like length is of one part.
LEAST_ROWS_OF_PART = 32


@dataclass(frozen=True)
class StreamOrder:
    """Determines which rows of a stream a step trains on. It is the same for any number of processes.

    A stream is divided into parts, each of which is a group of files and is read again and again. Every step takes the
    same number of rows of each part, and the processes divide the rows of a step, part by part.

    Args:
        seed: the seed of the order of files and rows.
        step_rows: the number of rows of an optimizer step, of all processes together.
        parts: the number of parts, which divides `step_rows`.
        strategy: the value of `--train_sampling_strategy`.
        buffer_rows: the number of rows of a part that are read ahead, and within which the order is random. With
            `group_by_length`, the rows of a part in a step have similar lengths.
    """

    seed: int
    step_rows: int
    parts: int
    strategy: str
    buffer_rows: int

    @property
    def part_rows(self) -> int:
        """The number of rows of a part in a step."""
        return self.step_rows // self.parts

    def places(self, rank: int, ranks: int) -> dict[int, range]:
        """Returns the rows of a step that a process takes: for each part that it reads, places among `part_rows`."""
        first, last = rank * self.step_rows // ranks, (rank + 1) * self.step_rows // ranks - 1
        size = self.part_rows
        return {
            part: range(max(first - part * size, 0), min(last - part * size + 1, size))
            for part in range(first // size, last // size + 1)
        }

    def permutation(self, lengths: Sequence[int], part: int, passes: int, block: int) -> list[int]:
        """Returns the order in which the rows of a buffer are taken. The same arguments always give the same order.

        Args:
            lengths: the number of tokens of each row of the buffer; with `random`, their values do not matter.
            part: the number of the part.
            passes: the number of complete passes over the part before this one.
            block: the number of the buffer within the pass.

        Returns:
            The indices of the rows.
        """
        if self.strategy == "sequential" or not lengths:
            return list(range(len(lengths)))
        block_seed = np.random.SeedSequence((self.seed, part, passes, block)).generate_state(1)[0]
        generator = torch.Generator().manual_seed(int(block_seed))
        if self.strategy == "group_by_length":
            return get_length_grouped_indices(list(lengths), self.part_rows, generator=generator)
        return torch.randperm(len(lengths), generator=generator).tolist()


def stream_parts(files: int, step_rows: int, strategy: str) -> int:
    """Chooses the number of parts of a stream, from what does not depend on the number of processes.

    Args:
        files: the number of files, or of row groups, that can be read on their own.
        step_rows: the number of rows of an optimizer step, of all processes together.
        strategy: the value of `--train_sampling_strategy`; `sequential` keeps the order of the files, in one part.
    """
    most = 1 if strategy == "sequential" else max(min(files, step_rows // LEAST_ROWS_OF_PART), 1)
    return next(parts for parts in range(most, 0, -1) if step_rows % parts == 0)


@dataclass(frozen=True)
class PartPosition:
    """The start of a buffer in a part of a stream.

    Args:
        passes: the number of times that the part was read to its end.
        block: the number of the buffer within the pass.
        first_row: the number of rows of the part, of all passes, that came before the buffer.
        states: the state of each interleaved reader before the buffer was filled, None for one that had ended; empty
            for the first buffer of a pass.
    """

    passes: int
    block: int
    first_row: int
    states: list[dict[str, Any] | None]


@dataclass(frozen=True)
class StreamPosition:
    """The position in a stream after a step, from which any number of processes can continue.

    Args:
        order: the order of the run that saved the position.
        steps: the number of steps taken.
        ranks: the number of processes that took them.
        parts: for each part, a buffer that holds the last row that was taken, or one before it.
    """

    order: StreamOrder
    steps: int
    ranks: int
    parts: dict[int, PartPosition]

    @property
    def is_whole(self) -> bool:
        """Whether it is known for every part."""
        return len(self.parts) == self.order.parts

    def write(self, folder: Path, rank: int) -> None:
        """Writes what a process knows of the position into the folder of a checkpoint."""
        position_path(folder, rank, self.ranks).write_text(json.dumps(asdict(self)) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "StreamPosition":
        """Reads the position from the files that all processes wrote into the folder of a checkpoint.

        Raises:
            OSError: a file is missing.
            ValueError: a file is damaged.
        """
        paths = sorted(folder.glob(POSITION_FILE.format("*")), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        if not paths:
            raise FileNotFoundError(f"no {POSITION_FILE.format('')}")
        ranks = cls._of(paths[0]).ranks
        ours = [cls._of(position_path(folder, rank, ranks)) for rank in range(ranks)]
        parts = {number: part for position in ours for number, part in position.parts.items()}
        return cls(ours[0].order, ours[0].steps, ranks, parts)

    @classmethod
    def _of(cls, path: Path) -> "StreamPosition":
        try:
            content = read_json(path)
            parts = {int(number): PartPosition(**part) for number, part in content["parts"].items()}
            return cls(StreamOrder(**content["order"]), content["steps"], content["ranks"], parts)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path.name} is of another version") from error


def position_path(folder: Path, rank: int, ranks: int) -> Path:
    """Returns the path of the position of one process, named like the Trainer's files of random states."""
    return folder / POSITION_FILE.format(f"_{rank}" if ranks > 1 else "")
