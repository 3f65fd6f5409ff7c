"""Encoders with one token type read the tokenizers of encoders with two."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, RobertaConfig, RobertaModel, pipeline

from bertcls_hf.models.modeling import TextClassifier, TextClassifierConfig
from bertcls_hf.predict.predictor import Predictor
from bertcls_hf.run import main
from tests.helpers.reviews import write_pairs


class TestOneTokenType:
    """A RoBERTa with the tokenizer of BERT, as klue/roberta is: it has no embedding for the second text's type."""

    @pytest.fixture
    def encoder(self, tiny_bert: Path, tmp_path: Path) -> Path:
        folder = shutil.copytree(tiny_bert, tmp_path / "encoder")
        tokenizer = AutoTokenizer.from_pretrained(folder)
        config = RobertaConfig(
            vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=66, type_vocab_size=1, pad_token_id=0,
        )  # fmt: skip
        RobertaModel(config).save_pretrained(folder)
        return folder

    @pytest.mark.parametrize("options", [{}, {"pooling": "mean"}, {"boost": True, "learning_rate": None}])
    def test_reads_pairs(
        self, command: Callable[..., list[str]], encoder: Path, tmp_path: Path, options: dict[str, Any]
    ) -> None:
        files = {"train_file": write_pairs(tmp_path / "pairs.csv"), "validation_file": None, "test_file": None}
        assert main(command(**files, model_name_or_path=encoder, num_train_epochs=1, **options)) == 0
        out = tmp_path / "out"
        classify = pipeline("text-classification", str(out), top_k=None, trust_remote_code=True)
        (scores,) = classify([{"text": "good film", "text_pair": "bad plot"}])
        (prediction,) = Predictor.from_pretrained(str(out), device="cpu").predict(["good film"], pairs=["bad plot"])
        found = {score["label"]: score["score"] for score in scores}
        assert found == pytest.approx(prediction.probabilities, abs=1e-5)

    def test_token_types_that_a_caller_gives_are_left_out(self, encoder: Path) -> None:
        classifier = TextClassifier(TextClassifierConfig(RobertaConfig.from_pretrained(encoder))).eval()
        tokens = {"input_ids": torch.tensor([[5, 6, 7]])}
        given = classifier(**tokens, token_type_ids=torch.tensor([[0, 0, 1]])).logits
        assert torch.equal(given, classifier(**tokens).logits)
