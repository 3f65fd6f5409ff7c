"""Texts that are longer than their encoder reads, and what a saved model must make of them."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import pipeline

from bertcls_hf.predict.predictor import Predictor
from bertcls_hf.training.saved_outputs import read_outputs
from tests.helpers.reviews import NEGATIVE, POSITIVE, WORDS


def write_texts(path: Path, rows: int, seed: int, pairs: bool = False) -> Path:
    """Texts of 30 to 45 words, with two words that tell the label among the last ten."""
    generator = np.random.default_rng(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["sentence1", "sentence2", "label"] if pairs else ["text", "label"])
        for _ in range(rows):
            label = int(generator.integers(2))
            words = list(generator.choice(WORDS[10:], generator.integers(30, 46)))
            for place in generator.choice(10, 2, replace=False):
                words[-1 - place] = generator.choice((NEGATIVE, POSITIVE)[label])
            gold = ("neg", "pos")[label]
            writer.writerow([" ".join(words[:3]), " ".join(words[-6:]), gold] if pairs else [" ".join(words), gold])
    return path


def write_splits(folder: Path) -> dict[str, Path]:
    """Files of [`write_texts`], by the option that names each."""
    sizes = {"train": 160, "validation": 60, "test": 50}
    return {
        f"{name}_file": write_texts(folder / f"{name}.csv", rows, seed)
        for seed, (name, rows) in enumerate(sizes.items())
    }


def texts_of(path: Path) -> list[dict[str, str]]:
    """The rows of a file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def assert_reads_raw_text(out: Path, test_file: Path) -> None:
    """The saved folder gives the run's logits, through the Predictor and through the pipeline."""
    rows = texts_of(test_file)
    kept = read_outputs(out / "test_outputs.npz")
    predictor = Predictor.from_pretrained(str(out), device="cpu")
    columns = [[row[name] for row in rows] for name in ("text", "sentence1", "sentence2") if name in rows[0]]
    np.testing.assert_allclose(predictor.logits(*columns), kept.logits, rtol=1e-6, atol=2e-5)
    classify = pipeline("text-classification", str(out), top_k=None)
    inputs = [dict(zip(("text", "text_pair"), texts, strict=False)) for texts in zip(*columns, strict=True)][:8]
    scores = [
        {row["label"]: row["score"] for row in classify(given, truncation=True, max_length=predictor.max_seq_length)}
        for given in inputs
    ]
    shares = torch.tensor(kept.logits[:8]).softmax(dim=-1).numpy()
    for row, expected in zip(scores, shares, strict=True):
        assert [row["neg"], row["pos"]] == pytest.approx(expected.tolist(), abs=1e-5)
