"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685): few weights that learn beside those of the encoder.

The package PEFT puts an adapter beside each projection of the encoder. The model stays the same class, and what is
saved for use has the adapters multiplied into the encoder's weights.
"""

import copy
import logging

import torch

from bertcls_hf.config.arguments import ModelArguments
from bertcls_hf.errors import ArgumentsError, one_line
from bertcls_hf.models.modeling import TextClassifier


logger = logging.getLogger(__name__)

ADAPTER = "default"
# A part of the names of all weights of adapters, and of no other.
MARK = "lora_"
# All projections of the encoder's layers, as Dettmers et al. 2023 (arXiv 2305.14314) found best.
ALL_PROJECTIONS = "all-linear"


def add_lora(model: TextClassifier, args: ModelArguments) -> None:
    """Puts adapters into the encoder, and freezes all of its own weights; the head is trained as before.

    Args:
        model: a classifier whose encoder is trained.
        args: the rank, the scale, the dropout and the places of the adapters.

    Raises:
        ArgumentsError: if the encoder has no projection of a given name, or one that takes no adapter.
    """
    # Imported here, because importing it takes seconds.
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import Linear, LoraLayer

    config = LoraConfig(
        r=args.lora_r,
        lora_alpha=2 * args.lora_r if args.lora_alpha is None else args.lora_alpha,
        lora_dropout=args.lora_dropout,
        target_modules=args.lora_target_modules or ALL_PROJECTIONS,
    )
    try:
        inject_adapter_in_model(config, model.encoder, adapter_name=ADAPTER)
    except ValueError as error:
        raise ArgumentsError(f"--lora_target_modules: {one_line(error)}") from error
    adapted = [module for module in model.encoder.modules() if isinstance(module, LoraLayer)]
    if not all(isinstance(module, Linear) for module in adapted):
        raise ArgumentsError("--lora_target_modules: only projections take adapters here, no embeddings")
    model.encoder_weights_mark = MARK
    model.apply_freezing()
    trained = sum(weight.numel() for weight in model.encoder.parameters() if weight.requires_grad)
    logger.info("adapters of rank %d beside %d projections: %d weights", args.lora_r, len(adapted), trained)


def without_adapters(
    model: TextClassifier, state_dict: dict[str, torch.Tensor] | None = None
) -> tuple[TextClassifier, dict[str, torch.Tensor] | None]:
    """Multiplies adapters into the weights beside them, which gives an equal model without adapters.

    Args:
        model: any classifier; one without adapters is returned as it is.
        state_dict: its weights if they were gathered from several processes; by default the model's own.

    Returns:
        A model in evaluation mode with equal logits; and its weights if `state_dict` was given, else None.
    """
    if model.encoder_weights_mark is None:
        return model, state_dict
    weights = dict(model.state_dict() if state_dict is None else state_dict)
    merged = {name.replace(".base_layer.", "."): weight for name, weight in weights.items() if MARK not in name}
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            up, down = (weights[f"{name}.{part}.{ADAPTER}.weight"] for part in ("lora_B", "lora_A"))
            merged[f"{name}.weight"] = merged[f"{name}.weight"] + module.scaling[ADAPTER] * (up @ down)
    plain = TextClassifier(copy.deepcopy(model.config))
    plain.load_state_dict(merged)
    return plain.eval(), None if state_dict is None else merged
