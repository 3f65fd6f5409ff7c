"""A file of labelled texts, to which rows are added, so that the file before stays a prefix of the file after.

After each writing, before the new file takes the place of the old one, it is read as a training would read it, and the
rows must be those that were there and those that were added: none is lost, changed or torn.
"""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bertcls_hf.atomic_files import sync_folder, write_atomically
from bertcls_hf.config.arguments import DataArguments, FileFormat
from bertcls_hf.data.columns import Columns
from bertcls_hf.data.delimited_files import DelimitedReader
from bertcls_hf.data.file_formats import open_reader
from bertcls_hf.data.input_paths import format_suffix
from bertcls_hf.data.labels import RawLabel, label_format
from bertcls_hf.data.table_reader import TextTableReader
from bertcls_hf.errors import DataError, RunError


DELIMITED, JSON_LINES = (".csv", ".tsv"), (".jsonl", ".ndjson")
FILE_FORMATS: dict[str, FileFormat] = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


@dataclass(frozen=True)
class LabelledRow:
    """A text with its label.

    Args:
        texts: the text, or the two texts of a pair.
        label: the name of the label, or a list of names; None if it is missing.
        id: the id of the row, if it has one.
    """

    texts: tuple[str, ...]
    label: RawLabel
    id: str | None = None


