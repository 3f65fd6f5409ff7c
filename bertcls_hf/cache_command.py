"""`python -m bertcls_hf.features list|verify|prune`: what is cached, whether it is sound, and its removal."""

import argparse
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bertcls_hf.feature_cache import META_FILE, CacheMeta, read_meta, shard_problem
from bertcls_hf.features import cache_root


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; 1 if `verify` found damage."""
    parser = argparse.ArgumentParser(prog="python -m bertcls_hf.features", description=__doc__)
    parser.add_argument("command", choices=["list", "verify", "prune"])
    parser.add_argument("--boost_cache_dir", help="The cache folder, where it is not the default.")
    parser.add_argument("--older_than_days", type=float, default=30.0, help="prune: caches not written for this long.")
    parser.add_argument("--unfinished", action="store_true", help="prune: only caches whose extraction never ended.")
    args = parser.parse_args(argv)
    root = cache_root(args.boost_cache_dir)
    if args.command == "list":
        return _list(root)
    return _verify(root) if args.command == "verify" else _prune(root, args.older_than_days, args.unfinished)


def _folders(root: Path) -> Iterator[tuple[Path, CacheMeta | None]]:
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        yield folder, read_meta(folder)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _age_days(folder: Path) -> float:
    newest = max((path.stat().st_mtime for path in folder.iterdir()), default=folder.stat().st_mtime)
    return (time.time() - newest) / 86_400


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _list(root: Path) -> int:
    _say(f"{'key':32}  {'MiB':>8}  {'days':>5}  {'rows':>9}  {'tokens':>12}  {'dtype':8}  model, split, components")
    total = 0
    for folder, meta in _folders(root):
        total += _size(folder)
        start = f"{folder.name:32}  {_size(folder) / 2**20:8.1f}  {_age_days(folder):5.1f}"
        if meta is None:
            _say(f"{start}  (extraction not finished)")
        else:
            what = f"{meta.model}, {meta.source}, {' '.join(meta.components)}"
            _say(f"{start}  {meta.rows:9,}  {meta.tokens:12,}  {meta.dtype:8}  {what}")
    _say(f"{total / 2**20:,.1f} MiB in {root}")
    return 0


def _verify(root: Path) -> int:
    damaged = 0
    for folder, meta in _folders(root):
        for path in sorted(folder.glob("*.arrow")):
            problem = shard_problem(path, None, meta.width, meta.dtype) if meta else f"no readable {META_FILE}"
            if problem is not None:
                damaged += 1
                _say(f"{path}: {problem}")
    _say(f"{damaged} damaged or unfinished shards; the next run that needs one computes it anew")
    return 1 if damaged else 0


def _prune(root: Path, older_than_days: float, unfinished: bool) -> int:
    freed = 0
    for folder, meta in _folders(root):
        if _age_days(folder) >= older_than_days and not (unfinished and meta is not None):
            freed += _size(folder)
            shutil.rmtree(folder)
    _say(f"{freed / 2**20:,.1f} MiB freed")
    return 0
