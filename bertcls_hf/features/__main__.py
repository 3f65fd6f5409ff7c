"""`python -m bertcls_hf.features list|verify|prune`: what is cached, whether it is sound, and its removal."""

import argparse
import contextlib
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from bertcls_hf.config.command import run_command
from bertcls_hf.features.cache import (
    META_FILE,
    CacheMeta,
    FeatureCache,
    cache_root,
    packed_components,
    packed_files,
    packed_problems,
    packed_shards,
    read_meta,
    shard_problem,
)


PROGRAM = "python -m bertcls_hf.features"
# The name of a cache folder. The commands never touch a folder of the root with another name.
KEY = re.compile(r"[0-9a-f]{32}")
SHARD = re.compile(r"(.+)\.(\d{5,})\.arrow")
UNFINISHED = "(extraction not finished)"


def main(argv: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Runs the command, and returns the exit code: 1 if `verify` found a damaged shard."""
    found: list[int] = []
    return run_command(lambda words: found.append(_run_words(words, program)), argv) or found[0]


def _run_words(words: Sequence[str], program: str) -> int:
    parser = argparse.ArgumentParser(prog=program, description=__doc__)
    parser.add_argument("command", choices=["list", "verify", "prune"])
    parser.add_argument("--boost_cache_dir", help="The cache folder, where it is not the default.")
    parser.add_argument("--older_than_days", type=float, default=30.0, help="prune: caches not used for this long.")
    parser.add_argument("--unfinished", action="store_true", help="prune: only caches whose extraction never ended.")
    args = parser.parse_args(words)
    root = cache_root(args.boost_cache_dir)
    if args.command == "list":
        return _list(root)
    return _verify(root) if args.command == "verify" else _prune(root, args.older_than_days, args.unfinished)


def _folders(root: Path) -> Iterator[tuple[Path, CacheMeta | None]]:
    names = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
    for folder in (root / name for name in names if KEY.fullmatch(name)):
        if folder.is_dir() and not folder.is_symlink():
            yield folder, read_meta(folder)


def _size_and_age(folder: Path) -> tuple[int, float]:
    """Returns the size in bytes, and the days since the last use."""
    size, newest = 0, folder.stat().st_mtime
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # A running extraction has just renamed its temporary file.
            status = path.stat()
            size, newest = size + status.st_size, max(newest, status.st_mtime)
    return size, (time.time() - newest) / 86_400


def _shards(folder: Path) -> list[tuple[Path, str, int]]:
    """Lists the path, component and number of every shard in a file of its own, sorted by file name."""
    matches = ((path, SHARD.fullmatch(path.name)) for path in sorted({*folder.iterdir()} - {*packed_files(folder)}))
    return [(path, match[1], int(match[2])) for path, match in matches if match]


def _components(folder: Path, shards: int | None) -> str:
    """Names the components, each with the count of its shards if some are missing, such as `mean-1[3/5]`.

    Args:
        folder: the cache folder.
        shards: the number of shards of a complete component, or None if it is unknown.
    """
    counts = Counter(component for _, component, _ in _shards(folder))
    for path in packed_files(folder):
        if names := packed_components(path):
            counts.update(names * packed_shards(path))
    return " ".join(
        name if count == shards else f"{name}[{count}/{shards or '?'}]" for name, count in sorted(counts.items())
    )


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _list(root: Path) -> int:
    _say(f"{'key':32}  {'MiB':>8}  {'days':>5}  {'rows':>9}  {'tokens':>12}  {'dtype':8}  model, split, components")
    total = 0
    for folder, meta in _folders(root):
        size, age = _size_and_age(folder)
        total += size
        start = f"{folder.name}  {size / 2**20:8.1f}  {age:5.1f}"
        if meta is None:
            _say(f"{start}  {UNFINISHED} {_components(folder, None)}".rstrip())
        else:
            content = f"{meta.model}, {meta.source}, {_components(folder, _cache(folder, meta).shards)}"
            _say(f"{start}  {meta.rows:9,}  {meta.tokens:12,}  {meta.dtype:8}  {content}")
    _say(f"{total / 2**20:,.1f} MiB in {root}")
    return 0


def _cache(folder: Path, meta: CacheMeta) -> FeatureCache:
    return FeatureCache(folder, meta.rows, meta.width, meta.dtype)


def _verify(root: Path) -> int:
    checked = damaged = 0
    for folder, meta in _folders(root):
        if meta is None:
            _say(f"{folder}: no readable {META_FILE} {UNFINISHED}")
        for path, component, shard in _shards(folder):
            problem = shard_problem(path) if meta is None else _cache(folder, meta).problem(component, shard)
            checked += 1
            if problem is not None:
                damaged += 1
                _say(f"{path}: {problem}")
        for path in packed_files(folder):
            found = packed_problems(path)
            for component, problems in (found or {"": ["not readable"]}).items():
                for batch, problem in enumerate(problems):
                    checked += 1
                    if problem is not None:
                        damaged += 1
                        _say(f"{path}: {component} of shard {batch}: {problem}" if found else f"{path}: {problem}")
    _say(f"{damaged} of {checked} shards are damaged; the next run that needs one computes it anew")
    return 1 if damaged else 0


def _prune(root: Path, older_than_days: float, unfinished: bool) -> int:
    freed = 0
    for folder, meta in _folders(root):
        size, age = _size_and_age(folder)
        if age >= older_than_days and not (unfinished and meta is not None):
            freed += size
            shutil.rmtree(folder)
    _say(f"{freed / 2**20:,.1f} MiB freed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
