"""A checkpoint goes on with the data, encoder, tokenizer and options that it was trained with, and with no others."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import TrainerState, TrainingArguments

from bertcls_hf.manifests import IDENTITY, read_manifest
from bertcls_hf.run import main
from bertcls_hf.training.checkpoints import complete_checkpoint, is_finished, newest_checkpoint
from bertcls_hf.training.run_identity import RunIdentity
from tests.helpers.training_runs import SAVES, assert_identical_run, run_on_reviews


Command = Callable[..., list[str]]
OPTIONS = {**SAVES, "num_train_epochs": 1, "lexical_baseline": False}
AGAIN = {**OPTIONS, "resume_from_checkpoint": "auto"}


def swap_labels(path: Path) -> None:
    lines = path.read_text().splitlines()
    other = {"pos": "neg", "neg": "pos"}
    rows = (line.rpartition(",") for line in lines[1:])
    path.write_text("\n".join([lines[0], *(f"{text},{other[label]}" for text, _, label in rows)]) + "\n")


@pytest.mark.parametrize("split", ["train", "validation"])
def test_changed_labels_are_refused_also_by_a_finished_run(
    command: Command, reviews: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture, split: str
) -> None:
    assert main(command(**OPTIONS)) == 0
    weights = (tmp_path / "out/model.safetensors").read_bytes()
    swap_labels(reviews[split])
    assert main(command(**AGAIN)) == 2
    name = {"train": "training"}.get(split, split)
    assert f"checkpoint-6 is of another training: the {name} labels differ. Resume with" in capsys.readouterr().err
    assert (tmp_path / "out/model.safetensors").read_bytes() == weights


def test_moved_data_of_equal_content_goes_on(command: Command, reviews: dict[str, Path], tmp_path: Path) -> None:
    assert main(command(**OPTIONS)) == 0
    moved = shutil.move(reviews["train"], tmp_path / "elsewhere.csv")
    assert main(command(**AGAIN, train_file=moved)) == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"learning_rate": 2e-3}, "learning_rate was 0.001, is 0.002"),
        ({"per_device_train_batch_size": 4}, "rows of a step was 8, is 4"),
        ({"seed": 7}, "seed was 42, is 7"),
        ({"dropout": 0.3}, "dropout was 0.1, is 0.3"),
        ({"class_weights": "balanced"}, "class_weights was None, is [1.0, 1.0]"),
        ({"max_seq_length": 32}, "the tokenizer differs"),
        ({"max_train_samples": 40}, "the training texts differ"),
        ({"num_train_epochs": 0.5}, "num_train_epochs was 1.0, is 0.5"),
        ({"label_names": "pos neg"}, "id2label was {'0': 'neg', '1': 'pos'}, is {'0': 'pos', '1': 'neg'}"),
    ],
)
def test_changed_options_are_refused(
    trained: Path, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture, changed: dict, message: str
) -> None:
    shutil.copytree(trained, tmp_path / "out")
    words = command(**{**AGAIN, **{name: value for name, value in changed.items() if name != "label_names"}})
    words += ["--label_names", "pos", "neg"] if "label_names" in changed else []
    assert main(words) == 2
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def trained(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run as `command(**OPTIONS)` makes it."""
    return run_on_reviews(tiny_bert, tmp_path_factory.mktemp("trained"), logging_steps=1, disable_tqdm=True, **OPTIONS)


