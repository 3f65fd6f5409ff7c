"""Runs with --label_descriptions, and runs without a labelled row, which know nothing else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import pipeline

from bertcls_hf.features.regressions import fit_regressions
from bertcls_hf.features.scaling import Scaling, Vectors
from bertcls_hf.predict.predictor import Predictor
from bertcls_hf.run import main
from tests.helpers.reviews import NEGATIVE, POSITIVE, review, write_pairs, write_reviews


Command = Callable[..., list[str]]
# What such a run without labelled rows has by default, and one with rows has not.
WITH_ROWS = {
    "boost": True, "head_init": "logistic", "num_train_epochs": 0, "eval_strategy": "no", "self_training_rounds": None,
    "unlabelled_file": None, "label_names": None, "validation_split_percentage": 0,
}  # fmt: skip
DESCRIPTIONS = [" ".join(NEGATIVE), " ".join(POSITIVE)]
TEXTS = 120


@pytest.fixture
def words(command: Command, tmp_path: Path) -> Command:
    """The options of a run on reviews of which none has a label, and on the names of the labels."""
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": review(1000 + index)[0]}) + "\n" for index in range(TEXTS)))

    def build(descriptions: list[str] | None = DESCRIPTIONS, **options: Any) -> list[str]:
        given: dict[str, Any] = dict.fromkeys(("learning_rate", "train_file", "validation_file"))
        given |= {
            "unlabelled_file": texts, "label_names": "neg,pos", "num_train_epochs": None, "pooling": "mean",
            "self_training_rounds": 0,
        }  # fmt: skip
        described = [] if descriptions is None else ["--label_descriptions", *descriptions]
        return [*command(**{**given, **options}), *described]

    return build


def accuracy(folder: Path) -> float:
    return json.loads((folder / "test_results.json").read_text())["test_accuracy"]


def test_without_labels_the_nearest_description_is_the_label(words: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(words()) == 0
    assert accuracy(out) > 0.6
    # The descriptions are the texts that lie nearest to themselves.
    assert [found.label for found in Predictor.from_pretrained(str(out)).predict(DESCRIPTIONS)] == ["neg", "pos"]
    card = (out / "README.md").read_text()
    assert f"on {TEXTS} texts without labels of texts.jsonl" in card
    assert f"neg: {DESCRIPTIONS[0]}; pos: {DESCRIPTIONS[1]}" in card
    assert f"{TEXTS} texts without labels got that of the nearest label description" in card
    assert not (out / "lexical_baseline.json").exists()
    classify = pipeline("text-classification", str(out), trust_remote_code=True)
    assert [found["label"] for found in classify(DESCRIPTIONS)] == ["neg", "pos"]


def test_without_descriptions_the_names_are_read(words: Command, tmp_path: Path) -> None:
    assert main(words(None, label_names="boring,lovely", test_file=None)) == 0
    predictor = Predictor.from_pretrained(str(tmp_path / "out"))
    assert [found.label for found in predictor.predict(["lovely", "boring"])] == ["lovely", "boring"]


def test_the_labels_of_a_trained_classifier_keep_their_order_and_their_descriptions(
    words: Command, tmp_path: Path
) -> None:
    assert main(words()) == 0
    again = {"model_name_or_path": tmp_path / "out", "label_names": "pos,neg", "output_dir": tmp_path / "again"}
    assert main(words(DESCRIPTIONS[::-1], **again)) == 0
    found = Predictor.from_pretrained(str(tmp_path / "again"))
    assert found.labels.names == ("neg", "pos")
    assert [prediction.label for prediction in found.predict(DESCRIPTIONS)] == ["neg", "pos"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lexical_features": True},
        {"lexical_features": True, "adapt_num_train_epochs": 1},
        {"freeze_backbone": False, "num_train_epochs": 1, "head_num_train_epochs": 1},
        {"truncation_strategy": "windows", "max_seq_length": 8},
        {"seeds": 2},
        {"calibrate": True, "validation_file": "validation.csv"},
    ],
    ids=["alone", "n-grams", "adapted", "LP-FT", "windows", "seeds", "calibrated"],
)
def test_self_training_begins_at_the_descriptions(words: Command, tmp_path: Path, options: dict[str, Any]) -> None:
    if "validation_file" in options:
        options = {**options, "validation_file": tmp_path / options["validation_file"]}
    assert main(words(self_training_rounds=3, **options)) == 0
    assert accuracy(tmp_path / "out") > 0.7
    card = (tmp_path / "out/README.md").read_text()
    assert f"{TEXTS} texts without labels got one in 3 rounds, from 0 labelled rows" in card


def test_the_card_tells_what_the_labels_of_rows_mean(words: Command, tmp_path: Path) -> None:
    assert main(words(**WITH_ROWS, train_file=write_reviews(tmp_path / "few.csv", 12))) == 0
    assert f"neg: {DESCRIPTIONS[0]}" in (tmp_path / "out/README.md").read_text()


def test_few_shots_know_the_descriptions(words: Command, tmp_path: Path) -> None:
    rows = write_reviews(tmp_path / "few.csv", 60)
    options = dict.fromkeys(("self_training_rounds", "unlabelled_file", "label_names"))
    assert main(words(**options, train_file=rows, few_shot=True)) == 0
    assert accuracy(tmp_path / "out") > 0.8


def test_other_descriptions_are_another_training(words: Command, capsys: pytest.CaptureFixture) -> None:
    options = {"self_training_rounds": 1, "num_train_epochs": 2, "head_learning_rate": 1e-3}
    assert main(words(**options)) == 0
    assert main(words(DESCRIPTIONS[::-1], **options, resume_from_checkpoint="true")) != 0
    assert "label_descriptions was" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("descriptions", "options", "code", "message"),
    [
        (DESCRIPTIONS[:1], {}, 2, "--label_descriptions are 1, and the labels 2: give one for each of neg, pos"),
        (["good", " "], {}, 2, "--label_descriptions: one of them is empty"),
        (DESCRIPTIONS, {"label_names": None}, 2, "name the labels with --label_names"),
        (DESCRIPTIONS, {"label_names": "pos"}, 2, "name them with --label_names"),
        (DESCRIPTIONS, {"problem_type": "multi_label_classification"}, 2, "leave out --problem_type"),
        (DESCRIPTIONS, {"head_init": "random", "num_train_epochs": 1}, 2, "add --boost true --head_init logistic"),
        (None, {"head_init": "random", "num_train_epochs": 1}, 2, "add --boost true --head_init logistic"),
        (None, {"few_shot": True}, 2, "--few_shot: there is no labelled training data"),
        (None, {"streaming": True}, 2, "--streaming: there is no labelled training data"),
        (None, {"test_split_percentage": 10}, 2, "--test_split_percentage: there is no labelled training data"),
        (None, {"class_weights": "balanced"}, 2, "--class_weights: there is no labelled training data"),
        (None, {"lexical_features": True}, 2, "there is nothing to learn: add --self_training_rounds"),
        (None, {"num_train_epochs": 1}, 2, "there is nothing to learn: add --self_training_rounds"),
    ],
)
def test_refusals(
    words: Command, capsys: pytest.CaptureFixture, descriptions: list[str] | None, options: dict[str, Any], code: int,
    message: str,
) -> None:  # fmt: skip
    assert main(words(descriptions, **options)) == code
    assert message in capsys.readouterr().err


def test_pairs_are_refused(words: Command, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(words(**WITH_ROWS, train_file=write_pairs(tmp_path / "pairs.csv"), test_file=None)) == 2
    assert "--label_descriptions are for single texts and classes" in capsys.readouterr().err


class TestScaling:
    def vectors(self) -> tuple[np.ndarray, np.ndarray]:
        generator = np.random.default_rng(0)
        rows = generator.normal(size=(50, 8)) * np.geomspace(0.1, 10, 8) + 3
        return rows.astype(np.float32), generator.normal(size=(3, 8)).astype(np.float32) + 3

    def test_the_nearest_description_is_that_of_the_greatest_cosine(self) -> None:
        rows, descriptions = self.vectors()
        found = Scaling.fit(Vectors(rows, descriptions)).nearest().logits(rows)
        centred = torch.from_numpy(rows - rows.mean(axis=0))
        meant = torch.from_numpy(descriptions - descriptions.mean(axis=0))
        cosines = torch.nn.functional.cosine_similarity(centred[:, None], meant[None], dim=-1)
        assert found.argmax(axis=1).tolist() == cosines.argmax(dim=1).tolist()

    @pytest.mark.parametrize("is_described", [False, True])
    def test_a_regression_reads_plain_features_as_it_read_scaled_ones(self, is_described: bool) -> None:
        rows, descriptions = self.vectors()
        scaling = Scaling.fit(Vectors(rows, descriptions if is_described else None))
        gold = np.arange(50) % 3
        [fitted] = fit_regressions(scaling.transform(rows), gold, 3, [0.1])
        of_scaled = fitted.logits(scaling.transform(rows))
        np.testing.assert_allclose(scaling.of_features(fitted).logits(rows), of_scaled, rtol=1e-4, atol=1e-4)

    def test_descriptions_help_few_rows(self) -> None:
        generator = np.random.default_rng(0)
        descriptions = generator.normal(size=(2, 64))
        gold = np.arange(1000) % 2
        rows = descriptions[gold] * 0.3 + generator.normal(size=(1000, 64))
        right = []
        for known in (None, descriptions):
            scaling = Scaling.fit(Vectors(rows[:8], known))
            [fitted] = fit_regressions(scaling.transform(rows[:8]), gold[:8], 2, [0.1])
            found = scaling.of_features(fitted).logits(rows[8:]).argmax(axis=1)
            right.append((found == gold[8:]).mean())
        assert right[1] > right[0] + 0.1
