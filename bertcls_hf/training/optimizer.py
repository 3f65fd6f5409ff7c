"""The parameter groups of the optimizer, each with a learning rate, a weight decay and a name for the log."""

import re
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from bertcls_hf.config.arguments import ClassifierTrainingArguments


LAYER_NUMBER = re.compile(r"\.(?:layer|layers)\.(\d+)\.")
BELOW_THE_LAYERS = ("embedding", "relative_attention_bias")


def parameter_groups(
    trained: nn.Module, model: PreTrainedModel, args: ClassifierTrainingArguments, decayed: set[str]
) -> list[dict[str, Any]]:
    """Groups the trainable parameters by depth and by weight decay.

    The group of the encoder's top layer comes first, because the Trainer logs the rate of the first group as
    `learning_rate`.

    Args:
        trained: the module that holds the trainable parameters: the model, or a wrapper around it.
        model: the model without a wrapper. Its `base_model_prefix` tells encoder parameters from head parameters.
        args: the learning rates, the layer-wise decay of the encoder's rate, and the weight decay.
        decayed: the names of the parameters to which weight decay applies.
    """
    encoder_config = getattr(model.config, "encoder_config", model.config)
    layers = encoder_config.num_hidden_layers
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in trained.named_parameters():
        if not parameter.requires_grad:
            continue
        depth = _depth(name, layers, model.base_model_prefix, args.layerwise_lr_decay)
        group = groups.setdefault((depth, name in decayed), _group(depth, layers, name in decayed, args))
        group["params"].append(parameter)
    return [groups[key] for key in sorted(groups, key=lambda key: (key[0] > layers, -key[0], not key[1]))]


def _depth(name: str, layers: int, encoder_name: str, layerwise_lr_decay: float) -> int:
    """Returns `layers` + 1 for the head, and [`parameter_depth`] for the encoder.

    Without a layer-wise decay, all encoder parameters have depth `layers`, so that they share a group.
    """
    if f".{encoder_name}." not in f".{name}":
        return layers + 1
    return layers if layerwise_lr_decay == 1 else parameter_depth(name, layers)


def parameter_depth(name: str, layers: int) -> int:
    """Returns 0 for the embeddings, i + 1 for layer i, and `layers` for encoder parameters after the last layer.

    MPNet's `relative_attention_bias` counts as an embedding: all layers read it, from the lowest on.
    """
    match = LAYER_NUMBER.search(name)
    if match is not None:
        return int(match.group(1)) + 1
    return 0 if any(part in name for part in BELOW_THE_LAYERS) else layers


def _group(depth: int, layers: int, decays: bool, args: ClassifierTrainingArguments) -> dict[str, Any]:
    is_head = depth > layers
    decay = args.layerwise_lr_decay
    name = "head" if is_head else "encoder" if decay == 1 else f"depth_{depth}"
    head_rate = args.head_learning_rate or args.learning_rate
    return {
        "params": [],
        "lr": head_rate if is_head else args.learning_rate * decay ** (layers - depth),
        "weight_decay": args.weight_decay if decays else 0.0,
        "name": name,
    }
