"""A run that was killed and resumed ends as one that was not; a broken checkpoint is never resumed from."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bertcls_hf.errors import ArgumentsError
from bertcls_hf.run import main
from bertcls_hf.training.checkpoints import (
    checkpoint_problem,
    find_resumable_checkpoint,
    resolve_resume,
    stopped_early,
)
from tests.helpers.reviews import ROOT
from tests.helpers.training_runs import SAVES, assert_identical_run, history


MODES = {
    "mid_epoch": {"train_sampling_strategy": "random"},
    "bucketed": {},
    "accumulation": {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4},
    "layerwise": {"layerwise_lr_decay": 0.8, "lr_scheduler_type": "cosine"},
    "frozen": {"freeze_backbone": True, "head_learning_rate": 0.01},
    "boost": {"boost": True, "head_learning_rate": 0.01},
}


@pytest.mark.parametrize("mode", sorted(MODES))
def test_resume_is_exact(command: Callable[..., list[str]], tmp_path: Path, mode: str) -> None:
    options = {**SAVES, **MODES[mode]}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(command(**options, output_dir=whole)) == 0
    shutil.copytree(whole, cut)
    # Checkpoints lie in the middle and at the end of epochs of 6 steps; go back to one in the second epoch.
    for folder in cut.glob("checkpoint-*"):
        if int(folder.name.split("-")[1]) > 10:
            shutil.rmtree(folder)
    rewrite_best_checkpoints(cut, whole)
    assert main(command(**options, output_dir=cut, resume_from_checkpoint="auto")) == 0
    assert_identical_run(whole, cut)


def rewrite_best_checkpoints(folder: Path, original: Path) -> None:
    for state in folder.glob("checkpoint-*/trainer_state.json"):
        state.write_text(state.read_text().replace(str(original), str(folder)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_killed_run_resumes_exactly(command: Callable[..., list[str]], tmp_path: Path, seed: int) -> None:
    options = {**SAVES, "num_train_epochs": 12, "early_stopping_patience": 6, "seed": seed}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(command(**options, output_dir=whole)) == 0
    argv = [sys.executable, str(ROOT / "run_classification.py"),
            *command(**options, output_dir=killed, resume_from_checkpoint="auto")]  # fmt: skip
    # As many threads as the whole run had: a sum's rounding depends on its order.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    target = random.Random(seed).randrange(4, 40)
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    while process.poll() is None and not list(killed.glob(f"checkpoint-{target // 2 * 2}")):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(argv, check=True, capture_output=True, env=environment)
    assert_identical_run(whole, killed)


KILLED_WHILE_SAVING = """
import os, signal, sys
from transformers import Trainer, TrainerState
from bertcls_hf.run import main
stage, step = sys.argv[1], int(sys.argv[2])
def die_before(owner, name, step_of):
    original = getattr(owner, name)
    def method(self, *args, **kwargs):
        if step_of(self) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, *args, **kwargs)
    setattr(owner, name, method)
if stage == "state":
    die_before(TrainerState, "save_to_json", lambda state: state.global_step)
else:
    die_before(Trainer, stage, lambda trainer: trainer.state.global_step)
main(sys.argv[3:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["_save_optimizer_and_scheduler", "_save_scaler", "_save_rng_state", "state"])
def test_killed_inside_a_save(command: Callable[..., list[str]], tmp_path: Path, stage: str) -> None:
    """Half of checkpoint-8 is there; with save_total_limit 1 the one before it is, too."""
    options = {**SAVES, "save_total_limit": 1, "load_best_model_at_end": False}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(command(**options, output_dir=whole)) == 0
    argv = command(**options, output_dir=killed, resume_from_checkpoint="auto")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    driver = [sys.executable, "-c", KILLED_WHILE_SAVING, stage, "8", *argv]
    assert subprocess.run(driver, capture_output=True, env=environment, check=False).returncode == -signal.SIGKILL
    assert (killed / "checkpoint-8/model.safetensors").exists()
    assert main(argv) == 0
    assert (killed / "_incomplete-checkpoint-8").exists()
    assert_identical_run(whole, killed)


@pytest.fixture
def checkpoints(command: Callable[..., list[str]], tmp_path: Path) -> Path:
    """A run with complete checkpoints 2, 4, 6 …."""
    assert main(command(**{**SAVES, "num_train_epochs": 1})) == 0
    return tmp_path / "out"


FILES = ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]


