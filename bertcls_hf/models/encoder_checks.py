"""Checks, before data is read, whether the encoder and this machine support what the options ask for."""

import copy
import logging

import torch
from transformers import MODEL_MAPPING, AutoModel
from transformers.integrations.hub_kernels import is_kernel
from transformers.utils.generic import is_flash_attention_requested
from transformers.utils.import_utils import (
    is_flash_attn_2_available,
    is_flash_attn_3_available,
    is_flash_attn_4_available,
    is_kernels_available,
    is_peft_available,
)

from bertcls_hf.config.arguments import Arguments
from bertcls_hf.errors import ArgumentsError, one_line
from bertcls_hf.models.loading import Checkpoint
from bertcls_hf.models.padding_free import PADDING_FREE_FAMILIES


logger = logging.getLogger(__name__)

FLASH_PACKAGES = {
    "flash_attention_2": is_flash_attn_2_available,
    "flash_attention_3": is_flash_attn_3_available,
    "flash_attention_4": is_flash_attn_4_available,
}


def check_encoder(args: Arguments, checkpoint: Checkpoint) -> None:
    """Checks the options for attention, for training without padding and for activation checkpointing.

    Raises:
        ArgumentsError: if the encoder or the machine does not support an option; the message says what it needs.
    """
    attention = args.model.attn_implementation
    is_flash = attention is not None and is_flash_attention_requested(requested_attention_implementation=attention)
    if attention is not None:
        option = f"--attn_implementation {attention}"
        if is_flash:
            _check_device_and_precision(args, option)
        _check_remote_kernel(args, attention, option)
        _check_support(args, checkpoint, attention, option)
    encoder_class = MODEL_MAPPING[type(checkpoint.encoder_config)]
    if args.training.activation_checkpointing and not encoder_class.supports_gradient_checkpointing:
        raise ArgumentsError(f"--activation_checkpointing: {encoder_class.__name__} cannot compute its layers again")
    if args.training.padding_free:
        _check_padding_free(checkpoint, attention, is_flash)
    if args.model.lora_r and not is_peft_available():
        # transformers imports the package at every start where it is installed, which takes a second.
        raise ArgumentsError("--lora_r needs the package peft: pip install peft")


def _check_device_and_precision(args: Arguments, option: str) -> None:
    if args.training.device.type == "cpu":
        raise ArgumentsError(f"{option} needs a GPU, and this run has none: leave it out")
    if args.boost.boost and args.boost.boost_dtype != "bfloat16":
        raise ArgumentsError(f"{option} computes in 16 bits: with --boost, add --boost_dtype bfloat16")
    if (not args.boost.boost or args.is_head_then_all) and args.training.mixed_precision == "no":
        raise ArgumentsError(f"{option} computes in 16 bits: add --bf16, or --fp16 on an older GPU")


def _check_remote_kernel(args: Arguments, attention: str, option: str) -> None:
    """Refuses kernels from the Hub, which are compiled code, unless `trust_remote_code` is set.

    transformers itself runs the kernels of one organisation without asking.
    """
    if args.model.trust_remote_code:
        return
    if is_kernel(attention):
        raise ArgumentsError(f"{option} is code of the Hub: it needs --trust_remote_code true")
    if attention in FLASH_PACKAGES and is_kernels_available() and not FLASH_PACKAGES[attention]():
        raise ArgumentsError(
            f"{option}: its package is not installed, and the one named kernels would fetch code of the Hub for it: "
            "install flash-attn, or pass --trust_remote_code true"
        )


def _check_support(args: Arguments, checkpoint: Checkpoint, attention: str, option: str) -> None:
    """Builds the encoder on the meta device, where transformers checks the attention but allocates no weights."""
    try:
        with torch.device("meta"):
            AutoModel.from_config(
                copy.deepcopy(checkpoint.encoder_config),
                attn_implementation=attention,
                trust_remote_code=args.model.trust_remote_code,
            )
    except (ValueError, ImportError, OSError) as error:
        # transformers adds advice for its own developers, with the name of another model.
        reason, _, advice = one_line(error).partition(" Please request ")
        raise ArgumentsError(f"{option}: {reason}{' Leave it out.' if advice else ''}") from error


def _check_padding_free(checkpoint: Checkpoint, attention: str | None, is_flash: bool) -> None:
    family, supported = checkpoint.encoder_config.model_type, ", ".join(sorted(PADDING_FREE_FAMILIES))
    if family not in PADDING_FREE_FAMILIES:
        raise ArgumentsError(f"--padding_free: {family} cannot keep the texts of one row apart; {supported} can")
    if attention not in (None, "sdpa") and not is_flash:
        logger.warning(
            "--padding_free with --attn_implementation %s compares each token of a batch with all others, which takes "
            "longer than padding: leave it out, or use sdpa or flash attention",
            attention,
        )
