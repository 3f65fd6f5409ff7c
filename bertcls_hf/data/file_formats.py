"""Chooses the reader of a file by its suffix, or by `--file_format`."""

from pathlib import Path

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.delimited_files import DelimitedReader
from bertcls_hf.data.excel_files import ExcelReader
from bertcls_hf.data.input_paths import COMPRESSED_SUFFIXES, format_suffix
from bertcls_hf.data.json_files import JsonReader
from bertcls_hf.data.label_first_files import LabelFirstReader
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
    ".xlsx": ExcelReader,
    ".fasttext": LabelFirstReader,
    ".trec": LabelFirstReader,
}
# These are values of `--file_format`, and not usual suffixes.
LAYOUTS = frozenset({".fasttext", ".trec"})


def open_reader(
    path: Path, args: DataArguments, needs_label: bool, alternative: str, sample_rows: int | None = None
) -> TableReader:
    """Makes the reader of a file by its suffix, or by `--file_format`. A .txt file is opened to find its layout.

    Args:
        path: the file.
        args: the data options, which name the columns and the encoding.
        needs_label: whether a table without a label column is refused.
        alternative: what the user could name instead of a file, such as `or a folder`; appended to the error.
        sample_rows: see [`TableReader`].

    Raises:
        DataError: the suffix belongs to no known format, or the file is broken.
    """
    suffix = format_suffix(path, args)
    if suffix not in READERS:
        known = ", ".join(name for name in READERS if name not in LAYOUTS)
        raise DataError(
            f"{path}: unknown format {suffix!r}; known: {known} (also with {', '.join(COMPRESSED_SUFFIXES)} or .zip), "
            f"{alternative}; another name: --file_format csv"
        )
    return READERS[suffix](path, args, needs_label, sample_rows).for_content()
