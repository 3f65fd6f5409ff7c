"""Readers of json and jsonl files, which check that each column is of one kind."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import List, Value

from bertcls_hf.data.columns import Columns
from bertcls_hf.data.labels import is_missing
from bertcls_hf.data.text_files import TextFormat, decoded_lines
from bertcls_hf.errors import DataError


JSON_SUFFIXES = {".json", ".jsonl", ".ndjson"}
LABEL_FEATURES = {
    "text": Value("string"),
    "truth value": Value("bool"),
    "whole number": Value("int64"),
    "number": Value("float64"),
    "list of texts": List(Value("string")),
    "list of whole numbers": List(Value("int64")),
}
_KINDS = {bool: "truth value", int: "whole number", float: "number", dict: "nested object", type(None): "null"}
_SURROGATE = re.compile("[\ud800-\udfff]")

# Per column, the first row of each kind of value that it holds.
ColumnKinds = dict[str, dict[str, int]]


def read_json(path: Path, text_format: TextFormat) -> Iterator[dict[str, Any]]:
    """Rows of a jsonl file, or of a json file that is a list of objects or an object with one such list.

    Raises:
        DataError: not JSON, or a row that is not an object; with the line or row number.
    """
    lines = (line for line in decoded_lines(path, text_format) if line.strip())
    first, second = next(lines, None), next(lines, None)
    if first is None:
        raise DataError(f"{path}: the file is empty")
    if path.suffix.lower() == ".json" and (second is None or not _is_object(first)):
        yield from _read_document(path, text_format)
        return
    for number, line in enumerate(decoded_lines(path, text_format), start=1):
        if line.strip():
            yield parse_object(line, f"{path}, line {number}")


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except json.JSONDecodeError:
        return False


def _read_document(path: Path, text_format: TextFormat) -> Iterator[dict[str, Any]]:
    try:
        document = json.loads("".join(decoded_lines(path, text_format)))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not valid JSON: {error.msg}; is the file cut off?") from error
    if isinstance(document, dict):
        lists = [value for value in document.values() if _is_list_of_objects(value)]
        # An object of plain values is a single row.
        document = lists[0] if len(lists) == 1 else [document]
    if not isinstance(document, list):
        raise DataError(f"{path}: expected a list of objects, one per text")
    for number, row in enumerate(document, start=1):
        if not isinstance(row, dict):
            raise DataError(f"{path}, row {number}: expected an object, got {json.dumps(row)[:60]}")
        yield row


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)


def parse_object(line: str, place: str) -> dict[str, Any]:
    """One line of a jsonl file.

    Raises:
        DataError: not JSON, or no object; the message starts with `place`.
    """
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: not valid JSON: {error.msg}; is the line cut off?") from error
    if not isinstance(row, dict):
        raise DataError(f"{place}: expected an object, got {line.strip()[:60]}")
    return row


def column_kinds(path: Path, text_format: TextFormat) -> ColumnKinds:
    """What the columns of a file hold, after a look at every row; missing values are passed over.

    Raises:
        DataError: see [`read_json`]; or there is no row.
    """
    kinds: ColumnKinds = {}
    for number, row in enumerate(read_json(path, text_format), start=1):
        for name, value in row.items():
            of_column = kinds.setdefault(name, {})
            if isinstance(value, list) or not is_missing(value):
                of_column.setdefault(kind_of(value), number)
    if not kinds:
        raise DataError(f"{path}: no rows")
    return kinds


def kind_of(value: Any) -> str:
    """What a JSON value is, in the words of messages."""
    if isinstance(value, str):
        return "half of a surrogate pair" if _SURROGATE.search(value) else "text"
    if isinstance(value, list):
        kinds = {kind_of(item) for item in value}
        return f"list of {kinds.pop()}s" if len(kinds) == 1 else "mixed list" if kinds else "list without items"
    return _KINDS[type(value)]


def refuse_other_than_text(path: Path, name: str, kinds: dict[str, int]) -> None:
    """Checks a text column.

    Raises:
        DataError: a value is not a string; with its row number.
    """
    for kind, row in kinds.items():
        if kind != "text":
            raise DataError(f"{path}, row {row}: {name!r} holds a {kind}: write a string")


def label_feature(path: Path, name: str, kinds: dict[str, int]) -> Any:
    """The Arrow type of the label column.

    Raises:
        DataError: labels of several kinds, or of one that is no label; with row numbers.
    """
    if set(kinds) == {"whole number", "number"}:
        return LABEL_FEATURES["number"]
    if set(kinds) == {"list without items"}:
        return LABEL_FEATURES["list of texts"]
    if any(kind.startswith("list of") for kind in kinds):
        kinds = {kind: row for kind, row in kinds.items() if kind != "list without items"}
    if len(kinds) > 1:
        (first, first_row), (second, second_row) = list(kinds.items())[:2]
        raise DataError(
            f"{path}, row {second_row}: {name!r} holds a {second}, but a {first} in row {first_row}: "
            "write every label as one kind"
        )
    kind, row = next(iter(kinds.items()), ("text", 0))
    if kind not in LABEL_FEATURES:
        raise DataError(f"{path}, row {row}: {name!r} holds a {kind}: write a text, a number or a list of them")
    return LABEL_FEATURES[kind]


def read_json_columns(path: Path, text_format: TextFormat, columns: Columns) -> Iterator[dict[str, Any]]:
    """Rows with standard column names, of a file whose kinds are checked."""
    names = columns.standard_names()
    for row in read_json(path, text_format):
        standard = {standard_name: row.get(name) for name, standard_name in names.items()}
        if standard.get("id") is not None:
            standard["id"] = str(standard["id"])
        # JSON's NaN fits no column of names.
        if isinstance(standard.get("label"), float) and is_missing(standard["label"]):
            standard["label"] = None
        yield standard
