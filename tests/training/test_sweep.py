"""The search over head options, and the recipe that it leaves."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bertcls_hf.run import main


def test_the_best_trials_recipe_reproduces_its_score(command: Callable[..., list[str]], tmp_path: Path) -> None:
    options = {"boost": True, "sweep": 4, "learning_rate": None, "metric_for_best_model": "log_loss"}
    assert main(command(**options)) == 0
    out = tmp_path / "out"
    sweep = json.loads((out / "sweep.json").read_text())
    assert sweep["metric"] == "log_loss"
    assert len(sweep["trials"]) == 4
    best = sweep["trials"][sweep["best"]]
    assert best["log_loss"] == min(trial["log_loss"] for trial in sweep["trials"])
    # The run goes on with the best options, and ends with the best trial's score to the last digit.
    assert json.loads((out / "trainer_state.json").read_text())["best_metric"] == best["log_loss"]
    recipe = yaml.safe_load((out / "recipe.yaml").read_text())
    assert recipe["head_learning_rate"] == best["head_learning_rate"]
    assert recipe["sweep"] == 0
    assert main([str(out / "recipe.yaml"), "--output_dir", str(tmp_path / "again"), "--disable_tqdm", "true"]) == 0
    assert json.loads((tmp_path / "again/trainer_state.json").read_text())["best_metric"] == best["log_loss"]
    assert not list(out.glob("trial-*"))


MODES: dict[str, dict[str, Any]] = {
    "fine-tuned": {},
    "adapters": {"lora_r": 2},
    "averaged": {"weight_averaging": "ema", "truncation_strategy": "windows", "max_seq_length": 8},
}


@pytest.mark.parametrize("mode", MODES)
def test_a_sweep_of_a_fine_tuning(command: Callable[..., list[str]], tmp_path: Path, mode: str) -> None:
    options = {"sweep": 4, "learning_rate": None, "metric_for_best_model": "log_loss", **MODES[mode]}
    assert main(command(**options)) == 0
    out = tmp_path / "out"
    sweep = json.loads((out / "sweep.json").read_text())
    ended = {trial["number"]: trial["log_loss"] for trial in sweep["trials"] if trial["log_loss"] is not None}
    assert len(sweep["trials"]) == 4
    assert ended[sweep["best"]] == min(ended.values())
    assert json.loads((out / "trainer_state.json").read_text())["best_metric"] == ended[sweep["best"]]
    recipe = yaml.safe_load((out / "recipe.yaml").read_text())
    best = next(trial for trial in sweep["trials"] if trial["number"] == sweep["best"])
    assert (recipe["learning_rate"], recipe["dropout"]) == (best["learning_rate"], best["dropout"])
    assert not list(out.glob("trial-*"))


def test_a_bad_trial_is_given_up(
    command: Callable[..., list[str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"sweep": 8, "learning_rate": None, "metric_for_best_model": "log_loss", "num_train_epochs": 3}
    assert main(command(**options)) == 0
    sweep = json.loads((tmp_path / "out/sweep.json").read_text())
    given_up = [trial for trial in sweep["trials"] if trial["log_loss"] is None]
    assert len(given_up) == caplog.text.count("is given up: others were better by then") > 0


def test_an_interrupted_sweep_goes_on(
    command: Callable[..., list[str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"learning_rate": None, "num_train_epochs": 1}
    assert main(command(**options, sweep=2)) == 0
    first = json.loads((tmp_path / "out/sweep.json").read_text())["trials"]
    caplog.clear()
    assert main(command(**options, sweep=5, resume_from_checkpoint="auto")) == 0
    assert "the search goes on after 2 trials" in caplog.text
    trials = json.loads((tmp_path / "out/sweep.json").read_text())["trials"]
    assert trials[:2] == first
    assert len({trial["learning_rate"] for trial in trials}) == len(trials) == 5
    # A run that does not resume searches afresh.
    assert main(command(**options, sweep=1)) == 0
    assert len(json.loads((tmp_path / "out/sweep.json").read_text())["trials"]) == 1


def test_a_budget_of_hours(command: Callable[..., list[str]], tmp_path: Path) -> None:
    options = {"learning_rate": None, "num_train_epochs": 1, "sweep": 50, "sweep_hours": 1e-5}
    assert main(command(**options)) == 0
    assert len(json.loads((tmp_path / "out/sweep.json").read_text())["trials"]) < 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sweep": 2, "freeze_backbone": True, "learning_rate": None}, "--sweep of a head on a frozen backbone needs"),
        ({"sweep": 2, "boost": True, "freeze_backbone": False}, "--sweep with --boost needs a frozen backbone"),
        ({"sweep": 2, "eval_strategy": "no"}, "--sweep chooses by evaluations"),
        ({"sweep": 2, "streaming": True, "max_steps": 2}, "--sweep: a stream is read once"),
        ({"sweep_hours": 1}, "--sweep_hours is for --sweep, which is 0"),
        ({"sweep": 2, "sweep_hours": 0}, "--sweep_hours 0.0: must be above 0"),
    ],
)
def test_refusals(
    command: Callable[..., list[str]], capsys: pytest.CaptureFixture, options: dict[str, Any], message: str
) -> None:
    assert main(command(**options)) == 2
    assert message in capsys.readouterr().err
