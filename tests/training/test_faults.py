"""What goes wrong ends with one message, a documented exit code, and nothing good overwritten."""

import errno
import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from bertcls_hf.models import loading as model_loading
from bertcls_hf.models.modeling import TextClassifier
from bertcls_hf.run import main
from bertcls_hf.training.checkpoints import checkpoint_problem
from bertcls_hf.training.trainer import ClassificationTrainer
from tests.helpers.disks import small_disk
from tests.helpers.training_runs import assert_identical_run


def test_a_diverged_run_stops_and_keeps_its_good_checkpoint(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss turns NaN at step 9, after checkpoints 6 (the end of epoch 1) were saved."""
    steps = 0
    forward = TextClassifier.forward

    @functools.wraps(forward)
    def failing_forward(self: TextClassifier, *args: object, **kwargs: object) -> object:
        nonlocal steps
        steps += self.training
        output = forward(self, *args, **kwargs)
        if self.training and steps >= 9:
            output.loss = output.loss * float("nan")
        return output

    monkeypatch.setattr(TextClassifier, "forward", failing_forward)
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    # Nobody answers there, so that the run cannot know at its start that the token is wrong.
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    options = command(num_train_epochs=3, logging_steps=1, push_to_hub=True)
    assert main(options) == 76
    assert "loss is nan at step 9" in capsys.readouterr().err
    out = tmp_path / "out"
    assert [folder.name for folder in out.glob("checkpoint-*")] == ["checkpoint-6"]
    assert checkpoint_problem(out / "checkpoint-6", 1) is None
    assert not (out / "model.safetensors").exists()
    rows = json.loads((out / "diverged_rows.json").read_text())
    assert rows["step"] == 9
    # The second epoch began at step 7: three steps of 8 rows.
    assert len(rows["rows"]) == 24
    assert set(rows["rows"]) <= set(range(48))


def test_a_huge_learning_rate_diverges_within_a_log_interval(
    command: Callable[..., list[str]], tmp_path: Path
) -> None:
    options = {"learning_rate": 1e36, "num_train_epochs": 4, "logging_steps": 5, "warmup_steps": 0, "max_grad_norm": 0}
    assert main(command(**options)) == 76
    assert json.loads((tmp_path / "out/diverged_rows.json").read_text())["step"] <= 10


def test_a_metric_that_is_nan_is_never_the_best(
    command: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluations = 0
    predict = TextClassifier.forward

    @functools.wraps(predict)
    def forward(self: TextClassifier, *args: object, **kwargs: object) -> object:
        nonlocal evaluations
        output = predict(self, *args, **kwargs)
        if not self.training:
            evaluations += 1
            if evaluations == 2:
                output.logits = torch.full_like(output.logits, float("nan"))
        return output

    monkeypatch.setattr(TextClassifier, "forward", forward)
    assert main(command(num_train_epochs=2, learning_rate=0.0, test_file=None)) == 0
    state = json.loads((tmp_path / "out/trainer_state.json").read_text())
    assert state["best_global_step"] == 6


def test_weights_that_are_not_safetensors_are_refused(
    tiny_bert: Path, command: Callable, tmp_path: Path, capsys
) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tiny_bert / name).read_bytes())
    torch.save({}, folder / "pytorch_model.bin")
    assert main(command(model_name_or_path=folder)) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: --model_name_or_path {folder}")


def test_a_truncated_model_is_one_clear_error(tiny_bert: Path, command: Callable, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "cut"
    folder.mkdir()
    for path in tiny_bert.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    assert main(command(model_name_or_path=folder)) == 2
    assert "--model_name_or_path" in capsys.readouterr().err


def test_no_model_is_loaded_for_an_option_that_the_encoder_lacks(
    command: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def load_classifier(*args: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(model_loading, "load_classifier", load_classifier)
    for options, message in [
        ({"pooling": "mean", "pooling_layers": 9}, "--pooling_layers 9: the encoder has 3 layers"),
        ({"trainable_layers": 7}, "--trainable_layers 7: the encoder has 3 layers"),
        ({"max_seq_length": 65}, "--max_seq_length 65: the model has positions for 64 tokens"),
        ({"loss": "bce"}, "--loss bce: single_label_classification takes cross_entropy or focal"),
        (
            {"metric_for_best_model": "rmse"},
            "--metric_for_best_model rmse: not a metric of single_label_classification",
        ),
    ]:
        assert main(command(**options)) == 2
        assert message in capsys.readouterr().err


def test_a_disk_that_cannot_hold_the_checkpoints_is_refused_before_training(
    command: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(tmp_path, 200) as disk:
        assert main(command(output_dir=disk / "out", save_total_limit=3)) == 74
        error = capsys.readouterr().err
        assert "the model and 4 checkpoints need 0." in error
        assert "MiB free" in error
        assert not list(disk.rglob("checkpoint-*"))


@pytest.mark.slow
@pytest.mark.parametrize("free", [0, 30, 60, 80])
def test_a_disk_that_fills_up_while_saving_leaves_the_checkpoint_before(
    command: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, free: int
) -> None:
    """Weights are 35 KiB, a checkpoint is 150: the disk fills up in its weights, optimizer or later files."""
    options = {"save_strategy": "steps", "save_steps": 4, "eval_strategy": "no", "save_total_limit": 2}
    assert main(command(**options, output_dir=tmp_path / "whole")) == 0
    original = ClassificationTrainer.training_step
    with small_disk(tmp_path, 1000) as disk:
        out, ballast = disk / "out", disk / "ballast"

        def filling_step(self: ClassificationTrainer, *args: object, **kwargs: object) -> object:
            if self.state.global_step == 7:
                ballast.write_bytes(bytes(shutil.disk_usage(disk).free - free * 1024))
            return original(self, *args, **kwargs)

        monkeypatch.setattr(ClassificationTrainer, "training_step", filling_step)
        assert main(command(**options, output_dir=out)) == 74
        assert "the checkpoint of step 8 cannot be written" in capsys.readouterr().err
        assert checkpoint_problem(out / "checkpoint-4", 1) is None
        assert not (out / "model.safetensors").exists()
        monkeypatch.undo()
        ballast.unlink()
        assert main(command(**options, output_dir=out, resume_from_checkpoint="auto")) == 0
        assert_identical_run(tmp_path / "whole", out)


def test_a_disk_that_fails_elsewhere_is_no_checkpoints_error(
    command: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def failing_step(self: ClassificationTrainer, *args: object, **kwargs: object) -> object:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(ClassificationTrainer, "training_step", failing_step)
    assert main(command()) == 74
    assert capsys.readouterr().err.endswith("error: while the model was trained: Input/output error\n")
