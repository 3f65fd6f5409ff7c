"""Reads and tokenizes training data during the training, for data that is too large to load or tokenize beforehand.

The number of rows of a stream is unknown, and a row is checked when it is read. The stream is read again and again,
until `max_steps` ends the training; each process reads the parts of which it takes rows.
"""

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import torch
from datasets import Dataset, Features, List, Value, concatenate_datasets

from bertcls_hf.data.labels import encoded_feature
from bertcls_hf.data.stream_order import StreamOrder, StreamPosition
from bertcls_hf.data.stream_parts import INTERLEAVED_FILES, InterleavedReader, StreamPart
from bertcls_hf.data.text_stream import TextStream
from bertcls_hf.errors import ArgumentsError


# A stream of more files than these is read in as many groups of files, or in more, of at least so many files each.
FILE_GROUPS, FILES_OF_GROUP = 64, 16
# The number of rows that are tokenized at a time where many are read at once.
BATCH_ROWS = 4096


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
    parts = min(INTERLEAVED_FILES, dataset.num_shards)
    shards = [dataset.shard(parts, part, contiguous=False) for part in range(parts)]
    return texts.checked(InterleavedReader(shards, []).read(row_count))


class TokenStream(torch.utils.data.IterableDataset):
    """Reads and tokenizes the rows of a stream without end: those that one process trains on.

    Args:
        texts: the stream of texts and labels.
        tokenize: converts columns of texts and labels to columns of token ids, `length` and `labels`.
    """

    num_rows = None
    column_names: list[str] = []  # A stream is read row by row, and has no column to look up.

    def __init__(self, texts: TextStream, tokenize: Callable[[dict[str, list[Any]]], dict[str, list[Any]]]):
        self.texts, self._tokenize = texts, tokenize
        # Parts are read ahead in a thread each, and two threads cannot use one fast tokenizer at once.
        self._tokenizing = threading.Lock()
        self.order = StreamOrder(0, 1, 1, "sequential", texts.args.shuffle_buffer_size)
        self.rank, self.ranks = 0, 1
        self._start: StreamPosition | None = None
        self._parts: list[StreamPart] = []
        self._taken_rows = 0

    def tokenize(self, columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Converts columns of texts and labels to columns of token ids, `length` and `labels`."""
        with self._tokenizing:
            return self._tokenize(columns)

    @property
    def rank_rows(self) -> int:
        """The number of rows of a step that this process takes."""
        return self.order.step_rows // self.ranks

    @property
    def position(self) -> StreamPosition:
        """The position after the step that ended last, as far as this process reads the stream."""
        parts = {part.number: part.position for part in self._parts}
        return StreamPosition(self.order, self._taken_rows // self.rank_rows, self.ranks, parts)

    def go_to(self, position: StreamPosition) -> None:
        """Makes the next iteration continue from a position, which runs of any number of processes may have saved.

        The iteration yields None for each row before the position. The Trainer skips these rows when it resumes, so
        they need not be read.

        Raises:
            ArgumentsError: the position was saved by a run with another order; the message gives each difference.
        """
        was, now = asdict(position.order), asdict(self.order)
        if changed := [name for name in now if was[name] != now[name]]:
            listed = "; ".join(f"{name} was {was[name]}, is {now[name]}" for name in changed)
            raise ArgumentsError(f"the stream cannot go on where the checkpoint was: {listed}")
        self._start = position

    def __iter__(self) -> Iterator[dict[str, Any] | None]:
        steps, starts = (self._start.steps, self._start.parts) if self._start else (0, {})
        places = self.order.places(self.rank, self.ranks)
        self._parts = [
            StreamPart(self.texts, self.tokenize, self.order, number, taken, steps, starts.get(number))
            for number, taken in places.items()
        ]
        self._taken_rows = steps * self.rank_rows
        yield from itertools.repeat(None, self._taken_rows)
        rows_of_parts = [iter(part) for part in self._parts]
        while True:
            for rows, taken in zip(rows_of_parts, places.values(), strict=True):
                for _ in taken:
                    row = next(rows)
                    self._taken_rows += 1
                    yield row

    @property
    def file_groups(self) -> int:
        """The number of groups of consecutive files, each of which can be read on its own."""
        files = self.texts.source.dataset.num_shards
        return max(min(files, FILE_GROUPS), files // FILES_OF_GROUP)

    def raw_chunks(self, group: int, rows: int) -> Iterator[list[dict[str, Any]]]:
        """Yields all rows of a group of files once, unchecked and in their order, so many at a time.

        Raises:
            DataError: a file cannot be read.
        """
        reader = InterleavedReader([self.texts.source.dataset.shard(self.file_groups, group, contiguous=True)], [])
        while raw_rows := reader.read(rows):
            yield raw_rows

    def dataset(self, raw_rows: Sequence[dict[str, Any]]) -> Dataset | None:
        """Checks and tokenizes rows; returns None if the options drop all of them.

        Raises:
            DataError: a row is refused.
        """
        batches = (raw_rows[start : start + BATCH_ROWS] for start in range(0, len(raw_rows), BATCH_ROWS))
        checked = (columns for columns in map(self.texts.checked, batches) if columns["text"])
        tokenized = [self._as_dataset(self.tokenize(columns)) for columns in checked]
        return concatenate_datasets(tokenized) if tokenized else None

    def _as_dataset(self, columns: dict[str, list[Any]]) -> Dataset:
        token_features = {name: List(Value("int32")) for name in columns}
        known = {"length": Value("int64"), "labels": encoded_feature(self.texts.labels)}
        # Dataset.from_dict would look at each value in Python.
        return Dataset(pa.Table.from_pydict(columns, schema=Features(token_features | known).arrow_schema))
