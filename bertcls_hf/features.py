"""Boost: the features of a frozen backbone, computed once and kept in Arrow."""

import hashlib
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, List, Value
from transformers import PreTrainedTokenizerBase

from bertcls_hf.modeling import TextClassifier
from bertcls_hf.trainer import length_order


logger = logging.getLogger(__name__)

# Part of the cache key: raise it when the extraction's numbers change.
EXTRACTION_VERSION = 1
TOKENS_PER_BATCH = 4096


def extract_features(
    tokenized: dict[str, Dataset], model: TextClassifier, tokenizer: PreTrainedTokenizerBase, device: torch.device
) -> dict[str, Dataset]:
    """Replaces the token ids of every split by the features that the head reads.

    Args:
        tokenized: splits with `input_ids`, `attention_mask`, `length` and, where known, `labels`.
        model: its encoder is frozen.
        tokenizer: pads.
        device: where the encoder runs.

    Returns:
        Splits in the same order with `features`, float32 of width `config.feature_size`, and `labels`.
    """
    model.to(device).eval()
    weights = encoder_fingerprint(model)
    return {name: _extract_split(name, split, model, tokenizer, weights) for name, split in tokenized.items()}


def encoder_fingerprint(model: TextClassifier) -> str:
    """A hash of all that the features depend on in the model: weights, pooling and layers; not the path."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    config = model.config
    digest.update(repr((config.pooling, config.pooling_layers, config.pooling_layers_merge)).encode())
    return digest.hexdigest()


def _extract_split(
    name: str, split: Dataset, model: TextClassifier, tokenizer: PreTrainedTokenizerBase, weights: str
) -> Dataset:
    order = length_order(split)
    assert order is not None
    key = hashlib.sha256(repr((EXTRACTION_VERSION, split._fingerprint, weights)).encode()).hexdigest()[:32]
    columns = {"features": List(Value("float32"), length=model.config.feature_size)}
    if "labels" in split.column_names:
        columns["labels"] = split.features["labels"]

    def extract(batch: dict[str, list]) -> dict[str, Any]:
        extracted = {"features": _pooled(batch, model, tokenizer)}
        return extracted | ({"labels": batch["labels"]} if "labels" in batch else {})

    features = split.select(order).map(
        extract,
        batched=True,
        batch_size=512,
        remove_columns=split.column_names,
        features=Features(columns),
        new_fingerprint=key,
        desc=f"Extracting features of {name}",
    )
    return features.select(np.argsort(order)).flatten_indices()


@torch.inference_mode()
def _pooled(batch: dict[str, list], model: TextClassifier, tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    parts = []
    for rows in _token_budget(batch["length"]):
        inputs = {name: batch[name][rows] for name in tokenizer.model_input_names if name in batch}
        padded = tokenizer.pad(inputs, return_tensors="pt").to(model.device)
        parts.append(model.pooled_features(**padded).float().cpu().numpy())
    return np.concatenate(parts)


def _token_budget(lengths: list[int]) -> Iterator[slice]:
    """Consecutive rows whose padded size stays within `TOKENS_PER_BATCH`; lengths fall."""
    start = 0
    while start < len(lengths):
        rows = max(TOKENS_PER_BATCH // lengths[start], 1)
        yield slice(start, start + rows)
        start += rows
