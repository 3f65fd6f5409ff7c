"""Texts that are longer than the encoder takes: which tokens are kept, windows, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from bertcls_hf.config.arguments import ModelArguments
from bertcls_hf.data.tokenization import cut_tokens
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.models.loading import Checkpoint, open_checkpoint
from bertcls_hf.models.modeling import (
    TextClassifier,
    TextClassifierConfig,
    TruncationSettings,
    pool_windows,
    split_windows,
)
from bertcls_hf.models.truncation import resolve_truncation
from tests.helpers.families import FAMILIES


PAD, START, END = 0, 2, 3
LENGTH = 10


def text(tokens: int) -> list[int]:
    """Different tokens between special ones."""
    return [START, *range(5, 5 + tokens - 2), END]


def padded(texts: list[list[int]]) -> dict[str, torch.Tensor]:
    longest = max(map(len, texts))
    ids = torch.tensor([[*ids, *[PAD] * (longest - len(ids))] for ids in texts])
    return {"input_ids": ids, "attention_mask": (ids != PAD).long(), "token_type_ids": torch.zeros_like(ids)}


def settings_of(strategy: str = "windows", **values: Any) -> TruncationSettings:
    defaults = {"max_length": LENGTH, "max_text_length": 50, "kept_at_start": 3, "stride": 3}
    return TruncationSettings(strategy, **{**defaults, **values})


def windows_of(ids: list[int], stride: int) -> list[list[int]]:
    """Written anew: each window holds the special tokens, and eight tokens between them."""
    inner, found = ids[1:-1], []
    for start in range(0, len(inner), LENGTH - 2 - stride):
        found.append([ids[0], *inner[start : start + LENGTH - 2], ids[-1]])
        if start + LENGTH - 2 >= len(inner):
            break
    return found


@pytest.mark.parametrize("stride", [0, 3, 7])
def test_windows_cover_every_text(stride: int) -> None:
    settings = settings_of(stride=stride)
    texts = [text(tokens) for tokens in range(3, 40)]
    inputs, window_mask = split_windows(padded(texts), settings, PAD)
    expected = [windows_of(ids, stride) for ids in texts]
    masks = inputs["attention_mask"].bool()
    found = [ids[mask].tolist() for ids, mask in zip(inputs["input_ids"], masks, strict=True)]
    assert found == [window for windows in expected for window in windows]
    assert (inputs["input_ids"][~masks] == PAD).all()
    lengths = np.array(list(map(len, texts)))
    assert window_mask.sum(dim=1).tolist() == list(map(len, expected)) == settings.windows(lengths).tolist()
    assert settings.encoder_lengths(lengths).tolist() == [sum(map(len, windows)) for windows in expected]


@pytest.mark.parametrize(("strategy", "kept"), [("head", LENGTH - 1), ("tail", 1), ("head_tail", 3)])
def test_a_model_cuts_texts_as_the_tokens_of_a_training_are_cut(strategy: str, kept: int) -> None:
    settings = settings_of(strategy, kept_at_start=kept)
    texts = [text(tokens) for tokens in (4, 10, 11, 12, 30)]
    cut = [list(cut_tokens(ids, settings)) for ids in texts]
    assert [ids[:kept] for ids in cut] == [ids[:kept] for ids in texts]
    assert [ids[-1] for ids in cut] == [END] * 5
    assert list(map(len, cut)) == [4, 10, 10, 10, 10]
    model = model_of(settings)
    with torch.no_grad():
        whole = model(**padded(texts)).logits
        assert torch.allclose(whole, model(**padded(cut)).logits, atol=1e-6)
        assert torch.allclose(whole[-1:], model(**padded(texts[-1:])).logits, atol=1e-6)


def model_of(settings: TruncationSettings, **config: Any) -> TextClassifier:
    torch.manual_seed(0)
    return TextClassifier(
        TextClassifierConfig(
            encoder_config=FAMILIES["bert"], pooling="mean", truncation=settings._asdict(), pad_token_id=PAD, **config
        )
    ).eval()


@pytest.mark.parametrize("pooling", ["mean", "max", "attention"])
def test_windows_are_pooled_text_by_text(pooling: str) -> None:
    settings = settings_of(window_pooling=pooling)
    model = model_of(settings, pooling_layers=2)
    if pooling == "attention":
        torch.nn.init.normal_(model.head.window_query, std=5)
    texts = [text(tokens) for tokens in (4, 21, 11)]
    with torch.no_grad():
        logits = model(**padded(texts)).logits
        for ids, expected in zip(texts, logits, strict=True):
            features = torch.cat([model.pooled_features(**padded([window])) for window in windows_of(ids, 3)])
            one = {
                "mean": features.mean(dim=0),
                "max": features.amax(dim=0),
                "attention": _weighted(features, model.head.window_query),
            }[pooling]
            assert torch.allclose(model.head(one), expected, atol=1e-5)


def _weighted(features: torch.Tensor, query: torch.Tensor | None) -> torch.Tensor:
    if query is None:
        return features
    shares = (features @ query / features.shape[1] ** 0.5).softmax(dim=0)
    return shares @ features


def test_attention_starts_as_the_mean() -> None:
    features, mask = torch.randn(2, 3, 4), torch.tensor([[True, True, False], [True, False, False]])
    mean = pool_windows(features, mask, "mean")
    assert torch.allclose(pool_windows(features, mask, "attention", torch.zeros(4)), mean)
    assert torch.equal(mean[1], features[1, 0])


def test_windows_have_gradients() -> None:
    model = model_of(settings_of(window_pooling="attention"), num_labels=2).train()
    model(**padded([text(21), text(4)]), labels=torch.tensor([0, 1])).loss.backward()
    assert model.head.window_query.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in model.encoder.encoder.parameters())


@pytest.mark.parametrize("values", [{"strategy": "middle"}, {"strategy": "windows", "window_pooling": "sum"}])
def test_an_unknown_truncation(values: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="use one of"):
        TextClassifierConfig(truncation={"max_length": 8, "max_text_length": 9, "kept_at_start": 1, **values})


class TestResolving:
    @pytest.fixture
    def checkpoint(self, tiny_bert: Path) -> Checkpoint:
        return open_checkpoint(ModelArguments(model_name_or_path=str(tiny_bert)))

    @pytest.fixture
    def tokenizer(self, tiny_bert: Path) -> PreTrainedTokenizerBase:
        tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
        tokenizer.model_max_length = 16
        return tokenizer

    def test_by_default_the_tokenizer_cuts(self, checkpoint: Checkpoint, tokenizer: PreTrainedTokenizerBase) -> None:
        for strategy in (None, "head", "tail"):
            args = ModelArguments(truncation_strategy=strategy)
            assert resolve_truncation(args, checkpoint, tokenizer, None, is_pair=False) is None

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({"truncation_strategy": "head_tail"}, TruncationSettings("head_tail", 16, 2048, 4)),
            ({"truncation_strategy": "head_tail", "head_tail_split": 0.5, "max_text_length": 99},
             TruncationSettings("head_tail", 16, 99, 8)),
            ({"truncation_strategy": "windows"}, TruncationSettings("windows", 16, 2048, 4, 4)),
            ({"truncation_strategy": "windows", "window_stride": 0, "window_pooling": "max"},
             TruncationSettings("windows", 16, 2048, 4, 0, "max")),
            ({"lexical_features": True}, TruncationSettings("head", 16, 2048, 15)),
            ({"lexical_features": True, "truncation_strategy": "tail"}, TruncationSettings("tail", 16, 2048, 1)),
        ],
    )  # fmt: skip
    def test_options(
        self,
        checkpoint: Checkpoint,
        tokenizer: PreTrainedTokenizerBase,
        options: dict[str, Any],
        expected: TruncationSettings,
    ) -> None:
        assert resolve_truncation(ModelArguments(**options), checkpoint, tokenizer, None, is_pair=False) == expected

    @pytest.mark.parametrize(
        ("options", "is_pair", "message"),
        [
            ({"truncation_strategy": "windows"}, True, "windows: the texts are pairs, which are cut together"),
            ({"lexical_features": True, "max_text_length": 64}, True, "64: the texts are pairs"),
            ({"lexical_features": True, "max_text_length": 8}, False, "is less than --max_seq_length, 16"),
            ({"truncation_strategy": "windows", "window_stride": 14}, False, "can share 13 at most"),
        ],
    )
    def test_refusals(
        self,
        checkpoint: Checkpoint,
        tokenizer: PreTrainedTokenizerBase,
        options: dict[str, Any],
        is_pair: bool,
        message: str,
    ) -> None:
        with pytest.raises(ArgumentsError, match=message):
            resolve_truncation(ModelArguments(**options), checkpoint, tokenizer, None, is_pair)

    def test_a_tokenizer_whose_file_asks_for_padding(
        self, checkpoint: Checkpoint, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        tokenizer.backend_tokenizer.enable_padding(length=12)
        args = ModelArguments(truncation_strategy="head_tail")
        assert resolve_truncation(args, checkpoint, tokenizer, None, is_pair=False) is not None

    @pytest.mark.parametrize("template", ["[CLS] $A [SEP] [SEP]", "[CLS] [SEP] $A", "$A"])
    def test_a_tokenizer_with_other_special_tokens(
        self, checkpoint: Checkpoint, tokenizer: PreTrainedTokenizerBase, template: str
    ) -> None:
        special = [("[CLS]", tokenizer.cls_token_id), ("[SEP]", tokenizer.sep_token_id)]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=special)
        for options, advice in (
            ({"truncation_strategy": "head_tail"}, "use head or tail"),
            ({"lexical_features": True}, "set --max_text_length to --max_seq_length, 16"),
        ):
            with pytest.raises(ArgumentsError, match=advice):
                resolve_truncation(ModelArguments(**options), checkpoint, tokenizer, None, is_pair=False)
        same_length = ModelArguments(lexical_features=True, max_text_length=16)
        assert resolve_truncation(same_length, checkpoint, tokenizer, None, is_pair=False) is not None


@pytest.mark.parametrize(
    ("before", "length", "expected"),
    [
        (TruncationSettings("head", 16, 2048, 15), 8, TruncationSettings("head", 8, 2048, 7)),
        (TruncationSettings("tail", 16, 2048, 1), 32, TruncationSettings("tail", 32, 2048, 1)),
        (TruncationSettings("head_tail", 16, 2048, 4), 32, TruncationSettings("head_tail", 32, 2048, 8)),
        (TruncationSettings("windows", 16, 20, 4, 12), 8, TruncationSettings("windows", 8, 20, 2, 5)),
        # The texts of a pair are cut by the tokenizer alone.
        (TruncationSettings("head", 16, 16, 15), 8, TruncationSettings("head", 8, 8, 7)),
        (TruncationSettings("head", 16, 2048, 15), None, TruncationSettings("head", 16, 2048, 15)),
    ],
)
def test_another_longest_text(before: TruncationSettings, length: int | None, expected: TruncationSettings) -> None:
    assert before.with_max_length(length) == expected
