"""A search over head options on the feature cache, where a trial costs seconds.

A trial is an ordinary run: the same seed, model loading, Trainer and epochs. The recipe of the best one therefore
reproduces its score exactly. (`Trainer.hyperparameter_search` builds models and draws seeds in a way of its own, so
its best trial could not be run again as a recipe; and its one training set holds the features of one pooling.)
"""

import copy
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
from transformers import PreTrainedTokenizerBase, PrinterCallback, ProgressCallback, set_seed

from bertcls_hf.config.arguments import Arguments, Pooling
from bertcls_hf.data.load import ClassificationData
from bertcls_hf.features.dataset import FeatureDataset
from bertcls_hf.features.extractor import FeatureExtractor
from bertcls_hf.models.loading import Checkpoint, load_classifier, resolve_config
from bertcls_hf.train.phases import build_trainer


logger = logging.getLogger(__name__)

SWEEP_FILE = "sweep.json"
# The widest comes first: its one pass over the texts computes the components of all others.
POOLINGS: tuple[tuple[Pooling, int], ...] = (
    ("cls_mean", 4),
    ("mean", 4),
    ("mean", 1),
    ("cls", 4),
    ("cls", 1),
    ("cls_mean", 1),
)


class HeadSweep:
    """Chooses head options by the validation split.

    Args:
        args: the run's options; each trial changes some.
        checkpoint: the encoder.
        data: names the labels.
        splits: tokenized; only train and validation are read.
        tokenizer: the encoder's.
        class_weights: of the loss.
    """

    def __init__(
        self,
        args: Arguments,
        checkpoint: Checkpoint,
        data: ClassificationData,
        splits: Mapping[str, Dataset],
        tokenizer: PreTrainedTokenizerBase,
        class_weights: list[float] | None,
    ):
        self.args, self.checkpoint, self.data, self.tokenizer = args, checkpoint, data, tokenizer
        self.splits = {name: splits[name] for name in ("train", "validation")}
        self.class_weights = class_weights
        layers = checkpoint.encoder_config.num_hidden_layers
        self.poolings = {f"{name} x {n}": (name, n) for name, n in POOLINGS if n <= layers}
        self._features: dict[str, dict[str, FeatureDataset]] = {}

    def run(self, trials: int) -> Arguments:
        """The options of the best of some trials; writes all of them to `sweep.json`."""
        for pooling in self.poolings:
            self._features_of(pooling)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        direction = StudyDirection.MAXIMIZE if self.args.training.greater_is_better else StudyDirection.MINIMIZE
        sampler = optuna.samplers.TPESampler(seed=self.args.training.seed)
        study = optuna.create_study(direction=direction, sampler=sampler)
        study.optimize(self._trial, n_trials=trials)
        self._write(study)
        logger.info("best of %d trials: %s = %.6f with %s", trials, self._metric, study.best_value, study.best_params)
        return self._with_options(study.best_params)

    @property
    def _metric(self) -> str:
        return str(self.args.training.metric_for_best_model)

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

    def _with_options(self, options: Mapping[str, Any]) -> Arguments:
        pooling, layers = self.poolings[options["pooling"]]
        training = copy.copy(self.args.training)
        training.head_learning_rate, training.weight_decay = options["head_learning_rate"], options["weight_decay"]
        model = replace(
            self.args.model, dropout=options["dropout"], head=options["head"], pooling=pooling, pooling_layers=layers
        )
        arguments = copy.copy(self.args)
        arguments.model, arguments.training = model, training
        arguments.boost = replace(self.args.boost, sweep=0)
        return arguments

    def _load(self, args: Arguments) -> Any:
        config = resolve_config(
            args.model, self.checkpoint, self.data.labels, self.class_weights, args.training.label_smoothing_factor
        )
        set_seed(args.training.seed)
        return load_classifier(args.model, self.checkpoint, config)

    def _train(self, args: Arguments, number: int, pooling: str) -> float:
        folder = Path(args.training.output_dir, f"trial-{number}")
        quick = copy.copy(args.training)
        quick.output_dir = str(folder)
        # Neither logging nor saving draws random numbers, so that leaving them out changes no score.
        quick.save_strategy, quick.load_best_model_at_end, quick.report_to = "no", False, []
        features = self._features_of(pooling)
        trainer = build_trainer(quick, self._load(args), self.tokenizer, features, self.data.labels)
        for callback in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(callback)
        trainer.train()
        shutil.rmtree(folder, ignore_errors=True)
        return float(trainer.state.best_metric)

    def _features_of(self, pooling: str) -> dict[str, FeatureDataset]:
        if pooling not in self._features:
            neutral = {"head_learning_rate": 1e-3, "weight_decay": 0.0, "dropout": 0.0, "head": "linear"}
            args = self._with_options({**neutral, "pooling": pooling})
            extractor = FeatureExtractor(self._load(args), self.tokenizer, args)
            self._features[pooling] = {name: extractor.features(name, split) for name, split in self.splits.items()}
        return self._features[pooling]

    def _write(self, study: optuna.Study) -> None:
        trials = [{"number": t.number, self._metric: t.value, **t.params} for t in study.trials]
        content = {"metric": self._metric, "best": study.best_trial.number, "trials": trials}
        Path(self.args.training.output_dir, SWEEP_FILE).write_text(json.dumps(content, indent=2) + "\n")
