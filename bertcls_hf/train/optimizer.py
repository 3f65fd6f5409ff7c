"""Parameter groups: a learning rate by depth, a weight decay by kind, and a name for the log."""

import re
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from bertcls_hf.config.arguments import ClassifierTrainingArguments


LAYER_NUMBER = re.compile(r"\.(?:layer|layers)\.(\d+)\.")


def parameter_groups(
    trained: nn.Module, model: PreTrainedModel, args: ClassifierTrainingArguments, decayed: set[str]
) -> list[dict[str, Any]]:
    """The groups of an optimizer: parameters of one depth and one weight decay together.

    The encoder's top layer comes first, since the Trainer logs the first group's rate as `learning_rate`.

    Args:
        trained: the module whose parameters learn; a wrapper around the model, or the model.
        model: tells the encoder from the head.
        args: the rates, their decay from layer to layer, and the weight decay.
        decayed: names of the parameters that the weight decay is for.
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
    """See [`parameter_depth`]; the head is one above, and without a decay all of the encoder is alike."""
    if f".{encoder_name}." not in f".{name}":
        return layers + 1
    return layers if layerwise_lr_decay == 1 else parameter_depth(name, layers)


def parameter_depth(name: str, layers: int) -> int:
    """0 for the embeddings, i + 1 for layer i, and `layers` for what lies above them in the encoder."""
    match = LAYER_NUMBER.search(name)
    if match is not None:
        return int(match.group(1)) + 1
    return 0 if "embedding" in name else layers


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
