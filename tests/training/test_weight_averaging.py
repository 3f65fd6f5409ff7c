"""Runs with --weight_averaging: what is averaged, evaluated and saved, and a resume that repeats it exactly."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from bertcls_hf.run import main
from bertcls_hf.training import phases
from bertcls_hf.training.saved_outputs import read_outputs
from bertcls_hf.training.weight_averaging import STEP_WEIGHTS
from tests.helpers.training_runs import SAVES, assert_identical_run


Command = Callable[..., list[str]]
LAST = {"load_best_model_at_end": False, "num_train_epochs": 2}
BOOSTED = {"boost": True, "learning_rate": None, "head_learning_rate": 0.01}


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """The trained weights after each step of the trainings of a test."""
    found: list[dict[str, torch.Tensor]] = []
    original = phases.training_callbacks

    class Keep(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            found.append({name: weight.detach().clone() for name, weight in model.named_parameters()})

    monkeypatch.setattr(phases, "training_callbacks", lambda args: [*original(args), Keep()])
    return found


def exponential(steps: list[torch.Tensor], decay: float) -> torch.Tensor:
    average = steps[0]
    for number, weights in enumerate(steps[1:], start=1):
        counted = min(decay, (1 + number) / (10 + number))
        average = counted * average + (1 - counted) * weights
    return average


EXPECTED = {
    "ema": lambda steps: exponential(steps, 0.999),
    "quick ema": lambda steps: exponential(steps, 0.2),
    "swa": lambda steps: torch.stack(steps[9:]).mean(dim=0),
    "swa of all": lambda steps: torch.stack(steps).mean(dim=0),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "ema": {"weight_averaging": "ema"},
    "quick ema": {"weight_averaging": "ema", "ema_decay": 0.2},
    "swa": {"weight_averaging": "swa"},
    "swa of all": {"weight_averaging": "swa", "swa_start": 0},
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_the_average_is_saved(
    command: Command, tmp_path: Path, steps: list[dict[str, torch.Tensor]], kind: str
) -> None:
    assert main(command(**LAST, **OPTIONS[kind], pooling="mean", pooling_layers=2)) == 0
    assert len(steps) == 12
    saved = load_file(tmp_path / "out/model.safetensors")
    for name in ("head.out_proj.weight", "encoder.encoder.layer.2.output.dense.weight"):
        expected = EXPECTED[kind]([weights[name] for weights in steps])
        torch.testing.assert_close(saved[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["ema", "swa"])
@pytest.mark.parametrize("more", [{}, BOOSTED, {"trainable_layers": 1}, {"gradient_accumulation_steps": 2}])
def test_the_average_is_evaluated(command: Command, tmp_path: Path, kind: str, more: dict[str, Any]) -> None:
    options = {**LAST, "weight_averaging": kind, "do_train": True, "do_eval": True, **more}
    assert main(command(**options)) == 0
    out = tmp_path / "out"
    evaluations = [line for line in json.loads((out / "trainer_state.json").read_text())["log_history"]
                   if "eval_loss" in line]  # fmt: skip
    # The evaluation after the last epoch saw the weights that were saved.
    assert evaluations[-1]["eval_loss"] == pytest.approx(
        json.loads((out / "eval_results.json").read_text())["eval_loss"], rel=1e-6
    )
    own = {"model_name_or_path": out, "output_dir": tmp_path / "later", "learning_rate": None}
    assert main(command(**own, do_eval=True)) == 0
    again = json.loads((tmp_path / "later/eval_results.json").read_text())["eval_loss"]
    assert again == pytest.approx(evaluations[-1]["eval_loss"], rel=1e-4)


@pytest.mark.parametrize("kind", ["ema", "swa"])
@pytest.mark.parametrize("more", [{}, BOOSTED])
@pytest.mark.parametrize("step", [4, 14])
def test_a_killed_training_goes_on(
    command: Command, tmp_path: Path, kind: str, more: dict[str, Any], step: int
) -> None:
    whole, halted = tmp_path / "whole", tmp_path / "halted"
    options = {**SAVES, "weight_averaging": kind, **more}
    assert main(command(**options, output_dir=whole)) == 0
    shutil.copytree(whole, halted)
    for checkpoint in halted.glob("checkpoint-*"):
        if int(checkpoint.name.split("-")[1]) > step:
            shutil.rmtree(checkpoint)
    assert main(command(**options, output_dir=halted, resume_from_checkpoint="auto")) == 0
    assert_identical_run(whole, halted)


def test_the_best_checkpoint_is_an_average(command: Command, tmp_path: Path) -> None:
    assert main(command(**SAVES, weight_averaging="ema", metric_for_best_model="loss")) == 0
    out = tmp_path / "out"
    state = json.loads((out / "trainer_state.json").read_text())
    best = load_file(Path(state["best_model_checkpoint"]) / "model.safetensors")
    saved = load_file(out / "model.safetensors")
    name = "encoder.layer.2.output.dense.weight"
    assert torch.equal(saved[f"bert.{name}"], best[f"encoder.{name}"])
    assert not torch.equal(best[f"encoder.{name}"], load_file(out / "checkpoint-6" / STEP_WEIGHTS)[f"encoder.{name}"])


def test_both_phases_of_lp_ft_are_averaged(command: Command, tmp_path: Path) -> None:
    options = {"boost": True, "freeze_backbone": False, "head_num_train_epochs": 1, "weight_averaging": "swa"}
    assert main(command(**options, **LAST, swa_start=0.5)) == 0
    assert (tmp_path / "out/head/checkpoint-6" / STEP_WEIGHTS).exists()


def test_averaging_does_not_change_the_steps(
    command: Command, tmp_path: Path, steps: list[dict[str, torch.Tensor]]
) -> None:
    assert main(command(**LAST)) == 0
    assert main(command(**LAST, weight_averaging="ema", output_dir=tmp_path / "averaged")) == 0
    for plain, averaged in zip(steps[:12], steps[12:], strict=True):
        assert all(torch.equal(plain[name], averaged[name]) for name in plain)
    logits = [read_outputs(tmp_path / folder / "test_outputs.npz").logits for folder in ("out", "averaged")]
    assert not np.allclose(*logits, atol=1e-6)


class TestResumingWithOtherOptions:
    @pytest.mark.parametrize(
        ("before", "after", "message"),
        [
            ("ema", None, "weight_averaging was ema, is None"),
            (None, "ema", "weight_averaging was None, is ema"),
        ],
    )
    def test_on_and_off(
        self,
        command: Command,
        tmp_path: Path,
        capsys: pytest.CaptureFixture,
        before: str | None,
        after: str | None,
        message: str,
    ) -> None:
        assert main(command(**LAST, weight_averaging=before)) == 0
        kept = sorted(path.name for path in (tmp_path / "out").glob("*checkpoint*"))
        assert main(command(**LAST, weight_averaging=after, resume_from_checkpoint="auto")) == 2
        assert message in capsys.readouterr().err
        assert sorted(path.name for path in (tmp_path / "out").glob("*checkpoint*")) == kept

    def test_a_lost_file_sends_a_run_to_the_checkpoint_before(
        self, command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert main(command(**LAST, weight_averaging="ema")) == 0
        (tmp_path / "out/checkpoint-12" / STEP_WEIGHTS).unlink()
        assert main(command(**LAST, weight_averaging="ema", resume_from_checkpoint="auto")) == 0
        assert f"{STEP_WEIGHTS} is missing" in caplog.text
        assert f"resuming from {tmp_path / 'out/checkpoint-6'}" in caplog.text


def test_the_card_tells_it(command: Command, tmp_path: Path) -> None:
    assert main(command(**LAST, weight_averaging="swa", swa_start=0.5)) == 0
    assert "the mean after 50% of the training" in (tmp_path / "out/README.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ema_decay": 0.9}, "--ema_decay is for --weight_averaging ema"),
        ({"weight_averaging": "ema", "swa_start": 0.5}, "--swa_start is for --weight_averaging swa"),
        ({"weight_averaging": "ema", "ema_decay": 1}, "--ema_decay 1.0: must lie in [0, 1)"),
    ],
)
def test_refusals(command: Command, capsys: pytest.CaptureFixture, options: dict[str, Any], message: str) -> None:
    assert main(command(**options)) == 2
    assert message in capsys.readouterr().err
