"""Features on disk: Arrow shards that are complete or absent, and that know when they are damaged.

A cache folder holds, for one encoder, tokenizer and dataset, one series of shards per component (the mean of layer -1,
the first token of layer -2 …). Poolings are put together from components when they are read, so that a run which asks
for another pooling computes only what is missing.
"""

import contextlib
import errno
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from filelock import FileLock, Timeout

from bertcls_hf.errors import StorageError


logger = logging.getLogger(__name__)

META_FILE = "meta.json"
LOCK_FILE = "build.lock"
TEMPORARY_MARK = ".tmp-"
STALE_SECONDS = 24 * 3600
SHARD_ROWS = 4096
DTYPES = {"float32": np.float32, "float16": np.float16}


@dataclass(frozen=True)
class CacheMeta:
    """What a cache holds, for the listing; written last.

    Args:
        model: name of the encoder, as the run called it.
        source: name of the split.
        rows: distinct rows.
        width: numbers per row and component.
        dtype: of the numbers on disk.
        tokens: real tokens over all distinct rows.
        components: names of the series of shards.
    """

    model: str
    source: str
    rows: int
    width: int
    dtype: str
    tokens: int
    components: tuple[str, ...]


class FeatureCache:
    """The shards of one key.

    Args:
        folder: of this key alone.
        rows: distinct rows, which the shards hold in the order of extraction.
        width: numbers per row and component.
        dtype: `float32` or `float16`.
    """

    def __init__(self, folder: Path, rows: int, width: int, dtype: str):
        self.folder, self.rows, self.width, self.dtype = folder, rows, width, dtype

    @property
    def shards(self) -> int:
        """Shards per component."""
        return -(-self.rows // SHARD_ROWS)

    def shard_rows(self, shard: int) -> slice:
        """The rows of a shard, in the order of extraction."""
        return slice(shard * SHARD_ROWS, min((shard + 1) * SHARD_ROWS, self.rows))

    def shard_path(self, component: str, shard: int) -> Path:
        """Where a shard lies."""
        return self.folder / f"{component}.{shard:05d}.arrow"

    def missing_components(self, shard: int, components: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the components whose shard is not there yet; does not look into files."""
        return tuple(component for component in components if not self.shard_path(component, shard).exists())

    def drop_damaged(self, components: tuple[str, ...]) -> int:
        """Removes shards that are not what was written, with a warning; returns how many there were."""
        damaged = 0
        for component in components:
            for shard in range(self.shards):
                path = self.shard_path(component, shard)
                if path.exists() and self._problem(path, shard) is not None:
                    logger.warning("%s is damaged (%s) and is computed anew", path, self._problem(path, shard))
                    path.unlink(missing_ok=True)
                    damaged += 1
        return damaged

    def _problem(self, path: Path, shard: int) -> str | None:
        rows = self.shard_rows(shard)
        return shard_problem(path, rows.stop - rows.start, self.width, self.dtype)

    def write(self, component: str, shard: int, values: np.ndarray) -> None:
        """Writes a shard; it appears under its name when it is whole.

        Args:
            component: names the series.
            shard: its number.
            values: (rows, width) floats.

        Raises:
            StorageError: the disk is full.
        """
        stored = np.ascontiguousarray(values, dtype=DTYPES[self.dtype])
        flat = pa.array(stored.reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(flat, self.width)
        schema = pa.schema([pa.field("features", column.type)], metadata={"digest": _digest(stored)})
        batch = pa.record_batch([column], schema=schema)

        def fill(path: Path) -> None:
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
                writer.write_batch(batch)

        write_atomically(self.shard_path(component, shard), fill)

    def read(self, component: str) -> list[np.ndarray]:
        """The component's shards, memory-mapped: (rows, width) each."""
        return [_map_shard(self.shard_path(component, shard))[0] for shard in range(self.shards)]

    def write_meta(self, meta: CacheMeta) -> None:
        """Writes the description, with the components that were there before."""
        known = read_meta(self.folder)
        components = tuple(sorted({*meta.components, *(known.components if known else ())}))
        content = json.dumps({**asdict(meta), "components": components}, indent=2, ensure_ascii=False)
        write_atomically(self.folder / META_FILE, lambda path: path.write_text(content + "\n", encoding="utf-8"))

    @contextlib.contextmanager
    def building(self) -> Iterator[None]:
        """Held by the one process that builds, where the file system has locks.

        It only saves double work: shards are complete or absent whoever writes them, and equal whoever computes them.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / LOCK_FILE)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.info("another process builds %s: waiting for it", self.folder)
            lock.acquire()
        try:
            sweep_temporary_files(self.folder)
            yield
        finally:
            lock.release()


def _digest(values: np.ndarray) -> str:
    return xxhash.xxh3_128_hexdigest(memoryview(values).cast("B"))


def _map_shard(path: Path) -> tuple[np.ndarray, str]:
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    column = table.column("features").chunk(0)
    values = column.values.to_numpy(zero_copy_only=True).reshape(len(column), column.type.list_size)
    return values, (table.schema.metadata or {}).get(b"digest", b"").decode()


def shard_problem(path: Path, rows: int | None, width: int, dtype: str) -> str | None:
    """Why a shard cannot be used, or None; `rows` None accepts any number."""
    try:
        values, digest = _map_shard(path)
    except (pa.ArrowException, OSError, KeyError, IndexError, AttributeError) as error:
        return f"not readable: {error}"
    if (rows is not None and len(values) != rows) or values.shape[1] != width or values.dtype != DTYPES[dtype]:
        return f"holds {values.shape} {values.dtype}"
    return None if _digest(values) == digest else "its content does not match its checksum"


def write_atomically(path: Path, fill: Callable[[Path], Any]) -> None:
    """Lets `fill` write a temporary file beside `path`, and renames it when it is on disk.

    Raises:
        StorageError: the disk is full, or a quota is reached; nothing is left behind.
    """
    temporary = path.with_name(f"{path.name}{TEMPORARY_MARK}{uuid.uuid4().hex}")
    try:
        fill(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG} or "No space left" in str(error):
            raise StorageError(
                f"no space left for {path}: free some, or set --boost_cache_dir to another disk"
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def sweep_temporary_files(folder: Path) -> None:
    """Removes what killed processes left more than a day ago; younger files may be another process's."""
    for path in folder.glob(f"*{TEMPORARY_MARK}*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()


def require_space(folder: Path, needed: int) -> None:
    """Refuses to start what the disk cannot hold.

    Raises:
        StorageError: with the numbers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StorageError(
            f"the features need {needed / 2**20:,.0f} MiB and {folder} has {free / 2**20:,.0f} MiB free: set "
            "--boost_cache_dir to another disk, or --boost_dtype float16"
        )


def read_meta(folder: Path) -> CacheMeta | None:
    """The description of a cache, or None where it is missing or damaged."""
    try:
        content = json.loads((folder / META_FILE).read_text(encoding="utf-8"))
        return CacheMeta(**{**content, "components": tuple(content["components"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None
