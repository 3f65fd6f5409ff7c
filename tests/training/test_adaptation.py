"""Runs with --adapt_num_train_epochs: the encoder learns from masked tokens, and the classifier starts from it."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from bertcls_hf.models.masked_tokens import score_masked_tokens_alone
from bertcls_hf.run import main
from bertcls_hf.run.adapt import main as adapt
from bertcls_hf.training.adaptation import DESCRIPTION_FILE
from tests.helpers.families import FAMILIES
from tests.helpers.training_runs import history


Command = Callable[..., list[str]]
ADAPTED: dict[str, Any] = {
    "adapt_num_train_epochs": 3, "adapt_learning_rate": 5e-3, "num_train_epochs": 1, "lexical_baseline": False,
}  # fmt: skip
MODES: dict[str, dict[str, Any]] = {
    "fine-tuned": {},
    "boost": {"boost": True, "learning_rate": None},
    "LP-FT": {"boost": True, "freeze_backbone": False, "head_num_train_epochs": 1},
    "pooler": {"pooling": "pooler"},
    "windows": {"truncation_strategy": "windows", "max_seq_length": 8},
    "averaged": {"weight_averaging": "ema"},
    "layers": {"layerwise_lr_decay": 0.8, "early_stopping_patience": 2, "label_smoothing_factor": 0.1},
}
MASKED_FAMILIES = {"bert", "distilbert", "roberta", "electra", "mpnet", "modernbert", "deberta-v2", "albert"}


def description(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "adapted" / DESCRIPTION_FILE).read_text())


@pytest.mark.parametrize("mode", MODES)
def test_the_classifier_starts_from_the_adapted_encoder(command: Command, tmp_path: Path, mode: str) -> None:
    assert main(command(**{**ADAPTED, **MODES[mode]})) == 0
    out, later = tmp_path / "out", tmp_path / "later"
    found = description(out)
    assert (found["texts"], found["unlabelled"], found["epochs"]) == (48, 0, 3)
    assert found["loss_after"] < found["loss_before"]
    # The same run from the adapted encoder, as any other checkpoint.
    options = {**ADAPTED, **MODES[mode], "adapt_num_train_epochs": None, "adapt_learning_rate": None}
    assert main(command(**options, model_name_or_path=out / "adapted", output_dir=later)) == 0
    weights, others = load_file(out / "model.safetensors"), load_file(later / "model.safetensors")
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert "3 epochs as a masked language model on 48 texts; loss of a masked" in (out / "README.md").read_text()


@pytest.mark.parametrize("family", sorted(MASKED_FAMILIES))
def test_scores_of_the_masked_tokens_alone_give_the_same_loss(family: str) -> None:
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(copy.deepcopy(FAMILIES[family])).eval()
    ids = torch.randint(5, 40, (3, 12))
    labels = torch.where(torch.rand(3, 12) < 0.3, ids, -100)
    mask = torch.ones_like(ids)
    mask[1, 8:], labels[1, 8:] = 0, -100
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    loss = model(**inputs).loss
    loss.backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    score_masked_tokens_alone(model)
    output = model(**inputs)
    torch.testing.assert_close(output.loss, loss)
    assert output.logits.shape[:2] == (1, labels.ne(-100).sum())
    output.loss.backward()
    for name, gradient in gradients.items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient)
    assert model(input_ids=ids, attention_mask=mask).logits.shape[:2] == ids.shape


@pytest.mark.night
def test_a_compiled_adaptation_is_the_same(command: Command, tmp_path: Path) -> None:
    options = {**ADAPTED, "attention_dropout": 0, "seed": 3, "max_train_samples": 16}
    assert main(command(**options)) == 0
    torch._dynamo.reset()
    compiled = {"torch_compile": True, "torch_compile_backend": "aot_eager", "output_dir": tmp_path / "compiled"}
    assert main(command(**options, **compiled)) == 0
    plain, other = description(tmp_path / "out"), description(tmp_path / "compiled")
    assert other["loss_after"] == pytest.approx(plain["loss_after"], abs=1e-3)


def test_the_adapted_folder_is_an_encoder(command: Command, tiny_bert: Path, tmp_path: Path) -> None:
    assert main(command(**ADAPTED)) == 0
    adapted, original = AutoModel.from_pretrained(tmp_path / "out/adapted"), AutoModel.from_pretrained(tiny_bert)
    assert type(adapted) is type(original)
    name = "encoder.layer.0.output.dense.weight"
    assert not torch.equal(adapted.get_parameter(name), original.get_parameter(name))
    # Masked tokens teach the pooler nothing.
    assert torch.equal(adapted.pooler.dense.weight, original.pooler.dense.weight)
    assert AutoTokenizer.from_pretrained(tmp_path / "out/adapted").mask_token == "[MASK]"


def test_long_texts_are_learned_from_in_parts(
    command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(command(**ADAPTED, max_seq_length=8)) == 0
    parts = next(record.args[1] for record in caplog.records if record.msg.startswith("adapting the encoder"))
    assert parts > 48


def test_more_texts_without_labels(command: Command, tmp_path: Path, reviews: dict[str, Path]) -> None:
    more = tmp_path / "more.jsonl"
    more.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("a good film", "", "a bad story")))
    assert main(command(**ADAPTED, unlabelled_file=more)) == 0
    found = description(tmp_path / "out")
    assert (found["texts"], found["unlabelled"]) == (50, 2)
    assert "50 texts, 2 of them without labels" in (tmp_path / "out/README.md").read_text()


class TestRepeating:
    def test_the_command_leaves_what_the_run_starts_from(
        self, command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert adapt(command(**ADAPTED)) == 0
        assert not (tmp_path / "out/model.safetensors").exists()
        assert f"--model_name_or_path {tmp_path / 'out/adapted'}" in caplog.text
        caplog.clear()
        assert main(command(**ADAPTED)) == 0
        assert "holds the same adapted encoder" in caplog.text
        assert (tmp_path / "out/model.safetensors").exists()

    def test_an_equal_encoder_is_not_adapted_again(
        self, command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert main(command(**ADAPTED)) == 0
        weights = (tmp_path / "out/adapted/model.safetensors").read_bytes()
        caplog.clear()
        assert main(command(**{**ADAPTED, "learning_rate": 1e-4})) == 0
        assert "holds the same adapted encoder" in caplog.text
        assert (tmp_path / "out/adapted/model.safetensors").read_bytes() == weights
        caplog.clear()
        assert main(command(**{**ADAPTED, "mlm_probability": 0.3})) == 0
        assert "adapting the encoder" in caplog.text

    def test_an_interrupted_adaptation_goes_on(self, command: Command, tmp_path: Path) -> None:
        options = {**ADAPTED, "save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
        whole, halted = tmp_path / "whole", tmp_path / "halted"
        assert main(command(**options, output_dir=whole)) == 0
        assert main(command(**{**options, "adapt_num_train_epochs": 1}, output_dir=halted)) == 0
        shutil.rmtree(halted)
        shutil.copytree(whole / "adapted", halted / "adapted")
        (halted / "adapted" / DESCRIPTION_FILE).unlink()
        (halted / "adapted/model.safetensors").unlink()
        assert main(command(**options, output_dir=halted, resume_from_checkpoint="auto")) == 0
        assert description(whole) == description(halted)
        weights, others = (load_file(folder / "adapted/model.safetensors") for folder in (whole, halted))
        assert all(torch.equal(weights[name], others[name]) for name in weights)
        assert history(whole) == history(halted)


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(MASKED_FAMILIES - {"bert"}))
def test_families(command: Command, tiny_bert: Path, tmp_path: Path, family: str) -> None:
    encoder, config = tmp_path / family, copy.deepcopy(FAMILIES[family])
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    config.vocab_size, config.pad_token_id = len(tokenizer), tokenizer.pad_token_id
    AutoModel.from_config(config).save_pretrained(encoder)
    tokenizer.model_max_length = 32
    tokenizer.save_pretrained(encoder)
    assert main(command(**{**ADAPTED, "learning_rate": 1e-4}, model_name_or_path=encoder)) == 0
    assert description(tmp_path / "out")["loss_after"] is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adapt_num_train_epochs": 1, "do_eval": True}, "--adapt_num_train_epochs is for a training"),
        ({"adapt_num_train_epochs": 1, "streaming": True, "max_steps": 2}, "reads all texts several times"),
        ({"mlm_probability": 0.3}, "--mlm_probability belong to --adapt_num_train_epochs, which is 0"),
        ({"adapt_num_train_epochs": 1, "mlm_probability": 1}, "--mlm_probability 1.0: must lie between 0 and 1"),
        ({"adapt_num_train_epochs": 1, "unlabelled_file": "none.csv"}, "none.csv: no such file or folder"),
    ],
)
def test_refusals(command: Command, capsys: pytest.CaptureFixture, options: dict[str, Any], message: str) -> None:
    assert main(command(**options)) in (2, 65)
    assert message in capsys.readouterr().err


def test_the_command_asks_for_epochs(command: Command, capsys: pytest.CaptureFixture) -> None:
    assert adapt(command()) == 2
    assert "say with --adapt_num_train_epochs how often the texts are read" in capsys.readouterr().err


def test_a_classifier_is_not_adapted(command: Command, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(command(num_train_epochs=1)) == 0
    again = {**ADAPTED, "model_name_or_path": tmp_path / "out", "output_dir": tmp_path / "again"}
    assert main(command(**again)) == 2
    assert "is a classifier: start from its encoder" in capsys.readouterr().err
