"""Extracts the features of a stream, of which each process reads and tokenizes a part, and keeps no row in memory.

A stream is read in groups of consecutive files, and a group in chunks, whose features are cached under a key of their
own content. A process takes the next group that no other process reads; where there are fewer groups than processes,
all read the same groups, and each takes the next chunk. What is known of the rows of a chunk goes into a file, and the
files of all chunks are put together in the order of the stream, whoever wrote them, and memory-mapped.
"""

import contextlib
import json
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset

from bertcls_hf.atomic_files import read_json, write_atomically
from bertcls_hf.data.stream_parts import read_ahead
from bertcls_hf.data.streaming import TokenStream
from bertcls_hf.errors import DataError
from bertcls_hf.features.cache import (
    FULL_DISK_ADVICE,
    LOCK_SUFFIX,
    claim,
    is_stale,
    writing_problem,
)
from bertcls_hf.features.dataset import FeatureDataset
from bertcls_hf.features.extractor import CachedRows, FeatureExtractor, tensor_of


# The number of rows of a stream that are sorted by length and cached together, in one file.
CHUNK_ROWS = 65_536
# The name of the folder with the rows of a running extraction, beside the folders of the cache.
ROWS_PREFIX = "rows-"
MERGED = "merged.json"


@dataclass(frozen=True)
class _Chunk:
    """Rows that this process has claimed.

    Args:
        number: the number of the chunk in its group of files.
        rows: the tokenized rows, or None if the options drop all of them.
        claim: the lock, to be closed when the features are stored.
    """

    number: int
    rows: Dataset | None
    claim: contextlib.ExitStack


def split_features(extractor: FeatureExtractor, name: str, split: Dataset | TokenStream) -> FeatureDataset:
    """Returns the features of a split, which are computed where the cache has none. A stream is read once, to its end.

    All processes of the run call this; each does a part of the work.

    Args:
        extractor: the extractor of loaded rows, which also computes the features of a chunk of a stream.
        name: the name of the split, for progress bars and the descriptions of the caches.
        split: the tokenized rows, or a stream of rows that are tokenized while they are read.

    Raises:
        DataError: a row is refused, or the options drop every row.
        ArgumentsError: the features are too large for float16.
        StorageError: the disk cannot hold the features.
    """
    if not isinstance(split, TokenStream):
        return extractor.features(name, split)
    root = extractor.root if writing_problem(extractor.root) is None else extractor.temporary_root
    _sweep(root)
    run = broadcast_object_list([uuid.uuid4().hex])[0]
    extraction = _StreamExtraction(extractor, name, split, root / f"{ROWS_PREFIX}{run}")
    extraction.run()
    features = extraction.features()
    # What is memory-mapped stays readable after its files are deleted.
    PartialState().wait_for_everyone()
    shutil.rmtree(extraction.folder, ignore_errors=True)
    return features


def cache_group(extractor: FeatureExtractor, name: str, stream: TokenStream, group: int) -> int:
    """Caches the features of a group of files, for a job that shares the groups out among machines by itself.

    A run with the same options then finds them. Returns the number of rows; see [`split_features`] for the errors.
    """
    rows = 0
    for number, raw_rows in enumerate(stream.raw_chunks(group, CHUNK_ROWS)):
        if (chunk := stream.dataset(raw_rows)) is not None:
            rows += len(_cached_chunk(extractor, name, group, number, chunk).positions)
    return rows


def _cached_chunk(extractor: FeatureExtractor, name: str, group: int, number: int, rows: Dataset) -> CachedRows:
    return extractor.cached(f"{name} {group + 1}.{number + 1}", rows, is_packed=True)


def _sweep(root: Path) -> None:
    """Deletes what extractions that were killed left behind, after a day."""
    for folder in root.glob(f"{ROWS_PREFIX}*"):
        with contextlib.suppress(OSError):
            if is_stale(folder):
                shutil.rmtree(folder, ignore_errors=True)


