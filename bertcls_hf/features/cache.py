"""The feature cache on disk: Arrow files (shards), which are either complete or absent, with a checksum each.

A cache folder belongs to one encoder, tokenizer and dataset. It holds one series of shards per component, such as the
mean of layer -1 or the first token of layer -2. A pooling is put together from components when it is read, so a run
with another pooling computes only the components that are missing.

Every process computes the same shard from the same rows, and a shard gets its name by a rename once it is complete.
Any number of processes may therefore work on one cache. Locks only keep two processes from computing the same shard,
so the cache stays correct on a file system without locks.
"""

import contextlib
import errno
import itertools
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash
from filelock import FileLock, Timeout
from huggingface_hub.constants import HF_HOME

from bertcls_hf.atomic_files import TEMPORARY_MARK, write_atomically
from bertcls_hf.errors import ArgumentsError, StorageError


logger = logging.getLogger(__name__)

META_FILE = "meta.json"
LOCK_SUFFIX = ".lock"
STALE_SECONDS = 24 * 3600
# A killed extraction loses at most this many rows per device. Smaller shards would mean more files and more fsyncs.
SHARD_ROWS = 2048
DTYPES = {"float32": np.float32, "float16": np.float16}
MISSING = "missing"
FULL_DISK_ADVICE = ", or set --boost_cache_dir to another disk"


@dataclass(frozen=True)
class CacheMeta:
    """The description of a cache, which is written when the first extraction ends, and which `list` shows.

    Args:
        model: the name of the encoder, as given to the run.
        source: the name of the split.
        rows: the number of distinct rows.
        width: the number of values per row and component.
        dtype: the number format on disk, `float32` or `float16`.
        tokens: the number of tokens of all distinct rows, without padding.
    """

    model: str
    source: str
    rows: int
    width: int
    dtype: str
    tokens: int


