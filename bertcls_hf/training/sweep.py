"""Searches for the best head options on cached features, where one trial takes seconds.

A trial is an ordinary run with the same seed, model loading, Trainer and epochs, so the recipe of the best trial
reproduces its score exactly. `Trainer.hyperparameter_search` is not used, because it builds models and draws seeds
differently, so that a recipe could not repeat its best trial, and because it has one training set for all trials,
while each pooling here needs features of its own.
"""

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from datasets import Dataset
from optuna.study import StudyDirection
from transformers import PreTrainedTokenizerBase, PrinterCallback, ProgressCallback

from bertcls_hf.config.arguments import ClassifierTrainingArguments, Pooling
from bertcls_hf.features.dataset import FeatureDataset
from bertcls_hf.features.extractor import FeatureExtractor
from bertcls_hf.training.phases import build_trainer
from bertcls_hf.training.resolve import ResolvedRun


logger = logging.getLogger(__name__)

SWEEP_FILE = "sweep.json"
# The largest pooling comes first: the pass that computes its features also computes those of all other poolings.
POOLINGS: tuple[tuple[Pooling, int], ...] = (
    ("cls_mean", 4),
    ("mean", 4),
    ("mean", 1),
    ("cls", 4),
    ("cls", 1),
    ("cls_mean", 1),
)


class HeadSweep:
    """Chooses the head options that score best on the validation split.

    Args:
        resolved: the run whose head options are searched.
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
        layers = resolved.checkpoint.encoder_config.num_hidden_layers
        self.poolings = {f"{name} x {n}": (name, n) for name, n in POOLINGS if n <= layers}
        self._features: dict[str, dict[str, FeatureDataset]] = {}

    def run(self, trials: int) -> ResolvedRun:
        """Runs the trials, writes them to `sweep.json`, and returns the run with the options of the best trial."""
        for pooling in self.poolings:
            self._features_of(pooling)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        direction = StudyDirection.MAXIMIZE if self._training.greater_is_better else StudyDirection.MINIMIZE
        sampler = optuna.samplers.TPESampler(seed=self._training.seed)
        study = optuna.create_study(direction=direction, sampler=sampler)
        study.optimize(self._trial, n_trials=trials)
        self._write(study)
        logger.info("best of %d trials: %s = %.6f with %s", trials, self._metric, study.best_value, study.best_params)
        return self._with_options(study.best_params)

    @property
    def _training(self) -> ClassifierTrainingArguments:
        return self.resolved.args.training

    @property
    def _metric(self) -> str:
        return str(self._training.metric_for_best_model)

    def _trial(self, trial: optuna.Trial) -> float:
        options = {
            "head_learning_rate": trial.suggest_float("head_learning_rate", 1e-4, 3e-2, log=True),
            "dropout": trial.suggest_categorical("dropout", [0.0, 0.1, 0.3, 0.5]),
            "weight_decay": trial.suggest_float("weight_decay", 1e-4, 0.3, log=True),
            "head": trial.suggest_categorical("head", ["linear", "mlp"]),
            "pooling": trial.suggest_categorical("pooling", list(self.poolings)),
        }
        score = self._train(self._with_options(options), trial.number, str(options["pooling"]))
        logger.info("trial %d: %s = %.6f with %s", trial.number, self._metric, score, options)
        return score

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

    def _train(self, run: ResolvedRun, number: int, pooling: str) -> float:
        folder = Path(run.args.training.output_dir, f"trial-{number}")
        # Logging and saving draw no random numbers, so a trial without them has the same score.
        quick = run.args.training.resolved(
            output_dir=str(folder), save_strategy="no", load_best_model_at_end=False, report_to=[]
        )
        features = self._features_of(pooling)
        trainer = build_trainer(quick, run.load_model(), self.tokenizer, features, run.labels)
        for callback in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(callback)
        trainer.train()
        shutil.rmtree(folder, ignore_errors=True)
        return float(trainer.state.best_metric)

    def _features_of(self, pooling: str) -> dict[str, FeatureDataset]:
        if pooling not in self._features:
            neutral = {"head_learning_rate": 1e-3, "weight_decay": 0.0, "dropout": 0.0, "head": "linear"}
            run = self._with_options({**neutral, "pooling": pooling})
            extractor = FeatureExtractor(run.load_model(), self.tokenizer, run.args)
            self._features[pooling] = {name: extractor.features(name, split) for name, split in self.splits.items()}
        return self._features[pooling]

    def _write(self, study: optuna.Study) -> None:
        trials = [{"number": t.number, self._metric: t.value, **t.params} for t in study.trials]
        content = {"metric": self._metric, "best": study.best_trial.number, "trials": trials}
        Path(self._training.output_dir, SWEEP_FILE).write_text(json.dumps(content, indent=2) + "\n")
