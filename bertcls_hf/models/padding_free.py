"""Training without padding: the encoder computes the tokens of a batch as one row, and all around it sees a batch.

Nothing of this is part of a saved model: [`compute_without_padding`] hangs two hooks on the encoder of a model in
memory. The first one takes the padding out of the encoder's inputs, the second one puts it back into its outputs.
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


# Tokens meet in attention alone, whose mask and positions can be given. DeBERTa's attention has no flash kernel.
PADDING_FREE_FAMILIES = frozenset(
    {"albert", "bert", "camembert", "distilbert", "electra", "modernbert", "roberta", "xlm-roberta"}
)
# Some of their layers look at near tokens alone, and take a mask of their own.
WINDOWED_FAMILIES = frozenset({"modernbert"})
PADDING_FREE_SDPA = "padding_free_sdpa"


def compute_without_padding(model: TextClassifier) -> None:
    """Lets the encoder leave out the padding of every batch; inputs, outputs and saved files stay as they are.

    Args:
        model: of one of [`PADDING_FREE_FAMILIES`]. With SDPA, its attention becomes [`padding_free_sdpa`].
    """
    encoder = model.encoder
    if encoder.config._attn_implementation == "sdpa":
        encoder.set_attn_implementation(PADDING_FREE_SDPA)
    encoder.register_forward_pre_hook(_flatten_inputs, with_kwargs=True)
    encoder.register_forward_hook(_pad_outputs, with_kwargs=True)


class FlatTexts:
    """Where the texts of a padded batch lie in a single row without padding, in which one follows the other.

    Args:
        mask: (texts, width), 1 for real tokens.
    """

    def __init__(self, mask: torch.Tensor):
        self.mask = mask
        # Of each token, its text and its column in the batch.
        self.text, column = mask.nonzero(as_tuple=True)
        self.index = self.text * mask.shape[1] + column
        ends = mask.ne(0).sum(dim=1).cumsum(dim=0)
        self.cu_seq_lens = nn.functional.pad(ends, (1, 0)).to(torch.int32)
        self.place = torch.arange(len(self.text), device=mask.device) - self.cu_seq_lens[self.text]

    def encoder_inputs(self, encoder: PreTrainedModel) -> dict[str, Any]:
        """What keeps the texts apart: positions that start anew, and masks or, for flash attention, bounds."""
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
        """Masks in the form that the encoder's attention takes.

        [`padding_free_sdpa`] sees padded texts. Flash attention needs no mask, and gets none. To all others the row is
        one text, (1, 1, tokens, tokens), whose parts must not see each other.
        """
        options: dict[str, Any]
        if encoder.config._attn_implementation == PADDING_FREE_SDPA:
            shape, options = tuple(self.mask.shape), {"attention_mask": self.mask}
        else:
            apart = packed_sequence_mask_function(self.text.unsqueeze(0))
            shape, options = (1, len(self.text)), {"attention_mask": None, "and_mask_function": apart}
        # Empty states tell shape, type and device.
        options["inputs_embeds"] = torch.empty(*shape, 0, dtype=encoder.dtype, device=self.text.device)
        full = create_bidirectional_mask(encoder.config, **options)
        if encoder.config.model_type not in WINDOWED_FAMILIES:
            return full
        near = create_bidirectional_sliding_window_mask(encoder.config, **options)
        return {"full_attention": full, "sliding_attention": near}

    def pad(self, states: torch.Tensor) -> torch.Tensor:
        """(texts, width, size), zero where there is no token, from (1, tokens, size)."""
        padded = states.new_zeros(self.mask.numel(), states.shape[-1])
        return padded.index_copy(0, self.index, states[0]).view(*self.mask.shape, -1)

    def unpad(self, values: torch.Tensor) -> torch.Tensor:
        """(1, tokens, …) from (texts, width, …)."""
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
    """SDPA that pads the texts of one row for itself, while all other parts of a layer compute without padding.

    Args:
        module: the attention.
        query: (1, heads, tokens, size), as are key and value.
        key: see query.
        value: see query.
        attention_mask: of the padded texts.
        flat_texts: where the row's texts are.
        **options: see `sdpa_attention_forward`.

    Returns:
        (1, tokens, heads, size), and no weights.
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


# How many tokens a batch has depends on its values, which a compiled graph cannot know: the hooks run between graphs.
@torch.compiler.disable
def _flatten_inputs(
    encoder: PreTrainedModel, args: tuple[Any, ...], inputs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The encoder's inputs for one row with all tokens of the batch."""
    flat = FlatTexts(inputs["attention_mask"])
    per_token = inputs.keys() & {"input_ids", "token_type_ids"}
    return args, inputs | {name: flat.unpad(inputs[name]) for name in per_token} | flat.encoder_inputs(encoder)


@torch.compiler.disable
def _pad_outputs(
    encoder: PreTrainedModel, args: tuple[Any, ...], inputs: dict[str, Any], output: BaseModelOutput
) -> BaseModelOutput:
    """The encoder's outputs as those of the padded batch, zero where there is no token."""
    flat = inputs["flat_texts"]
    output.last_hidden_state = flat.pad(output.last_hidden_state)
    if output.hidden_states is not None:
        output.hidden_states = tuple(flat.pad(states) for states in output.hidden_states)
    if getattr(output, "pooler_output", None) is not None:
        output.pooler_output = _apply_pooler(encoder, output.last_hidden_state)
    return output


def _apply_pooler(encoder: PreTrainedModel, hidden_states: torch.Tensor) -> torch.Tensor:
    """(texts, hidden) from (texts, width, hidden), as the encoder does at its end."""
    if isinstance(encoder.pooler, nn.Linear):  # ALBERT
        return encoder.pooler_activation(encoder.pooler(hidden_states[:, 0]))
    return encoder.pooler(hidden_states)
