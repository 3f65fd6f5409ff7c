"""The encoders of all families are read, and what is read off their configuration holds."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoTokenizer, MPNetConfig, pipeline

from bertcls_hf.config.arguments import ModelArguments
from bertcls_hf.models.loading import Checkpoint, load_classifier, open_checkpoint, resolve_config
from bertcls_hf.models.modeling import TextClassifier
from bertcls_hf.predict.predictor import Predictor
from bertcls_hf.run import main
from tests.helpers.families import FAMILIES, INPUTS, LABELS, SIZES, make_model
from tests.helpers.reviews import write_pairs


def load(folder: Path, **options: Any) -> TextClassifier:
    args = ModelArguments(model_name_or_path=str(folder), pooling="mean", **options)
    checkpoint = open_checkpoint(args)
    return load_classifier(args, checkpoint, resolve_config(args, checkpoint, LABELS)).eval()


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_an_encoder_is_read_with_the_attention_that_it_has(family: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    # A configuration without what other tests may have written into the shared one.
    config = type(FAMILIES[family]).from_dict(FAMILIES[family].to_dict())
    encoder = AutoModel.from_config(config).eval()
    encoder.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = encoder(**INPUTS).last_hidden_state
        for options in ({}, {"attn_implementation": "eager"}):
            model = load(tmp_path, **options)
            torch.testing.assert_close(model.encoder(**INPUTS).last_hidden_state, expected)
            default = encoder.config._attn_implementation
            assert model.encoder.config._attn_implementation == options.get("attn_implementation", default)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_dropout_of_attention_weights_is_the_asked_one(family: str, tmp_path: Path) -> None:
    AutoModel.from_config(type(FAMILIES[family]).from_dict(FAMILIES[family].to_dict())).save_pretrained(tmp_path)
    model = load(tmp_path, attention_dropout=0.35)
    assert any(0.35 in (module.p if isinstance(module, torch.nn.Dropout) else None,
                        getattr(module, "attention_dropout", None), getattr(module, "dropout_prob", None))
               for module in model.encoder.modules())  # fmt: skip
    assert 0.35 in model.config.encoder_config.to_dict().values()


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_longest_text_has_positions(family: str) -> None:
    model = make_model(FAMILIES[family], pooling="mean")
    longest = Checkpoint("", FAMILIES[family], None).position_limit
    assert model(input_ids=torch.full((1, longest), 5)).logits.isfinite().all()


@pytest.mark.parametrize("padding", [0, 1, 3])
def test_mpnet_counts_positions_from_2_whatever_its_padding_id(padding: int) -> None:
    config = MPNetConfig(**{**SIZES, "pad_token_id": padding})
    limit = Checkpoint("", config, None).position_limit
    assert limit == 38
    with pytest.raises(IndexError):
        make_model(config, pooling="mean")(input_ids=torch.full((1, limit + 1), 5))


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_token_types_are_for_encoders_that_take_them(family: str) -> None:
    takes_types = family in {"albert", "bert", "camembert", "electra", "roberta", "xlm-roberta"}
    assert Checkpoint("", FAMILIES[family], None).has_token_types == takes_types


@pytest.mark.parametrize(
    ("options", "saved_class"),
    [
        ({}, "MPNetForSequenceClassification"),
        ({"boost": True, "learning_rate": None}, "TextClassifierForSequenceClassification"),
    ],
    ids=["fine-tuned", "boost"],
)
def test_an_mpnet_is_trained_on_pairs_and_read_by_transformers(
    command: Callable[..., list[str]], tiny_bert: Path, tmp_path: Path, options: dict[str, Any], saved_class: str
) -> None:
    folder = shutil.copytree(tiny_bert, tmp_path / "encoder")
    vocab_size = len(AutoTokenizer.from_pretrained(folder))
    AutoModel.from_config(MPNetConfig(**{**SIZES, "vocab_size": vocab_size})).save_pretrained(folder)
    files = {"train_file": write_pairs(tmp_path / "pairs.csv"), "validation_file": None, "test_file": None}
    assert main(command(**files, model_name_or_path=folder, num_train_epochs=1, **options)) == 0
    out = tmp_path / "out"
    # The tokenizer of BERT gives types, which old versions of the stock class do not take.
    assert set(AutoTokenizer.from_pretrained(out)("a", "b")) == {"input_ids", "attention_mask"}
    classify = pipeline("text-classification", str(out), top_k=None, trust_remote_code=True)
    assert type(classify.model).__name__ == saved_class
    (scores,) = classify([{"text": "good film", "text_pair": "bad plot"}])
    (prediction,) = Predictor.from_pretrained(str(out), device="cpu").predict(["good film"], pairs=["bad plot"])
    assert {score["label"]: score["score"] for score in scores} == pytest.approx(prediction.probabilities, abs=1e-5)
