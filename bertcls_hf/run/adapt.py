"""The command `bertcls adapt`, which trains an encoder as a masked language model, and no classifier."""

import logging
from collections.abc import Sequence
from pathlib import Path

from bertcls_hf.config.arguments import Arguments
from bertcls_hf.config.command import run_command
from bertcls_hf.config.parsing import parse_arguments
from bertcls_hf.data.input_paths import check_files
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.run.pipeline import start


logger = logging.getLogger(__name__)

PROGRAM = "python -m bertcls_hf.run.adapt"


def main(argv: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Runs the command line, which is that of a training, and returns the exit code."""
    return run_command(lambda words: _run_words(words, program), argv, needs_output=False)


def _run_words(words: Sequence[str], program: str) -> None:
    args, _ = parse_arguments(words, program)
    if not args.adapt.adapt_num_train_epochs:
        raise ArgumentsError(f"{program}: say with --adapt_num_train_epochs how often the texts are read, such as 3")
    adapt(args)


def adapt(args: Arguments) -> Path:
    """Adapts the encoder of a run to its training texts, and returns the folder of the adapted encoder.

    A training with the same options and output_dir finds the encoder there, and starts from it.

    Args:
        args: the checked options of the run.

    Raises:
        RunError: an error that the user can fix.
    """
    check_files(args.data)
    # Imported here, so that a mistyped option or file name fails at once.
    from bertcls_hf.data.load import load_data
    from bertcls_hf.training.adaptation import adapt_encoder
    from bertcls_hf.training.output_folder import claimed
    from bertcls_hf.training.resolve import resolve_run

    with claimed(args.training):
        checkpoint, tokenizer = start(args)
        with args.training.main_process_first(desc="data"):
            data = load_data(args.data, checkpoint.labels, trains=True, predicts=False)
        resolved = resolve_run(args, checkpoint, data)
        adapted = adapt_encoder(resolved, data, tokenizer, args.training.resume_from_checkpoint)
    folder = Path(adapted.checkpoint.path)
    logger.info("the adapted encoder is in %s: --model_name_or_path %s", folder, folder)
    return folder


if __name__ == "__main__":
    raise SystemExit(main())
