"""Token ids of training data that is read while it is used, since it is too large to load or to prepare.

A stream has no number of rows, and a row is checked when it is read. Each process reads its own share of the files,
again and again, until `max_steps` ends the training.
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

# Files that are read in turn, so that a buffer holds rows of several: files are often sorted by label.
INTERLEAVED_SHARDS = 8


@dataclass(frozen=True)
class _Block:
    """A buffer of tokenized rows, the order in which they are taken, and the states before it was filled."""

    number: int
    states: list[dict[str, Any]]
    tokens: dict[str, list[Any]]
    order: list[int]


def read_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, of which the next one is made in a thread of its own while one is used."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        upcoming = pool.submit(next, items, None)
        while (item := upcoming.result()) is not None:
            upcoming = pool.submit(next, items, None)
            yield item


class TokenStream(torch.utils.data.IterableDataset):
    """Tokenized rows without end, a buffer of them at a time; their number is not known.

    Args:
        texts: the checked rows.
        tokenize: from columns of texts and labels to columns of token ids, `length` and `labels`.
    """

    num_rows = None
    column_names: list[str] = []  # Rows come one after the other: no column can be looked up.

    def __init__(self, texts: TextStream, tokenize: Callable[[dict[str, list[Any]]], dict[str, list[Any]]]):
        self.texts, self.tokenize = texts, tokenize
        self.order = StreamOrder(0, 0, 1, 1, "sequential", texts.args.shuffle_buffer_size)
        self._position: StreamPosition | None = None

    @property
    def position(self) -> StreamPosition:
        """Behind the row that was taken last."""
        return self._position or StreamPosition(self.order, 0, 0, 0, 0, [])

    def go_to(self, position: StreamPosition) -> None:
        """Starts the next iteration at a position; the rows before it come as None, which cost nothing.

        Raises:
            ArgumentsError: the position is that of another order.
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
            taken = self.position.rows
            yield from self._one_pass(passes, start if passes == start.passes else None)
            is_whole = passes > start.passes or start.rows == 0
            if is_whole and self.position.rows == taken:
                raise DataError(f"{self.texts.source.name}: no rows for process {self.order.rank}")

    def _one_pass(self, passes: int, start: StreamPosition | None) -> Iterator[dict[str, Any]]:
        first, skipped, states = (start.block, start.offset, start.shards) if start else (0, 0, [])
        shards = self._shards(passes)
        for shard, state in zip(shards, states, strict=False):
            shard.load_state_dict(state)
        for block in read_ahead(self._blocks(shards, states, passes, first)):
            for offset, row in enumerate(block.order[skipped:], start=skipped + 1):
                rows = self.position.rows + 1
                self._position = StreamPosition(self.order, rows, passes, block.number, offset, block.states)
                yield {name: values[row] for name, values in block.tokens.items()}
            skipped = 0

    def _blocks(
        self, shards: list[IterableDataset], states: list[dict[str, Any]], passes: int, first: int
    ) -> Iterator["_Block"]:
        reader = _InterleavedReader(shards, states)
        for number in itertools.count(first):
            states = reader.states()
            rows = reader.read(self.order.buffer_rows)
            if not rows:
                return
            tokens = self.encode(rows)
            yield _Block(number, states, tokens, self.order.permutation(tokens["length"], passes, number))

    def _shards(self, passes: int) -> list[IterableDataset]:
        """This process's share: files of its own, or where these are too few, every n-th row."""
        dataset, order = self.texts.source.dataset, self.order
        if dataset.num_shards < order.ranks:
            shards = [split_dataset_by_node(dataset, order.rank, order.ranks, strategy="examples")]
        else:
            most = 1 if order.strategy == "sequential" else INTERLEAVED_SHARDS
            parts = min(most, dataset.num_shards // order.ranks) * order.ranks
            shards = [dataset.shard(parts, part, contiguous=False) for part in range(order.rank, parts, order.ranks)]
        if order.strategy != "sequential":
            for shard in shards:
                # datasets shuffles the files of every epoch but the first.
                shard.set_epoch(order.seed + passes + 1)
        return shards

    def encode(self, rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
        """Columns of token ids, `length` and `labels` of the rows that are kept."""
        columns = self.texts.checked(rows)
        return self.tokenize(columns) if columns["text"] else {"length": []}

    def chunks(self, rows: int) -> Iterator[Dataset]:
        """Every row once, in the order of the files, tokenized, in datasets of up to this many rows."""
        ids = List(Value("int32"))
        label = encoded_feature(self.texts.labels)
        is_empty = True
        reader = _InterleavedReader([self.texts.source.dataset], [])
        while raw := reader.read(rows):
            columns = self.encode(raw)
            if columns["length"]:
                is_empty = False
                features = {name: ids for name in columns} | {"length": Value("int64"), "labels": label}
                yield Dataset.from_dict(columns, features=Features(features))
        if is_empty:
            raise DataError(f"{self.texts.source.name}: no row is left after those that the options drop")


class _InterleavedReader:
    """Reads from several parts of a stream in turn.

    Args:
        shards: the parts.
        states: the states that they were loaded with, if any.
    """

    def __init__(self, shards: Sequence[IterableDataset], states: list[dict[str, Any]]):
        self._shards, self._states = shards, states
        self._open = {number: iter(shard) for number, shard in enumerate(shards)}
        self._started = False

    def states(self) -> list[dict[str, Any]]:
        """Where each part stands."""
        return [shard.state_dict() for shard in self._shards] if self._started else self._states

    def read(self, rows: int) -> list[dict[str, Any]]:
        """The next rows, an equal number from each part that has not ended; fewer only at the end of all.

        Raises:
            DataError: a file cannot be read.
        """
        self._started = True
        taken: list[dict[str, Any]] = []
        try:
            while self._open and len(taken) < rows:
                share = -(-(rows - len(taken)) // len(self._open))
                for number, shard in list(self._open.items()):
                    wanted = min(share, rows - len(taken))
                    part = list(itertools.islice(shard, wanted))
                    taken += part
                    if len(part) < wanted:
                        del self._open[number]
        except RunError:
            raise
        except Exception as error:  # each file format and file system raises its own kinds
            raise DataError(f"the stream cannot be read on: {type(error).__name__}: {one_line(error)}") from error
        return taken
