"""The reader of csv, tsv and txt files.

The csv module is used instead of pandas, because it does not convert values: `null` and `NA` stay texts. It also
gives the line number of each malformed row.
"""

import csv
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from itertools import islice
from typing import Any

from datasets import Features

from bertcls_hf.data.columns import KNOWN_COLUMNS, Columns, resolve_columns
from bertcls_hf.data.table_reader import TextTableReader, string_features
from bertcls_hf.data.text_files import TextFormat, text_format_of
from bertcls_hf.errors import ArgumentsError, DataError


logger = logging.getLogger(__name__)

DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
SAMPLE_LINES = 10_000
LONGEST_FIELD = 2**31 - 1


class DelimitedReader(TextTableReader):
    """Reads delimited text, and detects the header, delimiter and quoting that the options do not give."""

    cache_name = "_delimited_rows"

    @cached_property
    def text_format(self) -> TextFormat:
        """The format of the file, in which detected values replace `auto` and None.

        Raises:
            DataError: the file is empty, or has one column where more are needed.
            ArgumentsError: the delimiter is not one character, or is a quote.
        """
        sample = list(islice(self.file.lines(), SAMPLE_LINES))
        if not any(line.strip() for line in sample):
            raise DataError(f"{self.path}: the file is empty")
        requested = text_format_of(self.args)
        delimiter = self._delimiter()
        quoting = requested.csv_quoting
        if quoting == "auto":
            quoting = "minimal" if self.path.suffix.lower() == ".csv" else _detect_quoting(sample, delimiter)
        resolved = replace(requested, csv_delimiter=delimiter, csv_quoting=quoting)
        return replace(resolved, csv_header=self._detect_header(resolved))

    def _delimiter(self) -> str:
        delimiter = self.args.csv_delimiter or DELIMITERS[self.path.suffix.lower()]
        delimiter = "\t" if delimiter == "\\t" else delimiter
        if len(delimiter) != 1 or delimiter in '"\r\n':
            raise ArgumentsError(f"--csv_delimiter {self.args.csv_delimiter!r}: must be one character, and no quote")
        return delimiter

    def _detect_header(self, text_format: TextFormat) -> str:
        """Detects whether the first row is a header.

        It is one if it holds a column name that the user gave, or a usual one. Without such a name, the row is a
        header unless its last field is also the label of a later row. A `--csv_header` other than `auto` is
        returned unchanged.

        Returns:
            `true` or `false`.

        Raises:
            DataError: the file has one column where more are needed.
        """
        named_by_user = {*(self.args.text_column_names or ()), *filter(None, [self.args.label_column_name])}
        _, first_row = next(self._numbered_rows(text_format))
        is_header = bool(named_by_user & set(first_row)) or any(
            name.strip().lower() in KNOWN_COLUMNS for name in first_row
        )
        is_auto = text_format.csv_header == "auto"
        if len(first_row) == 1 and (self.needs_label or (is_auto and not is_header)):
            raise DataError(self._one_column_message(first_row[0], text_format))
        if not is_auto:
            return text_format.csv_header
        return "true" if is_header or not self._first_label_recurs(text_format) else "false"

    def _first_label_recurs(self, text_format: TextFormat) -> bool:
        """Says whether the last field of the first row is also the last field of a later row."""
        rows = islice(self._numbered_rows(text_format), SAMPLE_LINES)
        label = next(rows)[1][-1]
        recurs = any(row[-1] == label for _, row in rows)
        if recurs:
            logger.info("%s: no header (the first row's label, %r, occurs again)", self.path, label)
        return recurs

    def _one_column_message(self, first_line: str, text_format: TextFormat) -> str:
        delimiter = text_format.csv_delimiter
        others = [mark for mark in (",", "\t", ";", "|") if mark in first_line and mark != delimiter]
        if others:
            hint = f"it seems to be separated by {others[0]!r}, pass --csv_delimiter"
        elif self.needs_label:
            hint = "a text and a label are needed"
        else:
            hint = "if each line is a text, pass --csv_header false, or name the column: text"
        return f"{self.path}, line 1: one column (separator {delimiter!r}): {hint}"

    @cached_property
    def columns(self) -> Columns:
        has_header = self.text_format.csv_header == "true"
        # Without a header, `column_names` gives the columns standard names, so the names in the options do not apply.
        texts, label = (self.args.text_column_names, self.args.label_column_name) if has_header else (None, None)
        names = self.column_names()
        try:
            return resolve_columns(names, texts, label, str(self.path), self.needs_label)
        except DataError as error:
            hint = "; if line 1 is a row and no header, pass --csv_header false"
            raise DataError(f"{error}{hint if self.args.csv_header == 'auto' else ''}") from error

    def column_names(self) -> list[str]:
        """Returns the column names of the header, or standard names if the file has no header.

        Raises:
            DataError: a name occurs twice in the header, or a file without header has more than 3 columns.
        """
        _, first_row = next(self._numbered_rows(self.text_format))
        if self.text_format.csv_header == "true":
            repeated = sorted({name for name in first_row if first_row.count(name) > 1})
            if repeated:
                raise DataError(f"{self.path}: the header names column {repeated[0]!r} twice")
            return first_row
        names = {1: ["text"], 2: ["text", "label"], 3: ["sentence1", "sentence2", "label"]}.get(len(first_row))
        if names is None:
            raise DataError(
                f"{self.path}: {len(first_row)} columns and no header: without one, a file is text,label or "
                "sentence1,sentence2,label; add a header, or pass --csv_header true if line 1 is one"
            )
        return names

    def features(self) -> Features:
        return string_features(*self.columns.standard_names().values())

    def rows(self) -> Iterator[dict[str, Any]]:
        names = self.columns.standard_names()
        for record in self.records():
            yield {standard_name: record[name] for name, standard_name in names.items()}

    def records(self) -> Iterator[dict[str, str]]:
        """Yields each row as a mapping from every name in [`column_names`] to its field.

        Raises:
            DataError: a row has more or fewer fields than columns, a quote is broken, or a line cannot be decoded.
        """
        names = self.column_names()
        rows = self._numbered_rows(self.text_format)
        if self.text_format.csv_header == "true":
            next(rows)
        for line, row in rows:
            if len(row) != len(names):
                raise DataError(
                    f"{self.path}, line {line}: {len(row)} fields where {len(names)} are expected "
                    f"({', '.join(names)}); is a text unquoted, or is --csv_delimiter or --csv_quoting wrong?"
                )
            yield dict(zip(names, row, strict=True))

    def _numbered_rows(self, text_format: TextFormat) -> Iterator[tuple[int, list[str]]]:
        """Yields the line number and the fields of each row, from the start of the file, without blank rows."""
        csv.field_size_limit(LONGEST_FIELD)
        quotes: dict[str, Any] = {"quoting": csv.QUOTE_NONE} if text_format.csv_quoting == "none" else {"strict": True}
        reader = csv.reader(self.file.lines(), delimiter=text_format.csv_delimiter or ",", **quotes)
        line = 1
        try:
            for row in reader:
                if row:
                    yield line, row
                line = reader.line_num + 1
        except csv.Error as error:
            raise DataError(
                f"{self.path}, line {line}: {error}; if quotation marks are part of the texts, pass --csv_quoting none"
            ) from error


def _detect_quoting(lines: list[str], delimiter: str) -> str:
    """Detects whether quotation marks enclose fields (`minimal`) or are part of the texts (`none`).

    If the quotes are well-formed, they enclose fields if every row has them, or if a field contains a doubled quote;
    otherwise they are part of the texts. If they are malformed, they are part of the texts if every line has the same
    number of fields; otherwise a quoted field probably contains a delimiter or a line break.
    """
    rows = [line.rstrip("\r\n").split(delimiter) for line in lines if line.strip()]
    quoted = [field for row in rows for field in row if field.startswith('"')]
    well_formed = all(re.fullmatch(r'"(?:[^"]|"")*"', field) for field in quoted)
    if quoted and well_formed:
        is_in_every_row = all(any(field.startswith('"') for field in row) for row in rows)
        has_doubled_quote = any('""' in field[1:-1] for field in quoted)
        return "minimal" if is_in_every_row or has_doubled_quote else "none"
    same_width = len({len(row) for row in rows}) == 1
    return "none" if not quoted or same_width else "minimal"
