"""What all commands of the package share: the set-up of logging, and how a command ends, also one that goes wrong."""

import logging
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import bertcls_hf
from bertcls_hf.config.surroundings import SteadyStream, check_surroundings, end_with_parent, silence
from bertcls_hf.errors import ExitCode, InterruptedRun, RunError, one_line, storage_problem


LOG_FORMAT, TIME_FORMAT = "%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"
_phase = "at the start"


def set_up_logging() -> None:
    """Sends the package's log messages to standard error, each with its time and level."""
    logging.basicConfig(format=LOG_FORMAT, datefmt=TIME_FORMAT, stream=sys.stderr)
    logging.getLogger("bertcls_hf").setLevel(logging.INFO)


def enter_phase(words: str) -> None:
    """Notes what the command does from now on, such as `while the data is read`, for the message of a failure."""
    global _phase
    _phase = words


def run_command(
    function: Callable[[Sequence[str]], None], argv: Sequence[str] | None, needs_output: bool = True
) -> int:
    """Runs a command and turns an error into a line on standard error and an exit code.

    Args:
        function: runs the command with the arguments of the command line.
        argv: the arguments after the command's name; None takes `sys.argv[1:]`.
        needs_output: whether the command is for what it prints. One that is not goes on where standard output or
            standard error are closed or full.

    Returns:
        `ExitCode.DONE`, or the exit code of the error. An error that nobody foresaw keeps its traceback in a file.
    """
    words = sys.argv[1:] if argv is None else argv
    enter_phase("at the start")
    streams = sys.stdout, sys.stderr
    try:
        check_surroundings(words)
        end_with_parent()
        if not needs_output:
            sys.stdout, sys.stderr = SteadyStream(streams[0], "output"), SteadyStream(streams[1], "error")
        function(words)
    except InterruptedRun as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except RunError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output when it exits, and would report the closed pipe once more.
        silence(sys.stdout)
        return ExitCode.NO_READER
    except Exception as error:  # the last resort, whose traceback is kept
        if (problem := storage_problem(error)) is not None:
            sys.stderr.write(f"error: {_phase}: {problem}{_place(error)}\n")
            return ExitCode.STORAGE
        sys.stderr.write(_unforeseen(error))
        return ExitCode.UNFORESEEN
    finally:
        sys.stdout, sys.stderr = streams
    return ExitCode.DONE


def _place(error: Exception) -> str:
    path = getattr(error, "filename", None)
    return "" if path is None else f": {path}"


def _unforeseen(error: Exception) -> str:
    """Writes the traceback to a file, and returns the message that names it."""
    name = f"bertcls_hf-error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    versions = f"bertcls_hf {bertcls_hf.__version__}, Python {platform.python_version()}, {platform.platform()}"
    report = f"{versions}, {_phase}\n\n{''.join(traceback.format_exception(error))}"
    try:
        path = Path(tempfile.gettempdir(), name)
        path.write_text(report, encoding="utf-8", errors="backslashreplace")
        where = f"The traceback is in {path}: please report it with that file."
    except OSError:
        where = report
    return f"error: {_phase}: {type(error).__name__}: {one_line(error)}\n{where}\n"
