"""Saved classifiers with random weights, of every task and both forms, and texts for them."""

import csv
import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from bertcls_hf.metrics.calibration import CALIBRATION_FILE
from bertcls_hf.models.modeling import TextClassifier, TextClassifierConfig
from bertcls_hf.run import main
from tests.helpers.reviews import review


NAMES = {
    "stock": ("bad", "fair", "good"),
    "custom": ("bad", "fair", "good"),
    "two_labels": ("no", "yes"),
    "multi_label": ("action", "drama", "funny"),
    "regression": ("score",),
    "distilbert": ("bad", "fair", "good"),
}
PROBLEM_TYPES = {"multi_label": MULTI_LABEL, "regression": REGRESSION}
KINDS = sorted(NAMES)
UNKNOWN_WORDS = ("", "영화", "这部电影", "정말 재미있다 很好看")


def save_classifier(folder: Path, tiny_bert: Path, kind: str, seed: int = 0, **calibration: Any) -> Path:
    """A classifier of a kind in [`KINDS`], whose outputs differ from text to text."""
    names = NAMES[kind]
    labels = {
        "id2label": dict(enumerate(names)),
        "label2id": {name: position for position, name in enumerate(names)},
        "problem_type": PROBLEM_TYPES.get(kind, SINGLE_LABEL),
    }
    torch.manual_seed(seed)
    if kind == "custom":
        settings = {"pooling": "mean", "pooling_layers": 2, **labels}
        model = TextClassifier(TextClassifierConfig(encoder_config=AutoConfig.from_pretrained(tiny_bert), **settings))
    elif kind == "distilbert":
        vocabulary = AutoConfig.from_pretrained(tiny_bert).vocab_size
        model = DistilBertForSequenceClassification(
            DistilBertConfig(vocab_size=vocabulary, dim=16, n_layers=2, n_heads=2, hidden_dim=32,
                             max_position_embeddings=64, initializer_range=0.3, **labels)
        )  # fmt: skip
    else:
        model = BertForSequenceClassification(AutoConfig.from_pretrained(tiny_bert, **labels))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder)
    if calibration:
        content = {"temperature": 1.0, "thresholds": None, **calibration}
        (folder / CALIBRATION_FILE).write_text(json.dumps(content), encoding="utf-8")
    return folder


def texts(rows: int) -> list[str]:
    """Texts of many lengths in no order, of which one is empty, one blank and one far too long."""
    made = [review(index)[0] for index in range(rows)]
    made[1:1] = ["", "  ", "good bad film " * 100]
    return made[:rows]


def train_classifier(folder: Path, tiny_bert: Path) -> Path:
    """A classifier that has learned which words make a review good or bad, and that unknown ones say nothing."""
    train, validation = folder / "train.csv", folder / "validation.csv"
    for path, rows in ((train, range(96)), (validation, range(100, 132))):
        with path.open("w", newline="", encoding="utf-8") as file:
            found = [review(row) for row in rows]
            unknown = ["", "영화 ", "电影 이 ", "很好看 "]
            csv.writer(file).writerows(
                [
                    ("text", "label"),
                    *((unknown[row // 2 % 4] + text, label) for row, (text, label) in enumerate(found)),
                ]
            )
    options = {
        "model_name_or_path": tiny_bert, "train_file": train, "validation_file": validation,
        "output_dir": folder / "out", "num_train_epochs": 15, "learning_rate": 5e-3, "save_strategy": "no",
        "per_device_train_batch_size": 16, "load_best_model_at_end": False, "disable_tqdm": True, "use_cpu": True,
    }  # fmt: skip
    assert main([f"--{name}={value}" for name, value in options.items()]) == 0
    return folder / "out"
