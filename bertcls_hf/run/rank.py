"""Orders encoders by what a head on their cached features reaches on one's own data.

    python -m bertcls_hf.run.rank bert-base-uncased roberta-base --train_file reviews.csv

Each encoder is a run of its own in output_dir, with a logistic regression as its head; they are compared on the
validation rows, with intervals, paired differences, costs and the lexical baseline. The test data is not read.
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertcls_hf.atomic_files import write_text_atomically
from bertcls_hf.config.command import run_command
from bertcls_hf.config.parsing import build_arguments, explicit_options
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.run import compare
from bertcls_hf.run.pipeline import run


if TYPE_CHECKING:
    from bertcls_hf.hub.card.finished_run import FinishedRun


logger = logging.getLogger(__name__)

PROGRAM = "python -m bertcls_hf.run.rank"
# What a candidate's run does unless the options say otherwise: minutes for an encoder, on a processor.
DEFAULTS = {
    "max_train_samples": 5000,
    "max_eval_samples": 2000,
    "head_init": "logistic",
    "num_train_epochs": 0,
    "output_dir": "outputs/rank",
    "report_to": ["none"],
}
RECIPE_SUFFIXES = (".yaml", ".yml")
TIMED_TEXTS, TEXTS_FILE = 256, "texts.jsonl"


def main(argv: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Runs the command line, encoders and then that of a training, and returns the exit code."""
    return run_command(lambda words: _run_words(words, program), argv, needs_output=False)


def _run_words(words: Sequence[str], program: str) -> None:
    first_other = next(
        (place for place, word in enumerate(words) if word.startswith("-") or word.endswith(RECIPE_SUFFIXES)),
        len(words),
    )
    encoders, rest = list(words[:first_other]), words[first_other:]
    options = explicit_options(rest, program)
    if len(encoders) < 2 or len(set(encoders)) < len(encoders):
        raise ArgumentsError(f"{program}: name two encoders or more, each once, before a recipe and options")
    rank(encoders, options)


def rank(encoders: Sequence[str], options: Mapping[str, Any]) -> list[Path]:
    """Trains a head on each encoder, and prints and writes the comparison; the best comes first.

    Args:
        encoders: names as for `model_name_or_path`.
        options: the options of a training, by field name.

    Returns:
        The folders of the runs, the best first.

    Raises:
        RunError: an error that the user can fix.
    """
    chosen = {**DEFAULTS, **options, "boost": True, "freeze_backbone": True, "do_train": True, "do_eval": True}
    chosen.pop("test_file", None)
    root = Path(str(chosen["output_dir"]))
    finished = {}
    for number, encoder in enumerate(encoders, start=1):
        logger.info("encoder %d of %d: %s", number, len(encoders), encoder)
        name = re.sub(r"[^\w.-]+", "_", Path(encoder).name.removeprefix("pypi:"))
        one = {**chosen, "model_name_or_path": encoder, "output_dir": str(root / f"{number}_{name}")}
        run_of_encoder = run(build_arguments(one), one, [], evaluates_test=False)
        finished[run_of_encoder.folder] = run_of_encoder
    folders = sorted(finished, key=lambda folder: _score(finished[folder]), reverse=True)
    texts = _write_texts(root / TEXTS_FILE, finished[folders[0]])
    compare.run(folders, compare.CompareArguments(split="validation", texts=str(texts), output_dir=str(root)))
    return folders


def _score(finished: "FinishedRun") -> float:
    """Returns the main metric on the validation rows, so that more is better."""
    training = finished.trainer.args
    (evaluation,) = finished.evaluations
    value = evaluation.metrics[str(training.metric_for_best_model)]
    return value if training.greater_is_better else -value


def _write_texts(path: Path, finished: "FinishedRun") -> Path:
    """Writes the first validation texts, on which the speed of all encoders is measured."""
    split = finished.texts("validation")
    names = [name for name in ("text", "text_pair") if name in split.column_names]
    rows = split.select(range(min(TIMED_TEXTS, len(split)))).select_columns(names)
    write_text_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


if __name__ == "__main__":
    raise SystemExit(main())
