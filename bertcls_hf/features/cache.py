"""The feature cache on disk: Arrow files (shards), which are either complete or absent, with a checksum each.

A cache folder belongs to one encoder, tokenizer and dataset. It holds one series of shards per component, such as the
mean of layer -1 or the first token of layer -2. A pooling is put together from components when it is read, so a run
with another pooling computes only the components that are missing. Shards are small, so that little is lost with a
killed extraction; where there are many, they are packed into few files once they are complete, with all components in
one file.

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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash
from filelock import FileLock, Timeout
from huggingface_hub.constants import HF_HOME

from bertcls_hf.atomic_files import TEMPORARY_MARK, read_json, write_atomically
from bertcls_hf.errors import StorageError
from bertcls_hf.features.number_formats import DTYPES, encode_features, stored_width


logger = logging.getLogger(__name__)

META_FILE = "meta.json"
LOCK_SUFFIX = ".lock"
STALE_SECONDS = 24 * 3600
# A killed extraction loses at most this many rows per device. Smaller shards would mean more files and more fsyncs.
SHARD_ROWS = 2048
# The number of shards that are packed into one file.
PACKED_SHARDS = 32
MISSING = "missing"
# The column of a shard's own file; a file of several shards has a column for each component.
FEATURES = "features"
PACK_PREFIX = "packed-"
FULL_DISK_ADVICE = ", or set --boost_cache_dir to another disk"


@dataclass(frozen=True)
class CacheMeta:
    """The description of a cache, which is written when the first extraction ends, and which `list` shows.

    Args:
        model: the name of the encoder, as given to the run.
        source: the name of the split.
        rows: the number of distinct rows.
        width: the number of values per row and component.
        dtype: the number format on disk: `float32`, `float16` or `int8`.
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
        dtype: the number format on disk: `float32`, `float16` or `int8`.
    """

    def __init__(self, folder: Path, rows: int, width: int, dtype: str):
        self.folder, self.rows, self.width, self.dtype = folder, rows, width, dtype
        self._components_of: dict[Path, list[str]] = {}
        self._packs: dict[tuple[str, int], Path] = {}

    @property
    def shards(self) -> int:
        """The number of shards per component."""
        return -(-self.rows // SHARD_ROWS)

    @property
    def has_many_shards(self) -> bool:
        """Whether its shards do not fit into one packed file."""
        return self.shards > PACKED_SHARDS

    def shard_rows(self, shard: int) -> slice:
        """Returns the rows of a shard, as a slice of the order of extraction."""
        return slice(shard * SHARD_ROWS, min((shard + 1) * SHARD_ROWS, self.rows))

    def shard_path(self, component: str, shard: int) -> Path:
        """Returns the path of a shard."""
        return self.folder / f"{component}.{shard:05d}.arrow"

    def problem(self, component: str, shard: int) -> str | None:
        """Reads a shard, and says why it cannot be used; returns None for a sound shard."""
        rows = self.shard_rows(shard)
        expected = (rows.stop - rows.start, stored_width(self.width, self.dtype), self.dtype)
        path = self.shard_path(component, shard)
        if path.exists():
            problem = shard_problem(path, *expected)
            if problem is None or path.exists():
                return problem
            self._list_packs()  # Another process has just packed it.
        pack = self._pack(component, shard)
        return MISSING if pack is None else shard_problem(pack, *expected, component, shard % PACKED_SHARDS)

    def place(self, component: str, shard: int) -> Path:
        """Returns the file that holds a shard, or that will: its own, or the one that it is packed into."""
        path = self.shard_path(component, shard)
        return path if path.exists() else self._pack(component, shard) or path

    def _pack(self, component: str, shard: int) -> Path | None:
        return self._packs.get((component, shard // PACKED_SHARDS))

    def _list_packs(self) -> None:
        """Looks for packed files, which other processes may have written; a name stands for the same components."""
        known = self._components_of
        self._components_of = {
            path: known[path] if path in known else packed_components(path) for path in packed_files(self.folder)
        }
        self._packs = {}
        for path, names in self._components_of.items():
            group = int(path.name.split(".")[-2])
            self._packs |= {(name, group): path for name in names}

    def missing_components(self, shard: int, components: Sequence[str]) -> list[str]:
        """Lists the components whose shard of this number is missing or damaged."""
        self._list_packs()
        return [component for component in components if self.problem(component, shard) is not None]

    def missing_shards(self, components: Sequence[str]) -> list[int]:
        """Lists the shards that are missing or damaged for any component, and logs a warning for each damaged file."""
        missing = []
        self._list_packs()
        for shard in range(self.shards):
            problems = {component: self.problem(component, shard) for component in components}
            for component, problem in problems.items():
                if problem not in {None, MISSING}:
                    logger.warning("%s is damaged (%s) and is computed anew", self.place(component, shard), problem)
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
        with claim(self.folder / f"{shard:05d}{LOCK_SUFFIX}", wait) as is_ours:
            yield is_ours

    def write(self, component: str, shard: int, values: np.ndarray) -> None:
        """Writes a shard, which gets its name once it is complete.

        Args:
            component: the name of the component.
            shard: the number of the shard.
            values: (rows, width) floats.

        Raises:
            ArgumentsError: if the values are too large for the number format.
            StorageError: if the disk is full or not writable.
        """
        stored = encode_features(values, self.dtype)
        column = _column(stored)
        schema = pa.schema([pa.field(FEATURES, column.type)], metadata={"digest": _digest(stored)})
        _write_batches(self.shard_path(component, shard), schema, [pa.record_batch([column], schema=schema)])

    def pack(self, components: Sequence[str]) -> None:
        """Puts complete shards together, many in one file with all components, and deletes the files of each.

        A disk that is too full for that leaves the shards as they are.
        """
        try:
            for group in range(-(-self.shards // PACKED_SHARDS)):
                shards = range(group * PACKED_SHARDS, min((group + 1) * PACKED_SHARDS, self.shards))
                with claim(self.folder / f"{PACK_PREFIX}{group:05d}{LOCK_SUFFIX}", wait=True):
                    loose = [name for name in components if any(self.shard_path(name, n).exists() for n in shards)]
                    if loose:
                        self._write_pack(loose, group, shards)
        except StorageError as error:
            logger.warning("the features are complete, but stay in many files: %s", error)

    def _write_pack(self, components: Sequence[str], group: int, shards: range) -> None:
        self._list_packs()
        names_of = {path: self._components_of[path] for path in packed_files(self.folder, group)}
        old = [path for path, names in names_of.items() if not names or set(names) & set(components)]
        kept = [name for path in old for name, problems in packed_problems(path).items() if not any(problems)]
        components = [*components, *(name for name in kept if name not in components)]
        stored = {name: [_map_shard(*self._where(name, shard)) for shard in shards] for name in components}
        digests = {name: [digest for _, digest in found] for name, found in stored.items()}
        columns = {name: [_column(values) for values, _ in found] for name, found in stored.items()}
        fields_of_components = [pa.field(name, arrays[0].type) for name, arrays in columns.items()]
        schema = pa.schema(fields_of_components, metadata={"digests": json.dumps(digests)})
        batches = (pa.record_batch(list(arrays), schema=schema) for arrays in zip(*columns.values(), strict=True))
        path = self.folder / f"{PACK_PREFIX}{_digest_of_names(components)}.{group:05d}.arrow"
        _write_batches(path, schema, batches)
        self._components_of.pop(path, None)
        replaced = {*old, *(self.shard_path(name, shard) for name in components for shard in shards)} - {path}
        for file in replaced:
            with contextlib.suppress(OSError):
                file.unlink()
        self._list_packs()

    def _where(self, component: str, shard: int) -> tuple[Path, str, int]:
        """Returns where a complete shard is: the file, the column, and the number of the record batch."""
        path = self.shard_path(component, shard)
        pack = None if path.exists() else self._pack(component, shard)
        return (path, FEATURES, 0) if pack is None else (pack, component, shard % PACKED_SHARDS)

    def read(self, component: str) -> list[np.ndarray]:
        """Memory-maps the shards of a component: one array of shape (rows, `stored_width`) per shard."""
        return self.read_all([component])[0]

    def read_all(self, components: Sequence[str]) -> list[list[np.ndarray]]:
        """Memory-maps the shards of several components, each file once."""
        self._list_packs()
        readers: dict[Path, pa.RecordBatchFileReader] = {}
        return [[self._map(component, shard, readers) for shard in range(self.shards)] for component in components]

    def _map(self, component: str, shard: int, readers: dict[Path, pa.RecordBatchFileReader]) -> np.ndarray:
        path, column, batch = self._where(component, shard)
        try:
            reader = readers.get(path) or readers.setdefault(path, _reader(path))
        except FileNotFoundError:  # Another process has just packed it.
            self._list_packs()
            path, column, batch = self._where(component, shard)
            reader = readers.get(path) or readers.setdefault(path, _reader(path))
        return _values(reader, column, batch)

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


def _digest_of_names(components: Sequence[str]) -> str:
    return xxhash.xxh3_64_hexdigest("\n".join(components).encode())


def _column(values: np.ndarray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _write_batches(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    def fill(temporary: Path) -> None:
        with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)

    write_atomically(path, fill, FULL_DISK_ADVICE)


def _reader(path: Path) -> pa.RecordBatchFileReader:
    return pa.ipc.open_file(pa.memory_map(str(path)))


def _values(reader: pa.RecordBatchFileReader, column_name: str, batch_number: int) -> np.ndarray:
    batch = reader.get_batch(batch_number)
    batch.validate(full=True)
    column = batch.column(column_name)
    # A column of a file that holds several may be a slice of its values.
    return column.flatten().to_numpy(zero_copy_only=True).reshape(len(column), column.type.list_size)


def _map_shard(path: Path, column: str | None = None, batch: int = 0) -> tuple[np.ndarray, str]:
    """Returns the values of a shard and their checksum, from the shard's own file or from a column of a pack."""
    reader = _reader(path)
    metadata = reader.schema.metadata or {}
    values = _values(reader, column or FEATURES, batch)
    if column in (None, FEATURES):
        return values, metadata.get(b"digest", b"").decode()
    return values, json.loads(metadata[b"digests"])[column][batch]


