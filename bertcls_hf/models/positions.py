"""The position ids that encoder families give to the tokens of a text."""

from transformers import PreTrainedConfig


# These families number their positions from padding_idx + 1.
OFFSET_POSITIONS = frozenset({"roberta", "xlm-roberta", "camembert"})
# MPNet does so too, but its padding_idx is always 1, whatever pad_token_id its configuration has.
MPNET_FIRST_POSITION = 2


def first_position(encoder_config: PreTrainedConfig) -> int:
    """Returns the position id of a text's first token."""
    if encoder_config.model_type == "mpnet":
        return MPNET_FIRST_POSITION
    return encoder_config.pad_token_id + 1 if encoder_config.model_type in OFFSET_POSITIONS else 0
