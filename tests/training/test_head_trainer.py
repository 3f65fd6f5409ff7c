"""A head on cached features trains to the same weights with and without the encoder in the loop."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from bertcls_hf.config.arguments import ClassifierTrainingArguments
from bertcls_hf.data.labels import LabelSet
from bertcls_hf.features.dataset import FeatureDataset
from bertcls_hf.models.modeling import TextClassifier
from bertcls_hf.training.head_trainer import HeadOnFeatures, HeadTrainer
from bertcls_hf.training.phases import TRAINERS, build_trainer
from bertcls_hf.training.trainer import ClassificationTrainer
from tests.helpers.trainers import our_model, tokenized


ROWS = 26


def features_of(model: TextClassifier) -> FeatureDataset:
    """Random features and labels of two classes."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((ROWS, model.config.hidden_size), dtype=np.float32)
    return FeatureDataset([[vectors]], np.arange(ROWS), torch.arange(ROWS) % 2, model.config)


def trained(tiny_bert: Path, folder: Path, **options: Any) -> tuple[ClassificationTrainer, TextClassifier]:
    model = our_model(tiny_bert, freeze_backbone=True, pooling="mean", dropout=0.1)
    settings = {"output_dir": str(folder), "num_train_epochs": 3, "logging_steps": 1, "eval_strategy": "no",
                "save_strategy": "no", "head_learning_rate": 0.01, "disable_tqdm": True, "use_cpu": True}  # fmt: skip
    args = ClassifierTrainingArguments(**{**settings, **options})
    labels = LabelSet("single_label_classification", ("neg", "pos"))
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    trainer = build_trainer(args, model, tokenizer, {"train": features_of(model)}, labels)
    trainer.train()
    return trainer, model


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_head_alone_learns_what_it_learns_in_the_model(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulation: int
) -> None:
    options = {"per_device_train_batch_size": 8 // accumulation, "gradient_accumulation_steps": accumulation}
    trainer, alone = trained(tiny_bert, tmp_path / "alone", **options)
    assert type(trainer) is HeadTrainer
    assert isinstance(trainer.callback_handler.model, TextClassifier)
    monkeypatch.setitem(TRAINERS, FeatureDataset, ClassificationTrainer)
    whole_trainer, whole = trained(tiny_bert, tmp_path / "whole", **options)
    assert type(whole_trainer) is ClassificationTrainer
    logs = [[line["loss"] for line in t.state.log_history if "loss" in line] for t in (trainer, whole_trainer)]
    np.testing.assert_allclose(logs[0], logs[1], rtol=1e-6)
    for name, weights in whole.state_dict().items():
        torch.testing.assert_close(alone.state_dict()[name], weights, rtol=1e-5, atol=1e-7)


def test_the_loop_sees_the_head_alone(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    original = HeadTrainer.training_step

    def training_step(self: HeadTrainer, model: torch.nn.Module, *args: Any, **options: Any) -> torch.Tensor:
        seen.append(type(model).__name__)
        return original(self, model, *args, **options)

    monkeypatch.setattr(HeadTrainer, "training_step", training_step)
    trained(tiny_bert, tmp_path)
    assert set(seen) == {HeadOnFeatures.__name__}


def test_texts_are_trained_by_the_plain_trainer(tiny_bert: Path, tmp_path: Path) -> None:
    args = ClassifierTrainingArguments(output_dir=str(tmp_path), eval_strategy="no", use_cpu=True)
    labels = LabelSet("single_label_classification", ("neg", "pos"))
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    trainer = build_trainer(args, our_model(tiny_bert), tokenizer, {"train": tokenized(tiny_bert)}, labels)
    assert type(trainer) is ClassificationTrainer
    # The run's options stay as they are.
    assert args.remove_unused_columns
    assert not trainer.args.remove_unused_columns
