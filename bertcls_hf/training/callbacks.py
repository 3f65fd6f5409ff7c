"""Callbacks of a training: extra log lines, a stop at a non-finite loss, and early stopping."""

import itertools
import json
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from bertcls_hf.atomic_files import write_text_atomically
from bertcls_hf.config.arguments import ClassifierTrainingArguments
from bertcls_hf.errors import DivergedError


if TYPE_CHECKING:
    from bertcls_hf.training.samplers import EpochSampler

logger = logging.getLogger(__name__)

DIVERGED_FILE = "diverged_rows.json"
BATCHES_KEPT = 20


class LogWithEachSave(TrainerCallback):
    """Logs at every evaluation and checkpoint.

    A checkpoint does not hold the running loss since the last log line. Without the extra log line, a resumed run
    would have another log history than an uninterrupted run, and a checkpoint could be saved before its loss was
    checked.
    """

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        control.should_log |= control.should_save or control.should_evaluate

    on_epoch_end = on_step_end


class StopOnNonFinite(TrainerCallback):
    """Ends the run when a logged loss or gradient norm is not finite, before the next checkpoint is written."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        train_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        logs = logs or {}
        non_finite = next((name for name in ("loss", "grad_norm") if not math.isfinite(logs.get(name, 0.0))), None)
        if non_finite is None or args.logging_nan_inf_filter:
            return
        where = ""
        if state.is_world_process_zero:
            path = self._write_rows(args, state, train_dataloader)
            where = f"; the rows of the last {BATCHES_KEPT} steps are in {path}"
        raise DivergedError(
            f"{non_finite} is {logs[non_finite]} at step {state.global_step}: lower the learning rate, or look for "
            f"bad rows{where}. The checkpoints before this step are good."
        )

    def _write_rows(self, args: TrainingArguments, state: TrainerState, train_dataloader: Any) -> Path:
        sampler = _epoch_sampler(train_dataloader)
        rows = [] if sampler is None else _recent_rows(sampler, args, state)
        path = Path(args.output_dir, DIVERGED_FILE)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(path, json.dumps({"step": state.global_step, "rows": rows}) + "\n")
        return path


def _epoch_sampler(train_dataloader: Any) -> "EpochSampler | None":
    batches = getattr(train_dataloader, "batch_sampler", None)
    batches = getattr(batches, "batch_sampler", batches)
    sampler = getattr(batches, "sampler", None)
    return sampler if hasattr(sampler, "order") else None


def _recent_rows(sampler: "EpochSampler", args: TrainingArguments, state: TrainerState) -> list[int]:
    """Returns the training rows of the current epoch's last `BATCHES_KEPT` steps, oldest first."""
    per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    steps_per_epoch = math.ceil(len(sampler) / per_step)
    epoch, step = divmod(state.global_step - 1, steps_per_epoch)
    first = max(step + 1 - BATCHES_KEPT, 0)
    return list(itertools.islice(sampler.order(epoch), first * per_step, (step + 1) * per_step))


class KnowBestCheckpoint(TrainerCallback):
    """Tells a resumed training where its best checkpoint is. The Trainer forgets one that was moved since."""

    def __init__(self, best: Path):
        self._best = str(best)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        state.best_model_checkpoint = self._best


class WarnOfUnmovedWeights(TrainerCallback):
    """Warns at the end of a training in which no weight has changed, which saves the model that it began with."""

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        assert model is not None
        self.first_step, self.sums = state.global_step, _sums_of_trained_weights(model)

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        assert model is not None
        steps = state.global_step - self.first_step
        # The sums are empty where each process holds another part of the weights, as with ZeRO-3.
        if steps > 0 and self.sums and self.sums == _sums_of_trained_weights(model):
            logger.warning(
                "no weight changed in the %d steps of this training: the saved model is the one that it began with; "
                "look at the learning rates and the scheduler",
                steps,
            )


def _sums_of_trained_weights(model: torch.nn.Module) -> list[float]:
    """Returns the sum of each trained tensor in double precision, which a change of its values would change."""
    trained = [p.detach() for p in model.parameters() if p.requires_grad and p.numel()]
    return torch.stack([p.sum(dtype=torch.float64) for p in trained]).tolist() if trained else []


def training_callbacks(args: ClassifierTrainingArguments) -> list[TrainerCallback]:
    """Builds the callbacks of a run, with early stopping if `early_stopping_patience` is not -1."""
    callbacks: list[TrainerCallback] = [LogWithEachSave(), StopOnNonFinite(), WarnOfUnmovedWeights()]
    if args.early_stopping_patience != -1:
        callbacks.append(EarlyStoppingCallback(args.early_stopping_patience, args.early_stopping_threshold))
    return callbacks
