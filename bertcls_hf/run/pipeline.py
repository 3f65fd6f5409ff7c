"""One run, from data to a saved model. `run` lists its steps in order and is the best place to start reading."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertcls_hf.config.arguments import Arguments
from bertcls_hf.config.command import enter_phase, run_command
from bertcls_hf.config.parsing import PROGRAM, parse_arguments
from bertcls_hf.data.input_paths import check_files
from bertcls_hf.errors import InterruptedRun
from bertcls_hf.hub.access import check_access
from bertcls_hf.hub.push import run_repository


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bertcls_hf.data.load import ClassificationData
    from bertcls_hf.hub.card.finished_run import FinishedRun
    from bertcls_hf.models.loading import Checkpoint
    from bertcls_hf.models.modeling import TextClassifier, TruncationSettings
    from bertcls_hf.training.resolve import ResolvedRun


def main(argv: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Runs the command line and returns the exit code."""
    return run_command(lambda words: run_words(words, program), argv, needs_output=False)


def run_words(words: Sequence[str], program: str) -> None:
    """Parses the words of a command line, and runs them."""
    run(*parse_arguments(words, program), words)


def run(
    args: Arguments,
    options: Mapping[str, Any],
    command: Sequence[str],
    in_memory: Mapping[str, Any] | None = None,
    evaluates_test: bool = True,
) -> "FinishedRun":
    """Loads the data and the model, trains, evaluates, predicts, and saves the model and its card.

    Args:
        args: the checked options.
        options: the options that the user gave, by field name; written into the recipe that repeats the run.
        command: the arguments of the command line; shown in the model card.
        in_memory: for each split in `args.in_memory`, its rows as a `datasets.Dataset` or a `pandas.DataFrame`.
        evaluates_test: whether the test data is used, where there is any.

    Returns:
        The options, data, trainer and evaluations of the finished run.

    Raises:
        RunError: an error that the user can fix; the command line returns its `exit_code`.
    """
    check_files(args.data)
    if args.training.push_to_hub and args.training.process_index == 0:
        check_access(run_repository(Path(args.training.output_dir), args.training))
    # Imported here, so that a mistyped option or file name fails at once: importing datasets, scikit-learn and the
    # Trainer takes seconds.
    from bertcls_hf.training.output_folder import claimed

    with claimed(args.training):
        try:
            return _run(args, options, command, in_memory, evaluates_test)
        except KeyboardInterrupt as error:
            raise InterruptedRun(_how_to_go_on(Path(args.training.output_dir))) from error


def _how_to_go_on(folder: Path) -> str:
    """Returns two lines: what an interrupted run has saved, and how to go on."""
    from bertcls_hf.training.checkpoints import newest_checkpoint

    newest = newest_checkpoint(folder)
    if newest is None:
        return (
            f"interrupted: {folder} holds no checkpoint yet; features and tokens that were computed are cached\n"
            "the same command starts again, and takes them over"
        )
    return f"interrupted: {newest} is saved\nthe same command with --resume_from_checkpoint auto goes on from it"


