"""What a process finds around it: its working directory, its standard streams, and the process that started it."""

import contextlib
import ctypes
import functools
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from bertcls_hf.errors import ArgumentsError, ExitCode


logger = logging.getLogger(__name__)

# prctl's option by which Linux sends a process a signal when the one that started it ends.
PR_SET_PDEATHSIG = 1


def check_surroundings(words: Sequence[str]) -> None:
    """Checks what a command would stumble over late.

    Raises:
        ArgumentsError: if an argument is not UTF-8, as a path can be.
    """
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise ArgumentsError(f"{word!r} is not UTF-8: rename the file or folder") from error
    _open_standard_streams()


def require_working_directory() -> None:
    """Ends the process with a sentence if its working directory was deleted."""
    try:
        os.getcwd()
    except OSError:
        sys.stderr.write("error: the working directory was deleted: change to another one\n")
        raise SystemExit(ExitCode.BAD_ARGUMENTS) from None


def _open_standard_streams() -> None:
    """Opens standard streams that are closed, whose numbers would otherwise go to the next files that are opened."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))


def silence(stream: TextIO) -> None:
    """Sends what is written to a stream nowhere, also what it still holds."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class SteadyStream:
    """A stream whose reader may leave, and whose disk may be full: what is written to it is then dropped.

    Args:
        stream: standard output or standard error.
        name: `output` or `error`, for the warning.
    """

    def __init__(self, stream: TextIO, name: str):
        self._stream, self._name = stream, name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes a text, or drops it."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        """Flushes what was written, or drops it."""
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        # What the stream still holds goes nowhere, too.
        with contextlib.suppress(OSError):
            silence(self._stream)
        logger.warning("standard %s cannot be written (%s): the run goes on without it", self._name, error.strerror)


def end_with_parent() -> None:
    """Makes processes end with the one that started them, on Linux: those forked from here on, and a launched rank.

    A process that is killed cannot end its own: the workers that tokenize, or that load data, would stay for ever. A
    rank gets SIGTERM, for which it saves a checkpoint first.
    """
    if not sys.platform.startswith("linux"):
        return
    if "LOCAL_RANK" in os.environ:
        _ask_for_signal(signal.SIGTERM)
    _end_forks_with_parent()


@functools.cache
def _end_forks_with_parent() -> None:
    """Registers the hooks once in a process, since they cannot be taken back."""
    os.register_at_fork(before=_note_parent, after_in_child=_end_with_fork)


_parents: list[int] = []


def _note_parent() -> None:
    _parents[:] = [os.getpid()]


def _end_with_fork() -> None:
    _ask_for_signal(signal.SIGKILL)
    if _parents and os.getppid() != _parents[0]:  # it ended before this process could ask
        os._exit(1)


def _ask_for_signal(number: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
