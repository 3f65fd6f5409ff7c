"""Reads and tokenizes training data during the training, for data that is too large to load or tokenize beforehand.

The number of rows of a stream is unknown, and a row is checked when it is read. Each process reads its own share of
the files, again and again, until `max_steps` ends the training.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch
from datasets import Dataset, Features, IterableDataset, List, Value
from datasets.distributed import split_dataset_by_node

from bertcls_hf.data.labels import encoded_feature
from bertcls_hf.data.stream_order import StreamOrder, StreamPosition
from bertcls_hf.data.text_stream import TextStream
from bertcls_hf.errors import ArgumentsError, DataError, RunError, one_line


Item = TypeVar("Item")

# The number of files that are read in turn. Files are often sorted by label, and this mixes the labels in a buffer.
INTERLEAVED_SHARDS = 8


@dataclass(frozen=True)
class _Block:
    """A buffer of tokenized rows.

    Args:
        number: the number of the buffer within the pass.
        states: the state of each interleaved part before the buffer was filled.
        tokens: the columns of the rows: token ids, `length` and `labels`.
        order: the indices of the rows in the order in which they are taken.
    """

    number: int
    states: list[dict[str, Any]]
    tokens: dict[str, list[Any]]
    order: list[int]


def read_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Yields the items, and computes the next one in a thread while the caller uses the current one."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        upcoming = pool.submit(next, items, None)
        while (item := upcoming.result()) is not None:
            upcoming = pool.submit(next, items, None)
            yield item


def sample_rows(texts: TextStream, row_count: int) -> dict[str, list[Any]]:
    """Reads and checks the first rows of several parts of a stream, since the first file may hold one label alone.

    Args:
        texts: the stream.
        row_count: the number of rows to read, of which the options may drop some.

    Returns:
        See [`TextStream.checked`].

    Raises:
        DataError: a file cannot be read, or a row is refused.
    """
    dataset = texts.source.dataset
    parts = min(INTERLEAVED_SHARDS, dataset.num_shards)
    shards = [dataset.shard(parts, part, contiguous=False) for part in range(parts)]
    return texts.checked(_InterleavedReader(shards, []).read(row_count))


class TokenStream(torch.utils.data.IterableDataset):
    """Reads and tokenizes the rows of a stream without end, one buffer at a time.

    Args:
        texts: the stream of texts and labels.
        tokenize: converts columns of texts and labels to columns of token ids, `length` and `labels`.
    """

    num_rows = None
    column_names: list[str] = []  # A stream is read row by row, and has no column to look up.

    def __init__(self, texts: TextStream, tokenize: Callable[[dict[str, list[Any]]], dict[str, list[Any]]]):
        self.texts, self.tokenize = texts, tokenize
        self.order = StreamOrder(0, 0, 1, 1, "sequential", texts.args.shuffle_buffer_size)
        self._position: StreamPosition | None = None

    @property
    def position(self) -> StreamPosition:
        """The position after the row that was taken last."""
        return self._position or StreamPosition(self.order, 0, 0, 0, 0, [])

    def go_to(self, position: StreamPosition) -> None:
        """Makes the next iteration continue from a position.

        The iteration yields None for each row before the position. The Trainer skips these rows when it resumes, so
        they need not be read.

        Raises:
            ArgumentsError: the position was saved by a run with another order; the message gives each difference.
        """
        changed = [name for name, value in asdict(self.order).items() if asdict(position.order)[name] != value]
        if changed:
            was, now = asdict(position.order), asdict(self.order)
            listed = "; ".join(f"{name} was {was[name]}, is {now[name]}" for name in changed)
            raise ArgumentsError(f"the stream cannot go on where the checkpoint was: {listed}")
        self._position = position

    def __iter__(self) -> Iterator[dict[str, Any] | None]:
        start = self.position
        yield from itertools.repeat(None, start.rows)
        for passes in itertools.count(start.passes):
            rows_before = self.position.rows
            yield from self._one_pass(passes, start if passes == start.passes else None)
            is_whole_pass = passes > start.passes or start.rows == 0
            if is_whole_pass and self.position.rows == rows_before:
                raise DataError(f"{self.texts.source.name}: no rows for process {self.order.rank}")

    def _one_pass(self, passes: int, start: StreamPosition | None) -> Iterator[dict[str, Any]]:
        first_block, skipped_rows, states = (start.block, start.offset, start.shards) if start else (0, 0, [])
        shards = self._shards(passes)
        for shard, state in zip(shards, states, strict=False):
            shard.load_state_dict(state)
        for block in read_ahead(self._blocks(shards, states, passes, first_block)):
            for offset, row in enumerate(block.order[skipped_rows:], start=skipped_rows + 1):
                rows = self.position.rows + 1
                self._position = StreamPosition(self.order, rows, passes, block.number, offset, block.states)
                yield {name: values[row] for name, values in block.tokens.items()}
            skipped_rows = 0

    def _blocks(
        self, shards: list[IterableDataset], states: list[dict[str, Any]], passes: int, first_block: int
    ) -> Iterator["_Block"]:
        reader = _InterleavedReader(shards, states)
        for number in itertools.count(first_block):
            states = reader.states()
            rows = reader.read(self.order.buffer_rows)
            if not rows:
                return
            tokens = self.encode(rows)
            yield _Block(number, states, tokens, self.order.permutation(tokens["length"], passes, number))

    def _shards(self, passes: int) -> list[IterableDataset]:
        """Returns the parts of the stream that this process reads.

        They are files that no other process reads or, if there are fewer files than processes, every n-th row.
        """
        dataset, order = self.texts.source.dataset, self.order
        if dataset.num_shards < order.ranks:
            shards = [split_dataset_by_node(dataset, order.rank, order.ranks, strategy="examples")]
        else:
            most_parts = 1 if order.strategy == "sequential" else INTERLEAVED_SHARDS
            parts = min(most_parts, dataset.num_shards // order.ranks) * order.ranks
            shards = [dataset.shard(parts, part, contiguous=False) for part in range(order.rank, parts, order.ranks)]
        if order.strategy != "sequential":
            for shard in shards:
                # datasets shuffles the files in every epoch except epoch 0.
                shard.set_epoch(order.seed + passes + 1)
        return shards

    def encode(self, rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
        """Checks and tokenizes rows; returns the columns of those that are kept: token ids, `length` and `labels`."""
        columns = self.texts.checked(rows)
        return self.tokenize(columns) if columns["text"] else {"length": []}

    def chunks(self, rows: int) -> Iterator[Dataset]:
        """Yields all rows once, tokenized and in the order of the files, as datasets.

        Args:
            rows: the number of rows that are read for each dataset; it has fewer if the options drop some.

        Raises:
            DataError: a row is refused, or the options drop every row.
        """
        ids_type = List(Value("int32"))
        label_type = encoded_feature(self.texts.labels)
        is_empty = True
        reader = _InterleavedReader([self.texts.source.dataset], [])
        while raw_rows := reader.read(rows):
            columns = self.encode(raw_rows)
            if columns["length"]:
                is_empty = False
                features = {name: ids_type for name in columns} | {"length": Value("int64"), "labels": label_type}
                yield Dataset.from_dict(columns, features=Features(features))
        if is_empty:
            raise DataError(f"{self.texts.source.name}: no row is left after those that the options drop")


class _InterleavedReader:
    """Reads from several parts of a stream in turn.

    Args:
        shards: the parts.
        states: the states that the parts were set to, or an empty list.
    """

    def __init__(self, shards: Sequence[IterableDataset], states: list[dict[str, Any]]):
        self._shards, self._states = shards, states
        self._open = {number: iter(shard) for number, shard in enumerate(shards)}
        self._started = False

    def states(self) -> list[dict[str, Any]]:
        """Returns the state of each part, from which it can continue."""
        return [shard.state_dict() for shard in self._shards] if self._started else self._states

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