def _run(
    args: Arguments,
    options: Mapping[str, Any],
    command: Sequence[str],
    in_memory: Mapping[str, Any] | None,
    evaluates_test: bool,
) -> "FinishedRun":
    """Runs the steps of [`run`] in an output_dir that no other run writes to."""
    from bertcls_hf.data.datasets_cache import require_writable_cache, with_sound_cache
    from bertcls_hf.data.load import load_data
    from bertcls_hf.data.tokenization import report_lengths, tokenize
    from bertcls_hf.hub.card.finished_run import FinishedRun
    from bertcls_hf.hub.card.model_card import write_model_card
    from bertcls_hf.hub.push_callback import PushRun
    from bertcls_hf.models.truncation import resolve_truncation
    from bertcls_hf.run.bill_of_materials import write_bill_of_materials
    from bertcls_hf.run.verify import write_run_manifest
    from bertcls_hf.training import output_folder, phases
    from bertcls_hf.training.adaptation import adapt_encoder
    from bertcls_hf.training.baseline_results import write_baseline
    from bertcls_hf.training.checkpoints import asks_to_resume
    from bertcls_hf.training.cross_validation import cross_validate, held_out_rows
    from bertcls_hf.training.distillation import with_logits, with_teachers
    from bertcls_hf.training.few_shot import choose_encoder
    from bertcls_hf.training.lexical_parts import fitted_baseline, fitted_features
    from bertcls_hf.training.recipe import write_recipe
    from bertcls_hf.training.resolve import resolve_run
    from bertcls_hf.training.resume import identified, with_own_checkpoint
    from bertcls_hf.training.run_identity import content_digests_of
    from bertcls_hf.training.seed_runs import repeat_with_other_seeds
    from bertcls_hf.training.self_training import self_train
    from bertcls_hf.training.sweep import FineTuningSweep, HeadSweep

    enter_phase("while the encoder was opened")
    checkpoint, tokenizer = start(args)

    def read() -> tuple["ClassificationData", "TruncationSettings | None", dict[str, Any]]:
        trains, predicts = bool(args.training.do_train), args.training.do_predict
        data = load_data(args.data, checkpoint.labels, trains, predicts, in_memory)
        data, teacher_logits = with_teachers(args, data if evaluates_test else data.without("test"))
        truncation = resolve_truncation(args.model, checkpoint, tokenizer, args.data.max_seq_length, data.is_pair)
        splits = tokenize(data, tokenizer, args.data, truncation, keeps_whole=checkpoint.lexical is not None)
        return data, truncation, with_logits(splits, teacher_logits)

    enter_phase("while the data was read and tokenized")
    require_writable_cache()
    with args.training.main_process_first(desc="data"):
        data, truncation, splits = with_sound_cache(read)
    report_lengths(splits, tokenizer, truncation)

    enter_phase("while the options were resolved")
    resolved = resolve_run(args, checkpoint, data, truncation)
    folds = held_out_rows(data, args.training.cross_validation, args.data.split_seed)
    enter_phase("before the training")
    if args.adapt.adapt_num_train_epochs:
        resolved = adapt_encoder(resolved, data, tokenizer, args.training.resume_from_checkpoint)
    has_lexical = args.model.lexical_features
    if args.few_shot.few_shot:
        resolved, has_lexical = choose_encoder(resolved, data, splits, tokenizer)
    learned = data
    if args.few_shot.self_training_rounds or args.learns_without_labels:
        learned, splits = self_train(resolved, data, splits, tokenizer)
        has_lexical = args.model.lexical_features
    if has_lexical:
        lexical = fitted_features(resolved, learned, tokenizer)
        resolved, splits = replace(resolved, lexical=lexical), lexical.with_logits(splits)

    digests = content_digests_of(resolved, learned, splits, tokenizer)
    resolved = identified(resolved, digests, options, tokenizer.model_max_length)
    if args.boost.sweep:
        sweep = (HeadSweep if args.boost.boost else FineTuningSweep)(resolved, splits, tokenizer)
        is_resumed = asks_to_resume(args.training.resume_from_checkpoint)
        resolved = sweep.run(args.boost.sweep, args.boost.sweep_hours, is_resumed)
        resolved = identified(resolved, digests, options, tokenizer.model_max_length)
    resolved = with_own_checkpoint(resolved, args.training.resume_from_checkpoint)
    args = resolved.args
    if args.training.process_index == 0:
        output_folder.tell_of_overwriting(args.training)
        assert resolved.identity is not None
        write_recipe(Path(args.training.output_dir), resolved.identity.recipe)

    baseline = fitted_baseline(resolved, data)
    model = resolved.load_model()
    enter_phase("while features were computed" if args.boost.boost else "before the training")
    features = _cached_features(resolved, model, tokenizer, splits) if args.boost.boost else None
    inputs = phases.prepare_inputs(resolved, model, tokenizer, splits, features)
    trainer = phases.build_trainer(resolved.main_phase, model, tokenizer, inputs, data.labels)
    trainer.identity = resolved.identity
    push = PushRun(trainer, args.training) if args.training.push_to_hub else None
    if args.training.do_train:
        enter_phase("while the model was trained")
        phases.train(trainer)
        enter_phase("while the model was saved")
        trainer.save_model()
    enter_phase("while the model was evaluated")
    evaluations = phases.evaluate_splits(trainer, inputs, data, baseline)

    enter_phase("after the evaluation, with the model saved" if args.training.do_train else "after the evaluation")
    finished = FinishedRun(args, options, command, data, splits, trainer, evaluations, baseline)
    if trainer.is_world_process_zero():
        if baseline is not None:
            compared = [(e.split, e.baseline) for e in finished.evaluations if e.baseline is not None]
            write_baseline(finished.folder, baseline, compared)
        write_model_card(finished)
    if args.training.seeds > 1:
        repeat_with_other_seeds(resolved, tokenizer, splits, features, data, evaluations)
    if folds:
        cross_validate(resolved, folds, tokenizer, splits, features, data)
    if (args.training.seeds > 1 or folds) and trainer.is_world_process_zero():
        write_model_card(finished)
    if trainer.is_world_process_zero():
        write_bill_of_materials(finished)
        write_run_manifest(finished)
    if push is not None:
        push.finish()
    return finished


def start(args: Arguments) -> tuple["Checkpoint", "PreTrainedTokenizerBase"]:
    """Starts a run: its log and output_dir, its encoder, whose weights are not read yet, and its tokenizer.

    Raises:
        RunError: the encoder cannot be used, or does not allow an option.
    """
    from bertcls_hf.models.encoder_checks import check_encoder
    from bertcls_hf.models.loading import load_tokenizer, open_checkpoint
    from bertcls_hf.training.adaptation import check_adaptation
    from bertcls_hf.training.recipe import start_run

    start_run(args)
    checkpoint = open_checkpoint(args.model)
    check_encoder(args, checkpoint)
    tokenizer = load_tokenizer(args.model, checkpoint, args.data.max_seq_length)
    check_adaptation(args, checkpoint, tokenizer)
    return checkpoint, tokenizer


def _cached_features(
    resolved: "ResolvedRun",
    model: "TextClassifier",
    tokenizer: "PreTrainedTokenizerBase",
    splits: Mapping[str, Any],
) -> Mapping[str, Any]:
    """Returns the features of each split that the run reads, computed once by the encoder and cached."""
    from bertcls_hf.features.extractor import FeatureExtractor
    from bertcls_hf.features.stream_extraction import split_features

    args = resolved.args
    # LP-FT never evaluates the head of its first phase on the test split, so no features of it are needed.
    is_unread = bool(args.training.do_train) and args.is_head_then_all
    extractor = FeatureExtractor(model, tokenizer, args)
    read = [name for name in splits if not (is_unread and name == "test")]
    return {name: split_features(extractor, name, splits[name]) for name in read}
