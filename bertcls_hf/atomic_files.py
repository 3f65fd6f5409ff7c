"""Writes files atomically: a file is either complete or absent, even after a crash or on a full disk. Reads JSON."""

import contextlib
import errno
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bertcls_hf.errors import StorageError


TEMPORARY_MARK = ".tmp-"
DISK_IS_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def storage_error(path: Path, error: OSError, advice: str = "") -> StorageError:
    """Returns the error for a file that could not be written.

    Args:
        path: the file.
        error: the operating system's error.
        advice: appended to the message, such as another way to free space.
    """
    message = (
        f"no space left for {path}: free some"
        if error.errno in DISK_IS_FULL
        else f"{path} cannot be written ({error})"
    )
    return StorageError(message + advice)


def write_atomically(path: Path, fill: Callable[[Path], Any], advice: str = "") -> None:
    """Writes a temporary file beside `path`, flushes it to disk and renames it to `path`.

    Args:
        path: the file to write.
        fill: writes the content to the path that it is called with.
        advice: appended to the message of the error.

    Raises:
        StorageError: the disk is full, a quota is reached, or the folder cannot be written. The temporary file is
            removed.
    """
    temporary = path.with_name(f"{path.name}{TEMPORARY_MARK}{uuid.uuid4().hex}")
    try:
        fill(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise storage_error(path, error, advice) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_text_atomically(path: Path, text: str, advice: str = "") -> None:
    """Writes a text in UTF-8 as [`write_atomically`] does."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"), advice)


def write_json_atomically(path: Path, content: Any, advice: str = "") -> None:
    """Writes what JSON can hold, indented, as [`write_atomically`] does."""
    write_text_atomically(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n", advice)


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no JSON in UTF-8, or nested too deeply.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def sync_folder(folder: Path) -> None:
    """Flushes the names in a folder to disk, so that a renamed file is found after a power cut."""
    # Some file systems, and Windows, take no flush of a folder.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
