"""One run at a time writes to an output_dir, whose model is always one whole model, with what belongs to it."""

import functools
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoConfig

from bertcls_hf.predict.predictor import Predictor
from bertcls_hf.run import main
from bertcls_hf.training import output_folder
from bertcls_hf.training.output_folder import LOCK_FILE, replace_model
from tests.helpers.warm_processes import EntryScript


Command = Callable[..., list[str]]
QUICK = {"num_train_epochs": 1, "lexical_baseline": False}


def test_a_second_run_is_kept_out_and_told_by_whom(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    tell = output_folder.tell_of_overwriting

    def start_another(args: object) -> None:
        monkeypatch.setattr(output_folder, "tell_of_overwriting", tell)
        said.append((main(command(**QUICK)), capsys.readouterr().err.splitlines()[-1]))

    monkeypatch.setattr(output_folder, "tell_of_overwriting", start_another)
    assert main(command(**QUICK)) == 0
    ((code, message),) = said
    assert code == 2
    assert f"another run writes there (process {os.getpid()} on " in message
    assert not (tmp_path / "out" / LOCK_FILE).exists()


def test_the_lock_of_a_killed_run_keeps_nobody_out(command: Command, tmp_path: Path) -> None:
    run = EntryScript(command(**QUICK), prepare=functools.partial(die_in, "tell_of_overwriting"))
    assert run.wait() == -signal.SIGKILL
    assert (tmp_path / "out" / LOCK_FILE).exists()
    assert main(command(**QUICK)) == 0
    assert not (tmp_path / "out" / LOCK_FILE).exists()


def die_in(name: str) -> None:
    """Makes this process kill itself where it would call a function of the module."""
    setattr(output_folder, name, lambda *args: os.kill(os.getpid(), signal.SIGKILL))


def test_an_overwritten_model_is_told(command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert main(command(**QUICK)) == 0
    assert "which this training will overwrite" not in caplog.text
    assert main(command(**QUICK)) == 0
    assert f"{tmp_path / 'out'} holds a finished model, which this training will overwrite" in caplog.text


def test_a_kill_while_the_model_changes_leaves_none(
    command: Command, reviews: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """The second run has other labels; the old model, its calibration and its card must not meet the new one."""
    out = tmp_path / "out"
    assert main(command(**QUICK, calibrate=True)) == 0
    old = (out / "model.safetensors").read_bytes()
    for path in reviews.values():
        path.write_text(path.read_text().replace(",pos", ",aaa").replace(",neg", ",zzz"))
    die = functools.partial(die_in, "_remove_what_belongs_to_the_old_model")
    assert EntryScript(command(**QUICK), prepare=die).wait() == -signal.SIGKILL
    assert (out / "model.safetensors").read_bytes() == old
    with pytest.raises((OSError, ValueError)):
        AutoConfig.from_pretrained(out)
    with pytest.raises(Exception, match="its saving was interrupted"):
        Predictor.from_pretrained(str(out))
    assert main(command(**QUICK)) == 0
    assert Predictor.from_pretrained(str(out)).labels.names == ("aaa", "zzz")
    assert not (out / "calibration.json").exists()
    assert not list(out.glob("_saving-*"))


def test_what_described_the_old_model_goes_with_it(tmp_path: Path) -> None:
    old = ["calibration.json", "cascade.json", "eval_results.json", "test_outputs.npz", "predictions.jsonl",
           "onnx/model.onnx", "model-00001-of-00002.safetensors", "model.safetensors.index.json"]  # fmt: skip
    kept = ["recipe.yaml", "test_reviews.json", "model_backup.safetensors", "notes.md"]
    for name in (*old, *kept, "config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("old")
    (tmp_path / "README.md").write_text("By hand")

    def save(folder: Path) -> None:
        for name in ("config.json", "model.safetensors"):
            (folder / name).write_text("new")

    replace_model(tmp_path, save)
    assert not [name for name in old if (tmp_path / name).exists()]
    assert all((tmp_path / name).exists() for name in (*kept, "README.md"))
    assert (tmp_path / "config.json").read_text() == (tmp_path / "model.safetensors").read_text() == "new"


def test_a_full_disk_leaves_the_old_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("old")

    def save(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(Exception, match="no space left for"):
        replace_model(tmp_path, save)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert (tmp_path / "config.json").read_text() == "old"


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_damaged_results_block_no_run(command: Command, tmp_path: Path, content: str) -> None:
    out = tmp_path / "out"
    assert main(command(**QUICK)) == 0
    for name in ("all_results.json", "train_results.json", "recipe.yaml", "trainer_state.json"):
        (out / name).write_text(content)
    assert main(command(**QUICK, resume_from_checkpoint="auto")) == 0
    found = json.loads((out / "all_results.json").read_text())
    assert {"train_loss", "eval_accuracy", "test_accuracy"} <= found.keys()
    (out / "all_results.json").write_text(content)
    assert main(command(**QUICK)) == 0
    assert "eval_accuracy" in json.loads((out / "all_results.json").read_text())


def test_a_moved_output_dir_resumes_with_its_best_checkpoint(command: Command, tmp_path: Path) -> None:
    options = {**QUICK, "num_train_epochs": 3, "save_total_limit": 2, "learning_rate": 0.0}
    assert main(command(**options)) == 0
    shutil.move(tmp_path / "out", tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved/checkpoint-18", ignore_errors=True)
    assert main(command(**options, output_dir=tmp_path / "moved", resume_from_checkpoint="auto")) == 0
    state = json.loads((tmp_path / "moved/trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(tmp_path / "moved/checkpoint-6")
