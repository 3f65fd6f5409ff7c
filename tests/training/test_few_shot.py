"""Runs with --few_shot: cross-validation chooses the encoder, and the head is a logistic regression."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score
from transformers import TrainerControl, TrainerState, TrainingArguments, pipeline

from bertcls_hf.run import main
from bertcls_hf.training.contrastive import (
    KeepBestStep,
    MeanWeights,
    SpreadLabels,
    Tuning,
    losses_of_texts,
    pair_loss,
)
from bertcls_hf.training.few_shot import DESCRIPTION_FILE
from tests.helpers.reviews import review, write_reviews


Command = Callable[..., list[str]]


@pytest.fixture
def words(command: Command, reviews: dict[str, Path], tmp_path: Path) -> Command:
    """The options of a run on 60 reviews without validation data, and without those of another kind of run."""

    def build(**options: Any) -> list[str]:
        given = dict.fromkeys(("num_train_epochs", "learning_rate", "validation_file"))
        given |= {"few_shot": True, "train_file": write_reviews(tmp_path / "few.csv", 60), "lexical_baseline": False}
        return command(**{**given, "contrastive_learning_rate": 1e-2, **options})

    return build


def choice(folder: Path) -> dict[str, Any]:
    return json.loads((folder / DESCRIPTION_FILE).read_text())


def test_the_best_candidate_becomes_an_ordinary_model(words: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(words()) == 0
    found = choice(out)
    assert found["candidates"][0]["behind"] <= 1
    assert min(candidate["behind"] for candidate in found["candidates"]) == 0
    assert {(c["is_tuned"], c["has_ngrams"]) for c in found["candidates"]} == {
        (False, False), (False, True), (True, False), (True, True),
    }  # fmt: skip
    best = found["candidates"][0]
    # Cross-validation sees single tunings, and not what their mean can do.
    assert best["is_tuned"] == any(c["is_tuned"] and c["behind"] <= 1 for c in found["candidates"])
    card = (out / "README.md").read_text()
    assert f"encoder {'tuned on pairs' if best['is_tuned'] else 'as it is'}" in card
    assert f"(the mean of 3 tunings, together in {found['steps']} steps, " in card or not best["is_tuned"]
    results = json.loads((out / "test_results.json").read_text())
    assert results["test_accuracy"] > 0.8
    if not best["has_ngrams"]:
        assert pipeline("text-classification", str(out))("good good film")[0]["label"] == "pos"


def test_tuning_learns(words: Command, tmp_path: Path) -> None:
    # The tiny encoder is random, so that its features say little before it is tuned.
    assert main(words(lexical_features=False, contrastive_max_steps=60)) == 0
    found = choice(tmp_path / "out")
    by_kind = {candidate["is_tuned"]: candidate for candidate in found["candidates"]}
    assert by_kind[True]["log_loss"] < by_kind[False]["log_loss"]
    assert 3 <= found["steps"] <= 3 * 60
    before = load_file(tmp_path / "out/tuned/model.safetensors")
    saved = load_file(tmp_path / "out/model.safetensors")
    name = next(name for name in saved if name.endswith("layer.2.output.dense.weight"))
    assert torch.equal(saved[name], next(value for key, value in before.items() if name.endswith(key)))


@pytest.mark.parametrize(("rows", "tunings", "share"), [(16, 1, 1 / 2), (60, 3, 3 / 4), (100, 4, 2 / 3)])
def test_the_encoder_is_the_mean_of_the_tunings_and_of_the_one_before(
    words: Command,
    tmp_path: Path,
    tiny_bert: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: int,
    tunings: int,
    share: float,
) -> None:
    tuned: list[Tuning] = []
    add = MeanWeights.add

    def recorded(mean: MeanWeights, tuning: Tuning) -> None:
        tuned.append(tuning)
        add(mean, tuning)

    monkeypatch.setattr(MeanWeights, "add", recorded)
    path = write_reviews(tmp_path / "rows.csv", rows)
    assert main(words(train_file=path, contrastive_max_steps=60)) == 0
    found = choice(tmp_path / "out")
    assert found["candidates"][0]["is_tuned"]
    assert (found["tunings"], len(tuned)) == (tunings, tunings)
    assert found["steps"] == sum(tuning.steps for tuning in tuned)
    before, saved = load_file(tiny_bert / "model.safetensors"), load_file(tmp_path / "out/tuned/model.safetensors")
    for name, weight in saved.items():
        full_name = f"encoder.{name}"
        if full_name in tuned[0].weights:
            changed = [tuning.weights[full_name] for tuning in tuned]
            assert not any(torch.equal(one, before[name]) for one in changed)
            torch.testing.assert_close(weight, share * torch.stack(changed).mean(dim=0) + (1 - share) * before[name])
        else:  # Few texts hold few of the tokens.
            assert name == "embeddings.word_embeddings.weight"
            assert torch.equal(weight, before[name])


def test_the_rows_that_tuned_an_encoder_do_not_choose_its_penalty(
    words: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert main(words(contrastive_max_steps=60)) == 0
    best = choice(tmp_path / "out")["candidates"][0]
    assert best["is_tuned"]
    assert f"logistic regression starts the head (C={best['penalty']:g})" in caplog.text
    if best["has_ngrams"]:
        factors = f"counts {best['head_factor']:.2f} times, the lexical features {best['ngram_factor']:.2f} times"
        assert factors in caplog.text
    caplog.clear()
    assert main(words(train_file=write_reviews(tmp_path / "fewer.csv", 16))) == 0
    assert "logistic regression starts the head (C=0.01)" in caplog.text


def test_several_labels_per_text(words: Command, tmp_path: Path) -> None:
    path, out = tmp_path / "several.csv", tmp_path / "out"
    rows = [(*review(number), "|long" if len(review(number)[0]) > 40 else "") for number in range(60)]
    path.write_text("\n".join(["text,label", *(f"{text},{label}{more}" for text, label, more in rows)]) + "\n")
    assert main(words(train_file=path, test_file=path, label_delimiter="|", contrastive_max_steps=40)) == 0
    found = choice(out)
    assert len(found["candidates"]) == 4
    assert min(candidate["behind"] for candidate in found["candidates"]) == 0
    assert json.loads((out / "test_results.json").read_text())["test_macro_f1"] > 0.8


def test_the_same_choice_is_not_made_twice(words: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert main(words()) == 0
    weights = (tmp_path / "out/model.safetensors").read_bytes()
    caplog.clear()
    assert main(words()) == 0
    assert "nothing is tuned" in caplog.text
    assert (tmp_path / "out/model.safetensors").read_bytes() == weights
    caplog.clear()
    assert main(words(contrastive_max_steps=1)) == 0
    assert "nothing is tuned" not in caplog.text


def test_no_steps_leave_the_encoder_as_it_is(words: Command, tmp_path: Path) -> None:
    assert main(words(contrastive_max_steps=0, contrastive_learning_rate=None)) == 0
    assert {candidate["is_tuned"] for candidate in choice(tmp_path / "out")["candidates"]} == {False}


def test_one_text_of_a_label(words: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "three.csv"
    path.write_text("text,label\ngood film,pos\nlovely story,pos\nbad plot,neg\n")
    assert main(words(train_file=path)) == 0
    assert choice(tmp_path / "out")["candidates"] == [
        {
            "is_tuned": False,
            "has_ngrams": False,
            "accuracy": None,
            "log_loss": None,
            "behind": None,
            "penalty": 0.01,
            "head_factor": None,
            "ngram_factor": None,
        }
    ]
    assert "3 rows are too few to compare anything by cross-validation" in caplog.text


def test_fewer_texts_than_cross_validation_can_tell_apart(words: Command, tmp_path: Path) -> None:
    assert main(words(train_file=write_reviews(tmp_path / "fewer.csv", 16))) == 0
    found = choice(tmp_path / "out")
    assert (found["rows"], found["steps"], len(found["candidates"])) == (16, 16, 1)
    assert found["candidates"][0]["is_tuned"]
    assert "alone (in 16 steps, Tunstall et al. 2022); 16 rows are too few" in (tmp_path / "out/README.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"streaming": True, "validation_file": "x.csv"}, "--few_shot reads all texts several times"),
        ({"head_init": "random", "num_train_epochs": 1}, "leave out --boost, --head_init and --freeze_backbone"),
        ({"freeze_backbone": False}, "leave out --boost, --head_init and --freeze_backbone"),
        ({"cross_validation": 2}, "the encoder that --few_shot tunes has seen the rows of every fold"),
        ({"truncation_strategy": "windows"}, "texts in windows have no one vector"),
        ({"few_shot": None}, "--contrastive_learning_rate belong to --few_shot"),
        ({"contrastive_max_steps": -1}, "must be 0 or more"),
        ({"contrastive_learning_rate": 0}, "must be above 0"),
    ],
)
def test_contradictions(words: Command, capsys: pytest.CaptureFixture, options: dict[str, Any], message: str) -> None:
    assert main(words(**options)) == 2
    assert message in capsys.readouterr().err


class TestPairLoss:
    def test_it_is_the_mean_over_both_kinds_of_pairs(self) -> None:
        vectors = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
        labels = torch.tensor([0, 0, 1])
        assert pair_loss(vectors, labels).item() == 0
        # One pair is alike, with a cosine of 0; two are not, with cosines of 0 and 1.
        assert pair_loss(vectors, torch.tensor([0, 1, 0])).item() == pytest.approx((1 + 0.5) / 2)

    def test_shared_labels(self) -> None:
        vectors = torch.eye(2)
        labels = torch.tensor([[1.0, 1, 0], [1, 0, 0]])
        assert pair_loss(vectors, labels).item() == pytest.approx(0.25)
        assert pair_loss(vectors, torch.zeros(2, 3)).item() == 1

    def test_no_pair(self) -> None:
        vectors = torch.ones(1, 2, requires_grad=True)
        pair_loss(vectors, torch.tensor([0])).backward()
        assert vectors.grad is not None
        assert not vectors.grad.any()


class TestLossesOfTexts:
    def test_they_are_the_areas_above_the_roc_curves(self) -> None:
        generator = np.random.default_rng(0)
        vectors, labels = generator.normal(size=(12, 4)).astype(np.float32), np.repeat([0, 1, 2], 4)
        cosines = 1 - cdist(vectors, vectors, "cosine")
        others = [np.delete(np.arange(12), text) for text in range(12)]
        areas = [roc_auc_score(labels[kept] == labels[text], cosines[text, kept]) for text, kept in enumerate(others)]
        assert losses_of_texts(vectors, labels) == pytest.approx(1 - np.array(areas))

    def test_only_the_order_counts(self) -> None:
        labels = np.array([0, 0, 1, 1])
        # The labels are apart, though no pair has a cosine of 0 or below.
        close = np.array([[1.0, 0.1], [1.0, 0.2], [0.2, 1.0], [0.1, 1.0]], dtype=np.float32)
        assert losses_of_texts(close, labels).tolist() == [0, 0, 0, 0]
        assert losses_of_texts(np.ones_like(close), labels).tolist() == [0.5] * 4

    def test_shared_labels(self) -> None:
        labels = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 1]])
        angles = np.array([0, 1, 0.5, 1.75])
        vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
        # Each of the first two is nearer to the third than to the other, which has more of its labels; the second is
        # nearer to the last, too, which has none of them.
        assert losses_of_texts(vectors, labels).tolist() == pytest.approx([1 / 3, 2 / 3, 0, 0])

    @pytest.mark.parametrize("labels", [[0], [0, 0], [0, 1]])
    def test_nothing_to_compare(self, labels: list[int]) -> None:
        vectors = np.ones((len(labels), 2), dtype=np.float32)
        assert losses_of_texts(vectors, np.array(labels)).tolist() == [0] * len(labels)


def test_held_out_pairs_judge_the_averaged_weights() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.zero_()
    best = KeepBestStep(lambda: np.full(4, abs(model.weight.item() - 3.5)), model)
    args, control = TrainingArguments("unused", report_to="none"), TrainerControl()
    state, looks = TrainerState(max_steps=20), []
    while not control.should_training_stop:
        state.global_step += 1
        model.weight.data.fill_(state.global_step)
        best.on_step_end(args, state, control)
        looks.append(model.weight.item())
    # The mean of 0 and the weight of step 8 is nearer to 3.5 than those of steps 4 and 12; two looks later it ends.
    assert (best.best_step, state.global_step) == (8, 16)
    assert looks == list(range(1, 17)), "the training goes on from the tuned weights"
    best.restore()
    assert model.weight.item() == 4


def test_each_stretch_has_its_share_of_every_label() -> None:
    labels = np.repeat([0, 1, 2], [40, 20, 20])
    sampler = SpreadLabels(labels, seed=3)
    orders = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        order = list(sampler)
        assert sorted(order) == list(range(80))
        for start in range(0, 80, 16):
            counts = np.bincount(labels[order[start : start + 16]], minlength=3)
            assert np.abs(counts - [8, 4, 4]).max() <= 1
        orders.append(order)
    assert orders[0] != orders[1]
    sampler.set_epoch(0)
    assert list(sampler) == orders[0]
