"""The command `bertcls distil`, which trains a classifier with the help of trained ones."""

from collections.abc import Sequence

from bertcls_hf.config.command import run_command
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.run import pipeline


PROGRAM = "python -m bertcls_hf.run.distil"


def main(argv: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Runs the command line, a teacher and then that of a training, and returns the exit code."""
    return run_command(lambda words: _run_words(words, program), argv, needs_output=False)


def _run_words(words: Sequence[str], program: str) -> None:
    if words[:1] in (["-h"], ["--help"]):
        pipeline.run_words(words, program)
    if not words or words[0].startswith("-"):
        raise ArgumentsError(f"{program}: name a trained classifier first, then a recipe and options")
    pipeline.run_words([*words[1:], "--teacher", words[0]], program)


if __name__ == "__main__":
    raise SystemExit(main())
