"""Disks that are full, and files that they damaged."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


DAMAGES = {
    "flipped": lambda content: content[:-400] + bytes([content[-400] ^ 4]) + content[-399:],
    "truncated": lambda content: content[: len(content) // 2],
    "emptied": lambda content: b"",
    "noise": lambda content: bytes(len(content)),
}


@contextlib.contextmanager
def small_disk(folder: Path, kibibytes: int) -> Iterator[Path]:
    """A disk in memory; skips where it cannot be mounted."""
    mounted = folder / "disk"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(mounted)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield mounted
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=True)