class FeatureCache:
    """The shards of one cache key.

    Args:
        folder: the folder of this key.
        rows: the number of distinct rows. The shards hold them in the order of extraction.
        width: the number of values per row and component.
        dtype: the number format on disk, `float32` or `float16`.
    """

    def __init__(self, folder: Path, rows: int, width: int, dtype: str):
        self.folder, self.rows, self.width, self.dtype = folder, rows, width, dtype

    @property
    def shards(self) -> int:
        """The number of shards per component."""
        return -(-self.rows // SHARD_ROWS)

    def shard_rows(self, shard: int) -> slice:
        """Returns the rows of a shard, as a slice of the order of extraction."""
        return slice(shard * SHARD_ROWS, min((shard + 1) * SHARD_ROWS, self.rows))

    def shard_path(self, component: str, shard: int) -> Path:
        """Returns the path of a shard."""
        return self.folder / f"{component}.{shard:05d}.arrow"

    def problem(self, component: str, shard: int) -> str | None:
        """Reads a shard, and says why it cannot be used; returns None for a sound shard."""
        rows = self.shard_rows(shard)
        return shard_problem(self.shard_path(component, shard), rows.stop - rows.start, self.width, self.dtype)

    def missing_components(self, shard: int, components: Sequence[str]) -> list[str]:
        """Lists the components whose shard of this number is missing or damaged."""
        return [component for component in components if self.problem(component, shard) is not None]

    def missing_shards(self, components: Sequence[str]) -> list[int]:
        """Lists the shards that are missing or damaged for any component, and logs a warning for each damaged file."""
        missing = []
        for shard in range(self.shards):
            problems = {component: self.problem(component, shard) for component in components}
            for component, problem in problems.items():
                if problem not in {None, MISSING}:
                    logger.warning(
                        "%s is damaged (%s) and is computed anew", self.shard_path(component, shard), problem
                    )
            if any(problems.values()):
                missing.append(shard)
        return missing

    @contextlib.contextmanager
    def claim(self, shard: int, wait: bool) -> Iterator[bool]:
        """Locks a shard, so that only one process at a time computes it. Without locks on the file system, all may.

        Args:
            shard: the number of the shard.
            wait: whether to wait until the process that holds the lock releases it.

        Yields:
            True if this process may compute the shard; False, only without `wait`, if another process holds the lock.
        """
        lock = FileLock(self.folder / f"{shard:05d}{LOCK_SUFFIX}")
        try:
            lock.acquire(blocking=wait)
            is_ours = True
        except Timeout:
            is_ours = False
        except (OSError, NotImplementedError):
            is_ours = True  # This file system has no locks.
        try:
            yield is_ours
        finally:
            if is_ours:
                with contextlib.suppress(OSError):
                    Path(lock.lock_file).unlink()
            lock.release()

    def write(self, component: str, shard: int, values: np.ndarray) -> None:
        """Writes a shard, which gets its name once it is complete.

        Args:
            component: the name of the component.
            shard: the number of the shard.
            values: (rows, width) floats.

        Raises:
            ArgumentsError: if the values are too large for float16.
            StorageError: if the disk is full or not writable.
        """
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(values, dtype=DTYPES[self.dtype])
        if self.dtype == "float16" and not np.isfinite(stored).all():
            raise ArgumentsError(
                "--boost_dtype: some features are not finite in float16, which ends at 65,504: use float32"
            )
        column = pa.FixedSizeListArray.from_arrays(pa.array(stored.reshape(-1)), self.width)
        schema = pa.schema([pa.field("features", column.type)], metadata={"digest": _digest(stored)})

        def fill(path: Path) -> None:
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
                writer.write_batch(pa.record_batch([column], schema=schema))

        write_atomically(self.shard_path(component, shard), fill, FULL_DISK_ADVICE)

    def read(self, component: str) -> list[np.ndarray]:
        """Memory-maps the shards of a component: one array of shape (rows, width) per shard."""
        return [_map_shard(self.shard_path(component, shard))[0] for shard in range(self.shards)]

    def finish(self, meta: CacheMeta) -> None:
        """Writes the description of a complete cache, or updates its time if it is there, for `list` and `prune`.

        It also deletes old temporary files of killed runs.
        """
        sweep_temporary_files(self.folder)
        path = self.folder / META_FILE
        known = read_meta(self.folder)
        if known is not None and replace(known, model=meta.model, source=meta.source) == meta:
            with contextlib.suppress(OSError):
                os.utime(path)
            return
        content = json.dumps(asdict(meta), indent=2, ensure_ascii=False)
        try:
            write_atomically(
                path, lambda temporary: temporary.write_text(content + "\n", encoding="utf-8"), FULL_DISK_ADVICE
            )
        except StorageError as error:
            logger.warning("the cache is complete, but its description is not written: %s", error)


def _digest(values: np.ndarray) -> str:
    return xxhash.xxh3_128_hexdigest(values.reshape(-1).view(np.uint8).data)


def _map_shard(path: Path) -> tuple[np.ndarray, str]:
    with pa.memory_map(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
    table.validate(full=True)
    column = table.column("features").chunk(0)
    values = column.values.to_numpy(zero_copy_only=True).reshape(len(column), column.type.list_size)
    return values, (table.schema.metadata or {}).get(b"digest", b"").decode()


def shard_problem(
    path: Path, rows: int | None = None, width: int | None = None, dtype: str | None = None
) -> str | None:
    """Says why a shard cannot be used; returns None for a sound shard.

    Args:
        path: the file of the shard.
        rows: the expected number of rows, or None to accept any.
        width: the expected number of values per row, or None to accept any.
        dtype: the expected number format, or None to accept any.
    """
    if not path.exists():
        return MISSING
    try:
        values, digest = _map_shard(path)
    except (pa.ArrowException, OSError, KeyError, IndexError, AttributeError, ValueError) as error:
        return f"not readable: {error}"
    expected = (rows or len(values), width or values.shape[1], dtype or str(values.dtype))
    if (*values.shape, str(values.dtype)) != expected:
        return (
            f"holds {len(values)} x {values.shape[1]} {values.dtype}, not {expected[0]} x {expected[1]} {expected[2]}"
        )
    return None if _digest(values) == digest else "its content does not match its checksum"


def sweep_temporary_files(folder: Path) -> None:
    """Deletes temporary and lock files that are older than a day; a running process may still use younger ones."""
    for path in itertools.chain(folder.glob(f"*{TEMPORARY_MARK}*"), folder.glob(f"*{LOCK_SUFFIX}")):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()


def require_space(folder: Path, needed: int) -> None:
    """Checks that the disk of a folder has enough free space.

    Args:
        folder: a folder on the disk.
        needed: the needed space in bytes.

    Raises:
        StorageError: if there is too little space; the message gives the needed and the free MiB.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StorageError(
            f"the features need {needed / 2**20:,.1f} MiB and {folder} has {free / 2**20:,.1f} MiB free: set "
            "--boost_cache_dir to another disk, or --boost_dtype float16"
        )


def writing_problem(folder: Path) -> str | None:
    """Creates a folder if it is missing, and says why it is not writable; returns None if it is."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return str(error.strerror)
    return None if os.access(folder, os.W_OK | os.X_OK) else os.strerror(errno.EACCES)


def cache_root(asked: str | None) -> Path:
    """Returns the folder of all caches, which may not exist yet."""
    return Path(asked or Path(HF_HOME, "bertcls_hf", "features")).expanduser()


def read_meta(folder: Path) -> CacheMeta | None:
    """Reads the description of a cache; returns None if it is missing or damaged."""
    try:
        meta = CacheMeta(**json.loads((folder / META_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    is_sound = all(type(getattr(meta, f.name)) is f.type for f in fields(meta)) and meta.dtype in DTYPES
    return meta if is_sound else None