def test_the_same_command_goes_on(
    trained: Path, command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its files lie elsewhere, and hold the same."""
    shutil.copytree(trained, tmp_path / "out")
    assert main(command(**AGAIN)) == 0
    assert f"resuming from {tmp_path / 'out/checkpoint-6'}" in caplog.text


def test_another_encoder_is_refused(
    tiny_bert: Path, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    encoder = tmp_path / "encoder"
    shutil.copytree(tiny_bert, encoder)
    options = {"boost": True, "model_name_or_path": encoder, "learning_rate": None}
    assert main(command(**OPTIONS, **options)) == 0
    weights = load_file(encoder / "model.safetensors")
    save_file({name: value * 1.01 for name, value in weights.items()}, encoder / "model.safetensors", {"format": "pt"})
    assert main(command(**AGAIN, **options)) == 2
    assert "the encoder differs" in capsys.readouterr().err


def test_an_older_checkpoint_of_the_same_training_is_taken(
    trained: Path, command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The rest of another training lies beside it, with more steps."""
    out = tmp_path / "out"
    shutil.copytree(trained, out)
    for step in (4, 6):
        folder = out / f"checkpoint-{step}"
        saved = read_manifest(folder)[IDENTITY]
        saved["options"]["learning_rate"] = 0.5
        complete_checkpoint(folder, step, RunIdentity.from_json(saved))
    assert main(command(**AGAIN)) == 0
    assert f"checkpoint-6 is of another training (learning_rate was 0.5, is 0.001): resuming from {out}" in caplog.text
    # The test file of the fixture is the only difference.
    shutil.rmtree(tmp_path / "whole", ignore_errors=True)
    assert main(command(**OPTIONS, output_dir=tmp_path / "whole")) == 0
    assert_identical_run(tmp_path / "whole", out)


def test_weights_under_other_names_are_refused(
    trained: Path, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """The manifest vouches for them: whoever renamed them wrote it anew."""
    out = tmp_path / "out"
    shutil.copytree(trained, out)
    path = out / "checkpoint-6/model.safetensors"
    weights = {name.replace("encoder.", "encodes.", 1): value for name, value in load_file(path).items()}
    save_file(weights, path, {"format": "pt"})
    identity = RunIdentity.from_json(read_manifest(path.parent)[IDENTITY])
    complete_checkpoint(path.parent, 6, identity)
    assert main(command(**{**AGAIN, "num_train_epochs": 2})) == 2
    assert "the checkpoint lacks the weights encoder." in capsys.readouterr().err


def test_a_best_checkpoint_that_is_gone_ends_the_run(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """At a rate of zero, no later checkpoint is better than the first."""
    options = {**OPTIONS, "learning_rate": 0.0}
    assert main(command(**options)) == 0
    shutil.rmtree(tmp_path / "out/checkpoint-2")
    (tmp_path / "out/model.safetensors").unlink()
    assert main(command(**{**options, "num_train_epochs": 2, "resume_from_checkpoint": "auto"})) == 74
    assert "checkpoint-2, the best checkpoint, cannot be loaded (no such folder)" in capsys.readouterr().err
    assert not (tmp_path / "out/model.safetensors").exists()


@pytest.mark.parametrize("repeats", [{"seeds": 2}, {"cross_validation": 2}])
def test_repetitions_of_other_data_are_run_again(
    command: Command, reviews: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, repeats: dict
) -> None:
    """They are known by the data and the options of the run, not by their folder alone."""
    assert main(command(**OPTIONS, **repeats)) == 0
    finished = next((tmp_path / "out").glob("*/metrics.json"))
    known = json.loads(finished.read_text())
    caplog.clear()
    assert main(command(**AGAIN, **repeats)) == 0
    assert "training with seed 43" not in caplog.text
    assert "training on 24 rows" not in caplog.text
    known["training"] = "another"
    finished.write_text(json.dumps(known))
    assert main(command(**AGAIN, **repeats)) == 0
    assert json.loads(finished.read_text())["training"] != "another"


def test_a_sweep_of_other_data_is_refused(
    command: Command, reviews: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = {**OPTIONS, "boost": True, "sweep": 1, "learning_rate": None}
    assert main(command(**options)) == 0
    for folder in (tmp_path / "out").glob("checkpoint-*"):
        shutil.rmtree(folder)
    swap_labels(reviews["train"])
    assert main(command(**options, resume_from_checkpoint="auto")) == 2
    assert "is of another training: the training labels differ" in capsys.readouterr().err


def test_validation_data_matter_where_they_choose(
    command: Command, reviews: dict[str, Path], capsys: pytest.CaptureFixture
) -> None:
    blind = {"eval_strategy": "no", "load_best_model_at_end": False}
    assert main(command(**{**OPTIONS, **blind})) == 0
    swap_labels(reviews["validation"])
    assert main(command(**{**AGAIN, **blind})) == 0
    swap_labels(reviews["train"])
    assert main(command(**{**AGAIN, **blind})) == 2
    assert "is of another training: the training labels differ" in capsys.readouterr().err


def test_the_newest_checkpoint_is_the_one_of_most_steps_whose_saving_ended(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    for step, is_whole in ((9, True), (10, True), (11, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if is_whole:
            (folder / "manifest.json").write_text("{}")
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-10"


@pytest.mark.parametrize(
    ("counter", "patience", "is_over"), [(2, 3, False), (3, 3, True), (4, 3, True), (4, -1, False)]
)
def test_early_stopping_is_an_end(tiny_bert: Path, tmp_path: Path, counter: int, patience: int, is_over: bool) -> None:
    state = TrainerState(global_step=6)
    state.stateful_callbacks = {"EarlyStoppingCallback": {"attributes": {"early_stopping_patience_counter": counter}}}
    state.save_to_json(str(tmp_path / "trainer_state.json"))
    args = TrainingArguments(output_dir=str(tmp_path), max_steps=-1)
    args.early_stopping_patience = patience
    assert is_finished(tmp_path, args) == is_over
    args.max_steps = 6
    assert is_finished(tmp_path, args)
    args.max_steps = 7
    assert is_finished(tmp_path, args) == is_over
