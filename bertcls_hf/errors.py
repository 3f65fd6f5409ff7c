"""Errors that end a run with one clear message, and the exit codes that a scheduler can act on."""

import errno
from enum import IntEnum


class ExitCode(IntEnum):
    """What `run_classification.py` returns to the shell; the values follow BSD's sysexits where one fits."""

    DONE = 0
    BAD_ARGUMENTS = 2
    BAD_DATA = 65
    STORAGE = 74
    PREEMPTED = 75
    DIVERGED = 76
    PUSH_FAILED = 77


class RunError(Exception):
    """A failure that the user can mend; its message names the option, file, column or row, and the fix."""

    exit_code = ExitCode.BAD_ARGUMENTS


class ArgumentsError(RunError):
    """A wrong option, recipe, model or checkpoint."""


class DataError(RunError):
    """A wrong file, column, row or label."""

    exit_code = ExitCode.BAD_DATA


class StorageError(RunError):
    """A disk that is full or cannot be written."""

    exit_code = ExitCode.STORAGE


class PreemptedError(RunError):
    """A signal ended the training; its checkpoint is complete, and the same command goes on from it."""

    exit_code = ExitCode.PREEMPTED


class DivergedError(RunError):
    """The loss or the gradients are no longer finite."""

    exit_code = ExitCode.DIVERGED


class PushError(RunError):
    """The Hub did not take the model, which is whole on disk."""

    exit_code = ExitCode.PUSH_FAILED


# A full disk or quota, a file that may not grow, and what network file systems answer when they are gone.
STORAGE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE, errno.EROFS})


def storage_problem(error: BaseException) -> str | None:
    """What a disk has against a file, where that is what an error is about.

    safetensors, tokenizers and torch raise errors of their own, which tell it in their message alone.
    """
    if isinstance(error, OSError):
        return error.strerror if error.errno in STORAGE_ERRORS else None
    message = one_line(error)
    return message if "(os error " in message or "PytorchStreamWriter" in message else None


def one_line(error: BaseException) -> str:
    """The message of an error from elsewhere, which may span lines."""
    return " ".join(str(error).split())
