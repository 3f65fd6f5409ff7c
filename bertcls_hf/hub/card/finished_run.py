"""All that a run knows when it ends, for its model card."""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import TrainerState

from bertcls_hf.config.arguments import Arguments
from bertcls_hf.data.labels import LabelSet
from bertcls_hf.data.load import ClassificationData
from bertcls_hf.hub.card.provenance import data_licence, model_licence
from bertcls_hf.metrics.intervals import Interval, metric_intervals
from bertcls_hf.metrics.metrics import probabilities
from bertcls_hf.train.phases import HEAD_FOLDER
from bertcls_hf.train.results import Evaluation
from bertcls_hf.train.sweep import SWEEP_FILE
from bertcls_hf.train.trainer import LENGTH_COLUMN, ClassificationTrainer


TRAIN_RESULTS, STATE = "train_results.json", "trainer_state.json"


@dataclass(frozen=True)
class FinishedRun:
    """A run after its last prediction.

    Args:
        args: all options, as resolved.
        options: those that were given.
        command: the words of the command line after the script's name.
        data: the splits with their texts; a streamed one has no length.
        tokenized: the same splits as tokens.
        trainer: has trained, or only evaluated.
        found: the evaluations after training; None for predictions without labels.
    """

    args: Arguments
    options: Mapping[str, Any]
    command: Sequence[str]
    data: ClassificationData
    tokenized: Mapping[str, Any]
    trainer: ClassificationTrainer
    found: Sequence[Evaluation | None]

    @property
    def folder(self) -> Path:
        """output_dir."""
        return Path(self.args.training.output_dir)

    @property
    def labels(self) -> LabelSet:
        """The task's labels."""
        return self.data.labels

    @property
    def max_seq_length(self) -> int:
        """The longest text in tokens."""
        return self.trainer.processing_class.model_max_length

    @property
    def has_trained(self) -> bool:
        """Whether this run made the model."""
        return bool(self.args.training.do_train)

    @property
    def evaluations(self) -> list[Evaluation]:
        """Those on labelled data."""
        return [evaluation for evaluation in self.found if evaluation is not None]

    @property
    def headline(self) -> Evaluation | None:
        """The evaluation that counts: on test where there is one, else on validation."""
        return max(self.evaluations, key=lambda evaluation: evaluation.split == "test", default=None)

    @functools.cached_property
    def scores(self) -> np.ndarray | None:
        """The headline's probabilities or numbers; None without one, or where the model's outputs are not finite."""
        if self.headline is None or not np.isfinite(self.headline.logits).all():
            return None
        return probabilities(self.headline.logits, self.labels.problem_type)

    @functools.cached_property
    def intervals(self) -> dict[str, Interval]:
        """95 % intervals of the headline's metrics, of those that have one."""
        if self.headline is None or self.scores is None:
            return {}
        return metric_intervals(self.scores, np.asarray(self.headline.gold), self.labels)

    @functools.cached_property
    def licences(self) -> tuple[str | None, str | None]:
        """Of the model that the run began with, and of the data; None where it is not known."""
        return model_licence(self.args.model), data_licence(self.args.data)

    @functools.cached_property
    def train_results(self) -> dict[str, float]:
        """What the Trainer measured of the training."""
        path = self.folder / TRAIN_RESULTS
        return json.loads(path.read_text()) if self.has_trained and path.is_file() else {}

    @property
    def state(self) -> TrainerState:
        """The history of the training, that before a resumed checkpoint included."""
        return self.trainer.state

    @property
    def head_state(self) -> TrainerState | None:
        """The history of the head alone, where LP-FT trained it first."""
        path = self.folder / HEAD_FOLDER / STATE
        has_phase = self.has_trained and self.args.is_head_then_all and self.args.boost.head_num_train_epochs > 0
        return TrainerState.load_from_json(str(path)) if has_phase and path.is_file() else None

    @property
    def sweep(self) -> dict[str, Any] | None:
        """The trials of a search that this run began with."""
        path = self.folder / SWEEP_FILE
        return json.loads(path.read_text()) if self.options.get("sweep") and path.is_file() else None

    @property
    def is_streamed(self) -> bool:
        """Whether the number of training texts is unknown."""
        return not isinstance(self.data.splits.get("train"), Dataset | None)

    def lengths(self, split: str) -> np.ndarray | None:
        """(rows,) tokens of each text; None for a streamed split."""
        tokenized = self.tokenized.get(split)
        if not isinstance(tokenized, Dataset) or LENGTH_COLUMN not in tokenized.column_names:
            return None
        return np.asarray(tokenized[LENGTH_COLUMN][:])
