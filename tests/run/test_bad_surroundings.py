"""What a run cannot use ends with one sentence and its exit code, and what it finds damaged it mends."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import psutil
import pytest
from safetensors.torch import load_file, save_file

from bertcls_hf.config import command as commands
from bertcls_hf.run import main
from bertcls_hf.training.checkpoints import step_of
from tests.helpers.warm_processes import ROOT, EntryScript


Command = Callable[..., list[str]]
QUICK = {"num_train_epochs": 1, "lexical_baseline": False, "test_file": None}


def deep_json(folder: Path) -> dict[str, Any]:
    (folder / "deep.jsonl").write_text('{"text": "a", "label": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    return {"train_file": folder / "deep.jsonl"}


def deep_document(folder: Path) -> dict[str, Any]:
    (folder / "deep.json").write_text('[{"text": "a", "label": ' + "[" * 100_000 + "]" * 100_000 + "}]\n")
    return {"train_file": folder / "deep.json"}


def many_digits(folder: Path) -> dict[str, Any]:
    (folder / "digits.jsonl").write_text('{"text": "a", "label": ' + "9" * 5000 + "}\n")
    return {"train_file": folder / "digits.jsonl"}


def pipe(folder: Path) -> dict[str, Any]:
    os.mkfifo(folder / "pipe.csv")
    return {"train_file": folder / "pipe.csv"}


def loop(folder: Path) -> dict[str, Any]:
    (folder / "loop.csv").symlink_to(folder / "loop.csv")
    return {"train_file": folder / "loop.csv"}


def wrong_type(folder: Path) -> dict[str, Any]:
    config = folder / "encoder/config.json"
    config.write_text(config.read_text().replace('"hidden_size": 16', '"hidden_size": "x"'))
    return {"model_name_or_path": config.parent}


def is_nan(folder: Path) -> dict[str, Any]:
    path = folder / "encoder/model.safetensors"
    weights = load_file(path)
    weights["encoder.layer.1.output.dense.weight"][0] = float("nan")
    save_file(weights, path, {"format": "pt"})
    return {"model_name_or_path": path.parent}


def frozen(**options: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: {**is_nan(folder), "boost": True, "learning_rate": None, **options}


KINDS: list[tuple[str | dict[str, Any] | Callable[[Path], dict[str, Any]], int, str]] = [
    (deep_json, 65, "deep.jsonl, line 1: lists or objects are nested too deeply"),
    (deep_document, 65, "deep.json: lists or objects are nested too deeply"),
    (many_digits, 65, "digits.jsonl, line 1: Exceeds the limit"),
    (pipe, 65, "pipe.csv: a pipe or a device"),
    (loop, 65, "loop.csv: no such file or folder"),
    ({"train_file": "~nobody_of_this_name/x.csv"}, 65, "~nobody_of_this_name/x.csv: no such user"),
    ({"train_file": "t\udcff.csv"}, 2, "'t\\udcff.csv' is not UTF-8: rename"),
    ({"output_dir": "o\udcff"}, 2, "'o\\udcff' is not UTF-8: rename"),
    (wrong_type, 2, "--model_name_or_path"),
    (is_nan, 76, "loss is nan"),
    (frozen(), 76, "the encoder's features are not finite"),
    (frozen(head_init="logistic"), 76, "the encoder's features are not finite"),
    (frozen(freeze_backbone=False), 76, "the encoder's features are not finite"),
    (frozen(boost_storage="int8"), 76, "the encoder's features are not finite"),
    ({"warmup_steps": "nan"}, 2, "--warmup_steps nan: must be a finite number"),
    ({"adam_epsilon": "nan"}, 2, "--adam_epsilon nan: must be a finite number"),
    ({"max_grad_norm": "inf"}, 2, "--max_grad_norm inf: must be a finite number"),
    ({"lr_scheduler_type": "cosine_with_min_lr"}, 2, "--lr_scheduler_type cosine_with_min_lr: One of min_lr"),
    ({"optim_args": "bogus=1", "optim": "adamw_8bit"}, 2, "--optim adamw_8bit:"),
    ({"adam_beta1": "2"}, 2, "Invalid beta parameter"),
    ({"accelerator_config": '{"a": 1}'}, 2, "unexpected keyword argument 'a'"),
]


@pytest.mark.parametrize(("change", "code", "message"), KINDS)
def test_one_sentence_and_its_code(
    command: Command,
    tiny_bert: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    change: Any,
    code: int,
    message: str,
) -> None:
    shutil.copytree(tiny_bert, tmp_path / "encoder")
    options = change(tmp_path) if callable(change) else change
    assert main(command(**{**QUICK, **options})) == code
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1]
    assert "Traceback" not in error
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_what_nobody_foresaw_keeps_its_traceback_in_a_file(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(commands.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr("bertcls_hf.data.load.load_data", lambda *args: 1 / 0)
    assert main(command(**QUICK)) == 70
    first, second = capsys.readouterr().err.splitlines()[-2:]
    assert first == "error: while the data was read and tokenized: ZeroDivisionError: division by zero"
    (path,) = tmp_path.glob("bertcls_hf-error-*.txt")
    assert second == f"The traceback is in {path}: please report it with that file."
    assert "in <lambda>" in path.read_text()


def test_a_damaged_datasets_cache_is_mended(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    assert main(command(**QUICK)) == 0
    for pattern, size in (("cache-*.arrow", 1000), ("generator-*.arrow", 0)):
        damaged = list(cache.rglob(pattern))
        assert damaged
        for path in damaged:
            os.truncate(path, size)
        caplog.clear()
        assert main(command(**QUICK)) == 0
        assert all(f"{path} is damaged, and is deleted" in caplog.text for path in damaged)
        caplog.clear()
        assert main(command(**QUICK)) == 0
        assert "is damaged" not in caplog.text


def test_a_cache_that_cannot_be_written_is_told_at_the_start(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file/cache")
    assert main(command(**QUICK)) == 74
    assert "cannot be written (Not a directory): set HF_HOME to a folder that can be" in capsys.readouterr().err


def test_predictions_for_a_spreadsheet(command: Command, reviews: dict[str, Path], tmp_path: Path) -> None:
    reviews["test"].write_text("text,label\n=good film,pos\nbad film,neg\n")
    options = {**QUICK, "test_file": reviews["test"], "do_train": True, "do_predict": True}
    assert main(command(**options, csv_safe=True)) == 2
    assert main(command(**options, csv_safe=True, prediction_format="csv")) == 0
    lines = (tmp_path / "out/predictions.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["text", "'=good film", "bad film"]


def run_script(words: list[str], **options: Any) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run_classification.py"), *words], env=environment, text=True, **options
    )


@pytest.mark.slow
def test_a_closed_or_full_output_does_not_end_a_training(command: Command, tmp_path: Path) -> None:
    words = command(**{**QUICK, "num_train_epochs": 30})
    run = run_script(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stdout is not None
    run.stdout.readline()
    run.stdout.close()
    assert run.stderr is not None
    errors = run.stderr.read()
    assert run.wait(120) == 0, errors
    assert "standard output cannot be written (Broken pipe): the run goes on without it" in errors
    assert (tmp_path / "out/model.safetensors").exists()
    with Path("/dev/full").open("w") as full:
        run = run_script(command(**QUICK, output_dir=tmp_path / "full"), stdout=full, stderr=full)
        assert run.wait(120) == 0
    assert (tmp_path / "full/model.safetensors").exists()


@pytest.mark.slow
def test_a_deleted_working_directory_is_one_sentence(command: Command, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    entry = shlex.join([sys.executable, str(ROOT / "run_classification.py"), *command(**QUICK)])
    script = f"cd {gone}; rmdir {gone}; exec {entry}"
    run = subprocess.run(script, shell=True, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1] == "error: the working directory was deleted: change to another one"


def test_ctrl_c_says_what_is_saved_and_how_to_go_on(command: Command, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    run = EntryScript(command(**{**QUICK, "num_train_epochs": 400, "save_total_limit": 2}), log=log)
    wait_until(lambda: (tmp_path / "out/checkpoint-12/manifest.json").exists())
    os.kill(run.process.pid, signal.SIGINT)
    assert run.wait() == 130
    *_, first, second = log.read_text().splitlines()
    newest = max((tmp_path / "out").glob("checkpoint-*"), key=step_of)
    assert first == f"interrupted: {newest} is saved"
    assert second == "the same command with --resume_from_checkpoint auto goes on from it"
    assert "Traceback" not in log.read_text()


def wait_until(is_true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for the end of the parent")
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.night)])
def test_no_worker_outlives_the_run(command: Command, tmp_path: Path, number: signal.Signals) -> None:
    train = tmp_path / "many.csv"
    rows = (f"good film {'very ' * 20}{row},{('pos', 'neg')[row % 2]}" for row in range(200_000))
    train.write_text("\n".join(["text,label", *rows]) + "\n")
    options = {**QUICK, "train_file": train, "preprocessing_num_workers": 2}
    with (tmp_path / "log.txt").open("w") as log:
        run = run_script(command(**options), stdout=log, stderr=log)
        wait_until(lambda: len(children(run.pid)) >= 3)
        workers = children(run.pid)
        run.send_signal(number)
        assert run.wait(60) == -number
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 20)


def children(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children()]
