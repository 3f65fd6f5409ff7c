"""A tiny classifier and token ids of reviews for it, as a Trainer takes them."""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoTokenizer, BertConfig

from bertcls_hf.models.modeling import TextClassifier, TextClassifierConfig
from tests.helpers.reviews import review


ROWS = 26  # 16 + 10: the last step of an epoch is uneven


def tokenized(tiny_bert: Path, rows: int = ROWS) -> Dataset:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    texts, names = zip(*(review(index) for index in range(rows)), strict=True)
    encoded = tokenizer(list(texts))
    # Labels that do not alternate, so that micro-batches differ in their classes.
    labels = [int(name == "pos" and index % 3 > 0) for index, name in enumerate(names)]
    return Dataset.from_dict({**encoded, "length": [len(ids) for ids in encoded["input_ids"]], "labels": labels})


def our_model(tiny_bert: Path, **options: Any) -> TextClassifier:
    torch.manual_seed(0)
    encoder = BertConfig.from_pretrained(tiny_bert, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    settings = {"pooling": "pooler", "dropout": 0.0, "problem_type": "single_label_classification"}
    return TextClassifier(TextClassifierConfig(encoder_config=encoder, **{**settings, **options}))
