"""Several seeds of one run: each is the run with that seed, and the summary is over all."""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bertcls_hf.run import main
from bertcls_hf.training.repetitions import FINISHED_FILE


Command = Callable[..., list[str]]
MODES: dict[str, dict[str, Any]] = {
    "fine-tuned": {},
    "boost": {"boost": True, "learning_rate": None},
    "LP-FT": {"boost": True, "freeze_backbone": False, "head_num_train_epochs": 1},
    "lexical": {"lexical_features": True, "boost": True, "learning_rate": None},
}


def results(folder: Path) -> dict[str, float]:
    return json.loads((folder / "all_results.json").read_text())


@pytest.mark.parametrize("mode", MODES)
def test_each_seed_is_the_run_with_that_seed(command: Command, tmp_path: Path, mode: str) -> None:
    options = {"num_train_epochs": 1, "lexical_baseline": False, **MODES[mode]}
    assert main(command(**options, seed=5, seeds=3)) == 0
    summary = json.loads((tmp_path / "out/seeds.json").read_text())
    assert summary["seeds"] == [5, 6, 7]
    alone = tmp_path / "alone"
    assert main(command(**options, seed=7, output_dir=alone)) == 0
    for split, prefix in (("validation", "eval"), ("test", "test")):
        figures = summary["splits"][split]["log_loss"]
        assert figures["values"][0] == results(tmp_path / "out")[f"{prefix}_log_loss"]
        assert figures["values"][2] == results(alone)[f"{prefix}_log_loss"]
        assert len(set(figures["values"])) == 3
        assert figures["mean"] == pytest.approx(statistics.mean(figures["values"]))
        assert figures["standard_deviation"] == pytest.approx(statistics.stdev(figures["values"]))


def test_the_card_tells_of_all_seeds_and_the_model_is_that_of_the_first(command: Command, tmp_path: Path) -> None:
    first = tmp_path / "first"
    assert main(command(num_train_epochs=1, output_dir=first)) == 0
    assert main(command(num_train_epochs=1, seeds=2)) == 0
    out = tmp_path / "out"
    assert (out / "model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()
    assert not list((out / "seed-43").glob("*.safetensors"))
    card = (out / "README.md").read_text()
    summary = json.loads((out / "seeds.json").read_text())["splits"]["test"]["accuracy"]
    assert "| mean ± standard deviation of seeds 42 to 43 | validation | test |" in card
    assert f"{summary['mean']:.4f} ± {summary['standard_deviation']:.4f} |" in card


def test_a_resumed_run_repeats_no_finished_seed(
    command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(command(num_train_epochs=1, seeds=3)) == 0
    out = tmp_path / "out"
    before = (out / "seeds.json").read_text()
    (out / "seed-44" / FINISHED_FILE).unlink()
    (out / "seeds.json").unlink()
    caplog.clear()
    assert main(command(num_train_epochs=1, seeds=3, resume_from_checkpoint="auto")) == 0
    assert [record.args for record in caplog.records if record.msg == "training with seed %d"] == [(44,)]
    assert (out / "seeds.json").read_text() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "--seeds 0: must be 1 or more"),
        ({"seeds": 2, "do_eval": True}, "--seeds repeats the training, and nothing is trained"),
        ({"seeds": 2, "seed": 2**32 - 1}, "the last seed would be 4294967296"),
        ({"seeds": 2, "streaming": True, "max_steps": 2}, "--seeds: a stream is read once"),
    ],
)
def test_refusals(command: Command, capsys: pytest.CaptureFixture, options: dict[str, Any], message: str) -> None:
    assert main(command(**options)) == 2
    assert message in capsys.readouterr().err
