"""A signal ends a training after a step, with a checkpoint, and the resumed run ends as an undisturbed one."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bertcls_hf.errors import ExitCode
from bertcls_hf.run import main
from bertcls_hf.training.trainer import ClassificationTrainer


@pytest.fixture
def signal_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, signal.Signals], None]:
    """Makes the process receive a signal within the n-th micro-batch of its next training."""

    def arrange(micro_batch: int, number: signal.Signals) -> None:
        original, calls = ClassificationTrainer.training_step, []

        def training_step(*args: object, **options: object) -> torch.Tensor:
            calls.append(None)
            if len(calls) == micro_batch:
                os.kill(os.getpid(), number)
            return original(*args, **options)

        monkeypatch.setattr(ClassificationTrainer, "training_step", training_step)

    return arrange


MODES = {
    "epochs": {"eval_strategy": "epoch", "save_strategy": "epoch", "early_stopping_patience": 5},
    "steps": {"eval_strategy": "steps", "eval_steps": 3, "save_strategy": "steps", "save_steps": 3},
    "accumulation": {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4},
    "boost": {"boost": True, "head_learning_rate": 0.01},
}


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.slow)], ids=lambda number: number.name
)
@pytest.mark.parametrize("mode", sorted(MODES))
def test_a_stopped_run_goes_on_exactly(
    command: Callable[..., list[str]],
    signal_in: Callable[[int, signal.Signals], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    mode: str,
    number: signal.Signals,
) -> None:
    options = {**MODES[mode], "num_train_epochs": 3}
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert main(command(**options, output_dir=whole)) == 0

    handler = signal.getsignal(number)
    signal_in(9, number)
    assert main(command(**options, output_dir=stopped)) == ExitCode.PREEMPTED
    assert signal.getsignal(number) is handler
    step = 5 if mode == "accumulation" else 9
    error = capsys.readouterr().err
    assert f"error: the training was stopped by {number.name} after step {step}; its checkpoint" in error
    assert (stopped / f"checkpoint-{step}").is_dir()
    assert not (stopped / "model.safetensors").exists()

    assert main(command(**options, output_dir=stopped, resume_from_checkpoint="auto")) == 0
    first, second = load_file(whole / "model.safetensors"), load_file(stopped / "model.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert evaluations(whole) == evaluations(stopped)


def evaluations(folder: Path) -> list[tuple[int, float]]:
    """Step and loss of every evaluation."""
    lines = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [(line["step"], line["eval_loss"]) for line in lines if "eval_loss" in line]


def test_a_signal_after_the_last_step_ends_the_run_as_ever(
    command: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It came too late for a checkpoint, and must not be swallowed."""

    class Ended(BaseException):
        pass

    def end(*args: object) -> None:
        raise Ended

    original = ClassificationTrainer.train

    def train(*args: object, **options: object) -> object:
        output = original(*args, **options)
        os.kill(os.getpid(), signal.SIGUSR1)
        return output

    monkeypatch.setattr(ClassificationTrainer, "train", train)
    before = signal.signal(signal.SIGUSR1, end)
    try:
        with pytest.raises(Ended):
            main(command(output_dir=tmp_path / "out"))
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_is_heard_though_it_comes_while_an_object_is_destroyed(
    command: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Destroyed:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    original, steps = ClassificationTrainer.training_step, []

    def training_step(*args: object, **options: object) -> torch.Tensor:
        steps.append(None)
        if len(steps) == 2:
            Destroyed()
        return original(*args, **options)

    monkeypatch.setattr(ClassificationTrainer, "training_step", training_step)
    assert main(command()) == ExitCode.INTERRUPTED
    assert len(steps) == 2
    assert "interrupted" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
