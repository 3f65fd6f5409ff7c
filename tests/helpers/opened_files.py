"""How often a file is opened, by whatever library or thread."""

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


# From <sys/inotify.h>. The others come between two openings: equal events in a row would be reported once.
IN_OPEN, IN_ACCESS, IN_CLOSE = 0x20, 0x01, 0x18
EVENT_HEADER = struct.Struct("iIII")


@contextmanager
def counted_openings(path: Path) -> Iterator[list[int]]:
    """Counts how often the kernel opens a file; the list holds the number at the end."""
    libc = ctypes.CDLL(None, use_errno=True)
    watcher = libc.inotify_init1(os.O_NONBLOCK)
    counts: list[int] = []
    try:
        if libc.inotify_add_watch(watcher, os.fsencode(path), IN_OPEN | IN_ACCESS | IN_CLOSE) < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch", str(path))
        yield counts
        counts.append(_openings(watcher))
    finally:
        os.close(watcher)


def _openings(watcher: int) -> int:
    events = b""
    with suppress(BlockingIOError):  # raised where no event is left
        while True:
            events += os.read(watcher, 2**16)
    count = 0
    while events:
        _, mask, _, name_length = EVENT_HEADER.unpack_from(events)
        count += bool(mask & IN_OPEN)
        events = events[EVENT_HEADER.size + name_length :]
    return count
