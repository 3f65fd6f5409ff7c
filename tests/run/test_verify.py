"""A finished run can be compared with its manifest, and repeated."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bertcls_hf.manifests import write_manifest
from bertcls_hf.run import main
from bertcls_hf.run.command import main as bertcls
from bertcls_hf.run.verify import run_files
from bertcls_hf.training.recipe import recipe_text


Command = Callable[..., list[str]]
QUICK = {"num_train_epochs": 1, "lexical_baseline": False}


@pytest.fixture
def finished(command: Command, tmp_path: Path) -> Path:
    assert main(command(**QUICK, calibrate=True)) == 0
    return tmp_path / "out"


def test_a_finished_run_is_as_it_was_left(finished: Path, capsys: pytest.CaptureFixture) -> None:
    manifest = json.loads((finished / "manifest.json").read_text())
    assert {"model.safetensors", "config.json", "recipe.yaml", "README.md", "calibration.json"} <= manifest[
        "files"
    ].keys()
    assert not [name for name in manifest["files"] if "checkpoint" in name or "lock" in name]
    assert {"training texts", "training labels", "encoder", "tokenizer"} <= manifest["training"]["digests"].keys()
    assert manifest["machine"]["versions"]["torch"]
    capsys.readouterr()
    assert bertcls(["verify", str(finished)]) == 0
    assert capsys.readouterr().out == f"{finished}: {len(manifest['files'])} files are as the run left them\n"


def test_what_was_changed_since_is_named(finished: Path, capsys: pytest.CaptureFixture) -> None:
    (finished / "calibration.json").unlink()
    with (finished / "README.md").open("a") as file:
        file.write("Better than all others.\n")
    weights = bytearray((finished / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (finished / "model.safetensors").write_bytes(weights)
    assert bertcls(["verify", str(finished)]) == 65
    error = capsys.readouterr().err
    assert "calibration.json is missing" in error
    assert "README.md has" in error
    assert "model.safetensors has another content than was saved" in error


@pytest.mark.parametrize("content", [None, "", "[]", '{"version": 99}', '{"version": 1, "files": {"a": 5}}'])
def test_a_folder_without_a_manifest_is_refused(
    finished: Path, capsys: pytest.CaptureFixture, content: str | None
) -> None:
    path = finished / "manifest.json"
    path.unlink() if content is None else path.write_text(content)
    assert bertcls(["verify", str(finished)]) == 2
    assert f"{path} cannot be read" in capsys.readouterr().err


def test_a_repeated_run_has_the_same_bits(finished: Path, capsys: pytest.CaptureFixture) -> None:
    capsys.readouterr()
    assert bertcls(["verify", str(finished), "--retrain"]) == 0
    assert "ends with the same weights, bit for bit, and all of its" in capsys.readouterr().out.splitlines()[-1]


def test_other_data_and_other_weights_are_told(
    finished: Path, reviews: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    kept = tmp_path / "kept.csv"
    shutil.copy(reviews["train"], kept)
    reviews["train"].write_text(reviews["train"].read_text().replace("good", "great"))
    assert bertcls(["verify", str(finished), "--retrain"]) == 65
    assert "cannot be repeated: other than in its run are now: training texts" in capsys.readouterr().err
    shutil.copy(kept, reviews["train"])
    manifest = json.loads((finished / "manifest.json").read_text())
    manifest["machine"]["versions"]["torch"] = "1.0"
    recipe = {**manifest["training"]["recipe"], "seed": 7}
    (finished / "recipe.yaml").write_text(recipe_text(recipe))
    write_manifest(finished, run_files(finished), {name: manifest[name] for name in ("training", "machine")})
    assert bertcls(["verify", str(finished), "--retrain"]) == 65
    error = capsys.readouterr().err
    assert "ends with other weights (largest difference" in error
    assert "The machine differs: torch 1.0 and" in error


def test_an_evaluation_in_its_folder_keeps_what_the_training_was(finished: Path, command: Command) -> None:
    before = json.loads((finished / "manifest.json").read_text())
    options = {"model_name_or_path": finished, "train_file": None, "validation_file": None, "num_train_epochs": None}
    options |= {"per_device_train_batch_size": None, "learning_rate": None, "do_predict": True}
    assert main(command(**options)) == 0
    after = json.loads((finished / "manifest.json").read_text())
    assert after["training"] == before["training"]
    assert after["files"].keys() - before["files"].keys() == {"predictions.jsonl"}
    assert bertcls(["verify", str(finished)]) == 0


def test_the_next_model_has_its_own_manifest(finished: Path, command: Command) -> None:
    assert main(command(**QUICK, seed=7)) == 0
    assert bertcls(["verify", str(finished)]) == 0
    assert "calibration.json" not in json.loads((finished / "manifest.json").read_text())["files"]
