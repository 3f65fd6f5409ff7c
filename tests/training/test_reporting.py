"""`--report_to`, as in the Trainer: scalars of our own in tensorboard and trackio, and a service that is missing."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bertcls_hf.run import main
from tests.helpers.reviews import ROOT


@pytest.mark.parametrize("options", [{}, {"boost": True, "learning_rate": None}], ids=["fine-tuned", "boost"])
def test_tensorboard_holds_the_history(command: Callable[..., list[str]], tmp_path: Path, options: dict) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert main(command(report_to="tensorboard", **options)) == 0
    (file,) = (tmp_path / "out/runs").rglob("events.out.tfevents.*")
    events = EventAccumulator(str(file)).Reload()
    history = json.loads((tmp_path / "out/trainer_state.json").read_text())["log_history"]
    for tag, name in (("train/loss", "loss"), ("eval/accuracy", "eval_accuracy"), ("train/learning_rate_head",) * 2):
        logged = [(event.step, event.value) for event in events.Scalars(tag)]
        name = name.removeprefix("train/")
        expected = [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in history if name in line]
        assert logged == expected
        assert len(logged) > 1


def test_tensorboard_goes_where_its_variable_says(
    command: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "logs"))
    assert main(command(report_to="tensorboard", num_train_epochs=1)) == 0
    assert list((tmp_path / "logs").glob("events.out.tfevents.*"))
    assert not (tmp_path / "out/runs").exists()


@pytest.mark.night
def test_trackio_keeps_a_run_on_this_machine(command: Callable[..., list[str]], tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    argv = command(report_to="trackio", project="reviews", run_name="first", num_train_epochs=1)
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")}
    script = str(ROOT / "run_classification.py")
    done = subprocess.run(
        [sys.executable, script, *argv], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with sqlite3.connect(tmp_path / "trackio/reviews.db") as database:
        rows = database.execute("select run_name, metrics from metrics order by id").fetchall()
    assert {name for name, _ in rows} == {"first"}
    logged = {name: value for _, metrics in rows for name, value in json.loads(metrics).items()}
    results = json.loads((tmp_path / "out/all_results.json").read_text())
    assert logged["test/accuracy"] == pytest.approx(results["test_accuracy"])
    assert {"train/loss", "eval/macro_f1", "train/learning_rate_head"} <= set(logged)


@pytest.mark.parametrize(
    ("service", "message"),
    [
        ("wandb", "its package is not installed or not set up (pip install wandb)"),
        ("paper", "not known; use azure_ml"),
    ],
)
def test_a_service_that_is_not_there_is_refused_before_data_is_read(
    service: str, message: str, command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    if service == "wandb":
        try:
            import wandb  # noqa: F401
        except ImportError:
            pass
        else:
            pytest.skip("wandb is installed")
    assert main(command(report_to=service, train_file=tmp_path / "no such file.csv")) == 2
    assert f"--report_to {service}: {message}" in capsys.readouterr().err
