"""Which reader reads which file."""

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
    """The reader of a file, by its suffix; the file itself is opened when it is first read.

    Args:
        path: the file.
        args: which columns are used, and how text files are decoded.
        needs_label: whether a table without a label column is refused.
        alternative: what else than a file of a known format could be named; ends the message.
        sample_rows: see [`TableReader`].

    Raises:
        DataError: the suffix is of no known format.
    """
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise DataError(f"{path}: unknown format {suffix!r}; known: {', '.join(READERS)}, {alternative}")
    return READERS[suffix](path, args, needs_label, sample_rows)
