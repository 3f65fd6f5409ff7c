"""The phases of a run that the Trainer carries out: train, evaluate, predict."""

import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase, TrainerState
from transformers.trainer_utils import PredictionOutput

from bertcls_hf.config.arguments import Arguments, ClassifierTrainingArguments
from bertcls_hf.data.labels import REGRESSION, LabelSet
from bertcls_hf.data.load import ClassificationData
from bertcls_hf.data.streaming import StreamPosition, TextStream, TokenStream
from bertcls_hf.errors import ArgumentsError, PreemptedError, one_line
from bertcls_hf.metrics.calibration import CALIBRATION_FILE, Calibration, read_calibration, write_calibration
from bertcls_hf.metrics.metrics import DEFAULT_METRIC, METRIC_NAMES, build_compute_metrics, greater_is_better
from bertcls_hf.models.modeling import TextClassifier
from bertcls_hf.models.padding_free import compute_without_padding
from bertcls_hf.train.callbacks import training_callbacks
from bertcls_hf.train.checkpoints import STATE, require_checkpoint_space, resolve_resume, stopped_early
from bertcls_hf.train.preemption import StopOnSignal
from bertcls_hf.train.results import Evaluation, write_predictions, write_report
from bertcls_hf.train.trainer import ClassificationCollator, ClassificationTrainer


logger = logging.getLogger(__name__)

HEAD_FOLDER = "head"


def check_plan(args: ClassifierTrainingArguments, data: ClassificationData) -> None:
    """Resolves the best model's metric and the checkpoint to resume from, before any model is loaded.

    Raises:
        ArgumentsError: `metric_for_best_model` is not a metric of the task, evaluation during training has no data, or
            the checkpoint asked for cannot be resumed from.
    """
    _resolve_best_metric(args, data.labels)
    if not args.do_train and not args.do_predict and not any(map(data.has_labels, ("validation", "test"))):
        raise ArgumentsError("--do_eval: there is no labelled validation or test data; give --validation_file")
    if args.calibrate and data.labels.problem_type == REGRESSION:
        raise ArgumentsError("--calibrate: a regression has no probabilities to calibrate")
    if args.calibrate and not data.has_labels("validation"):
        raise ArgumentsError(
            "--calibrate: there is no labelled validation data: give --validation_file, or a "
            "--validation_split_percentage above 0"
        )
    if not args.do_train:
        return
    if args.eval_strategy != "no" and not data.has_labels("validation"):
        raise ArgumentsError(
            "there is no validation data: give --validation_file, a --validation_split_percentage above 0, or "
            "--eval_strategy no"
        )
    is_main_process = args.process_index == 0
    checkpoint = resolve_resume(
        args.resume_from_checkpoint,
        Path(args.output_dir),
        args.world_size,
        is_main_process,
        is_stream=isinstance(data.splits["train"], TextStream) and args.max_steps > 0,
    )
    args.resume_from_checkpoint = None if checkpoint is None else str(checkpoint)


def _resolve_best_metric(args: ClassifierTrainingArguments, labels: LabelSet) -> None:
    asked = args.asked_best_metric or DEFAULT_METRIC[labels.problem_type]
    name = asked.removeprefix("eval_")
    known = ("loss", *METRIC_NAMES[labels.problem_type])
    if name not in known and not args.extra_metrics:
        raise ArgumentsError(
            f"--metric_for_best_model {asked}: not a metric of {labels.problem_type}; use {', '.join(known)}"
        )
    args.metric_for_best_model = name
    if args.asked_greater_is_better is None:
        args.greater_is_better = greater_is_better(name)


def build_trainer(
    args: ClassifierTrainingArguments,
    model: TextClassifier,
    tokenizer: PreTrainedTokenizerBase,
    splits: Mapping[str, Any],
    labels: LabelSet,
) -> ClassificationTrainer:
    """A Trainer over the splits, with the task's metrics and the run's callbacks.

    Raises:
        ArgumentsError: an option of transformers' own that it refuses, or whose package is not installed.
    """
    # The Trainer would push all of output_dir, at every save; pushing is the run's last step, and of named files.
    args = copy.copy(args)
    args.push_to_hub = False
    # Features are extracted on all devices of a process; a head would only be slowed down by DataParallel.
    args._n_gpu = min(args.n_gpu, 1)
    if args.padding_free:
        compute_without_padding(model)
    try:
        return ClassificationTrainer(
            model=model,
            args=args,
            data_collator=ClassificationCollator(tokenizer),
            train_dataset=splits.get("train") if args.do_train else None,
            eval_dataset=splits.get("validation"),
            processing_class=tokenizer,
            compute_metrics=build_compute_metrics(labels, args.extra_metrics),
            callbacks=training_callbacks(args),
        )
    except (ValueError, ImportError, FileNotFoundError) as error:
        raise ArgumentsError(one_line(error)) from error


def train_head(
    args: Arguments,
    model: TextClassifier,
    tokenizer: PreTrainedTokenizerBase,
    features: Mapping[str, Any],
    labels: LabelSet,
) -> None:
    """Trains the head alone on cached features, in output_dir/head: the first phase of LP-FT.

    Fine-tuning from a random head would bend good features towards it (Kumar et al. 2022, arXiv 2202.10054). A run
    that resumes its fine-tuning has the head in its checkpoint.
    """
    if args.training.resume_from_checkpoint is None and args.boost.head_num_train_epochs > 0:
        phase = copy.copy(args.training)
        phase.output_dir = str(Path(args.training.output_dir, HEAD_FOLDER))
        phase.num_train_epochs, phase.max_steps = args.boost.head_num_train_epochs, -1
        model.freeze_backbone(True)
        train(build_trainer(phase, model, tokenizer, features, labels))
        model.freeze_backbone(False)
    # From here on the head is like any other layer.
    args.training.head_learning_rate = args.training.learning_rate


