"""The reader of json and jsonl files; it checks that the values of each column have one kind."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import Features, List, Value

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.annotation_exports import ExportRows, has_several_labels, value_at
from bertcls_hf.data.columns import SOFT_LABEL, Columns, resolve_columns
from bertcls_hf.data.input_paths import format_suffix
from bertcls_hf.data.labels import is_missing
from bertcls_hf.data.table_reader import TextTableReader, string_features
from bertcls_hf.data.text_stream import RawStream
from bertcls_hf.errors import DataError, one_line


# The rows from which a message about a missing column takes its examples.
EXAMPLE_ROWS = 100
LABEL_FEATURES = {
    "text": Value("string"),
    "truth value": Value("bool"),
    "whole number": Value("int64"),
    "number": Value("float64"),
    "list of texts": List(Value("string")),
    "list of whole numbers": List(Value("int64")),
    "list of numbers": List(Value("float64")),
}
_KINDS = {bool: "truth value", int: "whole number", float: "number", dict: "nested object", type(None): "null"}
_SURROGATE = re.compile("[\ud800-\udfff]")

# For each column, the kinds of its values (see `kind_of`), each with the number of the first row that has it.
ColumnKinds = dict[str, dict[str, int]]


class JsonReader(TextTableReader):
    """Reads a jsonl file, or a json file that holds a list of objects or an object with one list of objects."""

    cache_name = "read_json_columns"

    def __init__(self, path: Path, args: DataArguments, needs_label: bool, sample_rows: int | None = None):
        super().__init__(path, args, needs_label, sample_rows)
        self._name_of_columns = str(path)
        self._is_reported = False

    @cached_property
    def columns(self) -> Columns:
        if self.sample_rows is not None:
            return columns_of_sample(list(islice(self.records(), self.sample_rows)), self.args, str(self.path))
        rows = list(islice(self.records(), EXAMPLE_ROWS))
        return resolve_columns(list(self.column_kinds), self.args, self._name_of_columns, self.needs_label, rows)

    @cached_property
    def column_kinds(self) -> ColumnKinds:
        """The kinds of values in each column, from all rows; missing values have no kind.

        Raises:
            DataError: the file has no rows; see also `records`.
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
        features = string_features(*columns.standard_columns)
        if columns.label is not None:
            features["label"] = label_feature(self.path, columns.label, self.column_kinds[columns.label])
        elif columns.labels:
            features["label"] = LABEL_FEATURES["list of texts"]
        if columns.shares:
            features[SOFT_LABEL] = List(Value("float32"))
        return features

    def rows(self) -> Iterator[dict[str, Any]]:
        columns = self.columns
        rows = standard_rows(self.records(), columns, str(self.path))
        return rows if self.sample_rows is None else checked_rows(rows, columns, str(self.path))

    def stream(self, paths: Sequence[Path], name: str) -> RawStream:
        self._name_of_columns = name
        return super().stream(paths, name)

    def records(self) -> Iterator[dict[str, Any]]:
        """Yields the rows with all columns, under the file's own column names.

        The records of an annotation tool's export become flat rows. A column that the options name with dots, as in
        `data.text`, is looked up in nested objects.

        Raises:
            DataError: the file is not JSON, or a row is not an object; the message gives the line or row.
        """
        rows = ExportRows(str(self.path), self._keeps_lists)
        named = (self.args.text_column_names, self.args.label_column_name, self.args.soft_label_columns)
        names = [name for names in named for name in names or ()]
        dotted = [name for name in names if "." in name]
        for row in self._raw_records() if dotted else rows.convert(self._raw_records()):
            yield {**row, **{name: value_at(row, name) for name in dotted}}
        if self.needs_label and not self._is_reported:
            rows.report()
            self._is_reported = True

    @cached_property
    def _keeps_lists(self) -> bool:
        """Whether a record of an annotation tool's export has several labels; the first rows tell for predictions."""
        return has_several_labels(islice(self._raw_records(), self.sample_rows), str(self.path))

    def _raw_records(self) -> Iterator[dict[str, Any]]:
        if self._is_one_document():
            yield from self._records_of_document()
            return
        for number, line in enumerate(self.file.lines(), start=1):
            if line.strip():
                yield parse_object(line, f"{self.path}, line {number}")

    def _is_one_document(self) -> bool:
        """Says whether the file is one JSON document; otherwise it has one object per line."""
        lines = (line for line in self.file.lines() if line.strip())
        first, second = next(lines, None), next(lines, None)
        if first is None:
            raise DataError(f"{self.path}: the file is empty")
        is_json = format_suffix(self.path, self.args) == ".json"
        return is_json and (second is None or not _is_object(first))

    def _records_of_document(self) -> Iterator[dict[str, Any]]:
        try:
            document = json.loads("".join(self.file.lines()))
        except json.JSONDecodeError as error:
            raise DataError(
                f"{self.path}, line {error.lineno}: not valid JSON: {error.msg}; is the file cut off?"
            ) from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self.path}: {_excess(error)}") from error
        if isinstance(document, dict):
            lists = [value for value in document.values() if _is_list_of_objects(value)]
            # An object without a list of objects is a single row.
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
    except (ValueError, RecursionError):
        return False


