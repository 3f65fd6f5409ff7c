"""Texts to classify, read row by row: files of every format, and standard input."""

import codecs
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.columns import Columns, resolve_columns
from bertcls_hf.data.input_paths import existing_path
from bertcls_hf.data.json_files import JSON_SUFFIXES, kind_of, parse_object, read_json
from bertcls_hf.data.sources import delimited_file_columns, resolved_format, text_format_of
from bertcls_hf.data.text_files import DELIMITED_SUFFIXES, TextFormat, read_delimited
from bertcls_hf.errors import ArgumentsError, DataError, one_line
from bertcls_hf.predict.arguments import STANDARD


FIELDS = ("id", "text", "text_pair")
# Rows of a jsonl file in which its columns must show, since it has no header; of a pipe it is the first.
SAMPLE_ROWS = 1000
PARQUET_ROWS = 1024

StdinFormat = Literal["lines", "jsonl"]
# `id`, `text` and `text_pair`, those that there are.
Row = dict[str, str | None]


@dataclass(frozen=True)
class TextSource:
    """A file or standard input, whose columns are known and whose rows are still to be read.

    Args:
        name: for messages.
        fields: those of [`FIELDS`] that its rows have.
        rows: reads them, once.
    """

    name: str
    fields: tuple[str, ...]
    rows: Callable[[], Iterator[Row]]


def open_sources(
    names: Sequence[str], args: DataArguments, stdin_format: StdinFormat, stdin: BinaryIO
) -> list[TextSource]:
    """Finds the columns of every source, so that a wrong one is refused before any text is classified.

    Args:
        names: files, or `-` for standard input.
        args: columns, encoding and csv options.
        stdin_format: a text per line, or a JSON object per line.
        stdin: standard input.

    Raises:
        DataError: see the readers; or some sources hold pairs of texts and others do not.
        ArgumentsError: standard input is named twice, or there is no such encoding.
    """
    if list(names).count(STANDARD) > 1:
        raise ArgumentsError(f"{STANDARD}, standard input, can be read only once")
    sources = [
        _open_stdin(stdin, args, stdin_format) if name == STANDARD else _open_file(existing_path(name), args)
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
    """The rows of all sources, one after the other, with the fields that any of them has."""
    fields = [field for field in FIELDS if any(field in source.fields for source in sources)]
    for source in sources:
        for row in source.rows():
            yield {field: row.get(field) for field in fields}


def _open_file(path: Path, args: DataArguments) -> TextSource:
    suffix = path.suffix.lower()
    if path.is_dir():
        raise DataError(f"{path}: a folder; name its files")
    try:
        if suffix == ".parquet":
            return _open_parquet(path, args)
        if suffix in DELIMITED_SUFFIXES:
            return _open_delimited(path, args)
        if suffix in JSON_SUFFIXES:
            return _json_source(str(path), read_json(path, text_format_of(args)), args, SAMPLE_ROWS)
    except PermissionError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    known = [*DELIMITED_SUFFIXES, *sorted(JSON_SUFFIXES), ".parquet"]
    raise DataError(f"{path}: unknown format {suffix!r}; known: {', '.join(known)}, or {STANDARD} for a pipe")


def _open_delimited(path: Path, args: DataArguments) -> TextSource:
    text_format = resolved_format(path, args, needs_label=False)
    columns = delimited_file_columns(path, args, text_format, needs_label=False)
    return TextSource(str(path), _fields(columns), lambda: _renamed(read_delimited(path, text_format), columns))


def _fields(columns: Columns) -> tuple[str, ...]:
    names = set(columns.standard_names().values())
    return tuple(field for field in FIELDS if field in names)


def _renamed(rows: Iterable[dict[str, Any]], columns: Columns) -> Iterator[Row]:
    names = [(name, field) for name, field in columns.standard_names().items() if field in FIELDS]
    for row in rows:
        yield {field: row.get(name) for name, field in names}


def _json_source(name: str, objects: Iterator[dict[str, Any]], args: DataArguments, sample_rows: int) -> TextSource:
    sample = list(islice(objects, sample_rows))
    if not sample:
        return TextSource(name, ("text",), lambda: iter(()))
    available = list(dict.fromkeys(key for row in sample for key in row))
    columns = resolve_columns(available, args.text_column_names, None, name, needs_label=False)
    rows = _checked_objects(chain(sample, objects), columns, name)
    return TextSource(name, _fields(columns), lambda: _renamed(rows, columns))


def _checked_objects(objects: Iterable[dict[str, Any]], columns: Columns, name: str) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(objects, start=1):
        if columns.id is not None and row.get(columns.id) is not None:
            row[columns.id] = str(row[columns.id])
        for column in filter(None, (*columns.texts, columns.id)):
            kind = kind_of(row.get(column))
            if kind not in ("text", "null"):
                raise DataError(f"{name}, row {number}: {column!r} holds a {kind}: write a string")
        yield row


def _open_parquet(path: Path, args: DataArguments) -> TextSource:
    try:
        schema = pq.read_schema(path)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: a broken parquet file: {one_line(error)}") from error
    columns = resolve_columns(schema.names, args.text_column_names, None, str(path), needs_label=False)
    for name in columns.texts:
        kind = schema.field(name).type
        if not _is_text(kind):
            raise DataError(f"{path}: the column {name!r} holds {kind}, not strings; see --text_column_names")
    return TextSource(str(path), _fields(columns), lambda: _renamed(_read_parquet(path, columns), columns))


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _read_parquet(path: Path, columns: Columns) -> Iterator[dict[str, Any]]:
    names = [*columns.texts, *([columns.id] if columns.id is not None else [])]
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(PARQUET_ROWS, columns=names):
                for row in batch.to_pylist():
                    if columns.id is not None and row[columns.id] is not None:
                        row[columns.id] = str(row[columns.id])
                    yield row
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: a broken parquet file: {one_line(error)}") from error


def _open_stdin(stdin: BinaryIO, args: DataArguments, stdin_format: StdinFormat) -> TextSource:
    name = "standard input"
    lines = _stdin_lines(stdin, text_format_of(args), name)
    if stdin_format == "lines":
        if args.text_column_names:
            raise ArgumentsError("--text_column_names: lines of text have no columns; see --stdin_format jsonl")
        return TextSource(name, ("text",), lambda: ({"text": line.rstrip("\r\n")} for line in lines))
    numbered = enumerate(lines, start=1)
    objects = (parse_object(line, f"{name}, line {number}") for number, line in numbered if line.strip())
    return _json_source(name, objects, args, sample_rows=1)


def _stdin_lines(stdin: BinaryIO, text_format: TextFormat, name: str) -> Iterator[str]:
    try:
        encoding = "utf-8-sig" if codecs.lookup(text_format.encoding).name == "utf-8" else text_format.encoding
    except LookupError as error:
        raise ArgumentsError(f"--encoding {text_format.encoding}: {error}") from error
    return _decoded(io.TextIOWrapper(stdin, encoding, text_format.encoding_errors, newline="\n"), name)


def _decoded(lines: Iterable[str], name: str) -> Iterator[str]:
    number = 0
    try:
        for number, line in enumerate(lines, start=1):  # noqa: B007 - read where it fails
            yield line
    except UnicodeError as error:
        raise DataError(
            f"{name}, after line {number}: {error}; pass its --encoding (latin-1, cp949, …), or --encoding_errors "
            "replace"
        ) from error
