"""Everything that a run knows at its end, for its model card."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from datasets import Dataset
from transformers import TrainerState

from bertcls_hf.atomic_files import read_json
from bertcls_hf.config.arguments import Arguments
from bertcls_hf.data.labels import LabelSet
from bertcls_hf.data.load import ClassificationData
from bertcls_hf.data.tokenization import token_lengths
from bertcls_hf.features.lexical_baseline import LexicalBaseline
from bertcls_hf.hub.card.licences import data_licence, model_licence
from bertcls_hf.metrics.intervals import Interval, metric_intervals
from bertcls_hf.metrics.probabilities import probabilities
from bertcls_hf.models.modeling import TruncationSettings
from bertcls_hf.training.cross_validation import read_cross_validation
from bertcls_hf.training.phases import HEAD_FOLDER
from bertcls_hf.training.results import Evaluation
from bertcls_hf.training.seed_runs import read_seeds
from bertcls_hf.training.sweep import SWEEP_FILE
from bertcls_hf.training.trainer import ClassificationTrainer


TRAIN_RESULTS, STATE = "train_results.json", "trainer_state.json"


@dataclass(frozen=True)
class FinishedRun:
    """A run after its last prediction.

    Args:
        args: all options, as resolved.
        options: the options that were given.
        command: the words of the command line after the script's name.
        data: the splits with their texts; a streamed split has no length.
        tokenized: the same splits as tokens.
        trainer: has trained the model, or only evaluated it.
        evaluations_or_none: one entry per split after training, which is None where the split has no labels.
        baseline: the lexical baseline; None where the run fitted none.
    """

    args: Arguments
    options: Mapping[str, Any]
    command: Sequence[str]
    data: ClassificationData
    tokenized: Mapping[str, Any]
    trainer: ClassificationTrainer
    evaluations_or_none: Sequence[Evaluation | None]
    baseline: LexicalBaseline | None = None

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
        """The longest text in tokens that the encoder reads."""
        return self.trainer.processing_class.model_max_length

    @property
    def truncation(self) -> TruncationSettings | None:
        """How the model reads longer texts than its encoder; None if the tokenizer cuts them."""
        return getattr(self.trainer.model.config, "truncation_settings", None)

    @property
    def pipeline_max_length(self) -> int:
        """The longest text in tokens that the saved model takes, which may read more of a text than its encoder."""
        return self.max_seq_length if self.truncation is None else self.truncation.max_text_length

    @property
    def has_trained(self) -> bool:
        """Whether this run made the model."""
        return bool(self.args.training.do_train)

    @property
    def evaluations(self) -> list[Evaluation]:
        """The evaluations on labelled data."""
        return [evaluation for evaluation in self.evaluations_or_none if evaluation is not None]

    @property
    def headline(self) -> Evaluation | None:
        """The evaluation that the card reports first: on test where there is one, else on validation."""
        return max(self.evaluations, key=lambda evaluation: evaluation.split == "test", default=None)

    @functools.cached_property
    def outputs(self) -> np.ndarray | None:
        """The headline's (rows, labels) probabilities or (rows,) numbers.

        None without an evaluation, or where a logit is not finite.
        """
        if self.headline is None or not np.isfinite(self.headline.logits).all():
            return None
        return probabilities(self.headline.logits, self.labels.problem_type)

    @functools.cached_property
    def intervals(self) -> dict[str, Interval]:
        """The 95 % intervals of those of the headline's metrics that have one."""
        if self.headline is None or self.outputs is None:
            return {}
        return metric_intervals(self.outputs, np.asarray(self.headline.gold), self.labels)

    @functools.cached_property
    def licences(self) -> tuple[str | None, str | None]:
        """The licences of the model that the run began with, and of the data; None where one is not known."""
        return model_licence(self.args.model), data_licence(self.args.data)

    @functools.cached_property
    def train_results(self) -> dict[str, float]:
        """The Trainer's measurements of the training."""
        path = self.folder / TRAIN_RESULTS
        return read_json(path) if self.has_trained and path.is_file() else {}

    @property
    def all_results(self) -> dict[str, float]:
        """Every metric of the run, by its name in `all_results.json`."""
        results = dict(self.train_results)
        for evaluation in self.evaluations:
            results |= evaluation.results
        return results

    @property
    def state(self) -> TrainerState:
        """The history of the training, also of the part before a checkpoint that the run resumed from."""
        return self.trainer.state

    @property
    def head_state(self) -> TrainerState | None:
        """The history of the head's own training, where LP-FT trained it first."""
        path = self.folder / HEAD_FOLDER / STATE
        has_phase = self.has_trained and self.args.is_head_then_all and self.args.boost.head_num_train_epochs > 0
        return TrainerState.load_from_json(str(path)) if has_phase and path.is_file() else None

    @property
    def sweep(self) -> dict[str, Any] | None:
        """The trials of the search that this run began with; None without one."""
        path = self.folder / SWEEP_FILE
        return read_json(path) if self.options.get("sweep") and path.is_file() else None

    @property
    def seeds(self) -> dict[str, Any] | None:
        """The metrics over several seeds, once the run has repeated its training; None with one seed."""
        return read_seeds(self.folder) if self.args.training.seeds > 1 else None

    @property
    def cross_validation(self) -> dict[str, Any] | None:
        """The metrics of the folds, once the run has trained them; None without `--cross_validation`."""
        return read_cross_validation(self.folder) if self.args.training.cross_validation else None

    @property
    def is_streamed(self) -> bool:
        """Whether the number of training texts is unknown."""
        return "train" in self.data.splits and self.data.splits["train"].num_rows is None

    def texts(self, split: str) -> Dataset:
        """The rows of a split that was evaluated; only training data are streamed."""
        return cast(Dataset, self.data.splits[split])

    def lengths(self, split: str) -> np.ndarray | None:
        """(rows,) tokens of each text; None for a streamed split."""
        return token_lengths(self.tokenized[split]) if split in self.tokenized else None