class TestBrokenCheckpoints:
    @pytest.mark.parametrize("damage", ["deleted", "truncated", "emptied"])
    @pytest.mark.parametrize("name", FILES)
    def test_a_damaged_one_is_set_aside_for_the_one_before(self, checkpoints: Path, name: str, damage: str) -> None:
        path = checkpoints / "checkpoint-6" / name
        content = path.read_bytes()
        path.unlink() if damage == "deleted" else path.write_bytes(
            b"" if damage == "emptied" else content[: len(content) // 2]
        )
        assert find_resumable_checkpoint(checkpoints, world_size=1) == checkpoints / "checkpoint-4"
        assert (checkpoints / "_incomplete-checkpoint-6").is_dir()
        assert not (checkpoints / "checkpoint-6").exists()

    def test_empty_folder_sentinel_and_wrong_step(self, checkpoints: Path) -> None:
        (checkpoints / "checkpoint-99").mkdir()
        shutil.copytree(checkpoints / "checkpoint-4", checkpoints / "checkpoint-50")
        (checkpoints / "checkpoint-6" / "checkpoint-is-incomplete.txt").touch()
        assert find_resumable_checkpoint(checkpoints, world_size=1) == checkpoints / "checkpoint-4"
        assert "of step 4" in (
            checkpoint_problem(
                shutil.move(checkpoints / "_incomplete-checkpoint-50", checkpoints / "checkpoint-50"), 1
            )
            or ""
        )

    def test_random_states_of_every_rank_are_needed(self, checkpoints: Path) -> None:
        assert "rng_state_0.pth" in (checkpoint_problem(checkpoints / "checkpoint-6", world_size=2) or "")

    def test_none_left(self, tmp_path: Path) -> None:
        assert resolve_resume("auto", tmp_path, 1, True) is None
        with pytest.raises(ArgumentsError, match="holds no complete checkpoint; auto starts fresh"):
            resolve_resume("true", tmp_path, 1, True)
        with pytest.raises(ArgumentsError, match="no such folder"):
            resolve_resume(str(tmp_path / "checkpoint-3"), tmp_path, 1, True)

    def test_a_pickle_in_a_checkpoint_is_not_run(self, checkpoints: Path, command: Callable, tmp_path: Path) -> None:
        canary = tmp_path / "canary"

        class Exploit:
            def __reduce__(self) -> tuple:
                return (Path.touch, (canary,))

        torch.save(Exploit(), checkpoints / "checkpoint-6" / "optimizer.pt")
        with pytest.raises(Exception, match=r"weights_only|Weights only"):
            main(command(**{**SAVES, "num_train_epochs": 2}, resume_from_checkpoint="auto"))
        assert not canary.exists()


class TestEarlyStopping:
    # A rate of zero never gets better than its first evaluation.
    options = {**SAVES, "num_train_epochs": 6, "early_stopping_patience": 3, "learning_rate": 0.0,
               "metric_for_best_model": "loss"}  # fmt: skip

    def test_it_stops_and_ends_with_the_best(self, command: Callable[..., list[str]], tmp_path: Path) -> None:
        assert main(command(**self.options)) == 0
        assert history(tmp_path / "out")[-1]["step"] == 8

    def test_patience_is_resumed(self, command: Callable[..., list[str]], tmp_path: Path) -> None:
        whole, cut = tmp_path / "out", tmp_path / "cut"
        assert main(command(**self.options)) == 0
        shutil.copytree(whole, cut)
        for step in (6, 8):
            shutil.rmtree(cut / f"checkpoint-{step}")
        rewrite_best_checkpoints(cut, whole)
        assert (
            main(
                [
                    *command(**self.options, output_dir=None),
                    "--output_dir",
                    str(cut),
                    "--resume_from_checkpoint",
                    "auto",
                ]
            )
            == 0
        )
        assert_identical_run(whole, cut)

    def test_a_stopped_run_does_not_go_on(self, command: Callable[..., list[str]], tmp_path: Path) -> None:
        assert main(command(**self.options)) == 0
        whole = tmp_path / "whole"
        shutil.copytree(tmp_path / "out", whole)
        assert stopped_early(tmp_path / "out/checkpoint-8", 3)
        assert main(command(**self.options, resume_from_checkpoint="auto")) == 0
        assert_identical_run(whole, tmp_path / "out")


def test_what_a_resumed_run_changes_is_told(
    command: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(command()) == 0
    assert main(command(resume_from_checkpoint="auto", learning_rate=2e-3, num_train_epochs=3)) == 0
    assert "resuming with another learning_rate: 0.001 before, 0.002 now" in caplog.text


def test_a_checkpoint_of_another_model_is_refused(
    command: Callable, checkpoints: Path, capsys: pytest.CaptureFixture
) -> None:
    options = {**SAVES, "num_train_epochs": 1, "resume_from_checkpoint": "auto"}
    assert main(command(**options, pooling="mean")) == 2
    assert "checkpoint-6 is of another model: pooling was pooler, is mean" in capsys.readouterr().err
