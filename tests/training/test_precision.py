"""bfloat16, compiled models and recomputed layers: the numbers of a plain run, and an ordinary folder at its end."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch._dynamo.utils import counters
from transformers import AutoModelForSequenceClassification

from bertcls_hf.config.arguments import ClassifierTrainingArguments
from bertcls_hf.run import main
from tests.helpers.families import FAMILIES, INPUTS, make_model
from tests.helpers.reviews import ROOT
from tests.helpers.training_runs import assert_same_run, losses, without_dropout


LABELLED = {**INPUTS, "labels": torch.tensor([0, 1])}
FROZEN = {"freeze_backbone": True, "head_learning_rate": 0.01}


def results(folder: Path) -> dict[str, float]:
    return json.loads((folder / "all_results.json").read_text())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.fixture
def runs(command: Callable[..., list[str]], tmp_path: Path) -> Callable[..., Path]:
    """Runs a training without dropout, with all of its results, and gives its folder."""
    model = without_dropout(command, tmp_path)
    defaults = {"model_name_or_path": model, "dropout": 0.0, "do_train": True, "do_eval": True, "do_predict": True}

    def run(name: str, **options: Any) -> Path:
        assert main(command(**{**defaults, **options}, output_dir=tmp_path / name)) == 0
        return tmp_path / name

    return run


class TestSixteenBits:
    @pytest.mark.parametrize(
        "options",
        [{}, FROZEN, {"boost": True, "head_learning_rate": 0.01}, {"padding_free": True, "pooling": "mean"}],
        ids=["fine-tuned", "frozen", "boost", "without padding"],
    )
    def test_bf16_learns_the_same_with_float32_weights(self, runs: Callable[..., Path], options: dict) -> None:
        exact, mixed = runs("exact", **options), runs("mixed", **options, bf16=True)
        assert losses(mixed) == pytest.approx(losses(exact), rel=0.01)
        # bfloat16 was computed with: no two runs differ that little without it.
        assert losses(mixed) != pytest.approx(losses(exact), rel=1e-6)
        assert {tensor.dtype for tensor in weights(mixed).values()} == {torch.float32}
        assert json.loads((mixed / "config.json").read_text())["dtype"] == "float32"
        assert all(math.isfinite(value) for value in results(mixed).values())
        assert results(mixed)["test_log_loss"] == pytest.approx(results(exact)["test_log_loss"], rel=0.01)
        for name, tensor in weights(exact).items():
            torch.testing.assert_close(weights(mixed)[name], tensor, rtol=0.05, atol=0.02)

    def test_the_loss_is_computed_in_float32(self) -> None:
        model = make_model(pooling="mean", class_weights=[1.0, 2.0, 3.0])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(**LABELLED)
        assert output.logits.dtype == torch.bfloat16
        assert output.loss.dtype == torch.float32

    @pytest.mark.parametrize("option", ["bf16_full_eval", "fp16_full_eval"])
    def test_an_evaluation_in_16_bits_leaves_the_saved_model_alone(
        self, runs: Callable[..., Path], option: str
    ) -> None:
        exact, half = runs("exact"), runs("half", **{option: True})
        assert losses(half) == losses(exact)
        assert weights(half).keys() == weights(exact).keys()
        assert all(torch.equal(weights(half)[name], tensor) for name, tensor in weights(exact).items())
        # The last evaluations are in 16 bits; those in between, which choose the best model, are not.
        assert results(half)["eval_log_loss"] == pytest.approx(results(exact)["eval_log_loss"], rel=0.01)
        assert results(half)["eval_log_loss"] != results(exact)["eval_log_loss"]
        histories = [json.loads((run / "trainer_state.json").read_text())["log_history"] for run in (half, exact)]
        between = [[line["eval_loss"] for line in history if "eval_loss" in line] for history in histories]
        assert len(between[0]) == 2
        assert between[0] == between[1]

    def test_fp16_is_refused_on_a_processor(
        self, command: Callable[..., list[str]], capsys: pytest.CaptureFixture
    ) -> None:
        assert main(command(fp16=True)) == 2
        assert capsys.readouterr().err == (
            "error: --fp16 (or mixed_precision: fp16 of accelerate's configuration) needs a GPU: on a processor, use "
            "--bf16 or neither\n"
        )

    @pytest.mark.skipif(torch.accelerator.is_available(), reason="this machine has an accelerator")
    def test_bf16_needs_no_other_option_on_a_processor(self) -> None:
        args = ClassifierTrainingArguments(bf16=True)
        assert (args.mixed_precision, args.device.type) == ("bf16", "cpu")


@pytest.mark.slow
class TestCompiled:
    compiled: dict[str, Any] = {"torch_compile": True, "torch_compile_backend": "aot_eager"}

    @pytest.mark.parametrize(
        "options",
        [
            pytest.param({}, marks=pytest.mark.night),
            pytest.param(
                {"torch_compile_backend": "inductor", "max_steps": 1, "eval_strategy": "no"}, marks=pytest.mark.night
            ),
            FROZEN,
            {"boost": True, "head_learning_rate": 0.01},
            {"trainable_layers": 2, "layerwise_lr_decay": 0.9},
            pytest.param(
                {"padding_free": True, "pooling": "mean", "pooling_layers": 2, "num_train_epochs": 1},
                marks=pytest.mark.night,
            ),
            pytest.param(
                {
                    "gradient_accumulation_steps": 3,
                    "per_device_train_batch_size": 5,
                    "class_weights": "balanced",
                    "num_train_epochs": 1,
                },
                marks=pytest.mark.night,
            ),
        ],
        ids=["eager", "inductor", "frozen", "boost", "layers", "without padding", "accumulated"],
    )
    def test_it_is_the_same_run(self, runs: Callable[..., Path], options: dict[str, Any]) -> None:
        if options.get("torch_compile_backend") == "inductor" and shutil.which("g++") is None:
            pytest.skip("inductor needs a C++ compiler")
        torch._dynamo.reset()
        counters.clear()
        plain = {name: value for name, value in options.items() if name != "torch_compile_backend"}
        first, second = runs("plain", **plain), runs("compiled", **{**self.compiled, **options})
        assert counters["stats"]["unique_graphs"] > 0
        assert_same_run(first, second)  # Their weights' names are the same, too.
        code = (second / "modeling.py").exists()
        model = AutoModelForSequenceClassification.from_pretrained(second, trust_remote_code=code)
        assert not any("_orig_mod" in name for name in [*weights(second), *model.state_dict()])
        assert not any("_orig_mod" in name for path in second.glob("checkpoint-*") for name in weights(path))

    @pytest.mark.night
    def test_it_resumes(self, runs: Callable[..., Path], tmp_path: Path) -> None:
        whole = runs("whole", **self.compiled)
        (tmp_path / "cut").mkdir()
        shutil.move(whole / "checkpoint-6", tmp_path / "cut")
        assert_same_run(whole, runs("cut", **self.compiled, resume_from_checkpoint="true"))


class TestRecomputedLayers:
    @pytest.mark.parametrize(
        "options",
        [{}, {"trainable_layers": 2}, {"padding_free": True, "pooling": "mean"}, {"bf16": True}],
        ids=["all", "layers", "without padding", "bf16"],
    )
    def test_it_is_the_same_run(
        self, command: Callable[..., list[str]], runs: Callable[..., Path], tiny_bert: Path, options: dict[str, Any]
    ) -> None:
        # With dropout: it must drop the same when a layer is computed again.
        options = {"model_name_or_path": tiny_bert, "dropout": 0.1, **options}
        first, second = runs("plain", **options), runs("recomputed", **options, activation_checkpointing=True)
        assert_same_run(first, second)

    @pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"albert", "mpnet"}))
    def test_layers_are_computed_twice(self, family: str) -> None:
        model = make_model(FAMILIES[family], pooling="mean").train()
        torch.manual_seed(1)
        model(**LABELLED).loss.backward()
        expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        model.zero_grad()
        model.activation_checkpointing_enable()
        calls = count_layers(model)
        torch.manual_seed(1)
        loss = model(**LABELLED).loss
        before = len(calls)
        loss.backward()
        assert (before, len(calls)) == (3, 6)
        for name, gradient in expected.items():
            torch.testing.assert_close(model.get_parameter(name).grad, gradient)

    def test_frozen_layers_are_not(self) -> None:
        model = make_model(trainable_layers=1, pooling="mean").train()
        model.activation_checkpointing_enable()
        states = []
        model.encoder.embeddings.register_forward_hook(lambda module, inputs, output: states.append(output))
        calls = count_layers(model)
        model(**LABELLED).loss.backward()
        assert len(calls) == 3 + 1
        assert not states[0].requires_grad
        learning = {name for name, p in model.encoder.named_parameters() if p.grad is not None}
        assert learning
        assert all(".2." in name for name in learning)

    @pytest.mark.parametrize("option", ["activation_checkpointing", "gradient_checkpointing"])
    @pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")
    def test_a_frozen_backbone_has_nothing_to_compute_again(
        self, command: Callable[..., list[str]], capsys: pytest.CaptureFixture, option: str
    ) -> None:
        assert main(command(freeze_backbone=True, learning_rate=None, **{option: True})) == 2
        assert "spares memory of the backbone's gradients, and it is frozen: leave it out" in capsys.readouterr().err

    def test_reentrant_checkpoints_need_embeddings_that_learn(
        self, command: Callable[..., list[str]], capsys: pytest.CaptureFixture
    ) -> None:
        options = {"activation_checkpointing": True, "trainable_layers": 1}
        assert main(command(**options, activation_checkpointing_kwargs='{"use_reentrant": true}')) == 2
        assert "use_reentrant checkpoints need embeddings that learn" in capsys.readouterr().err


GPU_RECIPES = sorted((ROOT / "recipes").rglob("*_gpu.yaml"))


def test_the_gpu_recipes_are_nine() -> None:
    assert len(GPU_RECIPES) == 9


@pytest.mark.slow
@pytest.mark.parametrize("recipe", GPU_RECIPES, ids=lambda path: path.stem)
def test_a_gpu_recipe_trains_on_a_processor_too(
    command: Callable[..., list[str]], tmp_path: Path, recipe: Path
) -> None:
    """All but flash attention, with a tiny model and two steps."""
    options = {"attn_implementation": "sdpa", "max_seq_length": 64, "max_steps": 2, "text_column_names": "text",
               "csv_quoting": "auto", "learning_rate": None, "num_train_epochs": None}  # fmt: skip
    if "torch_compile: true" in recipe.read_text():
        options["torch_compile_backend"] = "aot_eager"
    assert main([str(recipe), *command(**options)]) == 0
    assert len(losses(tmp_path / "out")) == 2
    assert all(math.isfinite(value) for value in results(tmp_path / "out").values())


def count_layers(model: Any) -> list[str]:
    """Grows by a word with every time that an attention of the encoder is computed."""
    calls: list[str] = []
    for name, module in model.encoder.named_modules():
        if name.rpartition(".")[2] in {"query", "q_lin", "query_proj", "in_proj", "Wqkv"}:
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
    return calls


class TestConfiguredPrecision:
    def test_is_recorded_and_repeated(
        self, runs: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
        configured = runs("configured")
        assert "bf16: true" in (configured / "recipe.yaml").read_text()
        assert "| precision | bfloat16 |" in (configured / "README.md").read_text()
        monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")
        assert losses(runs("asked", bf16=True)) == losses(configured)
        assert main([str(configured / "recipe.yaml"), "--output_dir", str(tmp_path / "repeated"), "--use_cpu"]) == 0
        assert losses(tmp_path / "repeated") == losses(configured)

    def test_cannot_be_refused_on_the_command_line(
        self, command: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
    ) -> None:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
        assert main(command(bf16=False)) == 2
        assert "--bf16 false, but accelerate's configuration asks for mixed_precision: bf16" in capsys.readouterr().err