def _excess(error: ValueError | RecursionError) -> str:
    """Says what is too much in valid JSON: lists or objects within each other, or the digits of a whole number."""
    return "lists or objects are nested too deeply" if isinstance(error, RecursionError) else one_line(error)


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)


def columns_of_sample(records: Sequence[dict[str, Any]], args: DataArguments, name: str) -> Columns:
    """Finds the columns of a source from its first rows; returns the column `text` if there are none.

    Args:
        records: the first rows, under the source's own column names.
        args: the data options, which can name the columns.
        name: the source's name in messages.

    Raises:
        DataError: the rows have no text column.
    """
    if not records:
        return Columns(("text",))
    available = list(dict.fromkeys(key for record in records for key in record))
    return resolve_columns(available, args, name, needs_label=False, rows=records)


def parse_object(line: str, place: str) -> dict[str, Any]:
    """Parses one line of a jsonl file.

    Args:
        line: the line.
        place: file and line number; the error starts with it.

    Raises:
        DataError: the line is not valid JSON, or not an object.
    """
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: not valid JSON: {error.msg}; is the line cut off?") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: {_excess(error)}") from error
    if not isinstance(row, dict):
        raise DataError(f"{place}: expected an object, got {line.strip()[:60]}")
    return row


def kind_of(value: Any) -> str:
    """Names the kind of a JSON value for messages, such as `text`, `whole number` or `list of texts`."""
    if isinstance(value, str):
        return "half of a surrogate pair" if _SURROGATE.search(value) else "text"
    if isinstance(value, list):
        item_kinds = {kind_of(item) for item in value}
        if not item_kinds:
            return "list without items"
        return f"list of {item_kinds.pop()}s" if len(item_kinds) == 1 else "mixed list"
    return _KINDS[type(value)]


def refuse_other_than_text(path: Path, name: str, kinds: dict[str, int]) -> None:
    """Checks that a text column holds strings only.

    Args:
        path: the file.
        name: the column.
        kinds: the kinds of its values, each with the first row that has it.

    Raises:
        DataError: a value is not a string; the message gives its row.
    """
    for kind, row in kinds.items():
        if kind != "text":
            raise DataError(f"{path}, row {row}: {name!r} holds a {kind}: write a string")


def label_feature(path: Path, name: str, kinds: dict[str, int]) -> Any:
    """Returns the Arrow type of the label column.

    Args:
        path: the file.
        name: the column.
        kinds: the kinds of its values, each with the first row that has it.

    Raises:
        DataError: the labels are of several kinds, or of a kind that is not a label; the message gives the rows.
    """
    if set(kinds) == {"whole number", "number"}:
        return LABEL_FEATURES["number"]
    if set(kinds) <= {"list of whole numbers", "list of numbers", "mixed list"} and "list of numbers" in kinds:
        return LABEL_FEATURES["list of numbers"]
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


def standard_rows(records: Iterable[dict[str, Any]], columns: Columns, name: str) -> Iterator[dict[str, Any]]:
    """Yields the used columns of each row under their standard names, with ids converted to strings.

    Args:
        records: the rows under the source's own column names.
        columns: the used columns of the source.
        name: the source's name in messages.

    Raises:
        DataError: one of several label columns holds something other than 0, 1 or -1.
    """
    for number, record in enumerate(records, start=1):
        row = columns.standard_row(record, f"{name}, row {number}")
        if row.get("id") is not None:
            row["id"] = str(row["id"])
        # Python's json reads NaN as a float, which cannot stand in a column of strings.
        if isinstance(row.get("label"), float) and is_missing(row["label"]):
            row["label"] = None
        yield row


def checked_rows(rows: Iterable[dict[str, Any]], columns: Columns, name: str) -> Iterator[dict[str, Any]]:
    """Yields the rows, after checking the types of their texts and ids.

    Args:
        rows: the rows under standard column names.
        columns: the used columns of the source.
        name: the source's name in messages.

    Raises:
        DataError: a text or an id is neither a string nor missing; the message gives the row.
    """
    own_names = {standard: own for own, standard in columns.standard_names().items() if standard != "label"}
    own_names.setdefault("text", "text")
    for number, row in enumerate(rows, start=1):
        for standard_name, own_name in own_names.items():
            kind = kind_of(row[standard_name])
            if kind not in ("text", "null"):
                raise DataError(f"{name}, row {number}: {own_name!r} holds a {kind}: write a string")
        yield row
