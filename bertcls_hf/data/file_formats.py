"""Chooses the reader of a file by its suffix."""

from pathlib import Path

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.delimited_files import DelimitedReader
from bertcls_hf.data.json_files import JsonReader
from bertcls_hf.data.parquet_files import ParquetReader
from bertcls_hf.data.table_reader import TableReader
from bertcls_hf.errors import DataError


READERS: dict[str, type[TableReader]] = {
    ".csv": DelimitedReader,
    ".tsv": DelimitedReader,
    ".txt": DelimitedReader,
    ".json": JsonReader,
    ".jsonl": JsonReader,
    ".ndjson": JsonReader,
    ".parquet": ParquetReader,
}


def open_reader(
    path: Path, args: DataArguments, needs_label: bool, alternative: str, sample_rows: int | None = None
) -> TableReader:
    """Makes the reader of a file by its suffix. The reader opens the file when it is first read.

    Args:
        path: the file.
        args: the data options, which name the columns and the encoding.
        needs_label: whether a table without a label column is refused.
        alternative: what the user could name instead of a file, such as `or a folder`; appended to the error.
        sample_rows: see [`TableReader`].

    Raises:
        DataError: the suffix belongs to no known format.
    """
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise DataError(f"{path}: unknown format {suffix!r}; known: {', '.join(READERS)}, {alternative}")
    return READERS[suffix](path, args, needs_label, sample_rows)
