"""Files that are whole or absent, and what a disk says when it takes no more."""

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
    """The error of a run that could not write `path`; `advice` is what else would help."""
    what = (
        f"no space left for {path}: free some"
        if error.errno in DISK_IS_FULL
        else f"{path} cannot be written ({error})"
    )
    return StorageError(what + advice)


def write_atomically(path: Path, fill: Callable[[Path], Any], advice: str = "") -> None:
    """Lets `fill` write a temporary file beside `path`, and renames it when it is on disk.

    Args:
        path: where the file appears.
        fill: gets the temporary path.
        advice: ends the error's message.

    Raises:
        StorageError: the disk is full, a quota is reached, or the folder cannot be written; nothing is left behind.
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
