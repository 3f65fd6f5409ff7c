"""Computes the scores of a masked language model at the masked tokens alone.

The scores of all words at every token take longer than a small encoder itself, and the loss reads one token in seven.
Two hooks pass the states of the masked tokens to the head, whatever the head of the family is, and their labels to the
loss.
"""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput


def score_masked_tokens_alone(model: PreTrainedModel) -> None:
    """Makes a masked language model compute what its loss reads; the loss stays the same, and logits have less rows.

    Args:
        model: a model whose `labels` are -100 at the tokens that are not masked, such as `BertForMaskedLM`.
    """
    hooks = _MaskedTokens()
    model.register_forward_pre_hook(hooks.select_labels, with_kwargs=True)
    model.base_model.register_forward_hook(hooks.select_states)


class _MaskedTokens:
    """The masked tokens of the batch that is being computed; (texts, width) booleans, or None without labels."""

    def __init__(self) -> None:
        self.is_masked: torch.Tensor | None = None

    # The number of masked tokens depends on values, which are unknown when a graph is compiled.
    @torch.compiler.disable
    def select_labels(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        labels = kwargs.get("labels")
        self.is_masked = None if labels is None else labels.ne(-100)
        return None if labels is None else (args, {**kwargs, "labels": labels[self.is_masked].unsqueeze(0)})

    @torch.compiler.disable
    def select_states(self, encoder: nn.Module, args: tuple[Any, ...], output: BaseModelOutput) -> BaseModelOutput:
        if self.is_masked is not None and output.last_hidden_state is not None:
            output.last_hidden_state = output.last_hidden_state[self.is_masked].unsqueeze(0)
        return output
