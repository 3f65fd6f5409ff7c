"""Averages the weights over the steps of a training; evaluations and saves see the average.

`ema` is an exponential moving average (Tarvainen & Valpola 2017, arXiv 1703.01780), whose decay grows towards its
final value, so that the weights at the start of a short training do not count for long. `swa` is the plain mean over
the last part of the training (Izmailov et al. 2018, arXiv 1803.05407).
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments


# The file of a checkpoint with the weights that the next step changes; its model file has their average.
STEP_WEIGHTS = "step_weights.safetensors"
UPDATES = "updates"


def trained_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Returns the weights that a training changes: the parameters' own memory, outside their gradients."""
    return {name: weight.data for name, weight in model.named_parameters() if weight.requires_grad}


class WeightAverage(TrainerCallback):
    """A running average of all trained weights, each in its own number format.

    Args:
        model: the model, whose parameters stay the same tensors during the training.
        kind: `ema` or `swa`.
        ema_decay: the final decay of `ema`.
        swa_start: the share of the training after which `swa` begins.
    """

    def __init__(self, model: PreTrainedModel, kind: Literal["ema", "swa"], ema_decay: float, swa_start: float):
        self._model, self._kind, self._ema_decay, self._swa_start = model, kind, ema_decay, swa_start
        self._checkpoint: Path | None = None
        self._average: dict[str, torch.Tensor] = {}
        self._updates = 0
        self._is_applied = False

    def go_on_from(self, checkpoint: Path) -> None:
        """Prepares a resume: the training that begins next has loaded the checkpoint's model file."""
        self._checkpoint = checkpoint

    @property
    def _weights(self) -> dict[str, torch.Tensor]:
        return trained_weights(self._model)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Starts the average, or takes it over from a checkpoint."""
        self._average = {name: weight.clone() for name, weight in self._weights.items()}
        if self._checkpoint is None:
            return
        with safe_open(self._checkpoint / STEP_WEIGHTS, framework="pt") as file:
            self._updates = int(file.metadata()[UPDATES])
            for name, weight in self._weights.items():
                weight.copy_(file.get_tensor(name))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Adds the weights after a step to the average."""
        if self._kind == "swa" and state.global_step <= self._swa_start * state.max_steps:
            return
        averaged, weights = list(self._average.values()), list(self._weights.values())
        if self._updates == 0:
            torch._foreach_copy_(averaged, weights)
        else:
            self._add(averaged, weights)
        self._updates += 1

    def _add(self, averaged: list[torch.Tensor], weights: list[torch.Tensor]) -> None:
        if self._kind == "swa":
            get_swa_multi_avg_fn()(averaged, weights, self._updates)
        else:
            decay = min(self._ema_decay, (1 + self._updates) / (10 + self._updates))
            get_ema_multi_avg_fn(decay)(averaged, weights, self._updates)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leaves the average in the model, unless the model is the best checkpoint's, which is an average already."""
        if self._updates > 0 and not (args.load_best_model_at_end and state.best_model_checkpoint is not None):
            torch._foreach_copy_(list(self._weights.values()), list(self._average.values()))
        self._average, self._updates = {}, 0

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Puts the average into the model for the time of a block; outside a training, the model stays as it is."""
        if self._updates == 0 or self._is_applied:
            yield
            return
        self._exchange()
        self._is_applied = True
        try:
            yield
        finally:
            self._exchange()
            self._is_applied = False

    def _exchange(self) -> None:
        for name, weight in self._weights.items():
            kept = weight.clone()
            weight.copy_(self._average[name])
            self._average[name].copy_(kept)

    def save_step_weights(self, folder: Path) -> None:
        """Writes the weights that the next step changes; to be called while the average is applied."""
        weights = self._average if self._is_applied else self._weights
        save_file(weights, folder / STEP_WEIGHTS, metadata={UPDATES: str(self._updates)})
