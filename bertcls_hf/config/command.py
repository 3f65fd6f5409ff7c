"""Functions that all commands of the package share: the set-up of logging, and the exit code of an error."""

import logging
import sys
from collections.abc import Callable, Sequence

from bertcls_hf.errors import ExitCode, RunError


def set_up_logging() -> None:
    """Sends the package's log messages to standard error, each with its time and level."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    logging.getLogger("bertcls_hf").setLevel(logging.INFO)


def run_command(function: Callable[[Sequence[str]], None], argv: Sequence[str] | None) -> int:
    """Runs a command and turns a [`RunError`] into one line on standard error and an exit code.

    Args:
        function: runs the command with the arguments of the command line.
        argv: the arguments after the command's name; None takes `sys.argv[1:]`.

    Returns:
        `ExitCode.DONE`, or the exit code of the error.
    """
    try:
        function(sys.argv[1:] if argv is None else argv)
    except RunError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return ExitCode.DONE
