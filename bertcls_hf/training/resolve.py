"""Fills in the default options that depend on the data or the encoder. No later step changes the options."""

import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, Trainer, get_scheduler, set_seed
from transformers.trainer_utils import SchedulerType

from bertcls_hf.config.arguments import Arguments, ClassifierTrainingArguments, ModelArguments
from bertcls_hf.data.class_weights import class_weights
from bertcls_hf.data.label_descriptions import check_descriptions
from bertcls_hf.data.labels import REGRESSION, LabelSet
from bertcls_hf.data.load import ClassificationData
from bertcls_hf.errors import ArgumentsError, one_line
from bertcls_hf.features.lexical_table import LexicalFeatures
from bertcls_hf.features.logistic_head import HeldOutFit, check_head_init
from bertcls_hf.metrics.metrics import DEFAULT_METRIC, METRIC_NAMES, greater_is_better
from bertcls_hf.models.loading import Checkpoint, load_classifier, resolve_config
from bertcls_hf.models.modeling import TextClassifier, TextClassifierConfig, TruncationSettings
from bertcls_hf.training.checkpoints import resolve_resume
from bertcls_hf.training.run_identity import RunIdentity


# These schedulers change the learning rate when `metric_for_best_model` does not improve.
SCHEDULERS_OF_A_METRIC = (SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY)


@dataclass(frozen=True)
class ResolvedRun:
    """A run whose options all have their final values.

    Args:
        args: the options; `args.training` is read-only.
        checkpoint: the encoder or classifier that the run starts from.
        labels: the labels of the task.
        class_weights: one weight per label for the loss, or None for equal weights.
        lexical: the fitted lexical features; None without `--lexical_features`.
        truncation: how the model reads longer texts than its encoder; None if the tokenizer cuts them.
        identity: what the training depends on; None before the data is known, and without a training.
        head_fit: how the regression of an encoder that has learned from the training rows is to be fitted; None for
            other encoders.
    """

    args: Arguments
    checkpoint: Checkpoint
    labels: LabelSet
    class_weights: list[float] | None
    lexical: LexicalFeatures | None = None
    truncation: TruncationSettings | None = None
    identity: RunIdentity | None = None
    head_fit: HeldOutFit | None = None

    @cached_property
    def config(self) -> TextClassifierConfig:
        """The classifier's configuration.

        Raises:
            ArgumentsError: if the encoder or the task does not allow an option.
        """
        smoothing = self.args.training.label_smoothing_factor
        # A model that is only evaluated keeps its lexical features.
        lexical = self.checkpoint.lexical if self.lexical is None else self.lexical.settings
        return resolve_config(
            self.args.model, self.checkpoint, self.labels, self.class_weights, smoothing, lexical, self.truncation
        )

    @property
    def main_phase(self) -> ClassifierTrainingArguments:
        """The options of the training that produces the saved model.

        After a first phase that trained only the head, the head and the encoder share one learning rate.
        """
        training = self.args.training
        if not self.args.is_head_then_all:
            return training
        return training.resolved(head_learning_rate=training.learning_rate)

    def load_model(self) -> TextClassifier:
        """Loads the classifier with its weights; a new head is initialised at random with the run's seed.

        Raises:
            ArgumentsError: if the weights cannot be read.
        """
        set_seed(self.args.training.seed)
        # Freezing the encoder changes the configuration of a model, so the model gets a copy.
        model = load_classifier(self.args.model, self.checkpoint, copy.deepcopy(self.config))
        if self.lexical is not None and model.lexical is not None:
            self.lexical.fill(model.lexical)
        return model

    def starting_from(self, folder: Path) -> "ResolvedRun":
        """Returns the same run, which starts from the encoder in a folder."""
        config = AutoConfig.from_pretrained(folder)
        config.name_or_path = ""
        return replace(self, checkpoint=replace(self.checkpoint, path=str(folder), config=config))

    def with_options(self, model: ModelArguments, **training: Any) -> "ResolvedRun":
        """Returns the same run with other model options and other training options, and without a sweep."""
        boost = replace(self.args.boost, sweep=0, sweep_hours=None)
        args = replace(self.args, model=model, boost=boost, training=self.args.training.resolved(**training))
        return replace(self, args=args)


