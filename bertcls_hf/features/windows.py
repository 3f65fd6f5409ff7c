"""Splits tokenized texts into windows, whose features are cached as those of texts are."""

from typing import Any

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset
from datasets.fingerprint import Hasher
from transformers import PreTrainedTokenizerBase

from bertcls_hf.data.tokenization import pad_texts
from bertcls_hf.features.plan import token_columns
from bertcls_hf.models.modeling import TruncationSettings, split_windows


# Part of the key in the datasets cache, which does not depend on the code. Increase it when the windows change.
VERSION = 1
# Texts are padded to the longest of so many.
ROWS_AT_ONCE = 250


def split_texts(
    split: Dataset, settings: TruncationSettings, tokenizer: PreTrainedTokenizerBase
) -> tuple[Dataset, np.ndarray]:
    """Splits the texts of a split as the model does.

    Args:
        split: the tokenized split, whose texts are whole.
        settings: the length and the stride of the windows.
        tokenizer: pads the texts.

    Returns:
        A row for each window, with the columns that the encoder reads, and the (texts,) number of windows of each.
    """
    ids = split.with_format("arrow")[:].column("input_ids")
    lengths = pc.list_value_length(ids).to_numpy().astype(np.int64)
    key = (split._fingerprint, settings, tokenizer.pad_token_id, tokenizer.pad_token_type_id, VERSION)
    windows = split.select_columns(token_columns(split)).map(
        _windows_of,
        batched=True,
        batch_size=ROWS_AT_ONCE,
        fn_kwargs={"settings": settings, "tokenizer": tokenizer},
        new_fingerprint=Hasher.hash(key),
        desc="Splitting texts into windows",
    )
    return windows, settings.windows(lengths)


def _windows_of(
    texts: dict[str, list[Any]], settings: TruncationSettings, tokenizer: PreTrainedTokenizerBase
) -> dict[str, list[list[int]]]:
    windows, _ = split_windows(pad_texts(texts, tokenizer), settings, tokenizer.pad_token_id)
    is_token = windows["attention_mask"].bool()
    return {name: [row[mask].tolist() for row, mask in zip(windows[name], is_token, strict=True)] for name in texts}