def packed_files(folder: Path, group: int | None = None) -> list[Path]:
    """Lists the files that hold several shards: those of a group of shards, or all."""
    return sorted(folder.glob(f"{PACK_PREFIX}*.{'*' if group is None else f'{group:05d}'}.arrow"))


def packed_components(path: Path) -> list[str]:
    """Lists the components in a file of several shards; none if it is damaged, which a warning says."""
    try:
        return _reader(path).schema.names
    except (pa.ArrowException, OSError, ValueError) as error:
        logger.warning("%s is damaged (%s) and is computed anew", path, error)
        return []


def packed_shards(path: Path) -> int:
    """Returns the number of shards in a file of several, whose components are known."""
    return _reader(path).num_record_batches


def packed_problems(path: Path) -> dict[str, list[str | None]]:
    """Says of each shard of each component in a file of several why it cannot be used; None for a sound one."""
    components = packed_components(path)
    shards = range(packed_shards(path) if components else 0)
    return {name: [shard_problem(path, column=name, batch=shard) for shard in shards] for name in components}


@contextlib.contextmanager
def claim(lock_file: Path, wait: bool) -> Iterator[bool]:
    """Holds a lock, on whose work one process at a time is. Without locks on the file system, all may hold it.

    Args:
        lock_file: the file of the lock.
        wait: whether to wait until the process that holds the lock releases it.

    Yields:
        True if this process holds it; False, only without `wait`, if another one does.
    """
    # A thread that reads ahead may take a lock that another thread of this process gives back.
    lock = FileLock(lock_file, thread_local=False)
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


def shard_problem(
    path: Path,
    rows: int | None = None,
    width: int | None = None,
    dtype: str | None = None,
    column: str | None = None,
    batch: int = 0,
) -> str | None:
    """Says why a shard cannot be used; returns None for a sound shard.

    Args:
        path: the file of the shard.
        rows: the expected number of rows, or None to accept any.
        width: the expected number of values per row, or None to accept any.
        dtype: the expected number format, or None to accept any.
        column: the component, in a file of several shards; None for the file of one.
        batch: the number of the shard in a file of several.
    """
    if not path.exists():
        return MISSING
    try:
        values, digest = _map_shard(path, column, batch)
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
            if is_stale(path):
                path.unlink()


def is_stale(path: Path) -> bool:
    """Says whether a file or folder is older than a day, so that no running process still works on it."""
    return time.time() - path.stat().st_mtime > STALE_SECONDS


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
            "--boost_cache_dir to another disk, or --boost_storage float16 or int8"
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
        meta = CacheMeta(**read_json(folder / META_FILE))
    except (OSError, ValueError, TypeError):
        return None
    is_sound = all(type(getattr(meta, f.name)) is f.type for f in fields(meta)) and meta.dtype in DTYPES
    return meta if is_sound else None
