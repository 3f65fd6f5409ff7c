"""Reads the texts to classify row by row, from files of every format and from standard input."""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, Literal

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.columns import Columns
from bertcls_hf.data.file_formats import open_reader
from bertcls_hf.data.input_paths import existing_path
from bertcls_hf.data.json_files import checked_rows, columns_of_sample, parse_object, standard_rows
from bertcls_hf.data.table_reader import TableReader
from bertcls_hf.data.text_files import encoding_without_mark
from bertcls_hf.errors import ArgumentsError, DataError
from bertcls_hf.predict.arguments import STANDARD


FIELDS = ("id", "text", "text_pair")
# A json file has no header, so all of its columns must occur in this number of first rows. The columns of standard
# input must occur in its first row.
SAMPLE_ROWS = 1000
# If there are more files than this, each file is closed once its columns are known and opened again when it is read,
# since many systems allow a process only 1024 open files.
MOST_OPEN_FILES = 100

StdinFormat = Literal["lines", "jsonl"]
# The values of a row by field, for those of the fields `id`, `text` and `text_pair` that the sources have.
Row = dict[str, str | None]


@dataclass(frozen=True)
class TextSource:
    """A file or standard input, whose columns are known and whose rows are not read yet.

    Args:
        name: the name in messages.
        fields: those of [`FIELDS`] that its rows have.
        rows: reads the rows; it can be called once.
    """

    name: str
    fields: tuple[str, ...]
    rows: Callable[[], Iterator[Row]]


def open_sources(
    names: Sequence[str], args: DataArguments, stdin_format: StdinFormat, stdin: BinaryIO
) -> list[TextSource]:
    """Finds the columns of every source, so that a wrong source is refused before any text is classified.

    Args:
        names: paths of files, or `-` for standard input.
        args: the options for columns, encoding and csv files.
        stdin_format: `lines` for a text per line, or `jsonl` for a JSON object per line.
        stdin: standard input.

    Raises:
        DataError: if a source cannot be read or lacks a text column, or if only some sources hold pairs of texts.
        ArgumentsError: if standard input is named twice, or if there is no such encoding.
    """
    if list(names).count(STANDARD) > 1:
        raise ArgumentsError(f"{STANDARD}, standard input, can be read only once")
    stay_open = len(names) <= MOST_OPEN_FILES
    sources = [
        _open_stdin(stdin, args, stdin_format)
        if name == STANDARD
        else _open_file(existing_path(name), args, stay_open)
        for name in names
    ]
    is_pair = "text_pair" in sources[0].fields
    for source in sources:
        if ("text_pair" in source.fields) != is_pair:
            raise DataError(
                f"{source.name} has {1 if is_pair else 2} text column(s), {sources[0].name} {2 if is_pair else 1}: "
                "see --text_column_names"
            )
    return sources


def read_rows(sources: Sequence[TextSource]) -> Iterator[Row]:
    """Yields the rows of all sources, one source after the other. Each row has the fields that any source has."""
    fields = [field for field in FIELDS if any(field in source.fields for source in sources)]
    for source in sources:
        for row in source.rows():
            yield {field: row.get(field) for field in fields}


def _open_file(path: Path, args: DataArguments, stays_open: bool) -> TextSource:
    if path.is_dir():
        raise DataError(f"{path}: a folder; name its files")
    try:
        reader = open_reader(
            path, args, needs_label=False, alternative=f"or {STANDARD} for a pipe", sample_rows=SAMPLE_ROWS
        )
        fields = _fields(reader.columns)
    except PermissionError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    if not stays_open:
        reader.close()
    return TextSource(str(path), fields, partial(_rows_of, reader))


def _rows_of(reader: TableReader) -> Iterator[Row]:
    with reader:
        yield from reader.rows()


def _fields(columns: Columns) -> tuple[str, ...]:
    standard_names = set(columns.standard_columns)
    return tuple(field for field in FIELDS if field in standard_names)


def _open_stdin(stdin: BinaryIO, args: DataArguments, stdin_format: StdinFormat) -> TextSource:
    name = "standard input"
    lines = _stdin_lines(stdin, args, name)
    if stdin_format == "lines":
        if args.text_column_names:
            raise ArgumentsError("--text_column_names: lines of text have no columns; see --stdin_format jsonl")
        return TextSource(name, ("text",), lambda: ({"text": line.rstrip("\r\n")} for line in lines))
    numbered_lines = enumerate(lines, start=1)
    records = (parse_object(line, f"{name}, line {number}") for number, line in numbered_lines if line.strip())
    # Only the first row is read, since a program may write the next row only after it got an answer to this one.
    first_record = list(islice(records, 1))
    columns = columns_of_sample(first_record, args, name)
    rows = checked_rows(standard_rows(chain(first_record, records), columns, name), columns, name)
    return TextSource(name, _fields(columns), lambda: rows)


def _stdin_lines(stdin: BinaryIO, args: DataArguments, name: str) -> Iterator[str]:
    encoding = encoding_without_mark(args.encoding)
    return _decoded(io.TextIOWrapper(stdin, encoding, args.encoding_errors, newline="\n"), name)


def _decoded(lines: Iterable[str], name: str) -> Iterator[str]:
    number = 0
    try:
        for number, line in enumerate(lines, start=1):  # noqa: B007 - the message of an error needs it
            yield line
    except UnicodeError as error:
        raise DataError(
            f"{name}, after line {number}: {error}; pass its --encoding (latin-1, cp949, …), or --encoding_errors "
            "replace"
        ) from error
