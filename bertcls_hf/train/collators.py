"""From rows of token ids to padded batches."""

from typing import Any

import torch
from transformers import DataCollatorWithPadding

from bertcls_hf.data.tokenization import LENGTH_COLUMN


class ClassificationCollator(DataCollatorWithPadding):
    """Pads a batch to its longest text; a batch of cached features comes whole and stays as it is.

    Two texts of 3 and 2 tokens give `input_ids` and `attention_mask` of shape (2, 3), and `labels` of shape (2,).
    """

    def __call__(self, features: list[Any] | dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if isinstance(features, dict):
            return features
        if features[0] is None:
            return {}  # Rows of a stream that an earlier part of this training has taken.
        return super().__call__([{k: v for k, v in row.items() if k != LENGTH_COLUMN} for row in features])
