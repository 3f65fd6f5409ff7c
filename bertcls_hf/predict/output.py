"""Where predictions go: standard output, or a file that is whole or absent and that a killed command goes on with.

While it is written, the file is called `NAME.partial`; beside it `NAME.partial.json` says how far it is good, and of
which model, options and texts, and `NAME.partial.lock` keeps a second command out. The same command goes on from
there; any other is refused.
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

from bertcls_hf.atomic_files import storage_error, write_atomically
from bertcls_hf.errors import ArgumentsError, StorageError
from bertcls_hf.predict.input import Row


logger = logging.getLogger(__name__)


class TextDigest:
    """A running hash of rows, by which a resumed command knows that it reads the same texts again."""

    def __init__(self) -> None:
        self._hash = xxhash.xxh3_128()

    def update(self, row: Row) -> None:
        """Adds a row."""
        self._hash.update(json.dumps(row).encode())

    def hexdigest(self) -> str:
        """The hash of all rows so far."""
        return self._hash.hexdigest()


@dataclass(frozen=True)
class Progress:
    """How far an output is good.

    Args:
        rows: that it holds.
        size: in bytes.
        texts: a [`TextDigest`] of the rows that were read for it.
        is_whole: whether its last chunk of rows is a whole one, after which more may come.
    """

    rows: int = 0
    size: int = 0
    texts: str = field(default_factory=lambda: TextDigest().hexdigest())
    is_whole: bool = True


class StandardOutput:
    """Predictions as a stream, which begins anew each time."""

    progress = Progress()

    def __init__(self, stream: BinaryIO):
        self._stream = stream

    def write(self, content: bytes, progress: Progress) -> None:
        """Writes a chunk and passes it on at once.

        Raises:
            BrokenPipeError: nobody reads any more.
            StorageError: it goes to a disk that is full.
        """
        try:
            self._stream.write(content)
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise storage_error(Path("standard output"), error) from error

    def finish(self) -> None:
        """There is nothing to do."""

    def skip_written(self, rows: Iterator[Row], digest: TextDigest) -> None:
        """There are none."""


class OutputFile:
    """A file of predictions that appears under its name when it is whole.

    Args:
        path: its name; a file that has it already is replaced.
        settings: all that its lines depend on besides the texts.

    Raises:
        ArgumentsError: another command is writing it, or a partial one is of other settings.
        StorageError: the folder cannot be written.
    """

    def __init__(self, path: Path, settings: dict[str, Any]):
        self.path, self.settings = path, settings
        self.partial = path.with_name(f"{path.name}.partial")
        self._state = path.with_name(f"{path.name}.partial.json")
        self._lock = FileLock(path.with_name(f"{path.name}.partial.lock"))
        self._keep_others_out()
        try:
            self.progress = self._read_progress()
            self._file = self.partial.open("r+b" if self.progress.rows else "wb")
            # What was written after the last state may be half a line.
            self._file.truncate(self.progress.size)
            self._file.seek(self.progress.size)
        except OSError as error:
            raise storage_error(self.partial, error) from error

    def write(self, content: bytes, progress: Progress) -> None:
        """Writes a chunk to the disk, and then that it is there.

        Raises:
            StorageError: the disk is full, or cannot be written; what was written before stays good.
        """
        try:
            self._file.write(content)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise storage_error(self.partial, error) from error
        state = {"settings": self.settings, "progress": asdict(progress)}
        text = json.dumps(state, indent=2, ensure_ascii=False) + "\n"
        write_atomically(self._state, lambda temporary: temporary.write_text(text, encoding="utf-8"))

    def finish(self) -> None:
        """Gives the file its name.

        Raises:
            StorageError: the folder cannot be written.
        """
        try:
            self._file.close()
            os.replace(self.partial, self.path)
            self._state.unlink(missing_ok=True)
            Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()
        except OSError as error:
            raise storage_error(self.path, error) from error

    def _keep_others_out(self) -> None:
        try:
            self._lock.acquire(blocking=False)
        except Timeout as error:
            raise ArgumentsError(f"--output_file {self.path}: another command is writing it") from error
        except (OSError, NotImplementedError) as error:
            # Some file systems know no locks; one that cannot be written will say so again.
            logger.info("%s cannot be locked: %s", self.path, error)

    def _read_progress(self) -> Progress:
        if not self.partial.exists() or not self._state.exists():
            return Progress()
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            before, progress = state["settings"], Progress(**state["progress"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._unfit(f"its {self._state.name} is damaged") from error
        now = json.loads(json.dumps(self.settings))
        changed = [name for name in now | before if now.get(name) != before.get(name)]
        if changed:
            differences = "; ".join(f"{name} was {before.get(name)}, is {now.get(name)}" for name in changed)
            raise self._unfit(f"it is of another command: {differences}")
        if self.partial.stat().st_size < progress.size:
            raise self._unfit("it is shorter than it was")
        return progress

    def skip_written(self, rows: Iterator[Row], digest: TextDigest) -> None:
        """Reads the rows whose predictions are there, and makes sure that these are of the same texts.

        Raises:
            ArgumentsError: they are of others.
        """
        done = self.progress
        if not done.rows:
            return
        for row in islice(rows, done.rows):
            digest.update(row)
        if digest.hexdigest() != done.texts:
            raise self._unfit(f"the first {done.rows:,} texts are not those that it was made of")
        if not done.is_whole and next(rows, None) is not None:
            raise self._unfit(f"there are more texts than the {done.rows:,} that there were")
        logger.info("going on after %s texts", f"{done.rows:,}")

    def _unfit(self, reason: str) -> ArgumentsError:
        return ArgumentsError(f"cannot go on with {self.partial}: {reason}; remove it to begin anew")


def refuse_existing(path: Path, overwrite: bool, inputs: Sequence[str]) -> None:
    """Checks the name of an output.

    Raises:
        ArgumentsError: it is there and may not be lost, it is an input, or it is no file.
        StorageError: its folder is not there.
    """
    if path.exists() and not path.is_file():
        raise ArgumentsError(f"--output_file {path}: not a file; without --output_file, standard output is written")
    if path.exists() and any(Path(name).exists() and path.samefile(name) for name in inputs):
        raise ArgumentsError(f"--output_file {path}: its texts are to be read")
    if path.exists() and not overwrite:
        raise ArgumentsError(f"--output_file {path}: it exists; --overwrite replaces it")
    if not path.parent.is_dir():
        raise StorageError(f"--output_file {path}: there is no folder {path.parent}")