def train(trainer: ClassificationTrainer) -> None:
    """Trains, from the checkpoint that [`check_plan`] found, and writes `train_results.json` and `trainer_state.json`.

    Raises:
        DivergedError: the loss is no longer finite.
        PreemptedError: a signal ended the training.
        StorageError: the disk does not hold the checkpoints.
    """
    checkpoint = trainer.args.resume_from_checkpoint
    if trainer.is_world_process_zero():
        require_checkpoint_space(trainer.args, trainer.model)
    if checkpoint is not None and isinstance(trainer.train_dataset, TokenStream):
        _go_to_position(trainer, Path(checkpoint))
    if checkpoint is not None and stopped_early(Path(checkpoint), trainer.args.early_stopping_patience):
        metrics = _take_over_finished(trainer, Path(checkpoint))
    else:
        metrics = _train_until_signalled(trainer, checkpoint)
    if not isinstance(trainer.train_dataset, TokenStream):
        metrics["train_samples"] = len(trainer.train_dataset)
    _save_metrics(trainer, "train", metrics)
    trainer.save_state()


def _go_to_position(trainer: ClassificationTrainer, checkpoint: Path) -> None:
    """Lets the stream go on where this process was when it saved the checkpoint."""
    args = trainer.args
    position = StreamPosition.read(checkpoint, args.process_index, args.world_size)
    steps = TrainerState.load_from_json(str(checkpoint / STATE)).global_step
    rows = steps * args.gradient_accumulation_steps * args.train_batch_size
    if position.rows != rows:
        raise ArgumentsError(
            f"{checkpoint}: {position.rows} rows were trained on, but {steps} steps of this batch size are {rows}: "
            "resume with the batch size of before"
        )
    trainer.train_dataset.go_to(position)


def _train_until_signalled(trainer: ClassificationTrainer, checkpoint: str | None) -> dict[str, float]:
    with StopOnSignal() as stop:
        trainer.add_callback(stop)
        metrics = trainer.train(resume_from_checkpoint=checkpoint).metrics
    if stop.stopped_at is not None:
        by = f"by {stop.received.name} " if stop.received else ""
        raise PreemptedError(
            f"the training was stopped {by}after step {stop.stopped_at}; its checkpoint in {trainer.args.output_dir} "
            "is complete: --resume_from_checkpoint auto goes on from it"
        )
    return metrics


def _take_over_finished(trainer: ClassificationTrainer, checkpoint: Path) -> dict[str, float]:
    """Ends a training that early stopping had ended before it was killed; going on would add a step."""
    logger.info("early stopping had ended the training at %s", checkpoint)
    trainer.state = TrainerState.load_from_json(str(checkpoint / STATE))
    metrics = {"train_loss": trainer.mean_train_loss()}
    trainer.log(metrics)
    trainer._load_best_model()
    return metrics


def evaluate(trainer: ClassificationTrainer, split: Dataset, data: ClassificationData) -> Evaluation:
    """Evaluates on the validation split: `eval_results.json`, `eval_report.json`, and what `calibrate` asks for.

    Raises:
        DivergedError: a calibration is asked for, but the model's outputs are not finite.
    """
    output = trainer.predict(split, metric_key_prefix="eval")
    evaluation = _record(trainer, "eval", output, data)
    if trainer.args.calibrate and trainer.is_world_process_zero():
        path = Path(trainer.args.output_dir, CALIBRATION_FILE)
        write_calibration(path, output.predictions, output.label_ids, data.labels)
    return evaluation


def predict(trainer: ClassificationTrainer, split: Dataset, data: ClassificationData) -> Evaluation | None:
    """Evaluates on the test split where it is labelled, and with `do_predict` writes a line per text.

    The lines are calibrated where `calibrate` is asked for.
    """
    output = trainer.predict(split, metric_key_prefix="test")
    evaluation = _record(trainer, "test", output, data) if data.has_labels("test") else None
    if trainer.args.do_predict and trainer.is_world_process_zero():
        folder = Path(trainer.args.output_dir)
        path = folder / f"predictions.{trainer.args.prediction_format}"
        is_calibrated = trainer.args.calibrate
        calibration = read_calibration(folder / CALIBRATION_FILE, data.labels) if is_calibrated else Calibration()
        write_predictions(path, data.splits["test"], output.predictions, data.labels, calibration)
        logger.info("predictions are in %s", path)
    return evaluation


def _record(
    trainer: ClassificationTrainer, prefix: str, output: PredictionOutput, data: ClassificationData
) -> Evaluation:
    """Writes what an evaluation found into the files of its split."""
    logits, gold = output.predictions, output.label_ids
    _save_metrics(trainer, prefix, {**output.metrics, f"{prefix}_samples": len(gold)})
    if trainer.is_world_process_zero():
        write_report(Path(trainer.args.output_dir), prefix, logits, gold, data.labels)
    metrics = {name.removeprefix(f"{prefix}_"): value for name, value in output.metrics.items()}
    return Evaluation("test" if prefix == "test" else "validation", metrics, logits, gold)


def _save_metrics(trainer: ClassificationTrainer, split: str, metrics: dict[str, Any]) -> None:
    trainer.log_metrics(split, metrics)
    trainer.save_metrics(split, metrics)
