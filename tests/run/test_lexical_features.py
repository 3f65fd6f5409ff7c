"""Runs with --lexical_features: the saved model reads raw text, with every way to train, and refusals."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bertcls_hf.models.modeling import TextClassifier
from bertcls_hf.predict.predictor import Predictor
from bertcls_hf.run import main
from bertcls_hf.training.saved_outputs import read_outputs
from tests.helpers.korean import write_korean_bert, write_korean_reviews
from tests.helpers.long_texts import assert_reads_raw_text, texts_of, write_splits, write_texts


Command = Callable[..., list[str]]
# The encoder reads 16 tokens of texts that have 30 and more.
LENGTH = 16


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return write_splits(tmp_path)


@pytest.fixture
def lexical(command: Command, files: dict[str, Path]) -> Command:
    """A command line with lexical features."""

    def build(**options: Any) -> list[str]:
        phases = {"do_train": True, "do_eval": True, "do_predict": True, "lexical_baseline": False}
        defaults = {"lexical_features": True, "max_seq_length": LENGTH, "num_train_epochs": 1}
        return command(**{**files, **phases, **defaults, **options})

    return build


MODES: dict[str, dict[str, Any]] = {
    "fine-tuned": {},
    "stock pooling": {"pooling": "pooler"},
    "frozen": {"freeze_backbone": True, "learning_rate": None},
    "boost": {"boost": True, "learning_rate": None},
    "closed form": {"boost": True, "learning_rate": None, "head_init": "logistic", "num_train_epochs": 0},
    "LP-FT": {"boost": True, "freeze_backbone": False, "head_num_train_epochs": 1},
    "top layer": {"trainable_layers": 1},
    "tail": {"truncation_strategy": "tail", "pooling": "mean"},
    "head and tail": {"truncation_strategy": "head_tail", "pooling": "mean"},
    "windows": {"truncation_strategy": "windows", "pooling": "mean"},
    "windows, closed form": {
        "truncation_strategy": "windows",
        "boost": True,
        "learning_rate": None,
        "head_init": "logistic",
    },
    "weighted layers": {"pooling": "cls_mean", "pooling_layers": 2, "pooling_layers_merge": "weighted"},
    "padding-free": {"padding_free": True, "train_sampling_strategy": "random"},
    "class weights": {"class_weights": "balanced", "label_smoothing_factor": 0.1},
    "accumulated": {"gradient_accumulation_steps": 2, "loss": "focal"},
}


@pytest.mark.parametrize("mode", MODES)
def test_the_saved_model_reads_raw_text(lexical: Command, files: dict[str, Path], tmp_path: Path, mode: str) -> None:
    assert main(lexical(**MODES[mode])) == 0
    out = tmp_path / "out"
    config = json.loads((out / "config.json").read_text())
    assert config["architectures"] == ["TextClassifierForSequenceClassification"]
    settings = config["truncation"]
    assert (settings["max_text_length"], settings["max_length"]) == (2048, LENGTH)
    assert json.loads((out / "tokenizer_config.json").read_text())["model_max_length"] == 2048
    results = json.loads((out / "test_results.json").read_text())
    # The encoder alone cannot read the word that tells the label, except from the right end.
    assert results["test_accuracy"] > 0.85
    assert_reads_raw_text(out, files["test_file"])


def test_an_encoder_learns_alone_and_is_weighed_by_the_validation_data(
    lexical: Command, files: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(lexical(pooling="mean")) == 0
    assert "the head counts" in caplog.text
    found = json.loads((tmp_path / "out/train_results.json").read_text())
    encoder, table = found["encoder_alone_accuracy"], found["lexical_features_alone_accuracy"]
    assert f"encoder_alone_accuracy {encoder:.4f}, lexical_features_alone_accuracy {table:.4f}" in caplog.text
    assert encoder < table
    with_table = TextClassifier.from_pretrained(tmp_path / "out")
    assert main(lexical(pooling="mean", lexical_features=False, output_dir=tmp_path / "alone")) == 0
    results = json.loads((tmp_path / "alone/eval_results.json").read_text())
    assert encoder == pytest.approx(results["eval_accuracy"])
    alone = TextClassifier.from_pretrained(tmp_path / "alone")
    for name, weights in alone.encoder.named_parameters():
        assert torch.equal(with_table.encoder.get_parameter(name), weights)
    # The encoder reads no word that tells the label, the table reads them all.
    factor = with_table.head.out_proj.weight / alone.head.out_proj.weight
    assert factor.std() < 1e-4
    assert with_table.lexical.scale.item() > 0.5


def test_without_validation_data_both_parts_count_half(lexical: Command, tmp_path: Path) -> None:
    options = {"validation_file": None, "validation_split_percentage": 0, "eval_strategy": "no", "do_eval": False}
    assert main(lexical(**options, load_best_model_at_end=False)) == 0
    assert TextClassifier.from_pretrained(tmp_path / "out").lexical.scale.item() == 0.5


@pytest.fixture
def korean(command: Command, tmp_path: Path) -> Command:
    """A command line with lexical features of a Korean encoder, which read characters."""
    encoder = write_korean_bert(tmp_path / "korean_bert")
    files = {
        f"{name}_file": write_korean_reviews(tmp_path / f"korean_{name}.csv", rows, seed)
        for seed, (name, rows) in enumerate({"train": 160, "validation": 60, "test": 50}.items())
    }

    def build(**options: Any) -> list[str]:
        defaults = {
            "lexical_features": True,
            "lexical_baseline": False,
            "num_train_epochs": 1,
            "max_seq_length": LENGTH,
        }
        return command(model_name_or_path=encoder, do_train=True, do_eval=True, **{**files, **defaults, **options})

    return build


@pytest.mark.parametrize("mode", ["fine-tuned", "closed form"])
def test_the_saved_model_reads_characters_of_raw_text(korean: Command, tmp_path: Path, mode: str) -> None:
    assert main(korean(**MODES[mode])) == 0
    out = tmp_path / "out"
    assert json.loads((out / "test_results.json").read_text())["test_accuracy"] > 0.9
    assert "n-grams of 1 to 5 characters" in (out / "README.md").read_text()
    assert_reads_raw_text(out, tmp_path / "korean_test.csv")


def test_pairs(command: Command, tmp_path: Path) -> None:
    files = {
        f"{name}_file": write_texts(tmp_path / f"{name}.csv", rows, seed, pairs=True)
        for seed, (name, rows) in enumerate({"train": 120, "validation": 60, "test": 50}.items())
    }
    options = {"lexical_features": True, "num_train_epochs": 1, "max_seq_length": 32}
    assert main(command(**files, **options, do_train=True, do_predict=True)) == 0
    assert json.loads((tmp_path / "out/config.json").read_text())["truncation"]["max_text_length"] == 32
    assert_reads_raw_text(tmp_path / "out", files["test_file"])


def test_the_features_are_cached_whether_or_not_there_are_lexical_ones(
    lexical: Command, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = {"boost": True, "learning_rate": None, "boost_cache_dir": tmp_path / "cache"}
    assert main(lexical(**options, lexical_features=False)) == 0
    capsys.readouterr()
    assert main(lexical(**options, disable_tqdm=False)) == 0
    assert "Features of" not in capsys.readouterr().err


def test_a_frozen_run_and_a_boosted_run_are_equal(lexical: Command, tmp_path: Path) -> None:
    options = {"learning_rate": None, "num_train_epochs": 2, "head_learning_rate": 0.01, "dropout": 0.0}
    frozen, boosted = tmp_path / "frozen", tmp_path / "boosted"
    assert main(lexical(**options, freeze_backbone=True, output_dir=frozen)) == 0
    assert main(lexical(**options, boost=True, output_dir=boosted)) == 0
    logits = [read_outputs(folder / "test_outputs.npz").logits for folder in (frozen, boosted)]
    np.testing.assert_allclose(*logits, atol=1e-4)
    assert TextClassifier.from_pretrained(boosted).lexical.scale.item() != 1


def test_a_killed_training_goes_on(lexical: Command, tmp_path: Path) -> None:
    whole, halted = tmp_path / "whole", tmp_path / "halted"
    options = {"num_train_epochs": 2, "save_strategy": "epoch", "save_total_limit": 0}
    assert main(lexical(**options, output_dir=whole)) == 0
    shutil.copytree(whole, halted)
    last = max(halted.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    shutil.rmtree(last)
    assert main(lexical(**options, output_dir=halted, resume_from_checkpoint="auto")) == 0
    assert np.array_equal(*(read_outputs(folder / "test_outputs.npz").logits for folder in (whole, halted)))


def test_a_saved_model_is_evaluated_and_not_trained_further(
    lexical: Command, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(lexical()) == 0
    out, evaluated = tmp_path / "out", tmp_path / "evaluated"
    own = {"model_name_or_path": out, "output_dir": evaluated}
    kept = read_outputs(out / "test_outputs.npz").logits
    # The longest text, here and in the run's recipe, is that of the encoder.
    for length in (None, LENGTH):
        assert main(lexical(**own, do_train=False, lexical_features=False, max_seq_length=length)) == 0
        np.testing.assert_allclose(read_outputs(evaluated / "test_outputs.npz").logits, kept, rtol=1e-6, atol=2e-5)
        recipe = yaml.safe_load((evaluated / "recipe.yaml").read_text())
        assert recipe["max_seq_length"] == LENGTH
    texts = [row["text"] for row in texts_of(tmp_path / "test.csv")]
    for length in (None, LENGTH):
        predictor = Predictor.from_pretrained(str(out), device="cpu", max_seq_length=length)
        assert predictor.max_seq_length == 2048
        np.testing.assert_allclose(predictor.logits(texts), kept, rtol=1e-6, atol=2e-5)
    for lexical_features in (True, False):
        capsys.readouterr()
        assert main(lexical(**own, lexical_features=lexical_features)) == 2
        assert "has lexical features, which belong to its head: train from its encoder" in capsys.readouterr().err
    fresh = {**own, "output_dir": tmp_path / "fresh", "max_seq_length": LENGTH, "ignore_mismatched_sizes": True}
    assert main(lexical(**fresh)) == 0
    # On these texts, the n-grams leave so little open that the encoder counts for next to nothing.
    weights = load_file(out / "model.safetensors")
    save_file({**weights, "head.out_proj.weight": torch.randn_like(weights["head.out_proj.weight"])},
              out / "model.safetensors", {"format": "pt"})  # fmt: skip
    longer, shorter = (
        Predictor.from_pretrained(str(out), device="cpu", max_seq_length=length).logits(texts) for length in (None, 6)
    )
    assert not np.allclose(longer, shorter, atol=1e-3)


def test_remote_code_in_the_folder_reads_it_too(lexical: Command, files: dict[str, Path], tmp_path: Path) -> None:
    assert main(lexical(pooling="mean")) == 0
    out = tmp_path / "out"
    model = AutoModelForSequenceClassification.from_pretrained(out, trust_remote_code=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(out)
    text = texts_of(files["test_file"])[0]["text"]
    with torch.no_grad():
        logits = model(**tokenizer(text, return_tensors="pt")).logits[0]
    assert logits.tolist() == pytest.approx(read_outputs(out / "test_outputs.npz").logits[0].tolist(), abs=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("units", ["tokens", "characters"])
def test_an_exported_graph_computes_the_same(
    lexical: Command, korean: Command, files: dict[str, Path], tmp_path: Path, units: str
) -> None:
    pytest.importorskip("onnxruntime")
    from bertcls_hf.export.__main__ import main as export
    from bertcls_hf.predict.engines import OnnxRuntime

    build, test_file = (lexical, files["test_file"]) if units == "tokens" else (korean, tmp_path / "korean_test.csv")
    assert main(build(pooling="mean")) == 0
    out, graph = tmp_path / "out", tmp_path / "onnx"
    assert export([str(out), "--output_dir", str(graph)]) == 0
    report = json.loads((graph / "onnx_report.json").read_text())
    assert report["largest_difference"] < 1e-4
    tokenizer = AutoTokenizer.from_pretrained(out)
    texts = [row["text"] for row in texts_of(test_file)[:10]]
    batch = dict(tokenizer(texts, padding=True, return_tensors="np"))
    logits = OnnxRuntime(graph / "onnx/model.onnx", 1).run(batch)
    np.testing.assert_allclose(logits, read_outputs(out / "test_outputs.npz").logits[:10], atol=1e-4)


def test_without_validation_data_cross_validation_weighs_the_parts(
    lexical: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"validation_file": None, "validation_split_percentage": 0, "eval_strategy": "no", "boost": True,
               "learning_rate": None, "head_init": "logistic", "num_train_epochs": 0}  # fmt: skip
    assert main(lexical(**options)) == 0
    found = re.search(r"the logistic regression counts (\S+) times, the lexical features (\S+) times", caplog.text)
    assert found is not None
    # The n-grams tell the labels of these texts, and the random encoder does not.
    assert 0 <= float(found[1]) < float(found[2])
    assert json.loads((tmp_path / "out/test_results.json").read_text())["test_accuracy"] > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lexical_features": False, "max_text_length": 64}, "and for --lexical_features, and none of them is on"),
        ({"do_train": False}, "--lexical_features are fitted by a training"),
        ({"lexical_max_seq_length": 8}, "--max_text_length 8 is less than --max_seq_length, 16"),
    ],
)
def test_refusals(lexical: Command, capsys: pytest.CaptureFixture, options: dict[str, Any], message: str) -> None:
    assert main(lexical(**options)) == 2
    assert message in capsys.readouterr().err
