"""A trained model as its users load it: as a stock class where one is exact, else with its code."""

from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bertcls_hf.models.modeling import TextClassifier, fold_layer_weights, to_stock


Weights = dict[str, torch.Tensor]


def save_for_use(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path, weights: Weights | None = None
) -> None:
    """Saves a model in the form that loads with the least code.

    Args:
        model: the trained one, which stays as it is.
        tokenizer: goes beside it.
        folder: where to.
        weights: the model's where they are gathered elsewhere (FSDP, DeepSpeed); else its own.
    """
    # A stock class draws weights before it gets the trained ones; a training that goes on must not notice.
    with torch.random.fork_rng(devices=()):
        if isinstance(model, TextClassifier):
            model, weights = fold_layer_weights(model, weights)
            stock = to_stock(model, weights)
            model, weights = (model, weights) if stock is None else (stock, None)
        save_with_tokenizer(model, tokenizer, folder, weights)


def save_with_tokenizer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path, weights: Weights | None = None
) -> None:
    """Saves a model as it is."""
    model.save_pretrained(folder, state_dict=weights)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
