"""Runs with --truncation_strategy: every way to train, the saved model on raw text, and refusals."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bertcls_hf.predict.predictor import Predictor
from bertcls_hf.run import main
from bertcls_hf.training.saved_outputs import read_outputs
from tests.helpers.long_texts import assert_reads_raw_text, texts_of, write_splits


Command = Callable[..., list[str]]
# The encoder reads 16 tokens of texts that have 30 and more.
LENGTH = 16
STRATEGIES = ("head_tail", "windows")


@pytest.fixture
def long_texts(command: Command, tmp_path: Path) -> Command:
    """A command line for texts that are longer than the encoder reads."""
    files = write_splits(tmp_path)

    def build(**options: Any) -> list[str]:
        phases = {"do_train": True, "do_eval": True, "do_predict": True, "lexical_baseline": False}
        defaults = {"max_seq_length": LENGTH, "pooling": "mean", "num_train_epochs": 2, "learning_rate": 5e-3}
        return command(**{**files, **phases, **defaults, **options})

    return build


CACHED: dict[str, Any] = {"boost": True, "learning_rate": None, "num_train_epochs": 15, "head_learning_rate": 0.02}
MODES: dict[str, dict[str, Any]] = {
    "fine-tuned": {},
    "frozen": {"freeze_backbone": True, "learning_rate": None, "head_learning_rate": 0.02},
    "boost": CACHED,
    "closed form": {**CACHED, "head_init": "logistic", "num_train_epochs": 0},
    "LP-FT": {"boost": True, "freeze_backbone": False, "head_num_train_epochs": 1, "pooling_layers": 2},
    "padding-free": {"padding_free": True, "train_sampling_strategy": "random"},
    "weighted layers": {"pooling": "cls_mean", "pooling_layers": 2, "pooling_layers_merge": "weighted"},
    "accumulated": {"gradient_accumulation_steps": 2},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_saved_model_reads_raw_text(long_texts: Command, tmp_path: Path, strategy: str, mode: str) -> None:
    assert main(long_texts(truncation_strategy=strategy, **MODES[mode])) == 0
    out = tmp_path / "out"
    config = json.loads((out / "config.json").read_text())
    assert config["architectures"] == ["TextClassifierForSequenceClassification"]
    assert config["truncation"]["strategy"] == strategy
    assert json.loads((out / "tokenizer_config.json").read_text())["model_max_length"] == 2048
    assert_reads_raw_text(out, tmp_path / "test.csv")


@pytest.mark.parametrize("pooling", ["max", "attention"])
@pytest.mark.parametrize("mode", ["fine-tuned", "boost", "LP-FT"])
def test_windows_are_pooled_alike_everywhere(long_texts: Command, tmp_path: Path, pooling: str, mode: str) -> None:
    assert main(long_texts(truncation_strategy="windows", window_pooling=pooling, **MODES[mode])) == 0
    assert_reads_raw_text(tmp_path / "out", tmp_path / "test.csv")


@pytest.mark.parametrize(
    ("strategy", "first", "last"), [("head", 14, 0), ("tail", 0, 14), ("head_tail", 3, 11), ("windows", 40, 40)]
)
def test_the_words_that_count(long_texts: Command, tmp_path: Path, strategy: str, first: int, last: int) -> None:
    """Another word changes the logits where the encoder reads it, and nowhere else; every word is one token."""
    assert main(long_texts(truncation_strategy=strategy, num_train_epochs=1)) == 0
    predictor = Predictor.from_pretrained(str(tmp_path / "out"), device="cpu")
    words = ["film"] * 40
    others = [" ".join([*words[:place], "good", *words[place + 1 :]]) for place in range(40)]
    logits = predictor.logits([" ".join(words), *others])
    changed = np.abs(logits[1:] - logits[:1]).max(axis=1) > 1e-5
    assert np.flatnonzero(changed).tolist() == [n for n in range(40) if n < first or n >= 40 - last]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_a_frozen_run_and_a_boosted_run_are_equal(
    long_texts: Command, tmp_path: Path, strategy: str, pooling: str
) -> None:
    options: dict[str, Any] = {
        "truncation_strategy": strategy, "learning_rate": None, "head_learning_rate": 0.01, "dropout": 0.0,
        "window_pooling": pooling if strategy == "windows" else None, "train_sampling_strategy": "random",
    }  # fmt: skip
    frozen, boosted = tmp_path / "frozen", tmp_path / "boosted"
    assert main(long_texts(**options, freeze_backbone=True, output_dir=frozen)) == 0
    assert main(long_texts(**options, boost=True, output_dir=boosted)) == 0
    logits = [read_outputs(folder / "test_outputs.npz").logits for folder in (frozen, boosted)]
    np.testing.assert_allclose(*logits, atol=1e-4)


def test_one_cache_serves_every_pooling_of_the_windows(
    long_texts: Command, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = {**CACHED, "num_train_epochs": 1, "truncation_strategy": "windows", "disable_tqdm": False,
               "boost_cache_dir": tmp_path / "cache"}  # fmt: skip
    extracted = []
    for more in ({"window_pooling": "mean"}, {"window_pooling": "attention"}, {"window_stride": 2}):
        capsys.readouterr()
        assert main(long_texts(**options, **more)) == 0
        extracted.append("Features of" in capsys.readouterr().err)
    assert extracted == [True, False, True]


def test_a_streamed_training_caches_windows(long_texts: Command, tmp_path: Path) -> None:
    assert main(long_texts(**CACHED, truncation_strategy="windows", streaming=True)) == 0
    assert_reads_raw_text(tmp_path / "out", tmp_path / "test.csv")


def test_a_sweep_over_windows(long_texts: Command, tmp_path: Path) -> None:
    options = {"boost": True, "learning_rate": None, "pooling": None, "sweep": 3, "window_pooling": "attention"}
    assert main(long_texts(truncation_strategy="windows", **options)) == 0
    assert_reads_raw_text(tmp_path / "out", tmp_path / "test.csv")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_killed_training_goes_on(long_texts: Command, tmp_path: Path, strategy: str) -> None:
    whole, halted = tmp_path / "whole", tmp_path / "halted"
    options = {"truncation_strategy": strategy, "save_strategy": "epoch", "save_total_limit": 0}
    assert main(long_texts(**options, output_dir=whole)) == 0
    shutil.copytree(whole, halted)
    last = max(halted.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    shutil.rmtree(last)
    assert main(long_texts(**options, output_dir=halted, resume_from_checkpoint="auto")) == 0
    assert np.array_equal(*(read_outputs(folder / "test_outputs.npz").logits for folder in (whole, halted)))


def test_a_resumed_training_keeps_its_strategy(
    long_texts: Command, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    assert main(long_texts(truncation_strategy="windows", num_train_epochs=1)) == 0
    capsys.readouterr()
    assert main(long_texts(truncation_strategy="head_tail", resume_from_checkpoint="auto")) == 2
    assert "is of another training: truncation was" in capsys.readouterr().err


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_saved_model_is_evaluated_and_trained_further(long_texts: Command, tmp_path: Path, strategy: str) -> None:
    assert main(long_texts(truncation_strategy=strategy)) == 0
    out, later = tmp_path / "out", tmp_path / "later"
    kept = read_outputs(out / "test_outputs.npz").logits
    own = {"model_name_or_path": out, "output_dir": later, "pooling": None}
    for length in (None, LENGTH):
        assert main(long_texts(**own, do_train=False, max_seq_length=length)) == 0
        np.testing.assert_allclose(read_outputs(later / "test_outputs.npz").logits, kept, atol=2e-5)
        assert yaml.safe_load((later / "recipe.yaml").read_text())["max_seq_length"] == LENGTH
    assert main(long_texts(**own, num_train_epochs=1)) == 0
    assert json.loads((later / "config.json").read_text())["truncation"]["strategy"] == strategy
    assert_reads_raw_text(later, tmp_path / "test.csv")
    texts = [row["text"] for row in texts_of(tmp_path / "test.csv")]
    shorter = Predictor.from_pretrained(str(out), device="cpu", max_seq_length=6)
    assert not np.allclose(shorter.logits(texts), kept, atol=1e-3)


def test_another_strategy_for_a_trained_model(
    long_texts: Command, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(long_texts(truncation_strategy="windows", num_train_epochs=1)) == 0
    again = {"model_name_or_path": tmp_path / "out", "output_dir": tmp_path / "again", "pooling": None}
    for options, trained in (
        ({"truncation_strategy": "head_tail"}, "--truncation_strategy windows"),
        ({"truncation_strategy": "windows", "window_pooling": "max"}, "--window_pooling mean"),
    ):
        capsys.readouterr()
        assert main(long_texts(**again, **options)) == 2
        assert f"the model was trained with {trained}" in capsys.readouterr().err
    new_head = {"truncation_strategy": "head_tail", "ignore_mismatched_sizes": True, "pooling": "mean"}
    assert main(long_texts(**{**again, **new_head}, num_train_epochs=1)) == 0


def test_a_stock_classifier_is_trained_further_on_whole_texts(
    long_texts: Command, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(long_texts(pooling="pooler", num_train_epochs=1)) == 0
    again = {"model_name_or_path": tmp_path / "out", "output_dir": tmp_path / "again", "pooling": None}
    assert json.loads((tmp_path / "out/config.json").read_text())["architectures"] == ["BertForSequenceClassification"]
    assert main(long_texts(**again, truncation_strategy="windows", num_train_epochs=1)) == 0
    assert_reads_raw_text(tmp_path / "again", tmp_path / "test.csv")
    capsys.readouterr()
    assert main(long_texts(**again, truncation_strategy="windows", window_pooling="attention")) == 2
    assert "the trained head has no weights for it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("strategy", "phrases"),
    [
        (
            "head_tail",
            ["16 tokens: of longer texts the first 4 and the last 12", "the first 4 and the last 12 tokens"],
        ),
        ("windows", ["in windows of 16 that share 4", "are split into windows", "beyond 2,048 tokens is not read"]),
    ],
)
def test_the_log_and_the_card_tell_the_strategy(
    long_texts: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture, strategy: str, phrases: list[str]
) -> None:
    assert main(long_texts(truncation_strategy=strategy, num_train_epochs=1)) == 0
    card = (tmp_path / "out/README.md").read_text()
    for phrase in [*phrases, "No stock class does this"]:
        assert phrase in card
    assert ("windows, 160 of 160 texts reach 16" in caplog.text) == (strategy == "windows")


def test_code_in_the_folder_reads_whole_texts(long_texts: Command, tmp_path: Path) -> None:
    assert main(long_texts(truncation_strategy="windows", num_train_epochs=1)) == 0
    out = tmp_path / "out"
    model = AutoModelForSequenceClassification.from_pretrained(out, trust_remote_code=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(out)
    inputs = tokenizer([texts_of(tmp_path / "test.csv")[0]["text"]], truncation=True, return_tensors="pt")
    logits = model(**inputs).logits[0].tolist()
    assert logits == pytest.approx(read_outputs(out / "test_outputs.npz").logits[0].tolist(), abs=2e-5)


def test_the_part_that_is_read(long_texts: Command, tmp_path: Path) -> None:
    assert main(long_texts(truncation_strategy="head_tail", num_train_epochs=1)) == 0
    text = texts_of(tmp_path / "test.csv")[0]["text"]
    words = text.split()
    predictor = Predictor.from_pretrained(str(tmp_path / "out"), device="cpu")
    part = predictor.read_part(text)
    # Every word is a token: three after the first special one, eleven before the last.
    assert part.text.split() == [*words[:3], *words[-11:]]
    assert (part.tokens, part.all_tokens) == (LENGTH, len(words) + 2)
    np.testing.assert_allclose(predictor.logits([part.text]), predictor.logits([text]), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_exported_graph_computes_the_same(long_texts: Command, tmp_path: Path, strategy: str) -> None:
    pytest.importorskip("onnxruntime")
    from bertcls_hf.export.__main__ import main as export
    from bertcls_hf.predict.engines import OnnxRuntime

    pooling = "attention" if strategy == "windows" else None
    assert main(long_texts(truncation_strategy=strategy, window_pooling=pooling)) == 0
    out, graph = tmp_path / "out", tmp_path / "onnx"
    assert export([str(out), "--output_dir", str(graph)]) == 0
    assert json.loads((graph / "onnx_report.json").read_text())["largest_difference"] < 1e-4
    tokenizer = AutoTokenizer.from_pretrained(out)
    texts = [row["text"] for row in texts_of(tmp_path / "test.csv")[:10]]
    run = OnnxRuntime(graph / "onnx/model.onnx", 1).run
    expected = read_outputs(out / "test_outputs.npz").logits[:10]
    np.testing.assert_allclose(run(dict(tokenizer(texts, padding=True, return_tensors="np"))), expected, atol=1e-4)
    for text, row in zip(texts, expected, strict=True):
        np.testing.assert_allclose(run(dict(tokenizer([text], return_tensors="np")))[0], row, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head_tail_split": 0.5}, "--head_tail_split is for --truncation_strategy head_tail"),
        ({"truncation_strategy": "head_tail", "head_tail_split": 1}, "--head_tail_split 1.0: must lie between"),
        ({"truncation_strategy": "head_tail", "window_stride": 4}, "--window_stride is for --truncation_strategy win"),
        ({"window_pooling": "max"}, "--window_pooling is for --truncation_strategy windows"),
        ({"truncation_strategy": "windows", "window_stride": 14}, "can share 13 at most"),
        ({"truncation_strategy": "tail", "max_text_length": 64}, "--max_text_length is for --truncation_strategy"),
        ({"truncation_strategy": "windows", "max_text_length": 8}, "--max_text_length 8 is less than"),
        ({"truncation_strategy": "windows", "window_pooling": "attention", "boost": True, "learning_rate": None,
          "head_init": "logistic"}, "--head_init logistic fits one vector per text"),
        ({"truncation_side": "left"}, "here it is --truncation_strategy head (right) or tail (left)"),
    ],
)  # fmt: skip
def test_refusals(long_texts: Command, capsys: pytest.CaptureFixture, options: dict[str, Any], message: str) -> None:
    assert main(long_texts(**options)) == 2
    assert message in capsys.readouterr().err
