"""Saves a trained model as a stock transformers class if one is equivalent, else together with its code."""

import copy
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bertcls_hf.models.adapters import without_adapters
from bertcls_hf.models.modeling import TextClassifier, fold_layer_weights, to_stock


Weights = dict[str, torch.Tensor]


def save_for_use(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path, weights: Weights | None = None
) -> None:
    """Saves a model for inference: as a stock class, which loads without remote code, wherever one is equivalent.

    Args:
        model: the trained model, which is not changed.
        tokenizer: the tokenizer to save in the same folder.
        folder: the folder to write.
        weights: the weights to save if they were gathered from several processes (FSDP, DeepSpeed); by default those
            of `model`.
    """
    # Building a stock class draws random numbers, which must not change a training that continues after the save.
    with torch.random.fork_rng(devices=()):
        if isinstance(model, TextClassifier):
            model, weights = fold_layer_weights(*without_adapters(model, weights))
            stock = to_stock(model, weights)
            model, weights = (model, weights) if stock is None else (stock, None)
        save_with_tokenizer(model, tokenizer, folder, weights)


def save_with_tokenizer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path, weights: Weights | None = None
) -> None:
    """Saves a model in its own format, and its tokenizer beside it."""
    model.save_pretrained(folder, state_dict=weights)
    if tokenizer is not None:
        _tokenizer_of(model, tokenizer).save_pretrained(folder)


def _tokenizer_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Returns a tokenizer for whole texts if the model itself cuts or splits them for its encoder."""
    truncation = model.config.truncation_settings if isinstance(model, TextClassifier) else None
    if truncation is not None:
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.model_max_length = truncation.max_text_length
    return tokenizer
