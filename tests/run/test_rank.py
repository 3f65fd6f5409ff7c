"""`bertcls rank`: each encoder is a run with a closed-form head, compared on the validation rows alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bertcls_hf.run import main
from bertcls_hf.run.rank import main as rank
from tests.helpers.tiny_bert import write_tiny_bert


Command = Callable[..., list[str]]


@pytest.fixture
def encoders(tiny_bert: Path, tmp_path: Path) -> list[str]:
    """The tiny BERT, and one that knows no word of the reviews."""
    return [str(write_tiny_bert(tmp_path / "ignorant", ["zebra"], layers=2)), str(tiny_bert)]


@pytest.fixture
def words(command: Command) -> Command:
    """The options of a training without those that are of another kind of run."""

    def build(**options: Any) -> list[str]:
        left_out = dict.fromkeys(("model_name_or_path", "num_train_epochs", "learning_rate"))
        return command(**{**left_out, **options})

    return build


def test_the_best_comes_first(
    words: Command, encoders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert rank([*encoders, *words()]) == 0
    out = tmp_path / "out"
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert lines[2].startswith("| 2_tiny_bert")
    assert lines[3].startswith("| 1_ignorant")
    figures = json.loads((out / "comparison.json").read_text())
    assert figures["split"] == "validation"
    assert [system["name"] for system in figures["systems"]][:2] == ["2_tiny_bert0", "1_ignorant"]
    assert figures["systems"][0]["cost"]["texts_per_second"] > 0
    assert not list(out.glob("*/test_*"))


def test_an_encoder_is_the_run_of_its_own(words: Command, encoders: list[str], tmp_path: Path) -> None:
    assert rank([*encoders, *words()]) == 0
    alone = {"model_name_or_path": encoders[1], "boost": True, "head_init": "logistic", "num_train_epochs": 0,
             "output_dir": tmp_path / "alone"}  # fmt: skip
    assert main(words(**alone)) == 0
    results = [
        json.loads((folder / "eval_results.json").read_text())["eval_log_loss"]
        for folder in (tmp_path / "alone", tmp_path / "out/2_tiny_bert0")
    ]
    assert results[0] == pytest.approx(results[1])


def test_options_of_the_head(words: Command, encoders: list[str], tmp_path: Path) -> None:
    options = {"head_init": "random", "num_train_epochs": 2, "head": "mlp", "max_train_samples": 20}
    assert rank([*encoders, *words(**options)]) == 0
    assert json.loads((tmp_path / "out/1_ignorant/train_results.json").read_text())["train_samples"] == 20


@pytest.mark.parametrize("named", [[], ["one"], ["one", "one"]])
def test_too_few_encoders(words: Command, capsys: pytest.CaptureFixture, named: list[str]) -> None:
    assert rank([*named, *words()]) == 2
    assert "name two encoders or more, each once" in capsys.readouterr().err
