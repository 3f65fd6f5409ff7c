"""The reader of parquet files, and streams of them."""

from collections.abc import Iterator, Sequence
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
# Footers of more files than this take longer to read than they are worth.
FEW_SHARDS = 64


class ParquetReader(TableReader):
    """Reads a parquet file a batch of rows at a time, or has the datasets library load or stream it."""

    def __init__(self, path: Path, args: DataArguments, needs_label: bool, sample_rows: int | None = None):
        super().__init__(path, args, needs_label, sample_rows)
        self._opened: ParquetFile | None = None

    @property
    def _file(self) -> ParquetFile:
        if self._opened is None:
            self._opened = ParquetFile(self.path)
        return self._opened

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
        self._opened = None

    @cached_property
    def columns(self) -> Columns:
        try:
            schema = self._file.schema.to_arrow_schema()
        except pa.ArrowInvalid as error:
            raise self._broken(error) from error
        names = (self.args.text_column_names, self.args.label_column_name)
        columns = resolve_columns(schema.names, *names, str(self.path), self.needs_label)
        for name in columns.texts:
            arrow_type = schema.field(name).type
            if not _is_text(arrow_type):
                raise DataError(
                    f"{self.path}: the column {name!r} holds {arrow_type}, not strings; see --text_column_names"
                )
        return columns

    def rows(self) -> Iterator[dict[str, Any]]:
        """The texts and ids, without the labels."""
        names = {own: standard for own, standard in self.columns.standard_names().items() if standard != "label"}
        try:
            for batch in self._file.iter_batches(BATCH_ROWS, columns=list(names)):
                for record in batch.to_pylist():
                    row = {standard_name: record[name] for name, standard_name in names.items()}
                    if row.get("id") is not None:
                        row["id"] = str(row["id"])
                    yield row
        except pa.ArrowInvalid as error:
            raise self._broken(error) from error

    def _broken(self, error: pa.ArrowInvalid) -> DataError:
        return DataError(f"{self.path}: a broken parquet file: {one_line(error)}")

    def load(self) -> Dataset:
        mode = download_mode(self.args)
        try:
            dataset = load_dataset("parquet", data_files=str(self.path), split="train", download_mode=mode)
        except (DatasetGenerationError, ValueError) as error:  # Arrow's errors of content are ValueErrors
            reason = one_line(error.__cause__ or error)
            raise DataError(f"{self.path}: a broken parquet file, or one without rows: {reason}") from error
        return standardise(dataset, self.args, str(self.path), self.needs_label)

    def stream(self, paths: Sequence[Path], name: str) -> RawStream:
        return standardise_stream(parquet_stream([str(path) for path in paths], name), self.args, name)


def _is_text(arrow_type: pa.DataType) -> bool:
    if pa.types.is_dictionary(arrow_type):
        return _is_text(arrow_type.value_type)
    is_of_type = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(is_text(arrow_type) for is_text in is_of_type)


def download_mode(args: DataArguments) -> str | None:
    """The mode of `load_dataset` in which it uses its cache as `--overwrite_cache` says."""
    return "force_redownload" if args.overwrite_cache else None


def parquet_stream(names: str | list[str], source_name: str) -> IterableDataset:
    """Parquet files as one stream.

    Args:
        names: a URL, or paths.
        source_name: what messages call them together.

    Raises:
        DataError: they cannot be read; names the first file that has no footer.
    """
    try:
        return resharded(load_dataset("parquet", data_files=names, split="train", streaming=True))
    except Exception as error:  # each file system raises its own kinds, and Arrow's errors of content are ValueErrors
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
    """Few parquet files are read by their row groups, so that rows of many places mix."""
    return dataset.reshard() if dataset.num_shards <= FEW_SHARDS else dataset
