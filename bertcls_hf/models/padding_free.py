"""Training without padding: the encoder computes all tokens of a batch as one row.

[`compute_without_padding`] registers two hooks on the encoder of a model in memory. The first hook removes the padding
from the encoder's inputs, and the second hook restores it in the encoder's outputs. The code around the encoder
therefore sees a padded batch as usual, and the saved model does not change.
"""

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import (
    create_bidirectional_mask,
    create_bidirectional_sliding_window_mask,
    packed_sequence_mask_function,
    sdpa_mask,
)
from transformers.modeling_outputs import BaseModelOutput

from bertcls_hf.models.modeling import TextClassifier
from bertcls_hf.models.positions import first_position


# In these families, tokens interact only in attention, and the attention mask and the positions can be passed in.
# DeBERTa and MPNet are not among them, since their attention adds terms of its own and has no fused kernel.
PADDING_FREE_FAMILIES = frozenset(
    {"albert", "bert", "camembert", "distilbert", "electra", "modernbert", "roberta", "xlm-roberta"}
)
# Some layers of these families use sliding-window attention, which needs a mask of its own.
WINDOWED_FAMILIES = frozenset({"modernbert"})
PADDING_FREE_SDPA = "padding_free_sdpa"


def compute_without_padding(model: TextClassifier) -> None:
    """Makes the encoder compute without the padding of its batches; inputs, outputs and saved files stay the same.

    Args:
        model: a model of one of [`PADDING_FREE_FAMILIES`]. If it uses SDPA, it is set to [`padding_free_sdpa`].
    """
    encoder = model.encoder
    if encoder.config._attn_implementation == "sdpa":
        encoder.set_attn_implementation(PADDING_FREE_SDPA)
    encoder.register_forward_pre_hook(_flatten_inputs, with_kwargs=True)
    encoder.register_forward_hook(_pad_outputs, with_kwargs=True)


class FlatTexts:
    """The positions of a padded batch's texts in a single row without padding, in which they follow each other.

    Args:
        mask: (texts, width), 1 for real tokens.
    """

    def __init__(self, mask: torch.Tensor):
        self.mask = mask
        # For each token: the number of its text and its column in the batch.
        self.text, column = mask.nonzero(as_tuple=True)
        self.index = self.text * mask.shape[1] + column
        ends = mask.ne(0).sum(dim=1).cumsum(dim=0)
        self.cu_seq_lens = nn.functional.pad(ends, (1, 0)).to(torch.int32)
        self.place = torch.arange(len(self.text), device=mask.device) - self.cu_seq_lens[self.text]

    def encoder_inputs(self, encoder: PreTrainedModel) -> dict[str, Any]:
        """Returns the encoder inputs that keep the texts apart.

        These are positions that restart in each text, and attention masks or, for flash attention, text boundaries.
        """
        width = self.mask.shape[1]
        return {
            "position_ids": (self.place + first_position(encoder.config)).unsqueeze(0),
            "attention_mask": self._masks(encoder),
            "cu_seq_lens_q": self.cu_seq_lens,
            "cu_seq_lens_k": self.cu_seq_lens,
            "max_length_q": width,
            "max_length_k": width,
            "flat_texts": self,
        }

    def _masks(self, encoder: PreTrainedModel) -> Any:
        """Builds the mask, or the masks by kind of layer, that the encoder's attention takes.

        [`padding_free_sdpa`] takes the mask of the padded texts. Flash attention needs no mask, and gets None. All
        other implementations take a mask of shape (1, 1, tokens, tokens), which keeps tokens of different texts apart.
        """
        options: dict[str, Any]
        if encoder.config._attn_implementation == PADDING_FREE_SDPA:
            shape, options = tuple(self.mask.shape), {"attention_mask": self.mask}
        else:
            is_same_text = packed_sequence_mask_function(self.text.unsqueeze(0))
            shape, options = (1, len(self.text)), {"attention_mask": None, "and_mask_function": is_same_text}
        # The mask functions read only the shape, the dtype and the device of the embeddings.
        options["inputs_embeds"] = torch.empty(*shape, 0, dtype=encoder.dtype, device=self.text.device)
        full_mask = create_bidirectional_mask(encoder.config, **options)
        if encoder.config.model_type not in WINDOWED_FAMILIES:
            return full_mask
        window_mask = create_bidirectional_sliding_window_mask(encoder.config, **options)
        return {"full_attention": full_mask, "sliding_attention": window_mask}

    def pad(self, states: torch.Tensor) -> torch.Tensor:
        """Converts (1, tokens, size) to (texts, width, size), with zeros where there is no token."""
        padded = states.new_zeros(self.mask.numel(), states.shape[-1])
        return padded.index_copy(0, self.index, states[0]).view(*self.mask.shape, -1)

    def unpad(self, values: torch.Tensor) -> torch.Tensor:
        """Converts (texts, width, …) to (1, tokens, …)."""
        return values.flatten(0, 1).index_select(0, self.index).unsqueeze(0)


