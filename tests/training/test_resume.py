"""A run that was killed and resumed ends as one that was not; a broken checkpoint is never resumed from."""

import functools
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainerState

from bertcls_hf.errors import ArgumentsError
from bertcls_hf.manifests import IDENTITY, MANIFEST_FILE, read_manifest
from bertcls_hf.run import main
from bertcls_hf.training.checkpoints import (
    checkpoint_problem,
    complete_checkpoint,
    find_resumable_checkpoint,
    resolve_resume,
)
from bertcls_hf.training.run_identity import RunIdentity
from tests.helpers.training_runs import SAVES, assert_identical_run, history, run_on_reviews
from tests.helpers.warm_processes import EntryScript


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
    assert main(command(**options, output_dir=cut, resume_from_checkpoint="auto")) == 0
    assert not list(cut.glob("_incomplete-*"))
    assert_identical_run(whole, cut)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.night) for seed in (1, 2))])
def test_a_killed_run_resumes_exactly(command: Callable[..., list[str]], tmp_path: Path, seed: int) -> None:
    options = {**SAVES, "num_train_epochs": 7, "early_stopping_patience": 6, "seed": seed}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(command(**options, output_dir=whole)) == 0
    argv = command(**options, output_dir=killed, resume_from_checkpoint="auto")
    # Early stopping cannot end the run before its seventh evaluation, at step 14.
    checkpoint = killed / f"checkpoint-{random.Random(seed).randrange(4, 14, 2)}"
    run = EntryScript(argv)
    while run.process.is_alive() and not checkpoint.exists():
        time.sleep(0.002)
    run.kill()
    assert run.wait() == -signal.SIGKILL
    assert EntryScript(argv).wait() == 0
    assert_identical_run(whole, killed)


def die_while_saving(stage: str, step: int) -> None:
    """Makes this process kill itself before a stage of the saving of one checkpoint."""

    def die_before(owner: type, name: str, step_of: Callable[[Any], int]) -> None:
        original = getattr(owner, name)

        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            if step_of(self) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(self, *args, **kwargs)

        setattr(owner, name, method)

    if stage == "state":
        die_before(TrainerState, "save_to_json", lambda state: state.global_step)
    else:
        die_before(Trainer, stage, lambda trainer: trainer.state.global_step)


@pytest.mark.night
def test_killed_inside_a_save(command: Callable[..., list[str]], tmp_path: Path) -> None:
    """Half of checkpoint-8 is there; with save_total_limit 1 the one before it is, too."""
    options = {**SAVES, "save_total_limit": 1, "load_best_model_at_end": False}
    whole = tmp_path / "whole"
    assert main(command(**options, output_dir=whole)) == 0
    for stage in ("_save_optimizer_and_scheduler", "_save_scaler", "_save_rng_state", "state"):
        killed = tmp_path / stage
        argv = command(**options, output_dir=killed, resume_from_checkpoint="auto")
        run = EntryScript(argv, prepare=functools.partial(die_while_saving, stage, 8))
        assert run.wait() == -signal.SIGKILL, stage
        assert (killed / "checkpoint-8/model.safetensors").exists(), stage
        assert main(argv) == 0, stage
        assert (killed / "_incomplete-checkpoint-8").exists(), stage
        assert_identical_run(whole, killed)


@pytest.fixture(scope="module")
def trained(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with complete checkpoints 2, 4 and 6, for copies."""
    return run_on_reviews(tiny_bert, tmp_path_factory.mktemp("checkpoints"), **{**SAVES, "num_train_epochs": 1})


@pytest.fixture
def checkpoints(trained: Path, tmp_path: Path) -> Path:
    """A run's folder with complete checkpoints 2, 4 and 6."""
    return shutil.copytree(trained, tmp_path / "out")


FILES = [
    "model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "config.json",
    "tokenizer.json", MANIFEST_FILE,
]  # fmt: skip
DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "deleted": lambda content: None,
    "emptied": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    # Pages that a power cut kept from the disk.
    "zeroed": lambda content: content[:40] + bytes(len(content) - 80) + content[-40:],
    "one bit": lambda content: content[:60] + bytes([content[60] ^ 1]) + content[61:],
    "another letter": lambda content: content.replace(b"size", b"sixe", 1) if b"size" in content else content[1:],
}


