"""Features on disk: Arrow shards that are complete or absent, and that know when they are damaged.

A cache folder holds, for one encoder, tokenizer and dataset, one series of shards per component (the mean of layer -1,
the first token of layer -2 …). Poolings are put together from components when they are read, so that a run which asks
for another pooling computes only what is missing.

Shards are equal whoever computes them, and appear under their names by a rename. Any number of processes may therefore
work on one cache; locks only keep them from computing a shard twice, and nothing breaks where locks do not lock.
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
# What a killed extraction loses at most, per device; smaller shards cost more files, each with its fsync.
SHARD_ROWS = 2048
DTYPES = {"float32": np.float32, "float16": np.float16}
MISSING = "missing"
FULL_DISK_ADVICE = ", or set --boost_cache_dir to another disk"


@dataclass(frozen=True)
class CacheMeta:
    """What a cache holds, for the listing; written when the first extraction ends.

    Args:
        model: name of the encoder, as the run called it.
        source: name of the split.
        rows: distinct rows.
        width: numbers per row and component.
        dtype: of the numbers on disk.
        tokens: real tokens over all distinct rows.
    """

    model: str
    source: str
    rows: int
    width: int
    dtype: str
    tokens: int


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

    def problem(self, component: str, shard: int) -> str | None:
        """Why a shard cannot be used, or None; reads it."""
        rows = self.shard_rows(shard)
        return shard_problem(self.shard_path(component, shard), rows.stop - rows.start, self.width, self.dtype)

    def missing_components(self, shard: int, components: Sequence[str]) -> list[str]:
        """Those of the components whose shard is missing or damaged."""
        return [component for component in components if self.problem(component, shard) is not None]

    def missing_shards(self, components: Sequence[str]) -> list[int]:
        """The shards that a component misses, with a warning for each damaged file."""
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
        """Gives a shard to one process at a time, as far as the file system has locks.

        Args:
            shard: its number.
            wait: for the process that has it.

        Yields:
            False where another process has the shard; only without `wait`.
        """
        lock = FileLock(self.folder / f"{shard:05d}{LOCK_SUFFIX}")
        try:
            lock.acquire(blocking=wait)
            is_ours = True
        except Timeout:
            is_ours = False
        except (OSError, NotImplementedError):
            is_ours = True  # There are no locks here.
        try:
            yield is_ours
        finally:
            if is_ours:
                with contextlib.suppress(OSError):
                    Path(lock.lock_file).unlink()
            lock.release()

    def write(self, component: str, shard: int, values: np.ndarray) -> None:
        """Writes a shard; it appears under its name when it is whole.

        Args:
            component: names the series.
            shard: its number.
            values: (rows, width) floats.

        Raises:
            ArgumentsError: the values are too large for float16.
            StorageError: the disk is full, or cannot be written.
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
        """The component's shards, memory-mapped: (rows, width) each."""
        return [_map_shard(self.shard_path(component, shard))[0] for shard in range(self.shards)]

    def finish(self, meta: CacheMeta) -> None:
        """Describes a complete cache for the listing, or notes that it was used, and sweeps up after killed runs."""
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
    """Why a shard cannot be used, or None; what is not known is not compared."""
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
    """Removes what killed processes left more than a day ago; younger files may be another process's."""
    for path in itertools.chain(folder.glob(f"*{TEMPORARY_MARK}*"), folder.glob(f"*{LOCK_SUFFIX}")):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()


def require_space(folder: Path, needed: int) -> None:
    """Refuses to start what the disk cannot hold.

    Raises:
        StorageError: with the numbers.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StorageError(
            f"the features need {needed / 2**20:,.1f} MiB and {folder} has {free / 2**20:,.1f} MiB free: set "
            "--boost_cache_dir to another disk, or --boost_dtype float16"
        )


def writing_problem(folder: Path) -> str | None:
    """Why a folder, which is made where it is missing, takes no files; or None."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return str(error.strerror)
    return None if os.access(folder, os.W_OK | os.X_OK) else os.strerror(errno.EACCES)


def cache_root(asked: str | None) -> Path:
    """The folder of all caches; it need not exist."""
    return Path(asked or Path(HF_HOME, "bertcls_hf", "features")).expanduser()


def read_meta(folder: Path) -> CacheMeta | None:
    """The description of a cache, or None where it is missing or damaged."""
    try:
        meta = CacheMeta(**json.loads((folder / META_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    is_sound = all(type(getattr(meta, f.name)) is f.type for f in fields(meta)) and meta.dtype in DTYPES
    return meta if is_sound else None
