"""Searches for the best options of a run, with optuna, on the validation data.

A trial is an ordinary run with the same seed, model loading, Trainer and epochs, so the recipe of the best trial
reproduces its score exactly. `Trainer.hyperparameter_search` is not used, because it builds models and draws seeds
differently, so that a recipe could not repeat its best trial, and because it has one training set for all trials,
while each pooling of a head's search needs features of its own.
"""

import logging
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from datasets import Dataset
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import TrialState
from transformers import (
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from bertcls_hf.atomic_files import write_json_atomically
from bertcls_hf.config.arguments import ClassifierTrainingArguments, Pooling
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.features.dataset import FeatureDataset
from bertcls_hf.features.extractor import FeatureExtractor
from bertcls_hf.features.stream_extraction import split_features
from bertcls_hf.manifests import IDENTITY
from bertcls_hf.training.phases import build_trainer, prepare_inputs
from bertcls_hf.training.resolve import ResolvedRun
from bertcls_hf.training.run_identity import RunIdentity


logger = logging.getLogger(__name__)

# In output_dir: the trials as figures, and as optuna keeps them, from which an interrupted search goes on.
SWEEP_FILE, JOURNAL_FILE = "sweep.json", "sweep_journal.log"
STUDY = "sweep"
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
# The largest pooling comes first: the pass that computes its features also computes those of all other poolings.
POOLINGS: tuple[tuple[Pooling, int], ...] = (
    ("cls_mean", 4),
    ("mean", 4),
    ("mean", 1),
    ("cls", 4),
    ("cls", 1),
    ("cls_mean", 1),
)
# The range of the encoder's learning rate, and that of adapters beside it.
ENCODER_RATES, ADAPTER_RATES = (5e-6, 2e-4), (5e-5, 2e-3)


class Sweep(ABC):
    """Chooses the options that score best on the validation split.

    Args:
        resolved: the run whose options are searched.
        splits: the tokenized splits; only `train` and `validation` are used.
        tokenizer: the tokenizer of the encoder.
    """

    def __init__(
        self,
        resolved: ResolvedRun,
        splits: Mapping[str, Dataset],
        tokenizer: PreTrainedTokenizerBase,
    ):
        self.resolved, self.tokenizer = resolved, tokenizer
        self.splits = {name: splits[name] for name in ("train", "validation")}

    def run(self, trials: int, hours: float | None, is_resumed: bool) -> ResolvedRun:
        """Runs the trials, writes them to `sweep.json`, and returns the run with the options of the best trial.

        Args:
            trials: the number of trials, with those of an interrupted search.
            hours: the time after which no further trial begins; None for no limit.
            is_resumed: whether an interrupted search in output_dir goes on.

        Raises:
            ArgumentsError: if no trial ended before it was given up.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = self._study(is_resumed)
        done = len(study.get_trials(states=FINISHED))
        if done:
            logger.info("the search goes on after %d trials", done)
        seconds = None if hours is None else 3600 * hours
        study.optimize(self._trial, n_trials=max(trials - done, 0), timeout=seconds)
        if not study.get_trials(states=(TrialState.COMPLETE,)):
            raise ArgumentsError("--sweep: no trial ended in time: give more --sweep_hours")
        self._write(study)
        ended = len(study.get_trials(states=FINISHED))
        logger.info("best of %d trials: %s = %.6f with %s", ended, self._metric, study.best_value, study.best_params)
        return self._with_options(study.best_params)

    def _study(self, is_resumed: bool) -> optuna.Study:
        path = Path(self._training.output_dir, JOURNAL_FILE)
        storage: BaseStorage | None = None
        if self._training.world_size == 1:
            if not is_resumed:
                path.unlink(missing_ok=True)
            storage = JournalStorage(JournalFileBackend(str(path)))
        direction = StudyDirection.MAXIMIZE if self._training.greater_is_better else StudyDirection.MINIMIZE
        study = optuna.create_study(
            storage=storage, study_name=STUDY, direction=direction, load_if_exists=True, pruner=self._pruner
        )
        self._require_same_training(study)
        # A search that goes on must not draw the settings of its first trials again.
        study.sampler = optuna.samplers.TPESampler(seed=self._training.seed + len(study.trials))
        return study

    def _require_same_training(self, study: optuna.Study) -> None:
        """Refuses a search of a run with other data or options, whose scores do not compare."""
        assert self.resolved.identity is not None
        saved = study.user_attrs.get(IDENTITY)
        if saved is None and not study.trials:
            study.set_user_attr(IDENTITY, self.resolved.identity.as_json())
            return
        try:
            differences = self.resolved.identity.differences(RunIdentity.from_json(saved))
        except ValueError:
            differences = ["an earlier version began it"]
        if differences:
            raise ArgumentsError(
                f"--sweep: the search in {self._training.output_dir} is of another training: "
                f"{'; '.join(differences)}. Use a new --output_dir, or leave --resume_from_checkpoint out"
            )

    @property
    def _pruner(self) -> optuna.pruners.BasePruner:
        return optuna.pruners.NopPruner()

    @property
    def _training(self) -> ClassifierTrainingArguments:
        return self.resolved.args.training

    @property
    def _metric(self) -> str:
        return str(self._training.metric_for_best_model)

    def _trial(self, trial: optuna.Trial) -> float:
        options = self._suggested(trial)
        score = self._train(self._with_options(options), trial, options)
        logger.info("trial %d: %s = %.6f with %s", trial.number, self._metric, score, options)
        return score

    @abstractmethod
    def _suggested(self, trial: optuna.Trial) -> dict[str, Any]:
        """Returns the options of a trial."""

    @abstractmethod
    def _with_options(self, options: Mapping[str, Any]) -> ResolvedRun:
        """Returns the run with the options of a trial."""

    @abstractmethod
    def _train(self, run: ResolvedRun, trial: optuna.Trial, options: Mapping[str, Any]) -> float:
        """Trains, and returns the best score on the validation data."""

    def _quick(self, run: ResolvedRun, trial: optuna.Trial) -> ClassifierTrainingArguments:
        """Returns the training options of a trial.

        Logging and saving draw no random numbers, so a trial without them has the same score.
        """
        folder = Path(run.args.training.output_dir, f"trial-{trial.number}")
        return run.args.training.resolved(
            output_dir=str(folder), save_strategy="no", load_best_model_at_end=False, report_to=[]
        )

    def _write(self, study: optuna.Study) -> None:
        trials = [
            # The last score of a trial that was given up is none of a whole training.
            {"number": t.number, self._metric: t.value if t.state == TrialState.COMPLETE else None, **t.params}
            for t in study.get_trials(states=FINISHED)
        ]
        content = {"metric": self._metric, "best": study.best_trial.number, "trials": trials}
        write_json_atomically(Path(self._training.output_dir, SWEEP_FILE), content)


class HeadSweep(Sweep):
    """Searches the options of a head on cached features, where one trial takes seconds."""

    def __init__(
        self,
        resolved: ResolvedRun,
        splits: Mapping[str, Dataset],
        tokenizer: PreTrainedTokenizerBase,
    ):
        super().__init__(resolved, splits, tokenizer)
        layers = resolved.checkpoint.encoder_config.num_hidden_layers
        self.poolings = {f"{name} x {n}": (name, n) for name, n in POOLINGS if n <= layers}
        self._features: dict[str, dict[str, FeatureDataset]] = {}

    def run(self, trials: int, hours: float | None, is_resumed: bool) -> ResolvedRun:
        """Computes the features of all poolings first; see [`Sweep.run`]."""
        for pooling in self.poolings:
            self._features_of(pooling)
        return super().run(trials, hours, is_resumed)

    def _suggested(self, trial: optuna.Trial) -> dict[str, Any]:
        return {
            "head_learning_rate": trial.suggest_float("head_learning_rate", 1e-4, 3e-2, log=True),
            "dropout": trial.suggest_categorical("dropout", [0.0, 0.1, 0.3, 0.5]),
            "weight_decay": trial.suggest_float("weight_decay", 1e-4, 0.3, log=True),
            "head": trial.suggest_categorical("head", ["linear", "mlp"]),
            "pooling": trial.suggest_categorical("pooling", list(self.poolings)),
        }

    def _with_options(self, options: Mapping[str, Any]) -> ResolvedRun:
        pooling, layers = self.poolings[options["pooling"]]
        model = replace(
            self.resolved.args.model,
            dropout=options["dropout"],
            head=options["head"],
            pooling=pooling,
            pooling_layers=layers,
        )
        rates = {name: options[name] for name in ("head_learning_rate", "weight_decay")}
        return self.resolved.with_options(model, **rates)

    def _train(self, run: ResolvedRun, trial: optuna.Trial, options: Mapping[str, Any]) -> float:
        features, quick = self._features_of(str(options["pooling"])), self._quick(run, trial)
        trainer = build_trainer(quick, run.load_model(), self.tokenizer, features, run.labels)
        return _best_score(trainer, quick)

    def _features_of(self, pooling: str) -> dict[str, FeatureDataset]:
        if pooling not in self._features:
            neutral = {"head_learning_rate": 1e-3, "weight_decay": 0.0, "dropout": 0.0, "head": "linear"}
            run = self._with_options({**neutral, "pooling": pooling})
            extractor = FeatureExtractor(run.load_model(), self.tokenizer, run.args)
            self._features[pooling] = {
                name: split_features(extractor, name, split) for name, split in self.splits.items()
            }
        return self._features[pooling]


class FineTuningSweep(Sweep):
    """Searches the options of a fine-tuning, and gives up a trial whose evaluations lie below the median."""

    @property
    def _pruner(self) -> optuna.pruners.BasePruner:
        return optuna.pruners.MedianPruner(n_startup_trials=3)

    def _suggested(self, trial: optuna.Trial) -> dict[str, Any]:
        rates = ADAPTER_RATES if self.resolved.args.model.lora_r else ENCODER_RATES
        return {
            "learning_rate": trial.suggest_float("learning_rate", *rates, log=True),
            "head_learning_rate": trial.suggest_float("head_learning_rate", 1e-5, 1e-2, log=True),
            "weight_decay": trial.suggest_float("weight_decay", 1e-4, 0.3, log=True),
            "dropout": trial.suggest_categorical("dropout", [0.0, 0.1, 0.3]),
        }

    def _with_options(self, options: Mapping[str, Any]) -> ResolvedRun:
        rates = {name: options[name] for name in ("learning_rate", "head_learning_rate", "weight_decay")}
        return self.resolved.with_options(replace(self.resolved.args.model, dropout=options["dropout"]), **rates)

    def _train(self, run: ResolvedRun, trial: optuna.Trial, options: Mapping[str, Any]) -> float:
        quick, model = self._quick(run, trial), run.load_model()
        inputs = prepare_inputs(run, model, self.tokenizer, self.splits, None)
        trainer = build_trainer(quick, model, self.tokenizer, inputs, run.labels)
        trainer.add_callback(_GiveUp(trial, f"eval_{self._metric}"))
        try:
            return _best_score(trainer, quick)
        except optuna.TrialPruned:
            logger.info("trial %d is given up: others were better by then (%s)", trial.number, dict(options))
            raise


class _GiveUp(TrainerCallback):
    """Tells optuna the score of each evaluation, and ends a trial that is worse than the others were by then."""

    def __init__(self, trial: optuna.Trial, metric: str):
        self._trial, self._metric = trial, metric

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        self._trial.report((metrics or {})[self._metric], state.global_step)
        if self._trial.should_prune() and state.global_step < state.max_steps:
            raise optuna.TrialPruned


def _best_score(trainer: Any, args: ClassifierTrainingArguments) -> float:
    """Trains without progress bars, and deletes what the trial wrote."""
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    try:
        trainer.train()
    finally:
        shutil.rmtree(args.output_dir, ignore_errors=True)
    return float(trainer.state.best_metric)