class LabelledFile:
    """A csv, tsv or jsonl file of labelled rows, which one program changes at a time.

    Args:
        path: the file; one that does not exist is made with the first rows.
        args: the data options by which a training reads it.

    Raises:
        DataError: its format takes no more rows, or it cannot be read.
    """

    def __init__(self, path: Path, args: DataArguments):
        self.path, self.args = path, args
        suffix = format_suffix(path, args)
        if path.suffix.lower() not in (*DELIMITED, *JSON_LINES) or suffix not in (*DELIMITED, *JSON_LINES):
            raise DataError(f"{path}: rows are added to csv, tsv and jsonl files: convert it to one of them")
        self._suffix = suffix
        self._content = path.read_bytes() if path.exists() else b""
        # The size and the number of rows before each of the additions that can be undone.
        self._before: list[tuple[int, int]] = []
        # How the file itself writes a label, such as 1 for `pos`.
        self._spelling: dict[str, Any] = {}
        self.rows: list[LabelledRow] = self._read(path) if self._content else []

    def append(self, rows: Sequence[LabelledRow]) -> None:
        """Adds rows at the end of the file, all of them or none.

        Args:
            rows: the rows, each with a label.

        Raises:
            DataError: the file was changed by somebody else, or its format cannot hold the rows.
            StorageError: the disk is full or cannot be written.
        """
        self._refuse_change()
        try:
            content = self._content + self._formatted(rows)
        except UnicodeEncodeError as error:
            character = error.object[error.start]
            raise DataError(
                f"{self.path}: {self.args.encoding} has no {character!r}, so nothing was written: convert the file to "
                "UTF-8"
            ) from error
        self._replace(content, [*self.rows, *rows])
        self._before.append((len(self._content), len(self.rows)))
        self._content, self.rows = content, [*self.rows, *rows]

    def undo(self) -> None:
        """Takes the rows of the last [`append`] away again; a file that it had made is removed.

        Raises:
            DataError: the file was changed by somebody else.
            StorageError: the disk is full or cannot be written.
        """
        self._refuse_change()
        size, count = self._before[-1]
        content, rows = self._content[:size], self.rows[:count]
        if content:
            self._replace(content, rows)
        else:
            self.path.unlink()
            sync_folder(self.path.parent)
        self._before.pop()
        self._content, self.rows = content, rows

    def _refuse_change(self) -> None:
        found = self.path.read_bytes() if self.path.exists() else b""
        if found != self._content:
            raise DataError(f"{self.path} was changed by another program, so nothing was written: start again")

    def _replace(self, content: bytes, rows: Sequence[LabelledRow]) -> None:
        def fill(temporary: Path) -> None:
            temporary.write_bytes(content)
            self._check(temporary, rows)

        write_atomically(self.path, fill)

    def _check(self, written: Path, rows: Sequence[LabelledRow]) -> None:
        try:
            is_right = _comparable(self._read(written)) == _comparable(rows)
        except RunError:
            is_right = False
        if not is_right:
            raise DataError(
                f"{self.path}: its format cannot hold the new rows (a csv file with quoted texts, or a jsonl file, "
                "can): nothing was written"
            )

    def _reader(self, path: Path) -> TextTableReader:
        # The file that is checked has a temporary name.
        args = replace(self.args, file_format=FILE_FORMATS[self._suffix])
        reader = open_reader(path, args, needs_label=True, alternative="")
        assert isinstance(reader, TextTableReader)
        return reader

    def _read(self, path: Path) -> list[LabelledRow]:
        with self._reader(path) as reader:
            # A json file's kinds of values are looked at here.
            reader.features()
            rows = list(reader.rows())
        raw = [row.get("label") for row in rows]
        read = label_format(raw, None, self.args, str(self.path)).read
        names = [read(label) for label in raw]
        self._spelling |= {name: label for name, label in zip(names, raw, strict=True) if isinstance(name, str)}
        texts = [tuple(row[name] or "" for name in ("text", "text_pair") if name in row) for row in rows]
        ids = [row.get("id") for row in rows]
        return [LabelledRow(*row) for row in zip(texts, names, ids, strict=True)]

    def _formatted(self, rows: Sequence[LabelledRow]) -> bytes:
        if not self._content:
            return self._first(rows)
        with self._reader(self.path) as reader:
            columns = reader.columns
            if columns.is_combined or columns.label is None:
                raise DataError(
                    f"{self.path}: rows are added to one column of labels and one of each text, not several"
                )
            records = [self._record(row, columns) for row in rows]
            if isinstance(reader, DelimitedReader):
                text = _delimited(
                    records, reader.column_names(), reader.text_format.csv_delimiter or ",", self._line_end
                )
            else:
                text = _json_lines(records)
        start = "" if self._content.endswith((b"\n", b"\r")) else self._line_end
        return (start + text).encode(self.args.encoding)

    @property
    def _line_end(self) -> str:
        return "\r\n" if b"\r\n" in self._content else "\n"

    def _first(self, rows: Sequence[LabelledRow]) -> bytes:
        """Formats the rows of a new file."""
        texts = tuple(self.args.text_column_names or ("text", "text_pair"))[: len(rows[0].texts)]
        columns = Columns(texts, tuple(self.args.label_column_name or ("label",)), "id" if rows[0].id else None)
        records = [self._record(row, columns) for row in rows]
        if self._suffix in JSON_LINES:
            return _json_lines(records).encode(self.args.encoding)
        names, delimiter = list(records[0]), "," if self._suffix == ".csv" else "\t"
        header = {name: name for name in names}
        return _delimited([header, *records], names, delimiter, "\n").encode(self.args.encoding)

    def _record(self, row: LabelledRow, columns: Columns) -> dict[str, Any]:
        """Returns a row under the file's own names."""
        assert columns.label is not None
        record: dict[str, Any] = dict(zip(columns.texts, row.texts, strict=True))
        label = row.label
        if isinstance(label, list) and self._suffix in DELIMITED:
            delimiter = self.args.label_delimiter
            label = json.dumps(label, ensure_ascii=False) if delimiter is None else delimiter.join(label)
        record[columns.label] = self._spelling.get(label, label) if isinstance(label, str) else label
        return record if columns.id is None or row.id is None else {columns.id: row.id, **record}


def _comparable(rows: Sequence[LabelledRow]) -> list[tuple[Any, ...]]:
    return [(row.texts, row.label) for row in rows]


def _delimited(records: Sequence[dict[str, Any]], names: Sequence[str], delimiter: str, line_end: str) -> str:
    buffer = io.StringIO(newline="")
    csv.DictWriter(buffer, names, delimiter=delimiter, lineterminator=line_end).writerows(records)
    return buffer.getvalue()


def _json_lines(records: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
