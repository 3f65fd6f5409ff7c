"""What happens over the course of a training, apart from the arithmetic."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from bertcls_hf.config.arguments import ClassifierTrainingArguments
from bertcls_hf.errors import DivergedError


if TYPE_CHECKING:
    from bertcls_hf.train.samplers import EpochSampler

DIVERGED_FILE = "diverged_rows.json"
BATCHES_KEPT = 20


class LogWithEachSave(TrainerCallback):
    """Logs at every evaluation and checkpoint.

    The running loss since the last line of the log is not part of a checkpoint: without this, a resumed run's history
    would differ from that of an undisturbed one, and a checkpoint could hold weights whose loss nobody looked at.
    """

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        control.should_log |= control.should_save or control.should_evaluate

    on_epoch_end = on_step_end


class StopOnNonFinite(TrainerCallback):
    """Ends the run at the first loss or gradient norm that is not finite, before a checkpoint is written."""

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
        bad = next((name for name in ("loss", "grad_norm") if not math.isfinite(logs.get(name, 0.0))), None)
        if bad is None or args.logging_nan_inf_filter:
            return
        where = ""
        if state.is_world_process_zero:
            where = (
                f"; the rows of the last {BATCHES_KEPT} steps are in {self._write_rows(args, state, train_dataloader)}"
            )
        raise DivergedError(
            f"{bad} is {logs[bad]} at step {state.global_step}: lower the learning rate, or look for bad rows{where}. "
            "The checkpoints before this step are good."
        )

    def _write_rows(self, args: TrainingArguments, state: TrainerState, train_dataloader: Any) -> Path:
        sampler = _epoch_sampler(train_dataloader)
        rows = [] if sampler is None else _recent_rows(sampler, args, state)
        path = Path(args.output_dir, DIVERGED_FILE)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"step": state.global_step, "rows": rows}) + "\n")
        return path


def _epoch_sampler(train_dataloader: Any) -> "EpochSampler | None":
    batches = getattr(train_dataloader, "batch_sampler", None)
    batches = getattr(batches, "batch_sampler", batches)
    sampler = getattr(batches, "sampler", None)
    return sampler if hasattr(sampler, "order") else None


def _recent_rows(sampler: "EpochSampler", args: TrainingArguments, state: TrainerState) -> list[int]:
    """Row numbers of the training split in the last steps of the current epoch, oldest first."""
    per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    steps_per_epoch = math.ceil(len(sampler) / per_step)
    epoch, step = divmod(state.global_step - 1, steps_per_epoch)
    first = max(step + 1 - BATCHES_KEPT, 0)
    return sampler.order(epoch)[first * per_step : (step + 1) * per_step]


def training_callbacks(args: ClassifierTrainingArguments) -> list[TrainerCallback]:
    """The callbacks of a run; early stopping where it is on."""
    callbacks: list[TrainerCallback] = [LogWithEachSave(), StopOnNonFinite()]
    if args.early_stopping_patience != -1:
        callbacks.append(EarlyStoppingCallback(args.early_stopping_patience, args.early_stopping_threshold))
    return callbacks
