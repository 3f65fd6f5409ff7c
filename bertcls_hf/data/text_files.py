"""Readers of delimited text files, and of folders with one sub-folder of texts per class.

Each yields dictionaries of the file's own columns, row by row, and raises a [`DataError`] that names file and line.
The csv module is used rather than a data frame so that nothing is guessed: `null` and `NA` are texts, and each
malformed line has a number.
"""

import codecs
import csv
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from bertcls_hf.data.columns import KNOWN_COLUMNS
from bertcls_hf.errors import ArgumentsError, DataError


logger = logging.getLogger(__name__)

DELIMITED_SUFFIXES = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
SAMPLE_LINES = 10_000
LONGEST_FIELD = 2**31 - 1
# aclImdb keeps unlabelled reviews in a folder of this name, beside its classes.
UNLABELLED_FOLDER = "unsup"
SPLIT_FOLDERS = ("train", "validation", "valid", "dev", "test")


@dataclass(frozen=True)
class TextFormat:
    """How to decode a text file; field by field as in `DataArguments`."""

    encoding: str = "utf-8"
    encoding_errors: str = "strict"
    csv_header: str = "auto"
    csv_delimiter: str | None = None
    csv_quoting: str = "auto"


def decoded_lines(path: Path, text_format: TextFormat) -> Iterator[str]:
    """The file's lines with their ends.

    Raises:
        DataError: bytes that the encoding does not know, or NUL bytes; with the line's number.
        ArgumentsError: there is no such encoding.
    """
    try:
        is_utf8 = codecs.lookup(text_format.encoding).name == "utf-8"
        encoding = "utf-8-sig" if is_utf8 else text_format.encoding
        with path.open(encoding=encoding, errors=text_format.encoding_errors, newline="") as file:
            for number, line in enumerate(file, start=1):
                if "\0" in line:
                    raise DataError(
                        f"{path}, line {number}: NUL byte; is this a binary file, or UTF-16 (--encoding utf-16)?"
                    )
                yield line
    except UnicodeDecodeError as error:
        raise DataError(_undecodable(path, text_format, error)) from error
    except UnicodeError as error:
        raise DataError(f"{path}: not a {text_format.encoding} file: {error}") from error
    except LookupError as error:
        raise ArgumentsError(f"--encoding {text_format.encoding}: {error}") from error


def _undecodable(path: Path, text_format: TextFormat, error: UnicodeDecodeError) -> str:
    content = path.read_bytes()
    start = content[:2]
    if start in (b"\xff\xfe", b"\xfe\xff"):
        return f"{path}: not a {text_format.encoding} file but UTF-16: pass --encoding utf-16"
    try:
        content.decode(text_format.encoding)
        line = 1
    except UnicodeDecodeError as full_error:
        line, error = content.count(b"\n", 0, full_error.start) + 1, full_error
    return (
        f"{path}, line {line}: byte 0x{error.object[error.start]:02x} is not {text_format.encoding}: pass the file's "
        "--encoding (latin-1, cp949, …), or --encoding_errors replace"
    )


def resolve_delimited_format(
    path: Path, text_format: TextFormat, required: tuple[str, ...], needs_label: bool
) -> TextFormat:
    """The format with `auto` and None replaced by what the start of the file shows.

    Args:
        path: a csv, tsv or txt file.
        text_format: what the user asked for.
        required: columns that the user named; a first row that holds one of them is a header.
        needs_label: whether one column is too few.

    Raises:
        DataError: the file is empty, or has one column that cannot be all there is.
        ArgumentsError: the delimiter is not one character.
    """
    sample = list(islice(decoded_lines(path, text_format), SAMPLE_LINES))
    if not any(line.strip() for line in sample):
        raise DataError(f"{path}: the file is empty")
    delimiter = text_format.csv_delimiter or DELIMITED_SUFFIXES[path.suffix.lower()]
    delimiter = "\t" if delimiter == "\\t" else delimiter
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise ArgumentsError(f"--csv_delimiter {text_format.csv_delimiter!r}: must be one character, and no quote")
    quoting = text_format.csv_quoting
    if quoting == "auto":
        quoting = "minimal" if path.suffix.lower() == ".csv" else _detect_quoting(sample, delimiter)
    resolved = replace(text_format, csv_delimiter=delimiter, csv_quoting=quoting)
    _, first = next(_delimited_rows(path, resolved))
    is_header = bool(set(required) & set(first)) or any(name.strip().lower() in KNOWN_COLUMNS for name in first)
    if len(first) == 1 and (needs_label or (text_format.csv_header == "auto" and not is_header)):
        raise DataError(_one_column(path, first[0], delimiter, needs_label))
    if text_format.csv_header == "auto":
        is_header = is_header or not _first_label_recurs(path, resolved)
        resolved = replace(resolved, csv_header="true" if is_header else "false")
    return resolved


