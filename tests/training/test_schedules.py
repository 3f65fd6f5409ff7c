"""Learning rates do what the metric and the number of steps say, and a training that changes nothing is told."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bertcls_hf.config.arguments import ClassifierTrainingArguments
from bertcls_hf.data.labels import LabelSet
from bertcls_hf.metrics.metrics import build_compute_metrics
from bertcls_hf.run import main


def rates(folder: Path) -> list[float]:
    lines = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [line["learning_rate"] for line in lines if "learning_rate" in line]


@pytest.mark.parametrize("scheduler", ["reduce_lr_on_plateau", "greedy"])
@pytest.mark.parametrize(
    ("metric", "values", "falls"),
    [
        ("accuracy", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], False),
        ("accuracy", [0.6, 0.5, 0.4, 0.3, 0.2, 0.1], True),
        ("log_loss", [0.6, 0.5, 0.4, 0.3, 0.2, 0.1], False),
        ("log_loss", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], True),
    ],
)
def test_a_scheduler_that_watches_a_metric_knows_what_is_better(
    command: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scheduler: str,
    metric: str,
    values: list[float],
    falls: bool,
) -> None:
    results = iter(values)

    def evaluated(labels: LabelSet, extra: None) -> Callable[..., dict[str, float]]:
        compute = build_compute_metrics(labels, extra)
        return lambda prediction: {**compute(prediction), metric: next(results, 0.0)}

    monkeypatch.setattr("bertcls_hf.training.phases.build_compute_metrics", evaluated)
    options = {
        "lr_scheduler_type": scheduler, "metric_for_best_model": metric, "num_train_epochs": 6, "logging_steps": 6,
        "learning_rate": 2e-5, "warmup_steps": 0, "test_file": None, "do_train": True,
        "lr_scheduler_kwargs": '{"patience": 1, "factor": 0.5}',
    }  # fmt: skip
    assert main(command(**options)) == 0
    last = rates(tmp_path / "out")[-1]
    assert last < 2e-5 if falls else last >= 2e-5


def test_the_opposite_direction_is_refused(command: Callable[..., list[str]], capsys: pytest.CaptureFixture) -> None:
    options = {"lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": '{"mode": "min"}'}
    assert main(command(**options)) == 2
    assert "mode min, but the best accuracy is the greatest: leave mode out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("warmup_steps", "steps", "expected"), [(0.06, 1, 0), (0.06, 2, 1), (0.06, 100, 6), (50, 20, 19), (0, 5, 0)]
)
def test_a_warm_up_leaves_a_step(tmp_path: Path, warmup_steps: float, steps: int, expected: int) -> None:
    args = ClassifierTrainingArguments(output_dir=str(tmp_path), warmup_steps=warmup_steps, use_cpu=True)
    assert args.get_warmup_steps(steps) == expected


def test_a_run_of_one_step_learns(
    command: Callable[..., list[str]], tiny_bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(command(gradient_accumulation_steps=64, num_train_epochs=1)) == 0
    before, after = load_file(tiny_bert / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert any(not torch.equal(tensor, after[f"bert.{name}"]) for name, tensor in before.items())
    assert "no weight changed" not in caplog.text


def test_a_run_in_which_no_weight_moved_says_so(
    command: Callable[..., list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    assert main(command(learning_rate=0.0, num_train_epochs=1)) == 0
    assert "no weight changed in the 6 steps of this training" in caplog.text
