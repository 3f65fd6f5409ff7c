"""Columns with the probability of each label: in every kind of source, learned as they are, and refusals."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset

import bertcls_hf
from bertcls_hf.run import main
from bertcls_hf.training.saved_outputs import read_outputs
from tests.helpers.long_texts import texts_of


Command = Callable[..., list[str]]
COLUMNS = ("p_bad", "p_good")
SOFT: dict[str, Any] = {
    "soft_label_columns": ",".join(COLUMNS), "label_names": "neg,pos", "distillation_weight": 1,
    "lexical_baseline": False, "num_train_epochs": 12, "learning_rate": 5e-3,
}  # fmt: skip


@pytest.fixture
def rows(reviews: dict[str, Path]) -> list[dict[str, Any]]:
    """The training reviews with soft labels that agree with their labels, which are left out."""
    share = {"neg": 0.1, "pos": 0.9}
    return [
        {"text": row["text"], "p_bad": round(1 - share[row["label"]], 2), "p_good": share[row["label"]]}
        for row in texts_of(reviews["train"])
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    frame = pd.DataFrame(rows)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    elif path.suffix == ".xlsx":
        frame.to_excel(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        Dataset.from_pandas(frame).save_to_disk(path)
    return path


@pytest.mark.parametrize("name", ["train.csv", "train.jsonl", "train.xlsx", "train.parquet", "saved"])
def test_every_kind_of_file(command: Command, rows: list[dict[str, Any]], tmp_path: Path, name: str) -> None:
    (tmp_path / "soft").mkdir()
    assert main(command(**SOFT, train_file=write(tmp_path / "soft" / name, rows))) == 0
    assert json.loads((tmp_path / "out/test_results.json").read_text())["test_accuracy"] > 0.7
    assert "soft labels (p_bad, p_good): weight 1 in the loss" in (tmp_path / "out/README.md").read_text()


def test_rows_in_memory(rows: list[dict[str, Any]], tiny_bert: Path, tmp_path: Path) -> None:
    bertcls_hf.train(
        train_data=pd.DataFrame(rows), soft_label_columns=list(COLUMNS), model_name_or_path=str(tiny_bert),
        output_dir=str(tmp_path / "out"), num_train_epochs=1, use_cpu=True,
    )  # fmt: skip
    # The labels have the names of the columns.
    assert json.loads((tmp_path / "out/config.json").read_text())["id2label"] == {"0": "p_bad", "1": "p_good"}


@pytest.mark.parametrize("weight", [0.25, 1])
def test_they_are_learned_beside_the_labels(
    command: Command, rows: list[dict[str, Any]], reviews: dict[str, Path], tmp_path: Path, weight: float
) -> None:
    """With all weight on soft labels, those of a label column do not matter; with less, they do."""
    outs = []
    for name, labels in (("right", {}), ("wrong", {"neg": "pos", "pos": "neg"})):
        gold = [labels.get(row["label"], row["label"]) for row in texts_of(reviews["train"])]
        both = [{**row, "label": label} for row, label in zip(rows, gold, strict=True)]
        options = {**SOFT, "distillation_weight": weight, "num_train_epochs": 1, "eval_strategy": "no"}
        outs.append(tmp_path / name)
        train = write(tmp_path / f"{name}.csv", both)
        assert main(command(**options, train_file=train, output_dir=outs[-1])) == 0
    logits = [read_outputs(out / "test_outputs.npz").logits for out in outs]
    assert np.allclose(*logits, atol=1e-5) == (weight == 1)


def test_the_order_of_the_labels_is_the_models(command: Command, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    """A model whose labels are in another order is trained further."""
    first = tmp_path / "first"
    assert main(command(label_names="pos,neg", num_train_epochs=1, output_dir=first)) == 0
    train = write(tmp_path / "soft.csv", rows)
    assert main(command(**SOFT, train_file=train, model_name_or_path=first)) == 0
    assert json.loads((tmp_path / "out/test_results.json").read_text())["test_accuracy"] > 0.7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p_bad": 0.5, "p_good": 0.4}, "row 2: the probabilities of p_bad, p_good have the sum 0.9, and not 1"),
        ({"p_bad": "much", "p_good": 0.4}, "row 2: the column 'p_bad' holds 'much', and no probability"),
        ({"p_bad": 1.5, "p_good": -0.5}, "row 2: the column 'p_bad' holds '1.5', and no probability"),
    ],
)
def test_bad_rows(
    command: Command, rows: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture,
    change: dict[str, Any], message: str,
) -> None:  # fmt: skip
    rows[1] |= change
    assert main(command(**SOFT, train_file=write(tmp_path / "bad.csv", rows))) == 65
    assert message in capsys.readouterr().err


def test_a_column_is_missing(
    command: Command, rows: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    train = write(tmp_path / "soft.csv", rows)
    with train.open(newline="", encoding="utf-8") as file:
        assert next(csv.reader(file)) == ["text", *COLUMNS]
    options = {**SOFT, "soft_label_columns": "p_bad,p_fair", "train_file": train}
    assert main(command(**options)) == 65
    assert "no column 'p_fair', which --soft_label_columns names beside 'p_bad'" in capsys.readouterr().err
    assert main(command(**SOFT)) == 2
    assert "--soft_label_columns p_bad p_good: the training data has none of them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"soft_label_columns": "p"}, "name two columns or more, each once"),
        (
            {"soft_label_columns": "a,b", "text_column_names": "a"},
            "--soft_label_columns a is also one of",
        ),
        ({"soft_label_columns": "a,b", "label_names": "x"}, "names 2 columns, and --label_names 1 labels"),
        ({"soft_label_columns": "a,b", "teacher": "x"}, "both say how probable labels are: give one of them"),
        ({"soft_label_columns": "a,b", "distillation_temperature": 3}, "softens a teacher's logits"),
        ({"soft_label_columns": "a,b", "do_eval": True}, "--soft_label_columns teaches in the epochs of a training"),
    ],
)
def test_refusals(command: Command, capsys: pytest.CaptureFixture, options: dict[str, Any], message: str) -> None:
    assert main(command(**options)) == 2
    assert message in capsys.readouterr().err
