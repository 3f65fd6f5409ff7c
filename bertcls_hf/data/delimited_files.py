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

from datasets import Features, List, Value

from bertcls_hf.data.column_guesses import (
    advice_for_columns_without_header,
    guess_label_position,
    is_plain_name,
    is_sentence,
    looks_swapped,
)
from bertcls_hf.data.columns import KNOWN_COLUMNS, SOFT_LABEL, Columns, resolve_columns, usual_spelling
from bertcls_hf.data.input_paths import format_suffix
from bertcls_hf.data.label_first_files import LabelFirstReader, label_first_layout
from bertcls_hf.data.table_reader import TextTableReader, string_features
from bertcls_hf.data.text_files import TextFormat, text_format_of
from bertcls_hf.errors import ArgumentsError, DataError


logger = logging.getLogger(__name__)

DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
SAMPLE_LINES = 10_000
LONGEST_FIELD = 2**31 - 1
# The name of a column in `--column_names` that is not read.
UNUSED = "_"
NAMES_WITHOUT_HEADER = {1: ["text"], 2: ["text", "label"], 3: ["sentence1", "sentence2", "label"]}
# Delimiters that a message can suggest: single ones, and repeated or mixed punctuation as in `a;;b` or `a_!_b`.
_SINGLE_DELIMITERS = (",", "\t", ";", "|")
_LONG_DELIMITER = re.compile(r"[;|,:_!#^~@]{2,}")


