"""A finished run can be compared with its manifest, and repeated."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from bertcls_hf.manifests import weights_digest, write_manifest
from bertcls_hf.run import main
from bertcls_hf.run.command import main as bertcls
from bertcls_hf.run.verify import run_files
from bertcls_hf.training.recipe import recipe_text
from tests.helpers.broken_content import turn_last_bit


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
    turn_last_bit(finished / "model.safetensors")
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


@pytest.mark.whole_output
def test_a_bill_of_materials_names_what_the_model_was_made_of(command: Command, tmp_path: Path) -> None:
    assert main(command(**QUICK)) == 0
    out = tmp_path / "out"
    text = (out / "bom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill, manifest = json.loads(text), json.loads((out / "manifest.json").read_text())
    model = bill["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    assert model["hashes"] == [{"alg": "SHA-256", "content": weights_digest(out)}]
    assert {"type": "model-card", "url": "README.md"} in model["externalReferences"]
    parts = {part["bom-ref"]: part for part in bill["components"]}
    assert parts["train data"]["type"] == "data"
    assert parts["train data"]["name"].endswith("train.csv")
    said = {item["name"]: item["value"] for part in parts.values() for item in part.get("properties", [])}
    for name, digest in manifest["training"]["digests"].items():
        assert said[f"bertcls_hf:digest:{name}"] == digest
    assert any(ref.startswith("torch==") for ref in parts)
    assert not any(ref.startswith("pytest-cov") and "pytest_cov" not in sys.modules for ref in parts)
    assert set(next(d for d in bill["dependencies"] if d["ref"] == "model")["dependsOn"]) == parts.keys()
    assert "bom.cdx.json" in manifest["files"]
    # Where an evaluation follows, it still tells of the training.
    options = {"model_name_or_path": out, "train_file": None, "num_train_epochs": None, "learning_rate": None}
    assert main(command(**options, per_device_train_batch_size=None, do_eval=True)) == 0
    assert (out / "bom.cdx.json").read_text() == text


def write_keys(folder: Path, name: str, password: bytes | None = None) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(pem, pkcs8, encryption))
    public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


def test_a_signature_is_of_all_files_and_of_one_key(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    private, public = write_keys(tmp_path, "mine")
    _, other = write_keys(tmp_path, "other")
    (finished / "checkpoint-99").mkdir()
    (finished / "checkpoint-99" / "unsigned.txt").write_text("not a part of the model")
    assert bertcls(["sign", str(finished), "--private_key", str(private)]) == 0
    moved = tmp_path / "moved"
    finished.rename(moved)
    shutil.rmtree(moved / "checkpoint-99")
    capsys.readouterr()
    verify = ["verify", str(moved), "--public_key"]
    assert bertcls([*verify, str(public)]) == 0
    assert capsys.readouterr().out.endswith(f"{moved}: the signature is of these files and of this key\n")
    assert bertcls([*verify, str(other)]) == 65
    assert "is not this key's signature" in capsys.readouterr().err

    (moved / "onnx").mkdir()
    (moved / "onnx" / "model.onnx").write_bytes(b"another model")
    assert bertcls([*verify, str(public)]) == 65
    assert "holds files that are not signed: onnx/model.onnx" in capsys.readouterr().err
    shutil.rmtree(moved / "onnx")

    # Whoever changes a file can write its digest into the manifest, but cannot sign that.
    (moved / "README.md").write_text("Better than all others.")
    manifest = json.loads((moved / "manifest.json").read_text())
    write_manifest(moved, run_files(moved), {name: manifest[name] for name in ("training", "machine")})
    assert bertcls(["verify", str(moved)]) == 0
    assert bertcls([*verify, str(public)]) == 65
    assert "README.md" in capsys.readouterr().err


def test_signing_says_what_is_wrong(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    private, public = write_keys(tmp_path, "locked", password=b"secret")
    sign = ["sign", str(finished), "--private_key"]

    def error(words: list[str], code: int) -> str:
        assert bertcls(words) == code
        return capsys.readouterr().err

    assert "has no model.sig: bertcls sign writes one" in error(
        ["verify", str(finished), "--public_key", str(public)], 2
    )
    assert "BERTCLS_KEY_PASSWORD holds its password" in error([*sign, str(private)], 2)
    monkeypatch.setenv("BERTCLS_KEY_PASSWORD", "wrong")
    assert str(private) in error([*sign, str(private)], 2)
    assert str(tmp_path / "no.pem") in error([*sign, str(tmp_path / "no.pem")], 2)
    monkeypatch.setenv("BERTCLS_KEY_PASSWORD", "secret")
    assert bertcls([*sign, str(private)]) == 0
    assert str(private) in error(["verify", str(finished), "--public_key", str(private)], 2)
    assert bertcls(["verify", str(finished), "--public_key", str(public)]) == 0
    (finished / "model.sig").write_text("{}")
    assert "is not this key's signature" in error(["verify", str(finished), "--public_key", str(public)], 65)
    (finished / "README.md").unlink()
    assert "README.md is missing" in error([*sign, str(private)], 65)
    (finished / "manifest.json").unlink()
    assert "cannot be read" in error([*sign, str(private)], 2)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install -c constraints.txt model-signing pyopenssl" in error([*sign, str(private)], 2)
