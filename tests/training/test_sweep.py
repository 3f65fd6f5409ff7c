"""The search over head options, and the recipe that it leaves."""

import json
from collections.abc import Callable
from pathlib import Path

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


def test_a_sweep_needs_the_cache(command: Callable[..., list[str]], capsys: pytest.CaptureFixture) -> None:
    assert main(command(sweep=3)) == 2
    assert "--sweep needs --boost" in capsys.readouterr().err
