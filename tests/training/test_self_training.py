"""Runs with --self_training_rounds: texts without labels get one, and are learned from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bertcls_hf.run import main
from bertcls_hf.training.self_training import DESCRIPTION_FILE
from tests.helpers.reviews import review, write_reviews


Command = Callable[..., list[str]]
LABELLED, TEXTS = 12, 120


@pytest.fixture
def words(command: Command, tmp_path: Path) -> Command:
    """The options of a run on a few labelled reviews and many without labels."""
    texts = tmp_path / "unlabelled.jsonl"
    texts.write_text("".join(json.dumps({"text": review(1000 + index)[0]}) + "\n" for index in range(TEXTS)))

    def build(**options: Any) -> list[str]:
        given: dict[str, Any] = dict.fromkeys(("learning_rate", "validation_file"))
        given |= {
            "train_file": write_reviews(tmp_path / "few.csv", LABELLED), "unlabelled_file": texts, "boost": True,
            "self_training_rounds": 3, "head_init": "logistic", "num_train_epochs": 0, "lexical_features": True,
            "validation_split_percentage": 0, "eval_strategy": "no",
        }  # fmt: skip
        return command(**{**given, **options})

    return build


def accuracy(folder: Path) -> float:
    return json.loads((folder / "test_results.json").read_text())["test_accuracy"]


def test_texts_without_labels_teach(words: Command, tmp_path: Path) -> None:
    assert main(words()) == 0
    alone = {"self_training_rounds": None, "unlabelled_file": None, "output_dir": tmp_path / "alone"}
    assert main(words(**alone)) == 0
    assert accuracy(tmp_path / "out") >= accuracy(tmp_path / "alone")
    assert accuracy(tmp_path / "out") > 0.9
    found = json.loads((tmp_path / "out" / DESCRIPTION_FILE).read_text())
    assert (found["labelled"], found["texts"], found["rounds"], len(found["agreement"])) == (LABELLED, TEXTS, 3, 3)
    assert sum(found["shares"].values()) == pytest.approx(1, abs=1e-3)
    card = (tmp_path / "out/README.md").read_text()
    assert f"{TEXTS} texts without labels got one in 3 rounds, from {LABELLED} labelled rows" in card
    # The bag of words, with which the model is compared, learns from what a person labelled alone.
    assert json.loads((tmp_path / "out/lexical_baseline.json").read_text())["train_rows"] == LABELLED


def test_the_last_round_labels_as_the_shares_of_the_labelled_rows(words: Command, tmp_path: Path) -> None:
    assert main(words()) == 0
    shares = json.loads((tmp_path / "out" / DESCRIPTION_FILE).read_text())["shares"]
    assert shares["pos"] == pytest.approx(0.5, abs=0.15)


def test_texts_of_other_splits_are_left_out(words: Command, tmp_path: Path) -> None:
    path = tmp_path / "some.csv"
    rows = [review(200)[0], review(0)[0], review(5000)[0]]  # of the test data, of the training data, and a new one
    path.write_text("text\n" + "".join(f"{row}\n" for row in rows))
    assert main(words(unlabelled_file=path)) == 0
    assert json.loads((tmp_path / "out" / DESCRIPTION_FILE).read_text())["texts"] == 1


@pytest.mark.parametrize(
    "options",
    [
        {"few_shot": True, "boost": None, "head_init": None, "num_train_epochs": None, "lexical_features": None,
         "validation_split_percentage": None, "eval_strategy": None},
        {"lexical_features": False},
        {"freeze_backbone": False, "num_train_epochs": 1, "head_num_train_epochs": 1, "head_init": "random"},
        {"truncation_strategy": "head_tail", "max_seq_length": 8},
        {"truncation_strategy": "windows", "max_seq_length": 8},
    ],
    ids=["few shots", "no n-grams in the model", "LP-FT", "head and tail", "windows"],
)  # fmt: skip
def test_pairs_of_options(words: Command, tmp_path: Path, options: dict[str, Any]) -> None:
    assert main(words(**options)) == 0
    assert accuracy(tmp_path / "out") > 0.5


def test_the_same_run_is_the_same_model(words: Command, tmp_path: Path) -> None:
    assert main(words()) == 0
    assert main(words(output_dir=tmp_path / "again")) == 0
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("out", "again"))
    assert one == other


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ({"unlabelled_file": None}, 2, "labels the texts of --unlabelled_file, which is not given"),
        ({"boost": None, "head_init": None, "num_train_epochs": 1}, 2, "for a training with --boost"),
        ({"cross_validation": 2}, 2, "know nothing of: give one of them"),
        ({"self_training_rounds": 0}, 2, "--unlabelled_file is for"),
        ({"unlabelled_file": "few.csv"}, 65, "few.csv: all of its texts are labelled already"),
        ({"self_training_rounds": -1}, 2, "must be 0 or more"),
    ],
)
def test_refusals(
    words: Command, tmp_path: Path, capsys: pytest.CaptureFixture, options: dict[str, Any], code: int, message: str
) -> None:
    if options.get("unlabelled_file"):
        options = {"unlabelled_file": tmp_path / options["unlabelled_file"]}
    assert main(words(**options)) == code
    assert message in capsys.readouterr().err
