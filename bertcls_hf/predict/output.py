"""Writes predictions to standard output, or to a file that is either complete or absent and can be resumed.

While the file is written, its name is `NAME.partial`. The file `NAME.partial.json` beside it records how much of it is
complete, the hash of that part, and for which model, options and texts it is. The file `NAME.partial.lock` prevents
two commands from writing it at the same time. After a command was killed, the same command resumes from this record,
and any other command is refused.
"""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import xxhash
from filelock import FileLock, Timeout

from bertcls_hf.atomic_files import read_json, storage_error, write_text_atomically
from bertcls_hf.errors import ArgumentsError, StorageError
from bertcls_hf.predict.input import Row


logger = logging.getLogger(__name__)

READ_BYTES = 2**20


class TextDigest:
    """A running hash of rows, by which a resumed command checks that it reads the same texts again."""

    def __init__(self) -> None:
        self._hash = xxhash.xxh3_128()

    def update(self, row: Row) -> None:
        """Adds a row to the hash."""
        self._hash.update(json.dumps(row).encode())

    def hexdigest(self) -> str:
        """Returns the hash of all rows so far."""
        return self._hash.hexdigest()


@dataclass(frozen=True)
class Progress:
    """The complete part of an output.

    Args:
        rows: the number of its rows.
        size: its size in bytes.
        texts: the hash of the rows that were read for it, see [`TextDigest`].
        is_whole: whether its last chunk is full. A resumed command can add rows only after a full chunk.
    """

    rows: int = 0
    size: int = 0
    texts: str = field(default_factory=lambda: TextDigest().hexdigest())
    is_whole: bool = True

    def __post_init__(self) -> None:
        counts = (self.rows, self.size)
        if not all(type(count) is int and count >= 0 for count in counts) or not isinstance(self.texts, str):
            raise ValueError(f"not the progress of an output: {self}")


class StandardOutput:
    """Writes predictions to standard output, always from the first text."""

    progress = Progress()

    def __init__(self, stream: BinaryIO):
        self._stream = stream

    def write(self, content: bytes, progress: Progress) -> None:
        """Writes a chunk and flushes it.

        Raises:
            BrokenPipeError: if the reader has closed the pipe.
            StorageError: if the output goes to a disk that is full.
        """
        try:
            self._stream.write(content)
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise storage_error(Path("standard output"), error) from error

    def finish(self) -> None:
        """Does nothing, since every chunk was flushed."""

    def skip_written(self, rows: Iterator[Row], digest: TextDigest) -> None:
        """Does nothing, since no rows were written before."""