def _detect_quoting(lines: list[str], delimiter: str) -> str:
    rows = [line.rstrip("\r\n").split(delimiter) for line in lines if line.strip()]
    quoted = [field for row in rows for field in row if field.startswith('"')]
    well_formed = all(re.fullmatch(r'"(?:[^"]|"")*"', field) for field in quoted)
    if quoted and well_formed:
        every_row = all(any(field.startswith('"') for field in row) for row in rows)
        escaped = any('""' in field[1:-1] for field in quoted)
        return "minimal" if every_row or escaped else "none"
    same_width = len({len(row) for row in rows}) == 1
    return "none" if not quoted or same_width else "minimal"


def _one_column(path: Path, first_line: str, delimiter: str, needs_label: bool) -> str:
    others = [mark for mark in (",", "\t", ";", "|") if mark in first_line and mark != delimiter]
    if others:
        hint = f"it seems to be separated by {others[0]!r}, pass --csv_delimiter"
    elif needs_label:
        hint = "a text and a label are needed"
    else:
        hint = "if each line is a text, pass --csv_header false, or name the column: text"
    return f"{path}, line 1: one column (separator {delimiter!r}): {hint}"


def _first_label_recurs(path: Path, text_format: TextFormat) -> bool:
    """Whether the first row ends in a label of later rows, and is thus no header."""
    rows = islice(_delimited_rows(path, text_format), SAMPLE_LINES)
    label = next(rows)[1][-1]
    recurs = any(row[-1] == label for _, row in rows)
    if recurs:
        logger.info("%s: no header (the first row's label, %r, occurs again)", path, label)
    return recurs


def _delimited_rows(path: Path, text_format: TextFormat) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of each row that is not blank."""
    csv.field_size_limit(LONGEST_FIELD)
    options: dict[str, Any] = {"quoting": csv.QUOTE_NONE} if text_format.csv_quoting == "none" else {"strict": True}
    reader = csv.reader(decoded_lines(path, text_format), delimiter=text_format.csv_delimiter or ",", **options)
    start = 1
    try:
        for row in reader:
            if row:
                yield start, row
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}, line {start}: {error}; if quotation marks are part of the texts, pass --csv_quoting none"
        ) from error


def delimited_columns(path: Path, text_format: TextFormat) -> list[str]:
    """Column names of a file whose format is resolved.

    Raises:
        DataError: a name stands twice, or a file without header has more than 3 columns.
    """
    _, first = next(_delimited_rows(path, text_format))
    if text_format.csv_header == "true":
        repeated = sorted({name for name in first if first.count(name) > 1})
        if repeated:
            raise DataError(f"{path}: the header names column {repeated[0]!r} twice")
        return first
    names = {1: ["text"], 2: ["text", "label"], 3: ["sentence1", "sentence2", "label"]}.get(len(first))
    if names is None:
        raise DataError(
            f"{path}: {len(first)} columns and no header: without one, a file is text,label or "
            "sentence1,sentence2,label; add a header, or pass --csv_header true if line 1 is one"
        )
    return names


def read_delimited(path: Path, text_format: TextFormat) -> Iterator[dict[str, str]]:
    """Rows of a csv, tsv or txt file whose format is resolved.

    Raises:
        DataError: a row with more or fewer fields than columns, a broken quote, an undecodable line.
    """
    names = delimited_columns(path, text_format)
    rows = _delimited_rows(path, text_format)
    if text_format.csv_header == "true":
        next(rows)
    for line, row in rows:
        if len(row) != len(names):
            raise DataError(
                f"{path}, line {line}: {len(row)} fields where {len(names)} are expected ({', '.join(names)}); "
                "is a text unquoted, or is --csv_delimiter or --csv_quoting wrong?"
            )
        yield dict(zip(names, row, strict=True))


def text_tree_files(path: Path) -> list[tuple[Path, str]]:
    """(file, class) of each .txt file in a folder of class folders, sorted.

    Raises:
        DataError: no class folder, a class without a .txt file, or folders that look like splits.
    """
    files: list[tuple[Path, str]] = []
    for folder in _class_folders(path):
        texts = sorted(folder.glob("*.txt"))
        if not texts:
            raise DataError(f"{folder}: no .txt file in this class folder; remove it, or put the class's texts there")
        files += [(text, folder.name) for text in texts]
    return files


def _class_folders(path: Path) -> list[Path]:
    folders = {f.name: f for f in path.iterdir() if f.is_dir() and not f.name.startswith((".", "_"))}
    splits = [path / name for name in SPLIT_FOLDERS if name in folders]
    if len(splits) > 1:
        raise DataError(
            f"{path}: holds splits, not classes: pass --train_file {splits[0]}, and the others as --validation_file "
            "or --test_file"
        )
    classes = [folder for name, folder in sorted(folders.items()) if name != UNLABELLED_FOLDER]
    if not classes:
        raise DataError(f"{path}: no sub-folder; expected one folder of .txt files per class")
    return classes


def read_text_tree(path: Path, text_format: TextFormat) -> Iterator[dict[str, str]]:
    """The texts of a folder with one sub-folder per class; `text`, `label` and the file's name as `id`."""
    for file, label in text_tree_files(path):
        yield {"id": f"{label}/{file.name}", "text": "".join(decoded_lines(file, text_format)), "label": label}