class DelimitedReader(TextTableReader):
    """Reads delimited text, and detects the header, delimiter and quoting that the options do not give."""

    cache_name = "_delimited_rows"

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._samples: dict[TextFormat, list[list[str]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        # The sample only serves to find the format and the columns, which a copy takes over.
        return {**self.__dict__, "_samples": {}}

    def for_content(self) -> TextTableReader:
        """Returns a reader of fastText's or TREC's layout if the file has it, and else this reader."""
        if format_suffix(self.path, self.args) != ".txt" or self.args.csv_delimiter is not None:
            return self
        layout = label_first_layout(islice(self.file.lines(), SAMPLE_LINES))
        if layout is None:
            return self
        reader = LabelFirstReader(self.path, self.args, self.needs_label, self.sample_rows, layout)
        reader.file = self.file
        return reader

    @cached_property
    def text_format(self) -> TextFormat:
        """The format of the file, in which detected values replace `auto` and None.

        Raises:
            DataError: the file is empty, or has one column where more are needed.
            ArgumentsError: the delimiter holds a quote or a line break, or quotes are asked for with a long delimiter.
        """
        sample = self._sample_lines()
        requested = text_format_of(self.args)
        delimiter = self._delimiter()
        quoting = self._quoting(sample, delimiter)
        resolved = replace(requested, csv_delimiter=delimiter, csv_quoting=quoting)
        return replace(resolved, csv_header=self._detect_header(resolved))

    def _sample_lines(self) -> list[str]:
        sample = list(islice(self.file.lines(), SAMPLE_LINES))
        if not any(line.strip() for line in sample):
            raise DataError(f"{self.path}: the file is empty")
        return sample

    def _delimiter(self) -> str:
        delimiter = self.args.csv_delimiter or DELIMITERS[format_suffix(self.path, self.args)]
        delimiter = "\t" if delimiter == "\\t" else delimiter
        if not delimiter or any(mark in delimiter for mark in '"\r\n'):
            raise ArgumentsError(f"--csv_delimiter {self.args.csv_delimiter!r}: must hold no quote and no line break")
        return delimiter

    def _quoting(self, sample: list[str], delimiter: str) -> str:
        asked = self.args.csv_quoting
        if len(delimiter) > 1:
            if asked not in ("auto", "none"):
                raise ArgumentsError(
                    f"--csv_quoting {asked}: fields that are separated by {delimiter!r} cannot be quoted: leave it out"
                )
            return "none"
        if asked != "auto":
            return asked
        if any('\\"' in line for line in sample) and _has_escaped_quotes(sample, delimiter):
            return "escaped"
        is_csv = format_suffix(self.path, self.args) == ".csv"
        return "minimal" if is_csv else _detect_quoting(sample, delimiter)

    def _sample(self, text_format: TextFormat) -> list[list[str]]:
        """Returns the fields of the first rows, with the header if there is one."""
        if text_format not in self._samples:
            self._samples[text_format] = [row for _, row in islice(self._numbered_rows(text_format), SAMPLE_LINES)]
        return self._samples[text_format]

    def _detect_header(self, text_format: TextFormat) -> str:
        """Detects whether the first row is a header.

        It is one if it is `--column_names`, or holds a column name that the user gave, or a usual one that is no value
        of its column. Without such a name, the row is a header unless its label is also the label of a later row. A
        `--csv_header` other than `auto` is returned unchanged.

        Returns:
            `true` or `false`.

        Raises:
            DataError: the file has one column where more are needed.
        """
        first, *rows = self._sample(text_format)
        is_known = self._has_known_name(first, rows)
        if len(first) == 1 and self.needs_label:
            raise DataError(self._one_column_message(first[0], rows, text_format))
        if text_format.csv_header != "auto":
            return text_format.csv_header
        if self.args.column_names:
            given = [usual_spelling(name) for name in self.args.column_names]
            return "true" if [usual_spelling(name) for name in first] == given else "false"
        if is_known:
            return "true"
        if len(first) == 1:
            return self._detect_header_of_one_column(first[0], rows, text_format)
        return "false" if self._first_label_recurs(first, rows) else "true"

    def _has_known_name(self, first: list[str], rows: list[list[str]]) -> bool:
        named_by_user = {*(self.args.text_column_names or ()), *(self.args.label_column_name or ())}
        if named_by_user & set(first):
            return True
        usual = [(position, name) for position, name in enumerate(first) if usual_spelling(name) in KNOWN_COLUMNS]
        return any(all(row[position : position + 1] != [name] for row in rows) for position, name in usual)

    def _first_label_recurs(self, first: list[str], rows: list[list[str]]) -> bool:
        """Says whether the label of the first row, or its last field, is also in a later row."""
        position = guess_label_position(rows)
        position = len(first) - 1 if position is None or position >= len(first) else position
        recurs = any(len(row) > position and row[position] == first[position] for row in rows)
        if recurs:
            logger.info("%s: no header (the first row's label, %r, occurs again)", self.path, first[position])
        return recurs

    def _detect_header_of_one_column(self, first: str, rows: list[list[str]], text_format: TextFormat) -> str:
        has_sentences = bool(rows) and sum(is_sentence(row[0]) for row in rows) > len(rows) / 2
        if has_sentences and is_plain_name(first):
            logger.info("%s: line 1, %r, is taken for the column's name", self.path, first)
            return "true"
        if has_sentences and is_sentence(first):
            logger.info("%s: no header: each line is a text", self.path)
            return "false"
        raise DataError(self._one_column_message(first, rows, text_format))

    def _one_column_message(self, first_line: str, rows: list[list[str]], text_format: TextFormat) -> str:
        delimiter = text_format.csv_delimiter
        long_delimiters = set(_LONG_DELIMITER.findall(first_line))
        for row in rows:
            long_delimiters &= set(_LONG_DELIMITER.findall(",".join(row)))
        others = [mark for mark in (*sorted(long_delimiters), *_SINGLE_DELIMITERS)
                  if mark in first_line and mark != delimiter]  # fmt: skip
        if others:
            hint = f"it seems to be separated by {others[0]!r}, pass --csv_delimiter {others[0]!r}"
        elif self.needs_label:
            hint = "a text and a label are needed"
        else:
            hint = "if each line is a text, pass --csv_header false, or name the column: text"
        return f"{self.path}, line 1: one column (separator {delimiter!r}): {hint}"

    @cached_property
    def columns(self) -> Columns:
        names = self.column_names()
        rows = [dict(zip(names, row, strict=False)) for row in self._sample(self.text_format)[self._header_rows :]]
        args = self.args
        if not self._header_rows and not args.column_names:
            # `column_names` gives the columns standard names, so the names in the options do not apply.
            args = replace(args, text_column_names=None, label_column_name=None)
        try:
            return resolve_columns(names, args, str(self.path), self.needs_label, rows)
        except DataError as error:
            if (guessed := self._guessed_columns(names)) is not None:
                return guessed
            raise DataError(f"{error}{self._header_hint(names)}") from error

    @property
    def _header_rows(self) -> int:
        return int(self.text_format.csv_header == "true")

    def _header_hint(self, names: list[str]) -> str:
        if self.args.csv_header != "auto" or not self._header_rows:
            return ""
        cells = [cell for row in self._sample(self.text_format)[1:] for cell in row if cell.strip()]
        is_plainly_header = all(map(is_plain_name, filter(None, names))) and not all(map(is_plain_name, cells))
        if is_plainly_header:
            return ""
        return "; if line 1 is a row and no header, pass --csv_header false"

    def _guessed_columns(self, names: list[str]) -> Columns | None:
        """Returns the only text column, or the text and the label of two columns of which one is plainly the label.

        Columns without a name are left out: spreadsheets write them for cells beside the table.
        """
        named = [position for position, name in enumerate(names) if name.strip()]
        is_told = self.args.text_column_names or self.args.label_column_name
        if is_told or len(named) > 2 or len({names[position] for position in named}) < len(named):
            return None
        if len(named) == 1:
            return None if self.needs_label else Columns((names[named[0]],))
        rows = self._sample(self.text_format)[self._header_rows :]
        cells = [[row[position] if position < len(row) else "" for position in named] for row in rows]
        label = guess_label_position(cells)
        if label is None:
            return None
        text, label = named[1 - label], named[label]
        logger.info("%s: column %r is taken for the label, since its values recur", self.path, names[label])
        return Columns((names[text],), (names[label],))

    def column_names(self) -> list[str]:
        """Returns the column names of the header or the options, or standard names if the file has no header.

        A copy for another file has the names of this one.

        Raises:
            DataError: a file without header has more than 3 columns, or its label seems to be another column than the
                last, or `--column_names` gives another number of names.
        """
        return self._column_names

    @cached_property
    def _column_names(self) -> list[str]:
        rows = self._sample(self.text_format)
        width = _filled_width(rows)
        if self.args.column_names:
            return self._given_names(len(rows[0]), width)
        if self._header_rows:
            return rows[0]
        if width in NAMES_WITHOUT_HEADER and not looks_swapped([row[:width] for row in rows]):
            return [*NAMES_WITHOUT_HEADER[width], *[""] * (len(rows[0]) - width)]
        raise DataError(f"{self.path}: {advice_for_columns_without_header([row[:width] for row in rows])}")

    def _given_names(self, fields: int, width: int) -> list[str]:
        names = list(self.args.column_names or ())
        if not width <= len(names) <= fields:
            raise DataError(f"{self.path}, line 1: {width} columns, but --column_names gives {len(names)} names")
        return ["" if name == UNUSED else name for name in names] + [""] * (fields - len(names))

    def features(self) -> Features:
        features = string_features(*self.columns.standard_columns)
        if len(self.columns.labels) > 1:
            features["label"] = List(Value("string"))
        if self.columns.shares:
            features[SOFT_LABEL] = List(Value("float32"))
        return features

    def rows(self) -> Iterator[dict[str, Any]]:
        columns = self.columns
        for number, record in enumerate(self.records(), start=1):
            yield columns.standard_row(record, f"{self.path}, row {number}")

    def records(self) -> Iterator[dict[str, str]]:
        """Yields each row as a mapping from every name in [`column_names`] to its field.

        Raises:
            DataError: a row has more or fewer fields than columns, a quote is broken, or a line cannot be decoded.
        """
        names = self.column_names()
        rows = self._numbered_rows(self.text_format)
        if self._header_rows:
            next(rows)
        for line, row in rows:
            has_other_width = len(row) < len(names) or any(field.strip() for field in row[len(names) :])
            if has_other_width:
                expected = ", ".join(name or UNUSED for name in names)
                raise DataError(
                    f"{self.path}, line {line}: {len(row)} fields where {len(names)} are expected "
                    f"({expected}); is a text unquoted, or is --csv_delimiter or --csv_quoting wrong?"
                )
            yield dict(zip(names, row, strict=False))

    def _numbered_rows(self, text_format: TextFormat) -> Iterator[tuple[int, list[str]]]:
        """Yields the line number and the fields of each row, from the start of the file, without blank rows."""
        delimiter = text_format.csv_delimiter or ","
        if len(delimiter) > 1:
            for number, line in enumerate(self.file.lines(), start=1):
                if line.strip():
                    yield number, line.rstrip("\r\n").split(delimiter)
            return
        csv.field_size_limit(LONGEST_FIELD)
        reader = csv.reader(self.file.lines(), delimiter=delimiter, **_quotes(text_format.csv_quoting))
        line_number = 1
        try:
            for row in reader:
                if row:
                    yield line_number, row
                line_number = reader.line_num + 1
        except csv.Error as error:
            raise DataError(
                f"{self.path}, line {line_number}: {error}; if quotation marks are part of the texts, pass "
                "--csv_quoting none"
            ) from error


def _quotes(quoting: str) -> dict[str, Any]:
    """Returns the arguments of `csv.reader` for a value of `--csv_quoting`."""
    if quoting == "none":
        return {"quoting": csv.QUOTE_NONE}
    return {"strict": True, "doublequote": False, "escapechar": "\\"} if quoting == "escaped" else {"strict": True}


def _filled_width(rows: list[list[str]]) -> int:
    """Returns the number of columns without the last ones, if these are empty in all rows."""
    return max((max((i + 1 for i, field in enumerate(row) if field.strip()), default=1) for row in rows), default=1)


def _has_escaped_quotes(lines: list[str], delimiter: str) -> bool:
    r"""Says whether the rows have one width if \" is a quotation mark within a field, and not otherwise."""
    return not _has_one_width(lines, delimiter, "minimal") and _has_one_width(lines, delimiter, "escaped")


def _has_one_width(lines: list[str], delimiter: str, quoting: str) -> bool:
    csv.field_size_limit(LONGEST_FIELD)
    widths: set[int] = set()
    try:
        for row in csv.reader(lines, delimiter=delimiter, **_quotes(quoting)):
            widths |= {len(row)} if row else set()
    except csv.Error as error:
        # The sample can end within a quoted field.
        return "unexpected end of data" in str(error) and len(lines) == SAMPLE_LINES and len(widths) == 1
    return len(widths) == 1


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
