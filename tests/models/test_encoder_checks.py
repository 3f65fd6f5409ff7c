"""What an encoder cannot compute is refused before data is read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import bertcls_hf.models.encoder_checks
from bertcls_hf.config.arguments import ClassifierTrainingArguments
from bertcls_hf.config.parsing import build_arguments, explicit_options
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.models.encoder_checks import check_encoder
from bertcls_hf.models.loading import Checkpoint
from bertcls_hf.predict.predictor import Predictor
from bertcls_hf.run import main
from tests.helpers.families import FAMILIES
from tests.helpers.training_runs import losses, without_dropout


FLASH = "flash_attention_2"


def check(family: str = "bert", **options: Any) -> None:
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    args = build_arguments(explicit_options(["--train_file", "train.csv", *words]))
    check_encoder(args, Checkpoint("", FAMILIES[family], None))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The options of a machine with a GPU; no tensor goes there."""
    monkeypatch.setattr(ClassifierTrainingArguments, "device", torch.device("cuda"))


def test_sdpa_and_eager_train_alike(command: Callable[..., list[str]], tmp_path: Path) -> None:
    options = {"model_name_or_path": without_dropout(command, tmp_path), "dropout": 0.0, "num_train_epochs": 1}
    for attention in ("sdpa", "eager"):
        assert main(command(**options, attn_implementation=attention, output_dir=tmp_path / attention)) == 0
    assert losses(tmp_path / "eager") == pytest.approx(losses(tmp_path / "sdpa"), rel=1e-4)


@pytest.mark.parametrize(
    ("attention", "message"),
    [
        (FLASH, f"--attn_implementation {FLASH} needs a GPU, and this run has none"),
        ("kernels-community/flash-attn2", "needs a GPU"),
        (
            "someone/attention",
            "--attn_implementation someone/attention is code of the Hub: it needs --trust_remote_code",
        ),
        ("quick", '--attn_implementation quick: Specified `attn_implementation="quick"` is not supported'),
    ],
)
def test_it_is_refused_in_one_line_before_data_is_read(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture, attention: str, message: str
) -> None:
    broken = tmp_path / "broken.csv"
    broken.write_text("text,label\n")
    assert main(command(train_file=broken, attn_implementation=attention)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_flash_attention_needs_16_bits(gpu: None) -> None:
    with pytest.raises(ArgumentsError, match=f"--attn_implementation {FLASH} computes in 16 bits: add --bf16"):
        check(attn_implementation=FLASH)
    with pytest.raises(ArgumentsError, match="with --boost, add --boost_dtype bfloat16"):
        check(attn_implementation=FLASH, boost=True)


@pytest.mark.parametrize(
    "options", [{"bf16": True}, {"boost": True, "boost_dtype": "bfloat16"}], ids=["fine-tuned", "boost"]
)
def test_flash_attention_needs_its_package(gpu: None, options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentsError, match="--attn_implementation flash_attention_2: FlashAttention2 has been"):
        check(attn_implementation=FLASH, **options)


def test_a_kernel_that_a_configuration_names_is_remote_code(
    tiny_bert: Path, command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    encoder = tmp_path / "encoder"
    shutil.copytree(tiny_bert, encoder)
    config = json.loads((encoder / "config.json").read_text())
    kernel = "someone/kernel"
    (encoder / "config.json").write_text(json.dumps({**config, "attn_implementation": kernel}))
    assert main(command(model_name_or_path=encoder)) == 2
    assert f"its configuration names the kernel {kernel}, code of the Hub" in capsys.readouterr().err
    assert main(command(model_name_or_path=encoder, attn_implementation="eager", num_train_epochs=1)) == 0
    labels = {"id2label": {"0": "a", "1": "b"}, "architectures": ["BertForSequenceClassification"]}
    (encoder / "config.json").write_text(json.dumps({**config, **labels, "attn_implementation": kernel}))
    with pytest.raises(ArgumentsError, match="names the kernel someone/kernel"):
        Predictor.from_pretrained(str(encoder))


def test_a_kernel_in_its_place_is_remote_code(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bertcls_hf.models.encoder_checks, "is_kernels_available", lambda: True)
    with pytest.raises(ArgumentsError, match="the one named kernels would fetch code of the Hub"):
        check(attn_implementation=FLASH, bf16=True)
    with pytest.raises(ArgumentsError, match="FlashAttention2 has been"):
        check(attn_implementation=FLASH, bf16=True, trust_remote_code=True)


@pytest.mark.parametrize(("family", "encoder"), [("deberta", "DebertaModel"), ("mpnet", "MPNetModel")])
@pytest.mark.parametrize("attention", ["sdpa", "flex_attention", FLASH])
def test_a_family_without_the_attention_says_so(gpu: None, family: str, encoder: str, attention: str) -> None:
    check("bert", attn_implementation="sdpa")
    with pytest.raises(ArgumentsError) as refused:
        check(family, attn_implementation=attention, bf16=True)
    message = str(refused.value)
    assert message.startswith(f"--attn_implementation {attention}: {encoder} does not support")
    assert message.endswith(". Leave it out.")
    assert "http" not in message


@pytest.mark.parametrize(("family", "encoder"), [("albert", "AlbertModel"), ("mpnet", "MPNetModel")])
def test_layers_that_cannot_be_computed_again(family: str, encoder: str) -> None:
    check("bert", activation_checkpointing=True)
    with pytest.raises(ArgumentsError, match=f"--activation_checkpointing: {encoder} cannot compute its layers again"):
        check(family, activation_checkpointing=True)


def test_adapters_need_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    check(lora_r=4)
    monkeypatch.setattr(bertcls_hf.models.encoder_checks, "is_peft_available", lambda: False)
    with pytest.raises(ArgumentsError, match="--lora_r needs the package peft: pip install peft"):
        check(lora_r=4)
