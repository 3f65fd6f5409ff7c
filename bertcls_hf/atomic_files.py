"""Writes files atomically: a file is either complete or absent, even after a crash or on a full disk."""

import contextlib
import errno
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
    except OSError as error:
        raise storage_error(path, error, advice) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
