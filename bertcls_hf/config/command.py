"""The frame of the package's commands: their log, and the exit code of an error."""

import logging
import sys
from collections.abc import Callable, Sequence

from bertcls_hf.errors import ExitCode, RunError


def set_up_logging() -> None:
    """Sends the messages of this package to standard error, with the time of each."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    logging.getLogger("bertcls_hf").setLevel(logging.INFO)


def run_command(function: Callable[[Sequence[str]], None], argv: Sequence[str] | None) -> int:
    """Runs a command; a [`RunError`] ends it with one line on standard error.

    Args:
        function: the command, which takes the words after its name.
        argv: these words; None takes those of the process.

    Returns:
        The exit code.
    """
    try:
        function(sys.argv[1:] if argv is None else argv)
    except RunError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return ExitCode.DONE
