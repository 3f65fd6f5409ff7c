"""Trains, evaluates and predicts with the Trainer, and writes the results to output_dir."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, TrainerState
from transformers.trainer_utils import PredictionOutput

from bertcls_hf.atomic_files import write_atomically
from bertcls_hf.config.arguments import Arguments, ClassifierTrainingArguments
from bertcls_hf.data.labels import LabelSet
from bertcls_hf.data.load import ClassificationData
from bertcls_hf.data.streaming import TokenStream
from bertcls_hf.errors import ArgumentsError, PreemptedError, one_line
from bertcls_hf.features.dataset import FeatureDataset
from bertcls_hf.features.lexical_baseline import LexicalBaseline
from bertcls_hf.features.lexical_fusion import EQUAL_FACTORS, fitted_factors, fuse
from bertcls_hf.features.logistic_head import init_head_by_descriptions, init_head_by_logistic_regression
from bertcls_hf.features.logits_columns import LEXICAL_COLUMN
from bertcls_hf.manifests import weights_digest
from bertcls_hf.metrics.calibration import CALIBRATION_FILE, Calibration, read_calibration, write_calibration
from bertcls_hf.metrics.metrics import METRIC_NAMES, build_compute_metrics, compute_metrics
from bertcls_hf.models.adapters import add_lora
from bertcls_hf.models.modeling import TextClassifier
from bertcls_hf.models.padding_free import compute_without_padding
from bertcls_hf.training.baseline_results import PREFIX, evaluate_baseline, log_baseline
from bertcls_hf.training.callbacks import training_callbacks
from bertcls_hf.training.checkpoints import STATE, is_finished, require_checkpoint_space
from bertcls_hf.training.collators import ClassificationCollator
from bertcls_hf.training.head_trainer import HeadTrainer
from bertcls_hf.training.label_descriptions import description_vectors
from bertcls_hf.training.preemption import StopOnSignal
from bertcls_hf.training.resolve import ResolvedRun
from bertcls_hf.training.results import PREFIXES, Evaluation, write_metrics, write_predictions, write_report
from bertcls_hf.training.saved_outputs import write_outputs
from bertcls_hf.training.stream_trainer import StreamTrainer
from bertcls_hf.training.trainer import ClassificationTrainer


logger = logging.getLogger(__name__)

HEAD_FOLDER = "head"
# Training data of these types needs a Trainer of its own; all other data takes `ClassificationTrainer`.
TRAINERS: dict[type, type[ClassificationTrainer]] = {FeatureDataset: HeadTrainer, TokenStream: StreamTrainer}


def trainer_arguments(args: ClassifierTrainingArguments) -> ClassifierTrainingArguments:
    """Copies the options for the Trainer, and changes those that it must not act on here."""
    return args.changeable_copy(
        # The Trainer would push all of output_dir at every save; the run itself pushes selected files at its end.
        push_to_hub=False,
        # The splits hold only the model's inputs and the text lengths, which the samplers need.
        remove_unused_columns=False,
        # A resumed run continues with early stopping's counter from the checkpoint.
        restore_callback_states_from_checkpoint=True,
        # Every step uses all weights of these models; the Trainer's default would search for unused ones each time.
        ddp_find_unused_parameters=bool(args.ddp_find_unused_parameters),
        # Several GPUs of one process serve the feature extraction only; DataParallel would slow the head down.
        _n_gpu=min(args.n_gpu, 1),
    )


def encoder_phase(
    training: ClassifierTrainingArguments, folder: Path, learning_rate: float, **changes: Any
) -> ClassifierTrainingArguments:
    """Returns the options of a training of the encoder before the classifier's, without those that are a classifier's.

    Args:
        training: the run's options.
        folder: where this training writes.
        learning_rate: of all weights.
        **changes: further options.
    """
    return training.resolved(
        output_dir=str(folder), learning_rate=learning_rate, head_learning_rate=learning_rate, layerwise_lr_decay=1.0,
        eval_strategy="no", load_best_model_at_end=False, early_stopping_patience=-1, metric_for_best_model=None,
        label_smoothing_factor=0.0, weight_averaging=None, padding_free=False, neftune_noise_alpha=None,
        resume_from_checkpoint=None, **changes,
    )  # fmt: skip


def prepare_inputs(
    resolved: ResolvedRun,
    model: TextClassifier,
    tokenizer: PreTrainedTokenizerBase,
    splits: Mapping[str, Any],
    features: Mapping[str, Any] | None,
) -> Mapping[str, Any]:
    """Starts the head of a run with cached features, adds adapters, and returns what the main training reads.

    Args:
        resolved: the run.
        model: its model, whose head is started by a logistic regression or, with LP-FT, trained as a first phase.
        tokenizer: its tokenizer.
        splits: the tokenized splits.
        features: the cached features of the splits; None without `--boost`.

    Returns:
        The features if the encoder is frozen, else the tokens in `splits`.
    """
    inputs = _start_head(resolved, model, tokenizer, splits, features)
    if resolved.args.training.do_train and resolved.args.model.lora_r:
        add_lora(model, resolved.args.model)
    return inputs


def _start_head(
    resolved: ResolvedRun,
    model: TextClassifier,
    tokenizer: PreTrainedTokenizerBase,
    splits: Mapping[str, Any],
    features: Mapping[str, Any] | None,
) -> Mapping[str, Any]:
    args = resolved.args
    if features is None:
        return splits
    if args.training.do_train and args.boost.head_init == "logistic":
        descriptions = description_vectors(resolved, model, tokenizer)
        if args.learns_without_labels and not args.few_shot.self_training_rounds:
            assert descriptions is not None
            init_head_by_descriptions(model, features["train"], descriptions)
        else:
            validation, seed = features.get("validation"), args.training.seed
            init_head_by_logistic_regression(
                model, features["train"], validation, seed, descriptions, resolved.head_fit
            )
    if not (args.training.do_train and args.is_head_then_all):
        return features
    train_head(args, model, tokenizer, features, resolved.labels)
    return splits


def build_trainer(
    args: ClassifierTrainingArguments,
    model: TextClassifier,
    tokenizer: PreTrainedTokenizerBase,
    splits: Mapping[str, Any],
    labels: LabelSet,
) -> ClassificationTrainer:
    """Builds a Trainer for the splits, with the task's metrics and the run's callbacks.

    Raises:
        ArgumentsError: if the Trainer refuses one of transformers' options, or the option needs a missing package.
    """
    args = trainer_arguments(args)
    if args.padding_free:
        compute_without_padding(model)
    train_dataset = splits.get("train") if args.do_train else None
    trainer_class = TRAINERS.get(type(train_dataset), ClassificationTrainer)
    try:
        return trainer_class(
            model=model,
            args=args,
            data_collator=ClassificationCollator(tokenizer),
            train_dataset=train_dataset,
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
    """Trains only the head, on cached features, in output_dir/head: the first phase of LP-FT.

    LP-FT (linear probing, then fine-tuning) trains the head first, because fine-tuning with a random head distorts the
    pretrained features (Kumar et al. 2022, arXiv 2202.10054). The phase is skipped if the run resumes from a
    checkpoint, which already holds a trained head, and if `head_num_train_epochs` is 0.
    """
    if args.training.resume_from_checkpoint is None and args.boost.head_num_train_epochs > 0:
        folder = str(Path(args.training.output_dir, HEAD_FOLDER))
        epochs = args.boost.head_num_train_epochs
        phase = args.training.resolved(output_dir=folder, num_train_epochs=epochs, max_steps=-1)
        model.freeze_backbone(True)
        train(build_trainer(phase, model, tokenizer, features, labels))
        model.freeze_backbone(False)


def train(trainer: ClassificationTrainer) -> None:
    """Trains, and writes `train_results.json` and `trainer_state.json`.

    The training resumes from `args.resume_from_checkpoint` if it is set; [`resolve_run`] has checked that checkpoint.

    Raises:
        DivergedError: if the loss or the gradient norm is no longer finite.
        PreemptedError: if a signal ended the training.
        StorageError: if the disk cannot hold the checkpoints.
    """
    checkpoint = trainer.args.resume_from_checkpoint
    if trainer.is_world_process_zero():
        require_checkpoint_space(trainer.args, trainer.model)
    if checkpoint is not None:
        trainer.go_on_from(Path(checkpoint))
    if checkpoint is not None and is_finished(Path(checkpoint), trainer.args):
        metrics = _take_over_finished(trainer, Path(checkpoint))
    else:
        metrics = train_until_signalled(trainer, checkpoint)
    if trainer.model.lexical is not None and not trainer.model.config.freeze_backbone:
        metrics |= _weigh_lexical_features(trainer)
    if trainer.train_rows is not None:
        metrics["train_samples"] = trainer.train_rows
    _save_metrics(trainer, "train", metrics)
    if trainer.args.should_save:
        write_atomically(Path(trainer.args.output_dir, STATE), lambda path: trainer.state.save_to_json(str(path)))


def _weigh_lexical_features(trainer: ClassificationTrainer) -> dict[str, float]:
    """Weighs a fine-tuned encoder and the lexical features against each other, by the validation data.

    Returns:
        What each is worth alone on that data, by the first metric of the task; nothing without validation data.
    """
    model, validation = trainer.model, trainer.eval_dataset
    factors, found = EQUAL_FACTORS, {}
    if validation is not None and "labels" in validation.column_names:
        wide = np.asarray(validation[LEXICAL_COLUMN][:], dtype=np.float32)
        output = trainer.predict(validation)
        head = output.predictions - model.lexical.scale.item() * wide
        task = model.config.problem_type
        factors = fitted_factors(head, wide, output.label_ids, task, model.config.class_weights)
        metric = METRIC_NAMES[task][0]
        for name, logits in (("encoder", head), ("lexical_features", wide)):
            found[f"{name}_alone_{metric}"] = compute_metrics(logits, output.label_ids, task)[metric]
        logger.info("on the validation data: %s", ", ".join(f"{name} {value:.4f}" for name, value in found.items()))
    fuse(model, factors)
    return found


def train_until_signalled(trainer: ClassificationTrainer, checkpoint: str | None) -> dict[str, float]:
    """Trains, from a checkpoint if one is given, and returns the Trainer's figures.

    Raises:
        PreemptedError: if a signal ended the training.
    """
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
    """Finishes a run whose training had ended with this checkpoint; resuming it would train one step more."""
    logger.info("the training had ended at %s", checkpoint)
    trainer.state = TrainerState.load_from_json(str(checkpoint / STATE))
    metrics = {"train_loss": trainer.mean_train_loss()}
    trainer.log(metrics)
    if trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint is not None:
        trainer._load_best_model()
    else:
        trainer._load_from_checkpoint(str(checkpoint))
    return metrics


def evaluate_splits(
    trainer: ClassificationTrainer,
    inputs: Mapping[str, Any],
    data: ClassificationData,
    baseline: LexicalBaseline | None = None,
) -> list[Evaluation | None]:
    """Evaluates on the validation data if the run asks for it, and evaluates and predicts the test data.

    Args:
        trainer: holds the model.
        inputs: the tokens or the features of the splits.
        data: the splits with their texts.
        baseline: the lexical baseline, to be compared with the model.

    Returns:
        One entry per split, which is None where the test data has no labels.
    """
    evaluations: list[Evaluation | None] = []
    if trainer.args.do_eval and data.has_labels("validation"):
        evaluations.append(evaluate(trainer, inputs["validation"], data, baseline))
    if "test" in inputs and (data.has_labels("test") or trainer.args.do_predict):
        evaluations.append(predict(trainer, inputs["test"], data, baseline))
    return evaluations


def evaluate(
    trainer: ClassificationTrainer, split: Dataset, data: ClassificationData, baseline: LexicalBaseline | None = None
) -> Evaluation:
    """Evaluates on the validation split; writes `eval_results.json`, `eval_report.json` and `eval_outputs.npz`.

    With `calibrate`, it also fits a calibration on this split and writes `calibration.json`.

    Args:
        trainer: holds the model.
        split: the tokens or the features of the validation split.
        data: the splits with their texts.
        baseline: the lexical baseline, to be compared with the model.

    Raises:
        DivergedError: if `calibrate` is set and the model's outputs are not finite.
    """
    output = trainer.predict(split, metric_key_prefix="eval")
    evaluation = _record(trainer, "validation", output, data, baseline)
    if trainer.args.calibrate and trainer.is_world_process_zero():
        path = Path(trainer.args.output_dir, CALIBRATION_FILE)
        weights = weights_digest(path.parent)
        write_calibration(path, output.predictions, output.label_ids, data.labels, weights)
    return evaluation


def predict(
    trainer: ClassificationTrainer, split: Dataset, data: ClassificationData, baseline: LexicalBaseline | None = None
) -> Evaluation | None:
    """Computes the outputs for the test split.

    Writes `test_results.json`, `test_report.json` and `test_outputs.npz` if the split has labels. With `do_predict`,
    writes one line of predictions per text, which are calibrated if `calibrate` is set.

    Args:
        trainer: holds the model.
        split: the tokens or the features of the test split.
        data: the splits with their texts.
        baseline: the lexical baseline, to be compared with the model.

    Returns:
        The evaluation, or None for a split without labels.
    """
    output = trainer.predict(split, metric_key_prefix="test")
    evaluation = _record(trainer, "test", output, data, baseline) if data.has_labels("test") else None
    if trainer.args.do_predict and trainer.is_world_process_zero():
        folder = Path(trainer.args.output_dir)
        path = folder / f"predictions.{trainer.args.prediction_format}"
        is_calibrated = trainer.args.calibrate
        calibration = read_calibration(folder / CALIBRATION_FILE, data.labels) if is_calibrated else Calibration()
        rows, is_safe = data.splits["test"], trainer.args.csv_safe
        write_predictions(path, rows, output.predictions, data.labels, calibration, is_safe)
        logger.info("predictions are in %s", path)
    return evaluation


def _record(
    trainer: ClassificationTrainer,
    split: str,
    output: PredictionOutput,
    data: ClassificationData,
    baseline: LexicalBaseline | None,
) -> Evaluation:
    """Writes the metrics, the report and the outputs of a split, and returns what they were made of."""
    prefix = PREFIXES[split]
    logits, gold = output.predictions, output.label_ids
    compared = None
    if baseline is not None and split in baseline.logits:
        compared = evaluate_baseline(baseline.logits[split], logits, gold, data.labels)
    metrics = {name.removeprefix(f"{prefix}_"): value for name, value in output.metrics.items()}
    evaluation = Evaluation(split, metrics, logits, gold, compared)
    _save_metrics(trainer, prefix, evaluation.results)
    if trainer.is_world_process_zero():
        folder = Path(trainer.args.output_dir)
        write_report(folder, prefix, logits, gold, data.labels)
        write_outputs(folder, evaluation, data.splits[split], data.labels)
        if compared is not None:
            log_baseline(split, compared, data.labels)
    return evaluation


def _save_metrics(trainer: ClassificationTrainer, split: str, metrics: dict[str, Any]) -> None:
    trainer.log_metrics(split, {name: value for name, value in metrics.items() if PREFIX not in name})
    if trainer.is_world_process_zero():
        write_metrics(Path(trainer.args.output_dir), split, metrics)
