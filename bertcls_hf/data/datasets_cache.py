"""The cache of the datasets library: whether it can be written, and its files that a power cut left damaged."""

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import datasets
import pyarrow as pa

from bertcls_hf.errors import StorageError, one_line


logger = logging.getLogger(__name__)
Loaded = TypeVar("Loaded")


def require_writable_cache() -> None:
    """Writes a file to the cache and deletes it, before any work that ends there.

    Raises:
        StorageError: the cache cannot be written.
    """
    folder = Path(datasets.config.HF_DATASETS_CACHE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StorageError(
            f"the datasets cache {folder} cannot be written ({error.strerror}): set HF_HOME to a folder that can be"
        ) from error


def with_sound_cache(load: Callable[[], Loaded]) -> Loaded:
    """Calls `load`, and once more without the damaged files if the datasets cache holds any.

    Args:
        load: loads data through the cache.

    Raises:
        OSError: the error of `load`, if no file of the cache is damaged.
        pyarrow.ArrowException: likewise.
    """
    try:
        return load()
    except (OSError, pa.ArrowException) as error:
        is_damage = isinstance(error, pa.ArrowException) or error.errno is None
        if not is_damage or not _remove_damaged_files():
            raise
        logger.warning("the datasets cache was damaged (%s): the data is read and tokenized anew", one_line(error))
        return load()


def _remove_damaged_files() -> list[Path]:
    """Deletes the Arrow files of the cache that cannot be read, and returns their paths."""
    removed = []
    for path in list(Path(datasets.config.HF_DATASETS_CACHE).rglob("*.arrow")):
        if any(part.endswith((".incomplete", "_builder.lock")) for part in path.parts) or _is_whole(path):
            continue
        logger.warning("%s is damaged, and is deleted", path)
        with contextlib.suppress(OSError):
            # A table that the library prepared is described beside it; what `map` made stands alone.
            path.unlink() if path.name.startswith("cache-") else shutil.rmtree(path.parent)
            removed.append(path)
    return removed


def _is_whole(path: Path) -> bool:
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
            for _ in reader:
                pass
    except FileNotFoundError:
        return True
    except (OSError, pa.ArrowException):
        return False
    return True
