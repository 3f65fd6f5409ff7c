"""Readers of text files: csv, tsv, json, jsonl, and folders with one sub-folder of texts per class.

Each yields dictionaries of the file's own columns, row by row, and raises a [`DataError`] that names file and line.
The csv module is used rather than a data frame so that nothing is guessed: `null` and `NA` are texts, and each
malformed line has a number.
"""

import csv
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from bertcls_hf.columns import KNOWN_COLUMNS
from bertcls_hf.errors import DataError


logger = logging.getLogger(__name__)

DELIMITED_SUFFIXES = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
JSON_SUFFIXES = {".json", ".jsonl", ".ndjson"}
SAMPLE_LINES = 10_000
LONGEST_FIELD = 2**31 - 1
# aclImdb keeps unlabelled reviews in a folder of this name, beside its classes.
UNLABELLED_FOLDER = "unsup"


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
    """
    encoding = (
        "utf-8-sig" if text_format.encoding.lower().replace("_", "-") in {"utf-8", "utf8"} else text_format.encoding
    )
    try:
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
        raise DataError(f"--encoding {text_format.encoding}: {error}") from error


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


def resolve_delimited_format(path: Path, text_format: TextFormat, required: tuple[str, ...]) -> TextFormat:
    """The format with `auto` and None replaced by what the start of the file shows.

    Args:
        path: a csv, tsv or txt file.
        text_format: what the user asked for.
        required: columns that the user named; a first row that holds them is a header.

    Raises:
        DataError: the file is empty or has one column.
    """
    sample = list(islice(decoded_lines(path, text_format), SAMPLE_LINES))
    if not any(line.strip() for line in sample):
        raise DataError(f"{path}: the file is empty")
    delimiter = text_format.csv_delimiter or DELIMITED_SUFFIXES[path.suffix.lower()]
    delimiter = delimiter.encode().decode("unicode_escape") if delimiter.startswith("\\") else delimiter
    if len(delimiter) != 1:
        raise DataError(f"--csv_delimiter {text_format.csv_delimiter!r}: must be one character")
    quoting = text_format.csv_quoting
    if quoting == "auto":
        quoting = "minimal" if path.suffix.lower() == ".csv" else _detect_quoting(sample, delimiter)
    resolved = replace(text_format, csv_delimiter=delimiter, csv_quoting=quoting)
    _refuse_one_column(path, sample[0], resolved)
    header = text_format.csv_header
    return replace(resolved, csv_header=_detect_header(path, resolved, required) if header == "auto" else header)


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


def _refuse_one_column(path: Path, first_line: str, text_format: TextFormat) -> None:
    assert text_format.csv_delimiter is not None
    if text_format.csv_delimiter in first_line:
        return
    others = [mark for mark in (",", "\t", ";", "|") if mark in first_line]
    hint = (
        f": it seems to be separated by {others[0]!r}, pass --csv_delimiter"
        if others
        else ": a text and a label are needed"
    )
    raise DataError(f"{path}, line 1: one column (separator {text_format.csv_delimiter!r}){hint}")


def _detect_header(path: Path, text_format: TextFormat, required: tuple[str, ...]) -> str:
    rows = islice(_delimited_rows(path, text_format), SAMPLE_LINES)
    _, first = next(rows)
    names = {field.strip().lower() for field in first}
    if (required and set(required) & set(first)) or names & KNOWN_COLUMNS:
        return "true"
    label = first[-1]
    if any(row[-1] == label for _, row in rows):
        logger.info("%s: no header (the first row's label, %r, occurs again)", path, label)
        return "false"
    return "true"


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
        DataError: a name stands twice, or a file without header has neither 2 nor 3 columns.
    """
    _, first = next(_delimited_rows(path, text_format))
    if text_format.csv_header == "true":
        repeated = sorted({name for name in first if first.count(name) > 1})
        if repeated:
            raise DataError(f"{path}: the header names column {repeated[0]!r} twice")
        return first
    names = {2: ["text", "label"], 3: ["sentence1", "sentence2", "label"]}.get(len(first))
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


def read_json(path: Path, text_format: TextFormat) -> Iterator[dict[str, Any]]:
    """Rows of a jsonl file, or of a json file that is a list of objects or an object with one such list.

    Raises:
        DataError: not JSON, or a row that is not an object; with the line or row number.
    """
    lines = decoded_lines(path, text_format)
    first = next((line for line in lines if line.strip()), None)
    if first is None:
        raise DataError(f"{path}: the file is empty")
    if path.suffix.lower() == ".json" and not _is_object(first):
        yield from _read_json_document(path, text_format)
        return
    for number, line in enumerate(decoded_lines(path, text_format), start=1):
        if line.strip():
            yield _json_object(line, f"{path}, line {number}")


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except json.JSONDecodeError:
        return False


def _read_json_document(path: Path, text_format: TextFormat) -> Iterator[dict[str, Any]]:
    try:
        document = json.loads("".join(decoded_lines(path, text_format)))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not valid JSON: {error.msg}") from error
    if isinstance(document, dict):
        lists = [value for value in document.values() if isinstance(value, list)]
        document = lists[0] if len(lists) == 1 else document
    if not isinstance(document, list):
        raise DataError(f"{path}: expected a list of objects, one per text")
    for number, row in enumerate(document, start=1):
        if not isinstance(row, dict):
            raise DataError(f"{path}, row {number}: expected an object, got {json.dumps(row)[:60]}")
        yield row


def _json_object(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: not valid JSON: {error.msg}; is the line cut off?") from error
    if not isinstance(row, dict):
        raise DataError(f"{place}: expected an object, got {line.strip()[:60]}")
    return row


def class_folders(path: Path) -> list[Path]:
    """The sub-folders that are classes, by name.

    Raises:
        DataError: fewer than two of them, or they look like splits.
    """
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith((".", "_")))
    if UNLABELLED_FOLDER in {folder.name for folder in folders}:
        logger.warning(
            "%s: folder %r is left out, by the convention of aclImdb it holds unlabelled texts",
            path,
            UNLABELLED_FOLDER,
        )
        folders = [folder for folder in folders if folder.name != UNLABELLED_FOLDER]
    names = {folder.name for folder in folders}
    if {"train", "test"} <= names:
        raise DataError(
            f"{path}: holds splits, not classes: pass --train_file {path / 'train'} --test_file {path / 'test'}"
        )
    if not folders:
        raise DataError(f"{path}: no sub-folder; expected one folder of .txt files per class")
    return folders


def text_tree_files(path: Path) -> list[tuple[Path, str]]:
    """(file, class) of each .txt file in a folder of class folders, sorted.

    Raises:
        DataError: see [`class_folders`]; or a class without a .txt file.
    """
    files: list[tuple[Path, str]] = []
    for folder in class_folders(path):
        texts = sorted(folder.glob("*.txt"))
        if not texts:
            raise DataError(f"{folder}: no .txt file in this class folder")
        files += [(text, folder.name) for text in texts]
    return files


def read_text_tree(path: Path, text_format: TextFormat) -> Iterator[dict[str, str]]:
    """The texts of a folder with one sub-folder per class; `text`, `label` and the file's name as `id`."""
    for file, label in text_tree_files(path):
        yield {"id": f"{label}/{file.name}", "text": "".join(decoded_lines(file, text_format)), "label": label}
