"""Tells what is wrong with labelled data, and trains no encoder.

    python -m bertcls_hf.run.audit --train_file reviews.csv --test_file test.csv

It takes the options of a training, so that a recipe of one can be given: those of the encoder, of the data and of the
feature cache count, and those that shape the training are left aside.
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertcls_hf.config.arguments import (
    AdaptArguments,
    Arguments,
    BoostArguments,
    ClassifierTrainingArguments,
    DataArguments,
    ModelArguments,
)
from bertcls_hf.config.command import enter_phase, run_command
from bertcls_hf.config.parsing import build_arguments, explicit_options
from bertcls_hf.errors import ArgumentsError, DataError
from bertcls_hf.run.frozen_features import FrozenFeatures, frozen_features


if TYPE_CHECKING:
    from bertcls_hf.audit.findings import Findings
    from bertcls_hf.data.labels import LabelSet
    from bertcls_hf.data.load import ClassificationData


logger = logging.getLogger(__name__)

PROGRAM = "python -m bertcls_hf.run.audit"
# All labelled rows are audited, unless the options hold some out.
DEFAULTS = {"validation_split_percentage": 0.0, "output_dir": "outputs/audit"}
CHOSEN = {
    "boost": True, "freeze_backbone": True, "do_train": True, "do_eval": False, "eval_strategy": "no",
    "save_strategy": "no", "load_best_model_at_end": False, "report_to": ["none"],
}  # fmt: skip
# The options of these classes that count; of the other classes, all do.
COUNTING = {
    ModelArguments: frozenset({
        "model_name_or_path", "model_revision", "tokenizer_name", "truncation_strategy", "head_tail_split",
        "window_stride", "window_pooling", "max_text_length", "trust_remote_code", "ignore_mismatched_sizes",
        "pooling", "pooling_layers", "pooling_layers_merge", "lexical_features", "attn_implementation",
    }),
    BoostArguments: frozenset({"boost_cache_dir", "boost_dtype", "boost_storage"}),
    AdaptArguments: frozenset(),
    ClassifierTrainingArguments: frozenset({"output_dir", "use_cpu", "seed", "disable_tqdm"}),
}  # fmt: skip
# Texts without a label cannot be audited.
NOT_COUNTING = {"unlabelled_file"}


def main(argv: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Runs the command line, which is that of a training, and returns the exit code."""
    return run_command(lambda words: _run_words(words, program), argv, needs_output=False)


def _run_words(words: Sequence[str], program: str) -> None:
    audit(explicit_options(words, program))


def audit(options: Mapping[str, Any]) -> "Findings":
    """Looks for wrong labels, repeated texts, leaks and imbalance, prints a summary and writes what was found.

    Args:
        options: the options of a training, by field name.

    Raises:
        RunError: an error that the user can fix.
    """
    args = audit_arguments(options)
    from bertcls_hf.training.output_folder import claimed

    with claimed(args.training):
        return _audit(args)


def audit_arguments(options: Mapping[str, Any]) -> Arguments:
    """Returns the checked options of an audit, of which those that shape a training are left aside.

    Args:
        options: the options of a training, by field name.

    Raises:
        ArgumentsError: an option is wrong, or an audit has no use for it.
    """
    if options.get("streaming"):
        raise ArgumentsError("--streaming: an audit compares all rows with each other, and a stream is read once: "
                             "leave it out")  # fmt: skip
    args = build_arguments({**DEFAULTS, **_counting(options), **CHOSEN})
    if args.model.window_pooling == "attention":
        raise ArgumentsError("--window_pooling attention is learned by a training, which an audit is not: use mean or "
                             "max")  # fmt: skip
    return args


def _counting(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options that an audit depends on."""
    left_aside = {field.name for group, names in COUNTING.items() for field in fields(group)} - {
        name for names in COUNTING.values() for name in names
    }
    return {name: value for name, value in options.items() if name not in left_aside | NOT_COUNTING}


def _audit(args: Arguments) -> "Findings":
    frozen = frozen_features(args, _read_splits, only=("train",))
    from bertcls_hf.audit.files import PAGE_FILE, ROWS_FILE, write_audit
    from bertcls_hf.audit.findings import find
    from bertcls_hf.audit.sections import sections

    enter_phase("while the data was audited")
    findings = find(
        frozen.data, frozen.features["train"], frozen.tokenizer, _longest_text(frozen), args.data.split_seed
    )
    found, folder = sections(findings), Path(args.training.output_dir)
    write_audit(folder, findings, found)
    sys.stdout.write("".join(f"{section.summary}\n" for section in found))
    logger.info("%s holds what was found, and %s all rows, the likeliest wrong label first", folder / PAGE_FILE,
                folder / ROWS_FILE)  # fmt: skip
    return findings


def _read_splits(args: DataArguments, known: "LabelSet | None") -> "ClassificationData":
    """Reads the splits with the number of each row in its source.

    Raises:
        DataError: the labels are numbers.
    """
    from bertcls_hf.data.labels import REGRESSION
    from bertcls_hf.data.load import load_data

    data = load_data(args, known, trains=True, predicts=False, numbers_rows=True)
    if data.labels.problem_type == REGRESSION:
        raise DataError(
            "the labels are numbers of a regression, and an audit is for labels that are names: --problem_type "
            "single_label_classification makes each number a label"
        )
    return data


def _longest_text(frozen: FrozenFeatures) -> int:
    """The tokens from which on the encoder does not read all of a text."""
    truncation = frozen.resolved.truncation
    if truncation is None:
        return int(frozen.tokenizer.model_max_length)
    return truncation.max_text_length if truncation.strategy == "windows" else truncation.max_length


if __name__ == "__main__":
    raise SystemExit(main())
