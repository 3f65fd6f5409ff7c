"""Ends a training with a checkpoint when a scheduler takes the machine back."""

import signal
from types import FrameType, TracebackType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


# What Kubernetes, clouds and `scancel` send before they kill; what `#SBATCH --signal=USR1@120` sends.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopOnSignal(TrainerCallback):
    """While it is entered, a signal ends the training after the current optimizer step, with a checkpoint.

    Nothing is half done between two steps, so a resumed run goes on exactly. (`enable_jit_checkpoint` of transformers
    also saves between the gradients and the optimizer's step that would use them, and only on SIGTERM.)

    Outside of the main thread, where Python takes no signals, it changes nothing.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.stopped_at: int | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopOnSignal":
        try:
            self._previous = {number: signal.signal(number, self._receive) for number in SIGNALS}
        except ValueError:  # not the main thread
            self._previous = {}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        came_too_late = self.received is not None and self.stopped_at is None
        if came_too_late and error is None:
            assert self.received is not None
            signal.raise_signal(self.received)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._is_asked(args):
            self.stopped_at = state.global_step
            control.should_save = control.should_log = control.should_training_stop = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.stopped_at is not None:
            # The epoch is not over: an evaluation now would be one that an undisturbed run does not have.
            control.should_log = control.should_save = control.should_evaluate = False

    def _is_asked(self, args: TrainingArguments) -> bool:
        """Whether any rank was signalled; all of them must stop after the same step."""
        if args.world_size == 1:
            return self.received is not None
        flag = torch.tensor(int(self.received is not None), device=args.device)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
        return bool(flag)