class TestBrokenCheckpoints:
    @pytest.mark.parametrize("damage", sorted(DAMAGES))
    @pytest.mark.parametrize("name", FILES)
    def test_a_damaged_one_is_set_aside_for_the_one_before(self, checkpoints: Path, name: str, damage: str) -> None:
        path = checkpoints / "checkpoint-6" / name
        content = DAMAGES[damage](path.read_bytes())
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        assert find_resumable_checkpoint(checkpoints, world_size=1) == checkpoints / "checkpoint-4"
        assert (checkpoints / "_incomplete-checkpoint-6").is_dir()
        assert not (checkpoints / "checkpoint-6").exists()

    def test_empty_folder_and_wrong_step(self, checkpoints: Path) -> None:
        (checkpoints / "checkpoint-99").mkdir()
        shutil.copytree(checkpoints / "checkpoint-4", checkpoints / "checkpoint-50")
        shutil.rmtree(checkpoints / "checkpoint-6")
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

    def test_a_pickle_in_a_checkpoint_is_not_run(
        self, checkpoints: Path, command: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
    ) -> None:
        canary = tmp_path / "canary"

        class Exploit:
            def __reduce__(self) -> tuple:
                return (Path.touch, (canary,))

        torch.save(Exploit(), checkpoints / "checkpoint-6" / "optimizer.pt")
        identity = RunIdentity.from_json(read_manifest(checkpoints / "checkpoint-6")[IDENTITY])
        complete_checkpoint(checkpoints / "checkpoint-6", 6, identity)
        assert main(command(**{**SAVES, "num_train_epochs": 2}, resume_from_checkpoint="auto")) == 70
        assert "Weights only load failed" in capsys.readouterr().err
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
        assert main(command(**self.options, resume_from_checkpoint="auto")) == 0
        assert_identical_run(whole, tmp_path / "out")


@pytest.mark.parametrize("is_best", [True, False])
@pytest.mark.parametrize("options", [{}, {"streaming": True}, {"weight_averaging": "ema"}], ids=str)
def test_a_training_of_so_many_steps_does_not_go_on_after_the_last(
    command: Callable[..., list[str]], tmp_path: Path, options: dict[str, Any], is_best: bool
) -> None:
    """Its last step lies within an epoch."""
    options = {**SAVES, "num_train_epochs": None, "max_steps": 8, "load_best_model_at_end": is_best, **options}
    assert main(command(**options)) == 0
    whole = shutil.copytree(tmp_path / "out", tmp_path / "whole")
    for name in ("model.safetensors", "config.json"):
        (tmp_path / "out" / name).unlink()
    assert main(command(**options, resume_from_checkpoint="auto")) == 0
    assert_identical_run(whole, tmp_path / "out")


def test_what_a_resumed_run_changes_is_told(
    command: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(command()) == 0
    assert main(command(resume_from_checkpoint="auto", per_device_eval_batch_size=5, num_train_epochs=3)) == 0
    assert "resuming with another num_train_epochs: 2.0 before, 3.0 now" in caplog.text
    assert "resuming with another per_device_eval_batch_size: 64 before, 5 now" in caplog.text


def test_a_checkpoint_of_another_model_is_refused(
    command: Callable, checkpoints: Path, capsys: pytest.CaptureFixture
) -> None:
    options = {**SAVES, "num_train_epochs": 1, "resume_from_checkpoint": "auto"}
    assert main(command(**options, pooling="mean")) == 2
    assert "checkpoint-6 is of another training: pooling was pooler, is mean" in capsys.readouterr().err
