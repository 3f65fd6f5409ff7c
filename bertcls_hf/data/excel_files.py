"""The reader of Excel workbooks (.xlsx)."""

import logging
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from bertcls_hf.data.delimited_files import DelimitedReader
from bertcls_hf.data.table_reader import TextTableReader
from bertcls_hf.data.text_files import TextFormat
from bertcls_hf.errors import ArgumentsError, DataError, one_line


logger = logging.getLogger(__name__)


class ExcelReader(DelimitedReader):
    """Reads the first sheet of a workbook, whose cells become texts; the header is found as in a csv file."""

    cache_name = "excel_rows"

    def for_content(self) -> TextTableReader:
        return self

    @cached_property
    def text_format(self) -> TextFormat:
        """The format, of which only the header is detected.

        Raises:
            DataError: the sheet is empty or has one column where more are needed, or the file is no workbook.
            ArgumentsError: openpyxl is not installed.
        """
        if not self._cells:
            raise DataError(f"{self.path}: the first sheet is empty")
        resolved = TextFormat(csv_header=self.args.csv_header, csv_delimiter=",", csv_quoting="minimal")
        return TextFormat(csv_header=self._detect_header(resolved), csv_delimiter=",", csv_quoting="minimal")

    @cached_property
    def _cells(self) -> list[list[str]]:
        """The rows of the first sheet, without blank ones at its end."""
        try:
            from openpyxl import load_workbook  # type: ignore[import-untyped]
        except ImportError as error:
            raise ArgumentsError(f"{self.path}: reading .xlsx needs openpyxl (pip install openpyxl)") from error
        try:
            workbook = load_workbook(self.path, read_only=True, data_only=True)
            names = workbook.sheetnames
            cells = workbook.worksheets[0].iter_rows(values_only=True)
            rows = [[_text_of_cell(cell) for cell in row] for row in cells]
            workbook.close()
        except PermissionError:
            raise
        except Exception as error:  # zipfile, XML parsers and openpyxl raise exceptions of their own.
            raise DataError(f"{self.path}: not an Excel workbook: {one_line(error)}") from error
        if len(names) > 1:
            logger.warning("%s: only the first sheet, %r, of %d is read", self.path, names[0], len(names))
        return rows

    def _numbered_rows(self, text_format: TextFormat) -> Iterator[tuple[int, list[str]]]:
        for number, row in enumerate(self._cells, start=1):
            if any(cell.strip() for cell in row):
                yield number, row


def _text_of_cell(value: Any) -> str:
    if value is None:
        return ""
    # Excel holds every number as a float.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
