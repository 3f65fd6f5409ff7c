"""The base classes of the readers of all formats, and the loading of their rows into the datasets library."""

import copy
import hashlib
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from datasets import Dataset, Features, IterableDataset, Value
from datasets.exceptions import DatasetGenerationError

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.columns import Columns
from bertcls_hf.data.text_files import TextFile, TextFormat, text_format_of
from bertcls_hf.data.text_stream import RawStream
from bertcls_hf.errors import DataError, RunError, StorageError, one_line


# Part of the key in the datasets cache. Increase it when the output of a reader changes.
READER_VERSION = 2


class TableReader(ABC):
    """Reads one table. The file is opened once, when it is first needed, and closed by `close` or a `with` statement.

    Args:
        path: the file.
        args: the data options, which say how to find the columns and how to decode text files.
        needs_label: whether a table without a label column is refused.
        sample_rows: the number of first rows of a json file from which the columns are found; each row is then checked
            when it is read. None finds the columns from all rows, which are checked before the first one is returned.
    """

    def __init__(self, path: Path, args: DataArguments, needs_label: bool, sample_rows: int | None = None):
        self.path, self.args, self.needs_label, self.sample_rows = path, args, needs_label, sample_rows

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def for_content(self) -> "TableReader":
        """Returns the reader that fits the content of the file, if several formats share its suffix."""
        return self

    @property
    @abstractmethod
    def columns(self) -> Columns:
        """The used columns.

        Raises:
            DataError: a column is missing, or the file cannot be read.
        """

    @abstractmethod
    def rows(self) -> Iterator[dict[str, Any]]:
        """Yields all rows under the standard names `text`, `text_pair`, `label` and `id`.

        Raises:
            DataError: a row cannot be read; the message gives its number.
        """

    @abstractmethod
    def load(self) -> Dataset:
        """Loads all rows into the datasets cache, under the standard names.

        Raises:
            DataError: the file cannot be read, or has no rows.
        """

    @abstractmethod
    def stream(self, paths: Sequence[Path], name: str) -> RawStream:
        """Opens several files of this format as a stream, whose rows are read when they are used.

        Args:
            paths: the files. The first is the file of this reader; the others are assumed to have its format and
                columns.
            name: the name of all files together in messages.
        """

    @abstractmethod
    def close(self) -> None:
        """Closes the file. A later reading opens it again."""


class TextTableReader(TableReader):
    """A base class for text formats, whose rows are read as Python objects."""

    # The name of the reader in the keys of the datasets cache. A new name would cause every file to be read again.
    cache_name: ClassVar[str]

    def __init__(self, path: Path, args: DataArguments, needs_label: bool, sample_rows: int | None = None):
        super().__init__(path, args, needs_label, sample_rows)
        self.file = self._text_file(path)

    def _text_file(self, path: Path) -> TextFile:
        return TextFile(path, self.args.encoding, self.args.encoding_errors)

    @cached_property
    def text_format(self) -> TextFormat:
        """The format in the options. A reader of delimited files replaces `auto` in it by the detected values."""
        return text_format_of(self.args)

    @abstractmethod
    def features(self) -> Features:
        """Returns the Arrow type of each column under its standard name.

        Raises:
            DataError: a column holds a value of a wrong type; the message gives its row.
        """

    def digest(self) -> str:
        """Returns the SHA-256 of the content, as hexadecimal digits."""
        return self.file.digest()

    def cache_options(self) -> dict[str, Any]:
        """Returns what the rows depend on besides the content and the text format, for the cache key."""
        return {"columns": self.columns}

    def close(self) -> None:
        self.file.close()

    def like(self, path: Path) -> Self:
        """Creates a reader of another file, which uses the format and the columns that this reader has found."""
        other = copy.copy(self)
        other.path, other.file = path, self._text_file(path)
        return other

    def load(self) -> Dataset:
        features = self.features()
        try:
            return Dataset.from_generator(self.rows, features=features, fingerprint=self._fingerprint(features))
        except DatasetGenerationError as error:
            if isinstance(error.__cause__, RunError):
                raise error.__cause__ from None
            if isinstance(error.__cause__, OSError):
                raise StorageError(f"the datasets cache cannot be written: {error.__cause__}") from error
            raise DataError(f"{self.path}: {one_line(error.__cause__ or error)}") from error
        except ValueError as error:
            # datasets raises a ValueError with this text if the generator yields no row.
            if "corresponds to no data" not in str(error):
                raise
            below = " below the header" if self.text_format.csv_header == "true" else ""
            raise DataError(f"{self.path}: no rows{below}") from error

    def _fingerprint(self, features: Features) -> str:
        """Returns the key in the datasets cache. It depends on the content, so a moved file is not read again."""
        salt = uuid.uuid4().hex if self.args.overwrite_cache else ""
        key = (
            READER_VERSION,
            self.cache_name,
            self.digest(),
            asdict(self.text_format),
            str(features),
            self.cache_options(),
            salt,
        )
        return hashlib.sha256(repr(key).encode()).hexdigest()[:16]

    def stream(self, paths: Sequence[Path], name: str) -> RawStream:
        columns = self.columns.combined()
        # datasets divides a list among the processes, and gives every other value to each of them.
        generator_arguments = {"paths": [str(path) for path in paths], "first": self}
        rows = IterableDataset.from_generator(_rows_of_files, gen_kwargs=generator_arguments)
        return RawStream(name, rows, columns)


def _rows_of_files(paths: list[str], first: TextTableReader) -> Iterator[dict[str, Any]]:
    for path in paths:
        with first.like(Path(path)) as reader:
            yield from reader.rows()


def string_features(*names: str) -> Features:
    """Returns the Arrow types of columns of strings."""
    return Features({name: Value("string") for name in names})
