"""The frame of the commands: arguments in, exit codes and one line of error out."""

import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from bertcls_hf.config.command import enter_phase, run_command, set_up_logging
from bertcls_hf.errors import DataError, ExitCode


def test_a_command_gets_its_words() -> None:
    received: list[Sequence[str]] = []
    assert run_command(received.append, ["model", "--top_k", "2"]) == ExitCode.DONE
    assert received == [["model", "--top_k", "2"]]


def test_without_words_it_gets_those_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["program", "model"])
    received: list[Sequence[str]] = []
    run_command(received.append, None)
    run_command(received.append, [])
    assert received == [["model"], []]


def test_an_error_of_the_run_is_one_line_and_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(argv: Sequence[str]) -> None:
        raise DataError("row 3: no label")

    assert run_command(fail, []) == ExitCode.BAD_DATA
    assert capsys.readouterr() == ("", "error: row 3: no label\n")


def test_other_errors_keep_their_traceback_in_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))

    def fail(argv: Sequence[str]) -> None:
        enter_phase("while it was tried")
        raise KeyError("a bug")

    assert run_command(fail, []) == ExitCode.UNFORESEEN
    (path,) = tmp_path.iterdir()
    assert capsys.readouterr().err == (
        f"error: while it was tried: KeyError: 'a bug'\nThe traceback is in {path}: please report it with that file.\n"
    )
    assert path.read_text().endswith("KeyError: 'a bug'\n")


def test_an_interrupt_is_a_line_and_130(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(argv: Sequence[str]) -> None:
        raise KeyboardInterrupt

    assert run_command(fail, []) == ExitCode.INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"


def test_messages_of_the_package_are_logged() -> None:
    set_up_logging()
    assert logging.getLogger("bertcls_hf.anything").isEnabledFor(logging.INFO)
