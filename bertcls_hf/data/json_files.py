"""The reader of json and jsonl files, which checks that each column is of one kind."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import Features, List, Value

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.columns import Columns, resolve_columns
from bertcls_hf.data.labels import is_missing
from bertcls_hf.data.table_reader import TextTableReader, string_features
from bertcls_hf.data.text_stream import RawStream
from bertcls_hf.errors import DataError


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


class JsonReader(TextTableReader):
    """Reads a jsonl file, or a json file that is a list of objects or an object with one such list."""

    cache_name = "read_json_columns"

    def __init__(self, path: Path, args: DataArguments, needs_label: bool, sample_rows: int | None = None):
        super().__init__(path, args, needs_label, sample_rows)
        self._name_of_columns = str(path)

    @cached_property
    def columns(self) -> Columns:
        if self.sample_rows is not None:
            return columns_of_sample(list(islice(self.records(), self.sample_rows)), self.args, str(self.path))
        return resolve_columns(
            list(self.column_kinds),
            self.args.text_column_names,
            self.args.label_column_name,
            self._name_of_columns,
            self.needs_label,
        )

    @cached_property
    def column_kinds(self) -> ColumnKinds:
        """What the columns hold, after a look at every row; missing values are passed over.

        Raises:
            DataError: see `records`; or there is no row.
        """
        kinds: ColumnKinds = {}
        for number, record in enumerate(self.records(), start=1):
            for name, value in record.items():
                kinds_of_column = kinds.setdefault(name, {})
                if isinstance(value, list) or not is_missing(value):
                    kinds_of_column.setdefault(kind_of(value), number)
        if not kinds:
            raise DataError(f"{self.path}: no rows")
        return kinds

    def features(self) -> Features:
        columns = self.columns
        for name in columns.texts:
            refuse_other_than_text(self.path, name, self.column_kinds[name])
        features = string_features(*columns.standard_names().values())
        if columns.label is not None:
            features["label"] = label_feature(self.path, columns.label, self.column_kinds[columns.label])
        return features

    def rows(self) -> Iterator[dict[str, Any]]:
        columns = self.columns
        rows = standard_rows(self.records(), columns)
        return rows if self.sample_rows is None else checked_rows(rows, columns, str(self.path))

    def stream(self, paths: Sequence[Path], name: str) -> RawStream:
        self._name_of_columns = name
        return super().stream(paths, name)

    def records(self) -> Iterator[dict[str, Any]]:
        """The rows as the file has them.

        Raises:
            DataError: not JSON, or a row that is not an object; with the line or row number.
        """
        if self._is_one_document():
            yield from self._records_of_document()
            return
        for number, line in enumerate(self.file.lines(), start=1):
            if line.strip():
                yield parse_object(line, f"{self.path}, line {number}")

    def _is_one_document(self) -> bool:
        """Whether the whole file is one JSON value, and not an object per line."""
        lines = (line for line in self.file.lines() if line.strip())
        first, second = next(lines, None), next(lines, None)
        if first is None:
            raise DataError(f"{self.path}: the file is empty")
        return self.path.suffix.lower() == ".json" and (second is None or not _is_object(first))

    def _records_of_document(self) -> Iterator[dict[str, Any]]:
        try:
            document = json.loads("".join(self.file.lines()))
        except json.JSONDecodeError as error:
            raise DataError(
                f"{self.path}, line {error.lineno}: not valid JSON: {error.msg}; is the file cut off?"
            ) from error
        if isinstance(document, dict):
            lists = [value for value in document.values() if _is_list_of_objects(value)]
            # An object of plain values is a single row.
            document = lists[0] if len(lists) == 1 else [document]
        if not isinstance(document, list):
            raise DataError(f"{self.path}: expected a list of objects, one per text")
        for number, record in enumerate(document, start=1):
            if not isinstance(record, dict):
                raise DataError(f"{self.path}, row {number}: expected an object, got {json.dumps(record)[:60]}")
            yield record


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except json.JSONDecodeError:
        return False


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)


def columns_of_sample(records: Sequence[dict[str, Any]], args: DataArguments, name: str) -> Columns:
    """The columns that some rows show; a text column where there is no row.

    Args:
        records: the first rows, under the source's own names.
        args: which columns are used.
        name: of the source, for messages.

    Raises:
        DataError: they show no text column.
    """
    if not records:
        return Columns(("text",), None, None)
    available = list(dict.fromkeys(key for record in records for key in record))
    return resolve_columns(available, args.text_column_names, args.label_column_name, name, needs_label=False)


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


def standard_rows(records: Iterable[dict[str, Any]], columns: Columns) -> Iterator[dict[str, Any]]:
    """The rows under standard names, with strings as ids."""
    names = columns.standard_names()
    for record in records:
        row = {standard_name: record.get(name) for name, standard_name in names.items()}
        if row.get("id") is not None:
            row["id"] = str(row["id"])
        # JSON's NaN fits no column of names.
        if isinstance(row.get("label"), float) and is_missing(row["label"]):
            row["label"] = None
        yield row


def checked_rows(rows: Iterable[dict[str, Any]], columns: Columns, name: str) -> Iterator[dict[str, Any]]:
    """The same rows.

    Args:
        rows: under standard names.
        columns: the source's.
        name: of the source, for messages.

    Raises:
        DataError: a text or an id that is neither a string nor missing; with the row's number.
    """
    own_names = {standard: own for own, standard in columns.standard_names().items() if standard != "label"}
    for number, row in enumerate(rows, start=1):
        for standard_name, own_name in own_names.items():
            kind = kind_of(row[standard_name])
            if kind not in ("text", "null"):
                raise DataError(f"{name}, row {number}: {own_name!r} holds a {kind}: write a string")
        yield row
