"""Heads that the cache makes cheap: the logistic start, and LP-FT."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from transformers import BertConfig

from bertcls_hf.features.dataset import FeatureDataset
from bertcls_hf.features.logistic_head import init_head_by_logistic_regression
from bertcls_hf.models.modeling import TextClassifier, TextClassifierConfig
from bertcls_hf.run import main
from tests.helpers.reviews import review


def features_of(labels: int, rows: int = 200) -> FeatureDataset:
    """Features whose scales differ by column and whose label is a noisy argmax."""
    generator = np.random.default_rng(0)
    values = generator.normal(size=(rows, 16)) * np.geomspace(0.01, 100, 16) + 3
    gold = (
        values[:, -labels:] / np.geomspace(0.01, 100, 16)[-labels:] + generator.normal(size=(rows, labels))
    ).argmax(1)
    config = TextClassifierConfig(encoder_config=BertConfig(hidden_size=16))
    return FeatureDataset([[values.astype(np.float32)]], np.arange(rows), torch.from_numpy(gold), config)


def small_model(labels: int, problem_type: str = "single_label_classification") -> TextClassifier:
    encoder = BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    names = {index: str(index) for index in range(labels)}
    config = TextClassifierConfig(encoder_config=encoder, pooling="mean", id2label=names, problem_type=problem_type)
    return TextClassifier(config).eval()


@pytest.mark.parametrize("labels", [2, 3])
def test_the_head_gives_scikit_learns_probabilities(labels: int) -> None:
    train, model = features_of(labels), small_model(labels)
    init_head_by_logistic_regression(model, train, None, seed=0)
    batch = train.__getitems__(range(len(train)))
    scaler = StandardScaler().fit(batch["features"].numpy())
    regression = LogisticRegression(C=0.1, max_iter=200).fit(
        scaler.transform(batch["features"].numpy()), batch["labels"]
    )
    expected = regression.predict_proba(scaler.transform(batch["features"].numpy()))
    with torch.no_grad():
        scores = model(features=batch["features"]).logits.softmax(-1).numpy()
    np.testing.assert_allclose(scores, expected, atol=2e-3)


def test_class_weights_weigh_the_rows(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    train, plain, weighed = features_of(2), small_model(2), small_model(2)
    weighed.config.class_weights = [0.2, 5.0]
    for model in (plain, weighed):
        init_head_by_logistic_regression(model, train, None, seed=0)
    told = [record.getMessage() for record in caplog.records if "starts the head" in record.getMessage()]
    assert ["rows weighed by --class_weights" in line for line in told] == [False, True]
    batch = train.__getitems__(range(len(train)))
    scaled = StandardScaler().fit_transform(batch["features"].double().numpy())
    weights = np.array([0.2, 5.0])[batch["labels"].numpy()]
    regression = LogisticRegression(C=0.1, max_iter=200).fit(scaled, batch["labels"], sample_weight=weights)
    with torch.no_grad():
        scores = [model(features=batch["features"]).logits.softmax(-1).numpy() for model in (plain, weighed)]
    np.testing.assert_allclose(scores[1], regression.predict_proba(scaled), atol=2e-3)
    assert (scores[1].argmax(1) == 1).sum() > (scores[0].argmax(1) == 1).sum()


@pytest.mark.parametrize("class_weights", [None, [3.0, 1.0, 0.5]])
def test_several_labels_per_text_have_a_regression_each(class_weights: list[float] | None) -> None:
    plain, model = features_of(3), small_model(3, "multi_label_classification")
    model.config.class_weights = class_weights
    generator = np.random.default_rng(1)
    gold = (np.eye(3)[plain.labels] + (generator.random((200, 3)) > 0.8) > 0).astype(np.float32)
    gold[:, 2] = 0
    train = FeatureDataset(plain.parts, np.arange(200), torch.from_numpy(gold), plain.config)
    init_head_by_logistic_regression(model, train, None, seed=0)
    batch = train.__getitems__(range(200))
    scaled = StandardScaler().fit_transform(batch["features"].double().numpy())
    with torch.no_grad():
        found = model(features=batch["features"]).logits.sigmoid().numpy()
    penalties, fits = (0.001, 0.01, 0.1, 1.0), []
    for penalty in penalties:
        expected = []
        for label in range(2):
            weights = np.where(gold[:, label] > 0, class_weights[label], 1) if class_weights else None
            regression = LogisticRegression(C=penalty, max_iter=500).fit(scaled, gold[:, label], sample_weight=weights)
            expected.append(regression.predict_proba(scaled)[:, 1])
        fits.append(np.abs(found[:, :2] - np.stack(expected, axis=1)).max())
    # All labels have the penalty that cross-validation chooses.
    assert min(fits) < 2e-3
    assert found[:, 2].max() < 0.01


@pytest.mark.parametrize(
    ("options", "named"), [({"loss": "focal"}, "--loss focal"), ({"label_smoothing_factor": 0.1}, "--label_smoothing")]
)
def test_a_loss_that_the_regression_does_not_fit_is_refused(
    command: Callable[..., list[str]], capsys: pytest.CaptureFixture, options: dict, named: str
) -> None:
    boost = {"boost": True, "head_init": "logistic", "learning_rate": None, **options}
    assert main(command(**boost, num_train_epochs=0, eval_strategy="no")) == 2
    assert f"{named}" in capsys.readouterr().err
    # As the start of a training it is only where the training begins.
    assert main(command(**boost, num_train_epochs=1)) == 0


def test_a_label_without_training_rows_is_never_chosen() -> None:
    train, model = features_of(2), small_model(3)
    init_head_by_logistic_regression(model, train, None, seed=0)
    with torch.no_grad():
        scores = model(features=train.__getitems__(range(200))["features"]).logits.softmax(-1)
    assert scores[:, 2].max() < 1e-4


def test_a_logistic_start_alone_makes_a_model(command: Callable[..., list[str]], tmp_path: Path) -> None:
    options = {"boost": True, "head_init": "logistic", "num_train_epochs": 0, "learning_rate": None}
    assert main(command(**options)) == 0
    assert json.loads((tmp_path / "out/test_results.json").read_text())["test_accuracy"] > 0.8


def test_a_logistic_start_for_several_labels(command: Callable[..., list[str]], tmp_path: Path) -> None:
    texts = {"train": 60, "validation": 30}
    for split, rows in texts.items():
        lines = [
            f"{review(row)[0]},{review(row)[1]}{'|long' if len(review(row)[0]) > 40 else ''}" for row in range(rows)
        ]
        (tmp_path / f"{split}.csv").write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")
    options = {"boost": True, "head_init": "logistic", "num_train_epochs": 0, "learning_rate": None, "test_file": None}
    files = {f"{split}_file": tmp_path / f"{split}.csv" for split in texts}
    assert main(command(**options, **files, label_delimiter="|", lexical_features=True)) == 0
    results = json.loads((tmp_path / "out/eval_results.json").read_text())
    assert results["eval_macro_f1"] > 0.8


def test_head_then_all(command: Callable[..., list[str]], tmp_path: Path, tiny_bert: Path) -> None:
    options = {"boost": True, "freeze_backbone": False, "head_learning_rate": 0.02, "head_num_train_epochs": 8}
    assert main(command(**options, learning_rate=1e-4)) == 0
    out = tmp_path / "out"
    head = json.loads((out / "head/trainer_state.json").read_text())
    whole = json.loads((out / "trainer_state.json").read_text())
    assert head["max_steps"] == 48
    assert whole["max_steps"] == 12
    # Fine-tuning starts from the trained head, at its own rate for all.
    assert whole["log_history"][0]["loss"] < head["log_history"][0]["loss"]
    assert all(
        line["learning_rate_head"] == pytest.approx(line["learning_rate"])
        for line in whole["log_history"]
        if "learning_rate" in line
    )
    before, after = load_file(tiny_bert / "model.safetensors"), load_file(out / "model.safetensors")
    assert not torch.equal(
        before["encoder.layer.0.output.dense.weight"], after["bert.encoder.layer.0.output.dense.weight"]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head_init": "logistic"}, "--head_init logistic reads cached features: it needs --boost"),
        ({"boost": True, "head_init": "logistic", "head": "mlp", "learning_rate": None}, "needs a linear head"),
    ],
)
def test_wrong_starts_are_refused(
    command: Callable, capsys: pytest.CaptureFixture, options: dict, message: str
) -> None:
    assert main(command(**options)) == 2
    assert message in capsys.readouterr().err
