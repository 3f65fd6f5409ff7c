"""Runs with --lora_r: what is trained, the saved model without adapters, a resume, and refusals."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from bertcls_hf.config.arguments import ModelArguments
from bertcls_hf.models.adapters import add_lora, without_adapters
from bertcls_hf.models.modeling import TextClassifier
from bertcls_hf.predict.predictor import Predictor
from bertcls_hf.run import main
from bertcls_hf.training.saved_outputs import read_outputs
from tests.helpers.families import FAMILIES, INPUTS, LABELS, make_config
from tests.helpers.long_texts import texts_of
from tests.helpers.training_runs import SAVES, assert_identical_run


Command = Callable[..., list[str]]
LORA: dict[str, Any] = {"lora_r": 2, "learning_rate": 1e-2, "head_learning_rate": 1e-2}
MODES: dict[str, dict[str, Any]] = {
    "fine-tuned": {},
    "LP-FT": {"boost": True, "freeze_backbone": False, "head_num_train_epochs": 1},
    "mean of two layers": {"pooling": "mean", "pooling_layers": 2, "pooling_layers_merge": "weighted"},
    "lexical": {"lexical_features": True},
    "windows": {"truncation_strategy": "windows", "max_seq_length": 8, "pooling": "mean"},
    "averaged": {"weight_averaging": "ema"},
    "padding-free": {"padding_free": True, "train_sampling_strategy": "random"},
    "layer-wise": {"layerwise_lr_decay": 0.9, "gradient_accumulation_steps": 2},
    "recomputed": {"gradient_checkpointing": True},
    "adapted": {"adapt_num_train_epochs": 1},
    "dropout": {"lora_dropout": 0.2, "lora_alpha": 8, "lora_target_modules": "query,value"},
}


@pytest.mark.parametrize("mode", MODES)
def test_the_saved_model_has_no_adapters(
    command: Command, reviews: dict[str, Path], tmp_path: Path, mode: str
) -> None:
    assert main(command(**{**LORA, **MODES[mode], "do_train": True, "do_predict": True})) == 0
    out = tmp_path / "out"
    assert not [name for name in load_file(out / "model.safetensors") if "lora" in name or "base_layer" in name]
    texts = [row["text"] for row in texts_of(reviews["test"])]
    logits = Predictor.from_pretrained(str(out), device="cpu").logits(texts)
    np.testing.assert_allclose(logits, read_outputs(out / "test_outputs.npz").logits, atol=1e-4)
    assert "LoRA of rank 2" in (out / "README.md").read_text()


def test_a_stock_class_stays_one(command: Command, tiny_bert: Path, tmp_path: Path) -> None:
    assert main(command(**LORA)) == 0
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert type(model).__name__ == "BertForSequenceClassification"
    before, after = load_file(tiny_bert / "model.safetensors"), model.bert.state_dict()
    changed = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    # Matrices of projections, and neither biases nor norms nor embeddings.
    assert changed == {name for name in before if name.endswith("dense.weight") or ("attention.self" in name
                       and name.endswith("weight"))}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_families(family: str) -> None:
    torch.manual_seed(0)
    model = TextClassifier(make_config(FAMILIES[family], pooling="mean")).eval()
    before = model(**INPUTS).logits
    add_lora(model, ModelArguments(lora_r=2))
    torch.testing.assert_close(model(**INPUTS).logits, before)
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert all("lora_" in name or name.startswith("head.") for name in trained)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    after = model(**INPUTS).logits
    assert not torch.allclose(after, before, atol=1e-3)
    plain, _ = without_adapters(model)
    torch.testing.assert_close(plain(**INPUTS).logits, after, atol=1e-4, rtol=1e-4)
    assert len(LABELS.names) == after.shape[1]


@pytest.mark.parametrize("more", [{}, {"boost": True, "freeze_backbone": False, "head_num_train_epochs": 1}])
def test_a_killed_training_goes_on(command: Command, tmp_path: Path, more: dict[str, Any]) -> None:
    whole, halted = tmp_path / "whole", tmp_path / "halted"
    options = {**SAVES, **LORA, **more}
    assert main(command(**options, output_dir=whole)) == 0
    shutil.copytree(whole, halted)
    for checkpoint in halted.glob("checkpoint-*"):
        if int(checkpoint.name.split("-")[1]) > 6:
            shutil.rmtree(checkpoint)
    assert main(command(**options, output_dir=halted, resume_from_checkpoint="auto")) == 0
    assert_identical_run(whole, halted)


@pytest.mark.parametrize("rank", [0, 4])
def test_a_resume_with_another_rank(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture, rank: int
) -> None:
    assert main(command(**LORA)) == 0
    capsys.readouterr()
    assert main(command(**{**LORA, "lora_r": rank}, resume_from_checkpoint="auto")) == 2
    assert f"lora_r was 2, is {rank}" in capsys.readouterr().err


def test_the_optimizer_holds_few_moments(command: Command, tmp_path: Path) -> None:
    moments = {}
    for rank in (0, 1):
        out = tmp_path / str(rank)
        assert main(command(**{**LORA, "lora_r": rank}, output_dir=out, num_train_epochs=1)) == 0
        state = torch.load(out / "checkpoint-6/optimizer.pt")["state"]
        moments[rank] = sum(values["exp_avg"].numel() for values in state.values())
    assert moments[1] < moments[0] / 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora_alpha": 8}, "--lora_alpha belong to --lora_r, which is 0"),
        ({**LORA, "freeze_backbone": True, "learning_rate": None}, "leave out --freeze_backbone"),
        ({**LORA, "trainable_layers": 1}, "leave out --trainable_layers"),
        ({**LORA, "boost": True}, "--lora_r with --boost needs --freeze_backbone false"),
        ({**LORA, "lora_target_modules": "keys"}, "--lora_target_modules: "),
        ({**LORA, "lora_target_modules": "word_embeddings"}, "only projections take adapters here"),
        ({**LORA, "lora_dropout": 1}, "--lora_dropout 1.0: must lie in [0, 1)"),
        ({"load_in_8bit": True}, "weights are loaded in full precision"),
    ],
)
def test_refusals(command: Command, capsys: pytest.CaptureFixture, options: dict[str, Any], message: str) -> None:
    assert main(command(**options)) == 2
    assert message in capsys.readouterr().err
