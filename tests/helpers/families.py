"""A tiny configuration of each family, and classifiers of them."""

import copy
from typing import Any

import torch
from transformers import (
    AlbertConfig,
    BertConfig,
    CamembertConfig,
    DebertaConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from bertcls_hf.config.arguments import ModelArguments
from bertcls_hf.data.labels import SINGLE_LABEL, LabelSet
from bertcls_hf.models.loading import Checkpoint, resolve_config
from bertcls_hf.models.modeling import TextClassifier, TextClassifierConfig


SIZES = {
    "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 40, "pad_token_id": 0, "initializer_range": 0.3,
}  # fmt: skip
FAMILIES: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(**SIZES),
    "albert": AlbertConfig(**SIZES, embedding_size=8),
    "roberta": RobertaConfig(**SIZES),
    "xlm-roberta": XLMRobertaConfig(**SIZES),
    "camembert": CamembertConfig(**SIZES),
    "electra": ElectraConfig(**SIZES, embedding_size=8),
    "distilbert": DistilBertConfig(
        vocab_size=50, dim=16, n_layers=3, n_heads=2, hidden_dim=32, max_position_embeddings=40, initializer_range=0.3
    ),
    "deberta": DebertaConfig(**SIZES, relative_attention=True, pos_att_type="c2p|p2c", pooler_hidden_size=16),
    "deberta-v2": DebertaV2Config(**SIZES, relative_attention=True, pos_att_type="c2p|p2c", pooler_hidden_size=16),
    "modernbert": ModernBertConfig(
        **SIZES, local_attention=8, cls_token_id=1, sep_token_id=2, bos_token_id=1, eos_token_id=2
    ),
    "mpnet": MPNetConfig(**{**SIZES, "pad_token_id": 1}),
}
INPUTS = {
    "input_ids": torch.tensor([[3, 5, 6, 7, 8, 2], [3, 9, 10, 2, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]]),
}
LABELS = LabelSet(SINGLE_LABEL, ("bad", "fair", "good"))


def make_config(encoder: PreTrainedConfig = FAMILIES["bert"], **options: Any) -> TextClassifierConfig:
    settings = {"id2label": LABELS.id2label, "label2id": LABELS.label2id, "problem_type": SINGLE_LABEL}
    # A model writes its attention into its configuration, which the tests share.
    return TextClassifierConfig(encoder_config=copy.deepcopy(encoder), **{**settings, **options})


def make_model(encoder: PreTrainedConfig = FAMILIES["bert"], **options: Any) -> TextClassifier:
    torch.manual_seed(0)
    return TextClassifier(make_config(encoder, **options)).eval()


def default_model(family: str) -> TextClassifier:
    """The classifier that fine-tuning builds for a family."""
    config = resolve_config(ModelArguments(), Checkpoint("", FAMILIES[family], None), LABELS)
    torch.manual_seed(0)
    return TextClassifier(config).eval()
