"""No pickle, no foreign code, no secret in a file."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from tests.helpers.reviews import ROOT


SOURCES = sorted([*(ROOT / "bertcls_hf").rglob("*.py"), ROOT / "run_classification.py"])
FORBIDDEN = {
    "torch.load",
    "torch.save",
    "pickle.load",
    "pickle.loads",
    "dill.loads",
    "yaml.unsafe_load",
    "yaml.full_load",
    "eval",
    "exec",
    "os.system",
}
PIN = re.compile(r"^([\w.-]+)==([^\s;]+)", re.MULTILINE)
# Named by the user on the command line, together with --trust_remote_code.
ALLOWED = {("metrics.py", "evaluate.load")}


def calls(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_there_are_sources() -> None:
    assert len(SOURCES) > 60


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_call_runs_data_as_code(path: Path) -> None:
    named = {name for name in calls(path) if name in FORBIDDEN | {"evaluate.load"}}
    assert {(path.name, name) for name in named} <= ALLOWED
    assert "allow_pickle=True" not in path.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_secret_in_the_environment_is_in_no_file_or_log(command: Callable[..., list[str]], tmp_path: Path) -> None:
    canary = "hf_canaryCANARYcanary0123456789"
    environment = {**os.environ, "HF_TOKEN": canary}
    argv = [
        sys.executable,
        str(ROOT / "run_classification.py"),
        *command(num_train_epochs=1, do_train=True, do_predict=True),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert canary not in done.stdout + done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 15
    for path in files:
        assert canary.encode() not in path.read_bytes(), path
        assert path.name != "training_args.bin"


@pytest.mark.slow
def test_code_of_a_model_folder_is_not_run_unasked(tiny_bert: Path, command: Callable, tmp_path: Path) -> None:
    folder, canary = tmp_path / "evil", tmp_path / "canary"
    folder.mkdir()
    for path in tiny_bert.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = (folder / "config.json").read_text().replace('"bert"', '"evil_bert"')
    auto_map = '{\n  "auto_map": {"AutoConfig": "evil.EvilConfig"},'
    (folder / "config.json").write_text(config.replace("{", auto_map, 1))
    (folder / "evil.py").write_text(f"open({str(canary)!r}, 'w').close()\n")
    argv = [sys.executable, str(ROOT / "run_classification.py"), *command(model_name_or_path=folder)]
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "trust_remote_code" in done.stderr.splitlines()[-1]
    assert not canary.exists()


def test_each_pinned_version_has_hashes() -> None:
    pinned = {
        canonicalize_name(name): version for name, version in PIN.findall((ROOT / "constraints.txt").read_text())
    }
    locked = {
        canonicalize_name(name): version for name, version in PIN.findall((ROOT / "requirements.lock").read_text())
    }
    assert len(pinned) > 150
    # The lock also has what other systems need.
    assert pinned.items() <= locked.items()
    entries = re.split(r"^(?=\w)", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)[1:]
    assert len(entries) == len(locked)
    assert not [entry for entry in entries if "--hash=sha256:" not in entry]
