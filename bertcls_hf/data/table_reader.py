"""What the readers of all formats have in common, and how the datasets library takes their rows."""

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


# Part of the cache key: raise it when the readers' output changes.
READER_VERSION = 1


class TableReader(ABC):
    """Reads one table, whose file is opened once, when it is first needed; a context manager that closes it.

    Args:
        path: the file.
        args: which columns are used, and how text files are decoded.
        needs_label: whether a table without a label column is refused.
        sample_rows: rows of a json file in which its columns must show; each row is then checked when its turn comes.
            None: all rows are looked at, and checked, before the first is read.
    """

    def __init__(self, path: Path, args: DataArguments, needs_label: bool, sample_rows: int | None = None):
        self.path, self.args, self.needs_label, self.sample_rows = path, args, needs_label, sample_rows

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    @abstractmethod
    def columns(self) -> Columns:
        """The columns that are used.

        Raises:
            DataError: one is missing, or the file cannot be read.
        """

    @abstractmethod
    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows, from the first one, under the standard names `text`, `text_pair`, `label` and `id`.

        Raises:
            DataError: a row that cannot be read, with its number.
        """

    @abstractmethod
    def load(self) -> Dataset:
        """All rows as a dataset in the datasets cache, under the standard names.

        Raises:
            DataError: the file cannot be read, or has no rows.
        """

    @abstractmethod
    def stream(self, paths: Sequence[Path], name: str) -> RawStream:
        """The rows of several files of this format, which are read while they are used.

        Args:
            paths: the files; this reader's is the first of them, and the others are read as it is.
            name: what messages call them together.
        """

    @abstractmethod
    def close(self) -> None:
        """Closes the file; what is read after that opens it again."""


class TextTableReader(TableReader):
    """A reader of text, whose rows are Python objects."""

    # Names the reader in cache keys: another name would have every file read again.
    cache_name: ClassVar[str]

    def __init__(self, path: Path, args: DataArguments, needs_label: bool, sample_rows: int | None = None):
        super().__init__(path, args, needs_label, sample_rows)
        self.file = self._text_file(path)

    def _text_file(self, path: Path) -> TextFile:
        return TextFile(path, self.args.encoding, self.args.encoding_errors)

    @cached_property
    def text_format(self) -> TextFormat:
        """How the file is decoded, with nothing left open."""
        return text_format_of(self.args)

    @abstractmethod
    def features(self) -> Features:
        """The Arrow types of the rows' columns.

        Raises:
            DataError: a column holds what it cannot, with the row's number.
        """

    def digest(self) -> str:
        """SHA-256 of the content."""
        return self.file.digest()

    def cache_options(self) -> dict[str, Any]:
        """What the rows depend on besides the content and its format."""
        return {"columns": self.columns}

    def close(self) -> None:
        self.file.close()

    def like(self, path: Path) -> Self:
        """A reader of another file, which takes for granted what is known of this one's format and columns."""
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
            # What datasets raises where a generator yields nothing.
            if "corresponds to no data" not in str(error):
                raise
            below = " below the header" if self.text_format.csv_header == "true" else ""
            raise DataError(f"{self.path}: no rows{below}") from error

    def _fingerprint(self, features: Features) -> str:
        """The key in the datasets cache; it depends on the content, so a moved or touched file is not read again."""
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
        columns = self.columns
        standard_names = tuple(columns.standard_names().values())
        texts = tuple(standard_name for standard_name in standard_names if standard_name.startswith("text"))
        # datasets splits lists among processes, and nothing else.
        options = {"paths": [str(path) for path in paths], "first": self}
        rows = IterableDataset.from_generator(_rows_of_files, gen_kwargs=options)
        return RawStream(name, rows, Columns(texts, "label", columns.id))


def _rows_of_files(paths: list[str], first: TextTableReader) -> Iterator[dict[str, Any]]:
    for path in paths:
        with first.like(Path(path)) as reader:
            yield from reader.rows()


def string_features(*names: str) -> Features:
    """Columns of strings."""
    return Features({name: Value("string") for name in names})
