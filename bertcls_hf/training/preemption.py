"""Saves a checkpoint and ends the training when a scheduler announces by a signal that it will stop the job."""

import signal
from types import FrameType, TracebackType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


# Kubernetes, clouds and `scancel` send SIGTERM before they kill a job; `#SBATCH --signal=USR1@120` sends SIGUSR1.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopOnSignal(TrainerCallback):
    """Saves a checkpoint and ends the training after the optimizer step during which a signal arrives.

    Use it as a context manager around the training: it handles the signals between enter and exit. A checkpoint after
    a whole step can be resumed exactly. (`enable_jit_checkpoint` of transformers may also save between the gradients
    and the optimizer step that uses them, and it handles only SIGTERM.)

    It also makes Ctrl-C certain: Python drops a KeyboardInterrupt that comes while an object is destroyed, after which
    the training would go on. It is raised again after the step.

    Python allows signal handlers in the main thread only. In another thread the callback does nothing.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.stopped_at: int | None = None
        self.is_interrupted = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopOnSignal":
        try:
            self._previous = {number: signal.signal(number, self._receive) for number in SIGNALS}
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                self._previous[signal.SIGINT] = signal.signal(signal.SIGINT, self._interrupt)
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

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.is_interrupted = True
        signal.default_int_handler(number, frame)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.is_interrupted:
            raise KeyboardInterrupt
        if self._any_rank_signalled(args):
            self.stopped_at = state.global_step
            control.should_save = control.should_log = control.should_training_stop = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.stopped_at is not None:
            # The epoch is not over: an uninterrupted run has no evaluation at this step.
            control.should_log = control.should_save = control.should_evaluate = False

    def _any_rank_signalled(self, args: TrainingArguments) -> bool:
        """Says whether any rank received a signal; the ranks must agree, since all must stop after the same step."""
        if args.world_size == 1:
            return self.received is not None
        flag = torch.tensor(int(self.received is not None), device=args.device)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
        return bool(flag)
