"""Times trainings by transformers' Trainer, or by one that follows it."""

from time import perf_counter
from typing import Any

import torch
from transformers import TrainerCallback


class Stopwatch(TrainerCallback):
    """Times a training from before its first batch to the end of its last update."""

    def on_train_begin(self, args: Any, *rest: Any, **kwargs: Any) -> None:
        self.begin = now(args.device)

    def on_step_end(self, args: Any, state: Any, *rest: Any, **kwargs: Any) -> None:
        if state.global_step == state.max_steps:
            self.seconds = now(args.device) - self.begin


def now(device: torch.device) -> float:
    """The time when the device has done all that it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return perf_counter()
