"""From rows of token ids to padded batches."""

from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from bertcls_hf.data.tokenization import pad_texts


class ClassificationCollator:
    """Pads a batch to its longest text; a batch of cached features comes whole and stays as it is.

    Two texts of 3 and 2 tokens give `input_ids` and `attention_mask` of shape (2, 3), and `labels` of shape (2,).

    Args:
        tokenizer: knows what to pad with.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer

    def __call__(self, features: list[Any] | dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if isinstance(features, dict):
            return features
        if features[0] is None:
            return {}  # Rows of a stream that an earlier part of this training has taken.
        columns = {name: [row[name] for row in features] for name in features[0]}
        batch = pad_texts(columns, self.tokenizer)
        return batch | ({"labels": torch.tensor(columns["labels"])} if "labels" in columns else {})
