"""The reader of parquet files, and the streaming of several parquet files."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, IterableDataset, load_dataset
from datasets.exceptions import DatasetGenerationError
from pyarrow.parquet import ParquetFile, read_metadata

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.columns import Columns, resolve_columns
from bertcls_hf.data.standard_columns import standardise, standardise_stream
from bertcls_hf.data.table_reader import TableReader
from bertcls_hf.data.text_stream import RawStream
from bertcls_hf.errors import DataError, one_line


BATCH_ROWS = 1024
# The rows from which a message about a missing column takes its examples.
SAMPLE_ROWS = 100
# With more files than this, a stream is not divided by row groups: reading all footers would take too long.
FEW_SHARDS = 64


class ParquetReader(TableReader):
    """Reads a parquet file. `rows` reads it in batches; `load` and `stream` use the datasets library."""

    def __init__(self, path: Path, args: DataArguments, needs_label: bool, sample_rows: int | None = None):
        super().__init__(path, args, needs_label, sample_rows)
        self._open_file: ParquetFile | None = None

    @property
    def _file(self) -> ParquetFile:
        if self._open_file is None:
            self._open_file = ParquetFile(self.path)
        return self._open_file

    def close(self) -> None:
        if self._open_file is not None:
            self._open_file.close()
        self._open_file = None

    @cached_property
    def columns(self) -> Columns:
        with self._telling_of_damage():
            schema = self._file.schema.to_arrow_schema()
            rows = self._first_rows()
        columns = resolve_columns(schema.names, self.args, str(self.path), self.needs_label, rows)
        for name in columns.texts:
            arrow_type = schema.field(name).type
            if not _is_text(arrow_type):
                raise DataError(
                    f"{self.path}: the column {name!r} holds {arrow_type}, not strings; see --text_column_names"
                )
        return columns

    def _first_rows(self) -> list[dict[str, Any]]:
        batch = next(self._file.iter_batches(SAMPLE_ROWS), None)
        return [] if batch is None else batch.to_pylist()

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yields the rows under the standard names, with texts and ids but without labels.

        Raises:
            DataError: the file is broken.
        """
        columns = replace(self.columns, labels=(), shares=())
        names = [*columns.texts, *([columns.id] if columns.id else [])]
        with self._telling_of_damage():
            for batch in self._file.iter_batches(BATCH_ROWS, columns=names):
                for record in batch.to_pylist():
                    row = columns.standard_row(record, str(self.path))
                    if row.get("id") is not None:
                        row["id"] = str(row["id"])
                    yield row

    @contextlib.contextmanager
    def _telling_of_damage(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
            # Arrow has OSErrors without a number for damaged content; one of the file system has a number.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise DataError(f"{self.path}: a broken parquet file: {one_line(error)}") from error

    def load(self) -> Dataset:
        mode = download_mode(self.args)
        try:
            with self._telling_of_damage():
                dataset = load_dataset("parquet", data_files=str(self.path), split="train", download_mode=mode)
                # Arrow reads texts that are no UTF-8 without a word.
                dataset.data.table.validate(full=True)
        except (DatasetGenerationError, ValueError) as error:  # Arrow raises ValueErrors for broken content.
            reason = one_line(error.__cause__ or error)
            raise DataError(f"{self.path}: a broken parquet file, or one without rows: {reason}") from error
        # Keeps the columns, for which the file would be opened again.
        standard, self.columns = standardise(dataset, self.args, str(self.path), self.needs_label)
        return standard

    def stream(self, paths: Sequence[Path], name: str) -> RawStream:
        return standardise_stream(parquet_stream([str(path) for path in paths], name), self.args, name)[0]


def _is_text(arrow_type: pa.DataType) -> bool:
    if pa.types.is_dictionary(arrow_type):
        return _is_text(arrow_type.value_type)
    type_checks = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(is_of_type(arrow_type) for is_of_type in type_checks)


def download_mode(args: DataArguments) -> str | None:
    """Returns the `download_mode` with which `load_dataset` ignores its cache if `--overwrite_cache` is set."""
    return "force_redownload" if args.overwrite_cache else None


def parquet_stream(names: str | list[str], source_name: str) -> IterableDataset:
    """Opens parquet files as one stream.

    Args:
        names: a URL, or a list of paths.
        source_name: the source's name in messages.

    Raises:
        DataError: the files cannot be read; the message names the first local file without a valid footer.
    """
    try:
        return resharded(load_dataset("parquet", data_files=names, split="train", streaming=True))
    except Exception as error:  # Each file system and Arrow raise exceptions of their own.
        paths = names if isinstance(names, list) else []
        broken = next((path for path in paths if not _has_footer(path)), source_name)
        raise DataError(f"{broken}: cannot be streamed: {one_line(error.__cause__ or error)}") from error


def _has_footer(path: str) -> bool:
    try:
        read_metadata(path)
    except (pa.ArrowException, OSError):
        return False
    return True


def resharded(dataset: IterableDataset) -> IterableDataset:
    """Divides a stream of few parquet files by row groups, so that shuffling mixes different parts of a file."""
    return dataset.reshard() if dataset.num_shards <= FEW_SHARDS else dataset
