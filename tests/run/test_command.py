"""The console command `bertcls`."""

import importlib
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import bertcls_hf
from bertcls_hf.errors import ExitCode
from bertcls_hf.run.command import COMMANDS, main
from tests.helpers.reviews import ROOT


def test_it_is_installed_under_its_name() -> None:
    (script,) = entry_points(group="console_scripts", name="bertcls")
    assert script.load() is main


def test_without_a_command_it_lists_them(capsys: pytest.CaptureFixture) -> None:
    assert main([]) == ExitCode.BAD_ARGUMENTS
    listed = capsys.readouterr().err
    assert main(["--help"]) == ExitCode.DONE
    assert capsys.readouterr().out == listed
    assert all(f"  {name} " in listed for name in COMMANDS)


def test_a_wrong_command_is_one_line(capsys: pytest.CaptureFixture) -> None:
    assert main(["trian"]) == ExitCode.BAD_ARGUMENTS
    commands = (
        "train, adapt, distil, predict, compare, rank, audit, label, verify, sign, features, cascade, export, hub, "
        "demo"
    )
    expected = f"error: unknown command 'trian': use {commands}\n"
    assert capsys.readouterr().err == expected


def test_it_tells_its_version(capsys: pytest.CaptureFixture) -> None:
    assert main(["--version"]) == ExitCode.DONE
    assert capsys.readouterr().out == f"bertcls_hf {bertcls_hf.__version__}\n"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_command_shows_its_help_under_its_name(name: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: bertcls {name}")


def test_the_old_forms_show_their_own_names(capsys: pytest.CaptureFixture) -> None:
    for name in set(COMMANDS) - {"train"}:
        module = COMMANDS[name].module
        with pytest.raises(SystemExit):
            importlib.import_module(module).main(["--help"])
        assert capsys.readouterr().out.startswith(f"usage: python -m {module.removesuffix('.__main__')} ")


def test_a_commands_errors_and_exit_codes_are_its_own(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["train", "--learnin_rate", "1"]) == ExitCode.BAD_ARGUMENTS
    assert "unknown option --learnin_rate; did you mean --learning_rate?" in capsys.readouterr().err
    assert main(["train", "--train_file", str(tmp_path / "none.csv")]) == ExitCode.BAD_DATA
    assert main(["predict", str(tmp_path), "none.csv"]) == ExitCode.BAD_DATA


LAZY = """
import sys
import bertcls_hf
heavy = [name for name in ("torch", "transformers", "datasets", "sklearn") if name in sys.modules]
assert not heavy, heavy
assert set(bertcls_hf.__all__) <= set(dir(bertcls_hf))
for name in bertcls_hf.__all__:
    getattr(bertcls_hf, name)
from bertcls_hf import Predictor, train
assert callable(train) and train.__module__ == "bertcls_hf.run.api", train
assert not hasattr(bertcls_hf, "nothing")
"""


def test_the_front_door_is_lazy_and_offers_what_it_names() -> None:
    done = subprocess.run([sys.executable, "-c", LAZY], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_what_nobody_foresaw_is_no_traceback(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    def fail(words: object) -> None:
        raise RuntimeError("on fire")

    monkeypatch.setattr("bertcls_hf.config.command.check_surroundings", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main([name, "list"]) == ExitCode.UNFORESEEN
    error = capsys.readouterr().err
    assert error.startswith("error: at the start: RuntimeError: on fire\n")
    assert "Traceback" not in error
    (report,) = tmp_path.glob("bertcls_hf-error-*.txt")
    assert "Traceback" in report.read_text()
