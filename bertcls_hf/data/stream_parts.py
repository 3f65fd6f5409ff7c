"""One part of a stream, read again and again, of whose rows a process takes those at its places."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from datasets import IterableDataset

from bertcls_hf.data.stream_order import PartPosition, StreamOrder
from bertcls_hf.data.text_stream import TextStream
from bertcls_hf.errors import DataError, RunError, one_line


Item = TypeVar("Item")

# The number of files of a part that are read in turn. Files are often sorted by label, and this mixes the labels in a
# buffer.
INTERLEAVED_FILES = 8


def read_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Yields the items, and computes the next one in a thread while the caller uses the current one."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        upcoming = pool.submit(next, items, None)
        while (item := upcoming.result()) is not None:
            upcoming = pool.submit(next, items, None)
            yield item


@dataclass(frozen=True)
class _Block:
    """A buffer of rows.

    Args:
        position: its start.
        row_count: the number of its rows, of which a process may take a few only.
        tokens: the columns of tokenized rows: token ids, `length` and `labels`.
        taken: the indices in `tokens` of the rows that this process takes, in their order.
    """

    position: PartPosition
    row_count: int
    tokens: dict[str, list[Any]]
    taken: Sequence[int]


class StreamPart:
    """The rows of a part of a stream at a process's places in each step.

    Args:
        texts: the whole stream.
        tokenize: converts columns of texts and labels to columns of token ids, `length` and `labels`.
        order: the order of the stream.
        number: the number of the part.
        places: the places that this process takes, among the rows of the part in a step.
        steps: the number of steps taken before.
        start: a buffer that holds the first row of the next step, or one before it; None for the first buffer.
    """

    def __init__(
        self,
        texts: TextStream,
        tokenize: Callable[[dict[str, list[Any]]], dict[str, list[Any]]],
        order: StreamOrder,
        number: int,
        places: range,
        steps: int = 0,
        start: PartPosition | None = None,
    ):
        self.texts, self.tokenize, self.order = texts, tokenize, order
        self.number, self.places = number, places
        self.first_row = steps * order.part_rows
        self.position = start or PartPosition(0, 0, 0, [])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for block in read_ahead(self._blocks(self.position)):
            for row in block.taken:
                self.position = block.position
                yield {name: values[row] for name, values in block.tokens.items()}

    def _blocks(self, start: PartPosition) -> Iterator[_Block]:
        number, row, states = start.block, start.first_row, start.states
        for passes in itertools.count(start.passes):
            rows_before = row
            reader = InterleavedReader(self._files(passes), states)
            for block_number in itertools.count(number):
                position = PartPosition(passes, block_number, row, reader.states())
                raw_rows = reader.read(self.order.buffer_rows)
                if not raw_rows:
                    break
                block = self._block(position, raw_rows)
                row += block.row_count
                yield block
            if row == rows_before and number == 0:
                raise DataError(f"{self.texts.source.name}: part {self.number + 1} of {self.order.parts} has no rows")
            number, states = 0, []

    def _block(self, position: PartPosition, raw_rows: Sequence[dict[str, Any]]) -> _Block:
        columns = self.texts.checked(raw_rows)
        row_count = len(columns["text"])
        offsets = [
            offset
            for offset, row in enumerate(range(position.first_row, position.first_row + row_count))
            if row >= self.first_row and row % self.order.part_rows in self.places
        ]
        if not offsets:
            return _Block(position, row_count, {}, [])
        where = (self.number, position.passes, position.block)
        if self.order.strategy == "group_by_length":
            tokens = self.tokenize(columns)
            order = self.order.permutation(tokens["length"], *where)
            return _Block(position, row_count, tokens, [order[offset] for offset in offsets])
        order = self.order.permutation(range(row_count), *where)
        taken = {name: [values[order[offset]] for offset in offsets] for name, values in columns.items()}
        return _Block(position, row_count, self.tokenize(taken), range(len(offsets)))

    def _files(self, passes: int) -> list[IterableDataset]:
        dataset, order = self.texts.source.dataset, self.order
        most = 1 if order.strategy == "sequential" else INTERLEAVED_FILES
        groups = min(most, dataset.num_shards // order.parts) * order.parts
        files = [dataset.shard(groups, group, contiguous=False) for group in range(self.number, groups, order.parts)]
        if order.strategy != "sequential":
            for file in files:
                # datasets shuffles the files in every epoch except epoch 0.
                file.set_epoch(order.seed + passes + 1)
        return files


class InterleavedReader:
    """Reads from several parts of a stream in turn.

    Args:
        shards: the parts.
        states: the states that the parts are set to, None for one that has ended; empty to read from the start.
    """

    def __init__(self, shards: Sequence[IterableDataset], states: list[dict[str, Any] | None]):
        self._shards, self._states = shards, states
        self._open = {}
        for number, shard in enumerate(shards):
            if states and states[number] is None:
                continue
            if states:
                shard.load_state_dict(states[number])
            self._open[number] = iter(shard)
        self._started = False

    def states(self) -> list[dict[str, Any] | None]:
        """Returns the state of each part, from which it can continue; None for one that has ended."""
        if not self._started:
            return self._states
        return [shard.state_dict() if number in self._open else None for number, shard in enumerate(self._shards)]

    def read(self, row_count: int) -> list[dict[str, Any]]:
        """Reads the next rows, about the same number from each part; returns fewer only if all parts have ended.

        Raises:
            DataError: a file cannot be read.
        """
        self._started = True
        rows: list[dict[str, Any]] = []
        try:
            while self._open and len(rows) < row_count:
                rows_per_part = -(-(row_count - len(rows)) // len(self._open))
                for number, shard in list(self._open.items()):
                    wanted = min(rows_per_part, row_count - len(rows))
                    part_rows = list(itertools.islice(shard, wanted))
                    rows += part_rows
                    if len(part_rows) < wanted:
                        del self._open[number]
        except RunError:
            raise
        except Exception as error:  # Each file format and file system raises exceptions of its own.
            raise DataError(f"the stream cannot be read on: {type(error).__name__}: {one_line(error)}") from error
        return rows