class _StreamExtraction:
    def __init__(self, extractor: FeatureExtractor, name: str, stream: TokenStream, folder: Path):
        self.extractor, self.name, self.stream, self.folder = extractor, name, stream, folder
        self.takes_groups = stream.file_groups >= extractor.processes
        folder.mkdir(parents=True, exist_ok=True)

    def run(self) -> None:
        """Works until the features of all chunks are stored, by this process or by others."""
        groups = range(self.stream.file_groups)
        while unfinished := [group for group in groups if not self._is_done(group)]:
            for group in unfinished:
                self._extract_group(group)
            for group in unfinished:
                self._wait_for_others(group)

    def _extract_group(self, group: int) -> None:
        if not self.takes_groups:
            self._extract_chunks(group)
            return
        with claim(self._lock(group), wait=False) as is_ours:
            if is_ours and not self._is_done(group):
                self._extract_chunks(group)

    def _extract_chunks(self, group: int) -> None:
        for chunk in read_ahead(self._claimed_chunks(group)):
            with chunk.claim:
                self._store(group, chunk)

    def _claimed_chunks(self, group: int) -> Iterator[_Chunk]:
        """Reads the group, and tokenizes the chunks that nobody else has."""
        count = 0
        for number, raw_rows in enumerate(self.stream.raw_chunks(group, CHUNK_ROWS)):
            count = number + 1
            with contextlib.ExitStack() as stack:
                is_ours = self.takes_groups or stack.enter_context(claim(self._lock(group, number), wait=False))
                if is_ours and not self._rows_file(group, number).exists():
                    yield _Chunk(number, self.stream.dataset(raw_rows), stack.pop_all())
        self._write(self._end_file(group), json.dumps(count).encode())

    def _store(self, group: int, chunk: _Chunk) -> None:
        """Caches the features of a chunk, and then writes what is known of its rows."""
        found: dict[str, Any] = {"folder": "", "positions": np.empty(0, np.int64)}
        if chunk.rows is not None:
            cached = _cached_chunk(self.extractor, self.name, group, chunk.number, chunk.rows)
            labels = tensor_of(chunk.rows, "labels")
            known = {"positions": cached.positions, "windows": cached.windows, "labels": labels}
            found = {name: np.asarray(values) for name, values in known.items() if values is not None}
            found |= {"folder": str(cached.cache.folder), "stored_rows": cached.cache.rows}
        path = self._rows_file(group, chunk.number)

        def fill(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.savez(file, **found)

        write_atomically(path, fill, FULL_DISK_ADVICE)

    def _is_done(self, group: int) -> bool:
        return self._end_file(group).exists() and not self._missing(group)

    def _missing(self, group: int) -> list[int]:
        count = read_json(self._end_file(group))
        return [number for number in range(count) if not self._rows_file(group, number).exists()]

    def _wait_for_others(self, group: int) -> None:
        """Waits while other processes work on the group; what one died over is taken up by the next round."""
        locks = [self._lock(group)]
        if not self.takes_groups:
            locks = [self._lock(group, number) for number in self._missing(group)]
        for lock in locks:
            with claim(lock, wait=True):
                pass

    def features(self) -> FeatureDataset:
        """Puts the rows of all chunks together, once, and maps them."""
        with claim(self.folder / f"{MERGED}{LOCK_SUFFIX}", wait=True):
            if not (self.folder / MERGED).exists():
                self._merge()
        merged = read_json(self.folder / MERGED)
        arrays = {
            # Pages that are only read are shared; torch wants memory that it could write to.
            name: np.memmap(self.folder / name, dtype=column["dtype"], mode="c", shape=tuple(column["shape"]))
            for name, column in merged["columns"].items()
        }
        components = self.extractor.components
        parts: list[list[np.ndarray]] = [[] for _ in components]
        for folder, rows in merged["caches"]:
            cache = self.extractor.cache_in(Path(folder), rows)
            for part, shards in zip(parts, cache.read_all(components), strict=True):
                part += shards
        labels = torch.from_numpy(arrays["labels"]) if "labels" in arrays else None
        config = self.extractor.model.config
        return FeatureDataset(parts, arrays["positions"], labels, config, windows=arrays.get("windows"))

    def _merge(self) -> None:
        caches: list[tuple[str, int]] = []
        columns: dict[str, dict[str, Any]] = {}
        stored_rows = 0
        with contextlib.ExitStack() as files:
            opened: dict[str, Any] = {}
            for path in sorted(self.folder.glob("*.npz")):
                rows = dict(np.load(path))
                if not (folder := str(rows.pop("folder"))):
                    continue
                caches.append((folder, int(rows.pop("stored_rows"))))
                rows["positions"] = rows["positions"] + stored_rows
                stored_rows += caches[-1][1]
                for name, values in rows.items():
                    if name not in opened:
                        opened[name] = files.enter_context((self.folder / name).open("wb"))
                        columns[name] = {"dtype": values.dtype.str, "shape": [0, *values.shape[1:]]}
                    opened[name].write(np.ascontiguousarray(values).data)
                    columns[name]["shape"][0] += len(values)
        if not caches:
            source = self.stream.texts.source.name
            raise DataError(f"{source}: no row is left after those that the options drop")
        self._write(self.folder / MERGED, json.dumps({"caches": caches, "columns": columns}).encode())

    def _rows_file(self, group: int, number: int) -> Path:
        return self.folder / f"{group:06d}.{number:06d}.npz"

    def _end_file(self, group: int) -> Path:
        return self.folder / f"{group:06d}.end"

    def _lock(self, group: int, number: int | None = None) -> Path:
        name = f"{group:06d}" if number is None else f"{group:06d}.{number:06d}"
        return self.folder / f"{name}{LOCK_SUFFIX}"

    @staticmethod
    def _write(path: Path, content: bytes) -> None:
        write_atomically(path, lambda temporary: temporary.write_bytes(content), FULL_DISK_ADVICE)