def resolve_run(
    args: Arguments, checkpoint: Checkpoint, data: ClassificationData, truncation: TruncationSettings | None = None
) -> ResolvedRun:
    """Checks the options against the data and the encoder, and fills in their defaults, before any model is loaded.

    Args:
        args: the options as the user gave them.
        checkpoint: the encoder or classifier that `model_name_or_path` names.
        data: the loaded splits.
        truncation: how the model reads longer texts than its encoder; see [`resolve_truncation`].

    Raises:
        ArgumentsError: if the data, the task or the encoder does not allow an option, or if the checkpoint to resume
            from does not exist or is incomplete.
    """
    training = args.training
    if training.do_train and checkpoint.lexical is not None:
        raise ArgumentsError(
            f"--model_name_or_path {args.model.model_name_or_path} has lexical features, which belong to its head: "
            "train from its encoder, or with --ignore_mismatched_sizes true, which gives it a new head"
        )
    check_descriptions(args, data.labels, data.is_pair)
    metric = _best_metric(training, data.labels)
    _check_evaluations(training, data)
    checkpoint_folder = _checkpoint_to_resume(training, data)
    asked_direction = training.asked_greater_is_better
    is_maximised = greater_is_better(metric) if asked_direction is None else asked_direction
    resolved = training.resolved(
        head_learning_rate=args.head_learning_rate,
        metric_for_best_model=metric,
        greater_is_better=is_maximised,
        lr_scheduler_kwargs=_scheduler_options(training, metric, is_maximised),
        resume_from_checkpoint=None if checkpoint_folder is None else str(checkpoint_folder),
    )
    weights = None
    if training.do_train:
        _check_optimizer_and_scheduler(resolved)
        weights = class_weights(data.splits["train"], data.labels, args.model.class_weights)
    run = ResolvedRun(replace(args, training=resolved), checkpoint, data.labels, weights, truncation=truncation)
    check_head_init(args.boost.head_init, run.config, is_trained_further=training.num_train_epochs > 0)
    return run


def _check_optimizer_and_scheduler(args: ClassifierTrainingArguments) -> None:
    """Builds the optimizer and the scheduler for a single weight, so that options they refuse are refused at once."""
    weight = torch.nn.Parameter(torch.zeros(1))
    try:
        optimizer_class, options = Trainer.get_optimizer_cls_and_kwargs(args)
        optimizer = optimizer_class([weight], **options)
    except (ValueError, TypeError, ImportError) as error:
        raise ArgumentsError(f"--optim {args.optim.value}: {one_line(error)}") from error
    kwargs = args.lr_scheduler_kwargs
    try:
        get_scheduler(
            args.lr_scheduler_type, optimizer, num_warmup_steps=1, num_training_steps=2,
            scheduler_specific_kwargs=dict(kwargs) if isinstance(kwargs, dict) else None,
        )  # fmt: skip
    except (ValueError, TypeError) as error:
        raise ArgumentsError(
            f"--lr_scheduler_type {args.lr_scheduler_type.value}: {one_line(error)} (--lr_scheduler_kwargs)"
        ) from error


def _check_evaluations(args: ClassifierTrainingArguments, data: ClassificationData) -> None:
    """Refuses an evaluation or a calibration whose labelled data is missing."""
    if not args.do_train and not args.do_predict and not any(map(data.has_labels, ("validation", "test"))):
        raise ArgumentsError("--do_eval: there is no labelled validation or test data; give --validation_file")
    if args.calibrate and data.labels.problem_type == REGRESSION:
        raise ArgumentsError("--calibrate: a regression has no probabilities to calibrate")
    if args.calibrate and not data.has_labels("validation"):
        raise ArgumentsError(
            "--calibrate: there is no labelled validation data: give --validation_file, or a "
            "--validation_split_percentage above 0"
        )
    if args.do_train and args.eval_strategy != "no" and not data.has_labels("validation"):
        raise ArgumentsError(
            "there is no validation data: give --validation_file, a --validation_split_percentage above 0, or "
            "--eval_strategy no"
        )


def _best_metric(args: ClassifierTrainingArguments, labels: LabelSet) -> str:
    """Returns the name of the metric that selects the best checkpoint, without the prefix `eval_`."""
    asked = args.asked_best_metric or DEFAULT_METRIC[labels.problem_type]
    name = asked.removeprefix("eval_")
    known = ("loss", *METRIC_NAMES[labels.problem_type])
    if name not in known and not args.extra_metrics:
        raise ArgumentsError(
            f"--metric_for_best_model {asked}: not a metric of {labels.problem_type}; use {', '.join(known)}"
        )
    return name


def _scheduler_options(
    args: ClassifierTrainingArguments, metric: str, is_maximised: bool
) -> dict[str, Any] | str | None:
    """Returns the options of the learning rate's scheduler; one that watches a metric is told the metric's direction.

    Raises:
        ArgumentsError: if the user gave the opposite direction.
    """
    given = args.lr_scheduler_kwargs
    if args.lr_scheduler_type not in SCHEDULERS_OF_A_METRIC or not isinstance(given, dict | None):
        return given
    mode = "max" if is_maximised else "min"
    options: dict[str, Any] = {"mode": mode, **(given or {})}
    if options["mode"] != mode:
        raise ArgumentsError(
            f"--lr_scheduler_kwargs: mode {options['mode']}, but the best {metric} is the "
            f"{'greatest' if is_maximised else 'least'}: leave mode out"
        )
    if args.lr_scheduler_type == SchedulerType.GREEDY:
        # Its own lower bound, 1e-3, lies above the learning rates of encoders, which it could then never lower.
        options.setdefault("min_lr", 0.0)
    return options


def _checkpoint_to_resume(args: ClassifierTrainingArguments, data: ClassificationData) -> Path | None:
    if not args.do_train:
        return None
    is_stream = data.splits["train"].num_rows is None and args.max_steps > 0
    folder, is_main = Path(args.output_dir), args.process_index == 0
    return resolve_resume(args.resume_from_checkpoint, folder, args.world_size, is_main, is_stream)
