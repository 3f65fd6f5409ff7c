"""Cross-validation: each fold is the run without its rows, and the summary is over all rows."""

import csv
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL, LabelSet
from bertcls_hf.data.load import ClassificationData
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.run import main
from bertcls_hf.training.cross_validation import held_out_rows
from bertcls_hf.training.repetitions import FINISHED_FILE
from bertcls_hf.training.saved_outputs import read_outputs


Command = Callable[..., list[str]]
BOOSTED = {"boost": True, "learning_rate": None}
MODES: dict[str, dict[str, Any]] = {
    "fine-tuned": {},
    "boost": BOOSTED,
    "closed form": {**BOOSTED, "head_init": "logistic", "num_train_epochs": 0},
    "LP-FT": {"boost": True, "freeze_backbone": False, "head_num_train_epochs": 1},
    "lexical": {"lexical_features": True, **BOOSTED},
    "lexical, fine-tuned": {"lexical_features": True},
    "windows": {"truncation_strategy": "windows", "max_seq_length": 8, **BOOSTED},
    "averaged": {"weight_averaging": "ema"},
}


def write_csv(path: Path, rows: list[list[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def results(folder: Path) -> dict[str, float]:
    return json.loads((folder / "all_results.json").read_text())


@pytest.mark.parametrize("mode", MODES)
def test_a_fold_is_the_run_without_its_rows(
    command: Command, reviews: dict[str, Path], tmp_path: Path, mode: str
) -> None:
    options = {"num_train_epochs": 1, "lexical_baseline": False, **MODES[mode]}
    assert main(command(**options, cross_validation=3)) == 0
    folds = [read_outputs(tmp_path / f"out/fold-{number}-of-3/test_outputs.npz") for number in (1, 2, 3)]
    with reviews["train"].open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    assert sum(len(fold.gold) for fold in folds) == len(rows)
    columns = {"text": [text for text, _ in rows], "label": [int(label == "pos") for _, label in rows]}
    data = ClassificationData(LabelSet(SINGLE_LABEL, ("neg", "pos")), {"train": Dataset.from_dict(columns)})
    held = held_out_rows(data, 3, seed=42)[1]
    kept = [row for number, row in enumerate(rows) if number not in held]
    files = {
        "train_file": write_csv(tmp_path / "kept.csv", [header, *kept]),
        "test_file": write_csv(tmp_path / "held.csv", [header, *(rows[number] for number in held)]),
    }
    alone = tmp_path / "alone"
    assert main(command(**options, **files, output_dir=alone)) == 0
    np.testing.assert_allclose(read_outputs(alone / "test_outputs.npz").logits, folds[1].logits, atol=1e-5)
    summary = json.loads((tmp_path / "out/cross_validation.json").read_text())
    figures = summary["metrics"]["log_loss"]
    assert figures["values"][1] == pytest.approx(results(alone)["test_log_loss"], rel=1e-5)
    assert figures["mean"] == pytest.approx(statistics.mean(figures["values"]))


def test_all_rows_together(command: Command, tmp_path: Path) -> None:
    assert main(command(num_train_epochs=1, cross_validation=4)) == 0
    out = tmp_path / "out"
    summary = json.loads((out / "cross_validation.json").read_text())
    folds = [read_outputs(out / f"fold-{number}-of-4/test_outputs.npz") for number in range(1, 5)]
    logits, gold = np.concatenate([fold.logits for fold in folds]), np.concatenate([fold.gold for fold in folds])
    assert (summary["folds"], summary["rows"]) == (4, 48)
    assert summary["all_rows"]["accuracy"] == pytest.approx((logits.argmax(axis=1) == gold).mean())
    baseline = np.concatenate([fold.baseline_logits for fold in folds])
    compared = summary["lexical_baseline"]
    assert compared["metrics"]["accuracy"] == pytest.approx((baseline.argmax(axis=1) == gold).mean())
    difference = compared["comparison"]["differences"]["accuracy"]["value"]
    assert difference == pytest.approx(summary["all_rows"]["accuracy"] - compared["metrics"]["accuracy"])
    card = (out / "README.md").read_text()
    assert "| metric | mean ± standard deviation of 4 folds | all 48 rows | lexical baseline | difference |" in card
    assert f"{summary['metrics']['accuracy']['mean']:.4f} ± " in card


def test_the_saved_model_is_that_of_all_rows(command: Command, tmp_path: Path) -> None:
    assert main(command(num_train_epochs=1, output_dir=tmp_path / "plain")) == 0
    assert main(command(num_train_epochs=1, cross_validation=2)) == 0
    plain, out = tmp_path / "plain", tmp_path / "out"
    assert (out / "model.safetensors").read_bytes() == (plain / "model.safetensors").read_bytes()
    assert not list(out.glob("fold-*/**/*.safetensors"))


def test_a_resumed_run_repeats_no_finished_fold(
    command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(command(num_train_epochs=1, cross_validation=3)) == 0
    out = tmp_path / "out"
    before = (out / "cross_validation.json").read_text()
    (out / "fold-2-of-3" / FINISHED_FILE).unlink()
    (out / "cross_validation.json").unlink()
    caplog.clear()
    assert main(command(num_train_epochs=1, cross_validation=3, resume_from_checkpoint="auto")) == 0
    started = [record.args[0] for record in caplog.records if record.msg.startswith("%s: training on")]
    assert started == ["fold-2-of-3"]
    assert (out / "cross_validation.json").read_text() == before


class TestFolds:
    @pytest.mark.parametrize(
        ("task", "labels"),
        [
            (SINGLE_LABEL, [0, 0, 0, 1] * 10),
            (REGRESSION, [0.5, 1.5] * 20),
            (MULTI_LABEL, [[0.0, 1.0], [1.0, 1.0]] * 20),
        ],
    )
    def test_a_text_is_on_one_side(self, task: Any, labels: list[Any]) -> None:
        rows = {"text": [f"text {number % 30}" for number in range(40)], "label": labels}
        data = ClassificationData(LabelSet(task, ("a", "b")), {"train": Dataset.from_dict(rows)})
        folds = held_out_rows(data, 5, seed=0)
        assert sorted(np.concatenate(folds).tolist()) == list(range(40))
        texts = np.array(rows["text"])
        for held in folds:
            assert not set(texts[held]) & set(np.delete(texts, held))
            if task == SINGLE_LABEL:
                assert 1 <= np.asarray(labels)[held].sum() <= 3
        assert [held.tolist() for held in held_out_rows(data, 5, seed=0)] == [held.tolist() for held in folds]

    def test_too_few_texts(self) -> None:
        rows = {"text": ["a", "a", "b"], "label": [0, 1, 1]}
        data = ClassificationData(LabelSet(SINGLE_LABEL, ("a", "b")), {"train": Dataset.from_dict(rows)})
        with pytest.raises(ArgumentsError, match="--cross_validation 3: there are fewer different training texts"):
            held_out_rows(data, 3, seed=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cross_validation": 1}, "--cross_validation 1: must be 2 or more, or 0 for off"),
        ({"cross_validation": 2, "do_eval": True}, "--cross_validation repeats the training, and nothing is trained"),
        ({"cross_validation": 2, "seeds": 2}, "--cross_validation and --seeds both repeat the training"),
        ({"cross_validation": 2, "streaming": True, "max_steps": 2}, "--cross_validation chooses among all rows"),
        (
            {"cross_validation": 30},
            "--cross_validation 30: there are fewer different training texts",
        ),
    ],
)
def test_refusals(command: Command, capsys: pytest.CaptureFixture, options: dict[str, Any], message: str) -> None:
    assert main(command(**options)) == 2
    assert message in capsys.readouterr().err
