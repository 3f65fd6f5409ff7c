"""Every pair of loss options computes what a plain formula of probabilities says, and learns separable data."""

import itertools
import math
from typing import Any

import pytest
import torch

from bertcls_hf.models.modeling import ClassificationHead, TextClassifierConfig, classification_loss, classify_features
from tests.helpers.families import FAMILIES


SINGLE, MULTI = "single_label_classification", "multi_label_classification"
WEIGHTS = {"class_weights": [0.3, 1.0, 12.0]}
SMOOTHING = {"label_smoothing": 0.2}
FOCAL = {"loss": "focal", "focal_gamma": 1.5}
PAIRS = [
    {**a, **b} for options in ([{}, WEIGHTS, SMOOTHING, FOCAL],) for a, b in itertools.combinations(options, 2)
] + [{}, {**WEIGHTS, **SMOOTHING, **FOCAL}]
MULTI_PAIRS = [{"loss": "bce"}, {**FOCAL}, {"loss": "bce", **WEIGHTS}, {**FOCAL, **WEIGHTS}]


def config(problem_type: str = SINGLE, labels: int = 3, **options: Any) -> TextClassifierConfig:
    return TextClassifierConfig(
        encoder_config=FAMILIES["bert"], problem_type=problem_type, num_labels=labels, dropout=0.0, **options
    )


def plain_single_label_loss(logits: list[float], gold: int, options: dict[str, Any]) -> float:
    """The loss of one row, written with probabilities."""
    total = sum(math.exp(logit) for logit in logits)
    probabilities = [math.exp(logit) / total for logit in logits]
    share = options.get("label_smoothing", 0.0) / len(logits)
    targets = [share + (1 - options.get("label_smoothing", 0.0)) * (label == gold) for label in range(len(logits))]
    loss = -sum(target * math.log(p) for target, p in zip(targets, probabilities, strict=True))
    if options.get("loss") == "focal":
        loss *= (1 - probabilities[gold]) ** options["focal_gamma"]
    return loss * options.get("class_weights", [1.0] * len(logits))[gold]


def plain_multi_label_loss(logits: list[float], gold: list[int], options: dict[str, Any]) -> float:
    losses = []
    for label, logit in enumerate(logits):
        p = 1 / (1 + math.exp(-logit))
        weight = options.get("class_weights", [1.0] * len(logits))[label]
        of_gold = p if gold[label] else 1 - p
        loss = -math.log(of_gold) * (weight if gold[label] else 1)
        losses.append(loss * (1 - of_gold) ** options["focal_gamma"] if options.get("loss") == "focal" else loss)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("options", PAIRS, ids=str)
def test_single_label(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    logits, gold = torch.randn(7, 3) * 3, torch.tensor([0, 1, 2, 2, 0, 1, 0])
    expected = [
        plain_single_label_loss(row, label, options) for row, label in zip(logits.tolist(), gold.tolist(), strict=True)
    ]
    loss = classification_loss(logits, gold, config(**options))
    assert loss.item() == pytest.approx(sum(expected) / len(expected), rel=1e-5)


@pytest.mark.parametrize("options", MULTI_PAIRS, ids=str)
def test_multi_label(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    logits, gold = torch.randn(6, 3) * 3, (torch.rand(6, 3) > 0.5).float()
    expected = [
        plain_multi_label_loss(row, marks, options)
        for row, marks in zip(logits.tolist(), gold.int().tolist(), strict=True)
    ]
    loss = classification_loss(logits, gold, config(MULTI, **options))
    assert loss.item() == pytest.approx(sum(expected) / len(expected), rel=1e-5)


def test_regression() -> None:
    logits, gold = torch.tensor([[0.5], [2.0]]), torch.tensor([1.0, -1.0])
    loss = classification_loss(logits, gold, config("regression", labels=1, loss="mse"))
    assert loss.item() == pytest.approx((0.5**2 + 3**2) / 2)


def trained_logits(features: torch.Tensor, gold: torch.Tensor, settings: TextClassifierConfig) -> torch.Tensor:
    torch.manual_seed(0)
    head = ClassificationHead(settings)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(200):
        loss, _ = classify_features(head, features, gold, settings)
        assert loss is not None
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head(features).detach()


@pytest.mark.parametrize("options", PAIRS, ids=str)
def test_separable_data_of_unequal_classes_is_learned(options: dict[str, Any]) -> None:
    """98 % of the rows are of one class, and balanced weights are large."""
    torch.manual_seed(1)
    gold = torch.tensor([0] * 196 + [1] * 4)
    settings = config(
        labels=2, **{**options, **({"class_weights": [0.51, 25.0]} if "class_weights" in options else {})}
    )
    features = torch.randn(200, settings.feature_size) * 0.3
    features[:, 0] += torch.where(gold == 0, -2.0, 2.0)
    assert (trained_logits(features, gold, settings).argmax(-1) == gold).all()


@pytest.mark.parametrize("options", MULTI_PAIRS, ids=str)
def test_separable_marks_are_learned(options: dict[str, Any]) -> None:
    torch.manual_seed(1)
    gold = (torch.rand(120, 3) > torch.tensor([0.5, 0.9, 0.95])).float()
    settings = config(MULTI, **options)
    features = torch.randn(120, settings.feature_size) * 0.3
    features[:, :3] += gold * 4 - 2
    assert ((trained_logits(features, gold, settings) > 0) == gold.bool()).all()
