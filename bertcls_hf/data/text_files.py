"""Decodes text files. Everything that is read from one file shares one open handle."""

import bz2
import codecs
import gzip
import hashlib
import lzma
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, cast
from zipfile import BadZipFile, ZipFile

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.input_paths import zip_member
from bertcls_hf.errors import ArgumentsError, DataError


BROKEN_ARCHIVE = (EOFError, OSError, lzma.LZMAError, zlib.error, BadZipFile)


@dataclass(frozen=True)
class TextFormat:
    """The options that say how to decode a text file; each field has the meaning that it has in `DataArguments`."""

    encoding: str = "utf-8"
    encoding_errors: str = "strict"
    csv_header: str = "auto"
    csv_delimiter: str | None = None
    csv_quoting: str = "auto"


def text_format_of(args: DataArguments) -> TextFormat:
    """Returns the text format that the options give, before anything is detected."""
    return TextFormat(args.encoding, args.encoding_errors, args.csv_header, args.csv_delimiter, args.csv_quoting)


def encoding_without_mark(name: str) -> str:
    """Returns the name of an encoding; for UTF-8, the name of its variant that skips a byte order mark.

    Raises:
        ArgumentsError: Python knows no encoding of this name.
    """
    try:
        return "utf-8-sig" if codecs.lookup(name).name == "utf-8" else name
    except LookupError as error:
        raise ArgumentsError(f"--encoding {name}: {error}") from error


def open_decompressed(path: Path) -> BinaryIO:
    """Opens a file for reading bytes; a .gz, .bz2 or .xz file, or the only file of a .zip, is decompressed.

    Raises:
        DataError: a zip archive is broken, or holds no file or several.
    """
    suffix = path.suffix.lower()
    if suffix == ".zip":
        return cast(BinaryIO, ZipFile(path).open(zip_member(path)))
    openers: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    return openers.get(suffix, open)(path, "rb")


class TextFile:
    """A text file that is opened when it is first read. Each further reading starts at the beginning again.

    A pickled copy holds no open file; it opens the file itself when it is read.

    Args:
        path: the file.
        encoding: the name of an encoding that Python knows; with UTF-8, a byte order mark is skipped.
        encoding_errors: what to do with bytes that the encoding does not know, as in `open`.
    """

    def __init__(self, path: Path, encoding: str = "utf-8", encoding_errors: str = "strict"):
        self.path, self.encoding, self.encoding_errors = path, encoding, encoding_errors
        self._bytes: BinaryIO | None = None
        self._text: TextIOWrapper | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_bytes": None, "_text": None}

    def __enter__(self) -> "TextFile":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file. A later reading opens it again."""
        if self._bytes is not None:
            self._bytes.close()
        self._bytes = self._text = None

    def lines(self) -> Iterator[str]:
        """Yields the lines, each with its line end. Only one iteration may run at a time.

        Raises:
            DataError: the file has NUL bytes or bytes that the encoding does not know; the message gives the line.
            ArgumentsError: Python knows no encoding of this name.
        """
        try:
            for number, line in enumerate(self._rewound_text(), start=1):
                if "\0" in line:
                    raise DataError(
                        f"{self.path}, line {number}: NUL byte; is this a binary file, or UTF-16 (--encoding utf-16)?"
                    )
                yield line
        except UnicodeDecodeError as error:
            raise DataError(self._decoding_message(error)) from error
        except BROKEN_ARCHIVE as error:
            # bz2 raises an OSError without a number; one of the file system has a number.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise DataError(f"{self.path}: the compressed file is broken: {error}") from error
        except UnicodeError as error:
            raise DataError(f"{self.path}: not a {self.encoding} file: {error}") from error
        except LookupError as error:
            raise ArgumentsError(f"--encoding {self.encoding}: {error}") from error

    def digest(self) -> str:
        """Returns the SHA-256 of the bytes, as hexadecimal digits."""
        return hashlib.file_digest(self._rewound_bytes(), "sha256").hexdigest()  # type: ignore[arg-type]

    def _rewound_text(self) -> TextIOWrapper:
        if self._text is None:
            encoding = encoding_without_mark(self.encoding)
            self._text = TextIOWrapper(self._rewound_bytes(), encoding, self.encoding_errors, newline="")
        self._text.seek(0)
        return self._text

    def _rewound_bytes(self) -> BinaryIO:
        if self._bytes is None:
            self._bytes = open_decompressed(self.path)
        self._bytes.seek(0)
        return self._bytes

    def _decoding_message(self, error: UnicodeDecodeError) -> str:
        try:
            content = self._rewound_bytes().read()
        except BROKEN_ARCHIVE as damage:
            return f"{self.path}: the compressed file is broken: {damage}"
        if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return f"{self.path}: not a {self.encoding} file but UTF-16: pass --encoding utf-16"
        try:
            content.decode(self.encoding)
            line = 1
        except UnicodeDecodeError as full_error:
            line, error = content.count(b"\n", 0, full_error.start) + 1, full_error
        return (
            f"{self.path}, line {line}: byte 0x{error.object[error.start]:02x} is not {self.encoding}: pass the "
            "file's --encoding (latin-1, cp949, …), or --encoding_errors replace"
        )
