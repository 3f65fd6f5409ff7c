"""The errors that end a run with a one-line message, and the exit codes of the commands."""

import errno
from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of the commands; 65, 70, 74 and 75 are taken from BSD's sysexits, 130 and 141 from shells."""

    DONE = 0
    BAD_ARGUMENTS = 2
    BAD_DATA = 65
    STORAGE = 74
    PREEMPTED = 75
    DIVERGED = 76
    PUSH_FAILED = 77
    UNFORESEEN = 70
    INTERRUPTED = 130
    NO_READER = 141


class RunError(Exception):
    """An error that the user can fix; its message names the option, file, column or row, and says how to fix it."""

    exit_code = ExitCode.BAD_ARGUMENTS


class ArgumentsError(RunError):
    """An option, recipe, model or checkpoint is wrong."""


class DataError(RunError):
    """A file, column, row or label is wrong."""

    exit_code = ExitCode.BAD_DATA


class StorageError(RunError):
    """A disk is full or cannot be written."""

    exit_code = ExitCode.STORAGE


class PreemptedError(RunError):
    """A signal stopped the training after a complete checkpoint; the same command continues from it."""

    exit_code = ExitCode.PREEMPTED


class InterruptedRun(RunError):
    """Ctrl-C ended the command; the message says what is saved, and how to go on."""

    exit_code = ExitCode.INTERRUPTED


class DivergedError(RunError):
    """The loss or the gradients became NaN or infinite."""

    exit_code = ExitCode.DIVERGED


class PushError(RunError):
    """The push to the Hub failed; the model is complete on disk."""

    exit_code = ExitCode.PUSH_FAILED


# A full disk or quota, a file size limit, a read-only disk, and the errors of a network file system that is lost.
STORAGE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE, errno.EROFS})


def storage_problem(error: BaseException) -> str | None:
    """Returns the reason why a file could not be read or written, or None if the error has another cause.

    safetensors, tokenizers and torch raise exceptions of their own without an `errno`, which are recognised by their
    message.
    """
    if isinstance(error, OSError):
        return error.strerror if error.errno in STORAGE_ERRORS else None
    message = one_line(error)
    return message if "(os error " in message or "PytorchStreamWriter" in message else None


def one_line(error: BaseException) -> str:
    """Returns the message of an error on one line, with each run of white space replaced by one blank."""
    return " ".join(str(error).split())