def padding_free_sdpa(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    flat_texts: FlatTexts,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Pads the texts of one row only for SDPA, so that all other parts of a layer compute without padding.

    Args:
        module: the attention module.
        query: (1, heads, tokens, size).
        key: (1, heads, tokens, size).
        value: (1, heads, tokens, size).
        attention_mask: the mask of the padded texts.
        flat_texts: the positions of the row's texts.
        **options: see `sdpa_attention_forward`.

    Returns:
        The output, (1, tokens, heads, size), and None in place of attention weights.
    """
    heads = query.shape[1]
    query, key, value = (
        flat_texts.pad(states.transpose(1, 2).flatten(2)).unflatten(2, (heads, -1)).transpose(1, 2)
        for states in (query, key, value)
    )
    output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    return flat_texts.unpad(output.flatten(2)).unflatten(2, (heads, -1)), None


AttentionInterface.register(PADDING_FREE_SDPA, padding_free_sdpa)
AttentionMaskInterface.register(PADDING_FREE_SDPA, sdpa_mask)


# The number of tokens of a batch depends on the values of its mask, which are unknown when a graph is compiled. The
# hooks therefore run outside compiled graphs.
@torch.compiler.disable
def _flatten_inputs(
    encoder: PreTrainedModel, args: tuple[Any, ...], inputs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Replaces the inputs of the encoder by one row with all tokens of the batch."""
    flat = FlatTexts(inputs["attention_mask"])
    per_token = inputs.keys() & {"input_ids", "inputs_embeds", "token_type_ids"}
    flat_inputs = {name: flat.unpad(inputs[name]) for name in per_token} | flat.encoder_inputs(encoder)
    if "position_ids" in inputs:
        # One row of positions may stand for all texts.
        flat_inputs["position_ids"] = flat.unpad(inputs["position_ids"].expand(flat.mask.shape))
    return args, inputs | flat_inputs


@torch.compiler.disable
def _pad_outputs(
    encoder: PreTrainedModel, args: tuple[Any, ...], inputs: dict[str, Any], output: BaseModelOutput
) -> BaseModelOutput:
    """Converts the outputs of the encoder to those of the padded batch, with zeros where there is no token."""
    flat = inputs["flat_texts"]
    output.last_hidden_state = flat.pad(output.last_hidden_state)
    if output.hidden_states is not None:
        output.hidden_states = tuple(flat.pad(states) for states in output.hidden_states)
    if getattr(output, "pooler_output", None) is not None:
        output.pooler_output = _apply_pooler(encoder, output.last_hidden_state)
    return output


def _apply_pooler(encoder: PreTrainedModel, hidden_states: torch.Tensor) -> torch.Tensor:
    """Pools (texts, width, hidden) to (texts, hidden), as the encoder does after its last layer."""
    if isinstance(encoder.pooler, nn.Linear):  # ALBERT
        return encoder.pooler_activation(encoder.pooler(hidden_states[:, 0]))
    return encoder.pooler(hidden_states)