class OutputFile:
    """A file of predictions that gets its name once it is complete.

    Args:
        path: the path of the file; an existing file is replaced.
        settings: all values besides the texts that the lines depend on.

    Raises:
        ArgumentsError: if another command is writing the file, or if a partial file has other settings.
        StorageError: if the folder cannot be written.
    """

    def __init__(self, path: Path, settings: dict[str, Any]):
        self.path, self.settings = path, settings
        self.partial, self._state = path.with_name(f"{path.name}.partial"), _state_file(path)
        self._lock = FileLock(path.with_name(f"{path.name}.partial.lock"))
        self._written = xxhash.xxh3_128()
        self._acquire_lock()
        try:
            self.progress = self._read_progress()
            self._file = self.partial.open("r+b" if self.progress.rows else "wb")
            # The content after the recorded size may end within a line.
            self._file.truncate(self.progress.size)
            self._file.seek(self.progress.size)
        except OSError as error:
            raise storage_error(self.partial, error) from error

    def write(self, content: bytes, progress: Progress) -> None:
        """Writes a chunk to the disk, and then records the progress.

        Raises:
            StorageError: if the disk is full or cannot be written; the chunks before remain valid.
        """
        try:
            self._file.write(content)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise storage_error(self.partial, error) from error
        self._written.update(content)
        state = {"settings": self.settings, "progress": asdict(progress), "content": self._written.hexdigest()}
        text = json.dumps(state, indent=2, ensure_ascii=False) + "\n"
        write_text_atomically(self._state, text)

    def finish(self) -> None:
        """Renames the partial file to its final name.

        Raises:
            StorageError: if the folder cannot be written.
        """
        try:
            self._file.close()
            os.replace(self.partial, self.path)
            self._state.unlink(missing_ok=True)
            Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()
        except OSError as error:
            raise storage_error(self.path, error) from error

    def _acquire_lock(self) -> None:
        try:
            self._lock.acquire(blocking=False)
        except Timeout as error:
            raise ArgumentsError(f"--output_file {self.path}: another command is writing it") from error
        except (OSError, NotImplementedError) as error:
            # Some file systems have no locks. If the folder cannot be written, opening the file fails next.
            logger.info("%s cannot be locked: %s", self.path, error)

    def _read_progress(self) -> Progress:
        if not self.partial.exists() or not self._state.exists():
            return Progress()
        try:
            state = read_json(self._state)
            recorded, progress, content = state["settings"], Progress(**state["progress"]), state["content"]
        except (ValueError, KeyError, TypeError) as error:
            raise self._cannot_resume(f"its {self._state.name} is damaged") from error
        # The recorded settings went through JSON, which turns tuples into lists.
        current = json.loads(json.dumps(self.settings))
        changed = [name for name in current | recorded if current.get(name) != recorded.get(name)]
        if changed:
            differences = "; ".join(f"{name} was {recorded.get(name)}, is {current.get(name)}" for name in changed)
            raise self._cannot_resume(f"it is of another command: {differences}")
        if self.partial.stat().st_size < progress.size:
            raise self._cannot_resume("it is shorter than it was")
        self._read_written(progress.size)
        if self._written.hexdigest() != content:
            raise self._cannot_resume("its content is not what was written")
        return progress

    def _read_written(self, size: int) -> None:
        with self.partial.open("rb") as file:
            while size > 0 and (block := file.read(min(size, READ_BYTES))):
                self._written.update(block)
                size -= len(block)

    def skip_written(self, rows: Iterator[Row], digest: TextDigest) -> None:
        """Reads the rows whose predictions are already in the file, and checks that they are the same texts.

        Raises:
            ArgumentsError: if they are other texts, or if more rows follow an incomplete last chunk.
        """
        progress = self.progress
        if not progress.rows:
            return
        for row in islice(rows, progress.rows):
            digest.update(row)
        if digest.hexdigest() != progress.texts:
            raise self._cannot_resume(f"the first {progress.rows:,} texts are not those that it was made of")
        if not progress.is_whole and next(rows, None) is not None:
            raise self._cannot_resume(f"there are more texts than the {progress.rows:,} that there were")
        logger.info("going on after %s texts", f"{progress.rows:,}")

    def _cannot_resume(self, reason: str) -> ArgumentsError:
        return ArgumentsError(f"cannot go on with {self.partial}: {reason}; remove it to begin anew")


def _state_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial.json")


def recorded_settings(path: Path) -> dict[str, Any]:
    """Returns the settings of a partial output file; nothing if there is none, or if its record is damaged."""
    try:
        return dict(read_json(_state_file(path))["settings"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def refuse_existing(path: Path, overwrite: bool, inputs: Sequence[str]) -> None:
    """Checks that an output file can get this path.

    Args:
        path: the path of the output file.
        overwrite: whether an existing file may be replaced.
        inputs: the paths of the input files.

    Raises:
        ArgumentsError: if the path exists and may not be replaced, is an input, or is not a file.
        StorageError: if its folder does not exist.
    """
    if path.exists() and not path.is_file():
        raise ArgumentsError(f"--output_file {path}: not a file; without --output_file, standard output is written")
    if path.exists() and any(Path(name).exists() and path.samefile(name) for name in inputs):
        raise ArgumentsError(f"--output_file {path}: its texts are to be read")
    if path.exists() and not overwrite:
        raise ArgumentsError(f"--output_file {path}: it exists; --overwrite replaces it")
    if not path.parent.is_dir():
        raise StorageError(f"--output_file {path}: there is no folder {path.parent}")
