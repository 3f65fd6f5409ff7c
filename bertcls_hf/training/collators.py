"""The data collator, which turns rows of token ids into padded batches."""

from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from bertcls_hf.data.tokenization import pad_texts
from bertcls_hf.features.logits_columns import LEXICAL_COLUMN, TEACHER_COLUMN


# Columns with the same number of values in each row.
UNPADDED = ("labels", LEXICAL_COLUMN, TEACHER_COLUMN)


class ClassificationCollator:
    """Pads a batch to its longest text, and returns a batch of cached features unchanged.

    Two texts of 3 and 2 tokens give `input_ids` and `attention_mask` of shape (2, 3), and `labels` of shape (2,).
    With lexical features there are also `lexical_logits` of shape (2, labels), and with teachers `teacher_logits`.

    Args:
        tokenizer: provides the padding token and the padding side.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer

    def __call__(self, features: list[Any] | dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if isinstance(features, dict):
            return features
        if features[0] is None:
            return {}  # A resumed stream gives None for the rows that were trained on before.
        columns = {name: [row[name] for row in features] for name in features[0]}
        batch = pad_texts(columns, self.tokenizer)
        return batch | {name: torch.tensor(columns[name]) for name in UNPADDED if name in columns}
