"""A BERT-family encoder with a pooling and a classification head.

This file is copied beside the weights of every saved model that no stock class can represent. It therefore imports
only torch and transformers, and runs on transformers 4.57 and later.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    AutoModel,
    BertConfig,
    PreTrainedModel,
)
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput


try:
    from transformers import PreTrainedConfig
except ImportError:  # transformers 4
    from transformers import PretrainedConfig as PreTrainedConfig


CHOICES: dict[str, tuple[str | None, ...]] = {
    "pooling": ("cls", "pooler", "mean", "max", "cls_mean"),
    "pooling_layers_merge": ("mean", "concat", "weighted"),
    "head": ("linear", "mlp"),
    "loss": (None, "cross_entropy", "focal", "bce", "mse"),
}
TRUNCATION_CHOICES: dict[str, tuple[str | None, ...]] = {
    "strategy": ("head", "tail", "head_tail", "windows"),
    "window_pooling": ("mean", "max", "attention"),
}
SINGLE_LABEL, MULTI_LABEL, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
# The task of a loss that fits only one, for configurations that do not name their task.
TASK_OF_LOSS = {"bce": MULTI_LABEL, "mse": REGRESSION}
# The classes of this file that transformers' auto classes load from a saved folder.
AUTO_MAP = {
    "AutoModel": "TextClassifierModel",
    "AutoModelForSequenceClassification": "TextClassifierForSequenceClassification",
}
# What a classifier takes over from the configuration of the encoder that it is built on.
TASK_FIELDS = ("id2label", "label2id", "problem_type")
# A large prime below 2^31, modulo which n-grams are hashed, and factors that spread token ids over its range.
HASH_PRIME, FIRST_FACTOR, NEXT_FACTOR = 2**31 - 1, 1_000_003, 92_821
# Stored where a token has no further character.
NO_CHARACTER = -(2**15)
# The special tokens around a text that can be cut or split here: one before it and one after it.
SPECIAL_TOKENS = 2
# The options of `from_pretrained` that say which files are read, and how.
FILE_OPTIONS = frozenset({
    "cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token",
    "trust_remote_code", "use_safetensors", "variant", "weights_only",
})  # fmt: skip


def _of_encoder(name: str) -> property:
    """Makes a property that reads and writes a value of the encoder's configuration."""
    return property(
        lambda config: getattr(config.encoder_config, name),
        lambda config, value: setattr(config.encoder_config, name, value),
        doc=f"`{name}` of the encoder.",
    )


class TextClassifierConfig(PreTrainedConfig):
    """The configuration of a [`TextClassifierForSequenceClassification`].

    Its arguments have the names of the command line's options. Sizes of the encoder, such as `vocab_size`, can be read
    and set here too.

    Args:
        encoder_config: the encoder's configuration, or its values in a dict; by default that of a BERT.
        pooling: how the hidden states of a layer become one vector.
        pooling_layers: how many of the last layers are pooled.
        pooling_layers_merge: how the pooled layers become one vector.
        head: `linear` or `mlp`.
        head_activation: the activation of the mlp.
        head_layer_norm: whether the mlp has a layer norm.
        dropout: the dropout of the head's inputs.
        loss: the loss; None stands for the usual loss of the task.
        class_weights: one weight per label for the loss, or None for equal weights.
        label_smoothing: the share of a single label that is spread over all labels.
        focal_gamma: the exponent of the focal loss.
        freeze_backbone: whether only the head is trained.
        trainable_layers: how many of the encoder's top layers are trained; None for all.
        lexical_features: the fields of [`LexicalSettings`]; None for a head that reads the encoder alone.
        truncation: the fields of [`TruncationSettings`], for a model that takes longer texts than its encoder; None
            for one whose tokenizer cuts the texts.
        pad_token_id: the id of the padding token.
        **kwargs: the arguments of every configuration, such as `num_labels`, `id2label` and `problem_type`.

    Raises:
        ValueError: if a pooling, merge, head, loss or truncation is unknown.
    """

    model_type = "bert_text_classifier"
    # transformers 5 reads the default from the first, and older versions the class from the second.
    sub_configs_defaults = {"encoder_config": BertConfig}
    sub_configs = {"encoder_config": AutoConfig}

    vocab_size = _of_encoder("vocab_size")
    hidden_size = _of_encoder("hidden_size")
    num_hidden_layers = _of_encoder("num_hidden_layers")
    num_attention_heads = _of_encoder("num_attention_heads")
    max_position_embeddings = _of_encoder("max_position_embeddings")

    def __init__(
        self,
        encoder_config: PreTrainedConfig | dict[str, Any] | None = None,
        pooling: str = "cls",
        pooling_layers: int = 1,
        pooling_layers_merge: str = "concat",
        head: str = "linear",
        head_activation: str = "gelu",
        head_layer_norm: bool = False,
        dropout: float = 0.1,
        loss: str | None = None,
        class_weights: list[float] | None = None,
        label_smoothing: float = 0.0,
        focal_gamma: float = 2.0,
        freeze_backbone: bool = False,
        trainable_layers: int | None = None,
        lexical_features: dict[str, Any] | None = None,
        truncation: dict[str, Any] | None = None,
        pad_token_id: int | None = None,
        **kwargs: Any,
    ):
        self.encoder_config = _as_config(encoder_config)
        self.pooling, self.pooling_layers, self.pooling_layers_merge = pooling, pooling_layers, pooling_layers_merge
        self.head, self.head_activation, self.head_layer_norm = head, head_activation, head_layer_norm
        self.dropout = dropout
        self.loss, self.label_smoothing, self.focal_gamma = loss, label_smoothing, focal_gamma
        self.freeze_backbone, self.trainable_layers = freeze_backbone, trainable_layers
        self.lexical_features, self.truncation = lexical_features, truncation
        for name, allowed in CHOICES.items():
            _check_choice(name, getattr(self, name), allowed)
        for name, allowed in TRUNCATION_CHOICES.items():
            if truncation is not None:
                _check_choice(f"truncation.{name}", getattr(self.truncation_settings, name), allowed)
        self.class_weights = class_weights
        super().__init__(pad_token_id=pad_token_id, **kwargs)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    @property
    def lexical(self) -> "LexicalSettings | None":
        """The settings of the lexical features; None for a head that reads the encoder alone."""
        return None if self.lexical_features is None else LexicalSettings(**self.lexical_features)

    @property
    def truncation_settings(self) -> "TruncationSettings | None":
        """How the model reads longer texts than its encoder; None if it takes none."""
        return None if self.truncation is None else TruncationSettings(**self.truncation)

    @property
    def window_pooling(self) -> str | None:
        """How the windows of a text become one vector; None if texts are not split into windows."""
        settings = self.truncation_settings
        return None if settings is None or settings.strategy != "windows" else settings.window_pooling

    @property
    def layer_size(self) -> int:
        """Width of the features that are pooled from one layer."""
        return self.hidden_size * (2 if self.pooling == "cls_mean" else 1)

    @property
    def feature_size(self) -> int:
        """Width of a text's pooled features, which are the input of the head."""
        return self.layer_size * (1 if self.pooling_layers_merge == "mean" else self.pooling_layers)

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> tuple[dict[str, Any], dict]:
        """Reads the values of a saved configuration; those of an encoder become the values of a classifier of it."""
        values, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if values.get("model_type", cls.model_type) == cls.model_type:
            return values, kwargs
        task = {name: values[name] for name in TASK_FIELDS if name in values}
        return {"model_type": cls.model_type, "encoder_config": values, **task}, kwargs

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        """Saves the configuration, which names a class of this file for every auto class that can load it.

        transformers itself names only the class of the model that is saved.
        """
        if self._auto_class is not None:
            module = type(self).__module__.rpartition(".")[2]
            self.auto_map = {auto_class: f"{module}.{name}" for auto_class, name in AUTO_MAP.items()}
        return super().save_pretrained(save_directory, *args, **kwargs)


def _check_choice(name: str, value: str | None, allowed: tuple[str | None, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: use one of {', '.join(map(str, allowed))}")


def _as_config(encoder_config: PreTrainedConfig | dict[str, Any] | None) -> PreTrainedConfig:
    if isinstance(encoder_config, PreTrainedConfig):
        return encoder_config
    values = dict(encoder_config or {})
    return CONFIG_MAPPING[values.pop("model_type", BertConfig.model_type)](**values)


class LexicalSettings(NamedTuple):
    """What the wide part of a classifier reads; see [`LexicalTable`].

    Args:
        table_size: the number of n-grams that have weights.
        longest_ngram: the greatest number of tokens or characters in an n-gram.
        special_ids: the token ids that no n-gram holds, such as those of padding and of the start.
        separator_id: the token id between the texts of a pair; None if there is none.
        token_characters: the numbers of tokens, and of the characters of each, whose characters the model knows; None
            for n-grams of whole tokens.
    """

    table_size: int
    longest_ngram: int
    special_ids: list[int]
    separator_id: int | None
    token_characters: list[int] | None = None

    @property
    def ngrams(self) -> str:
        """What the table counts, for logs and cards."""
        unit = "tokens" if self.token_characters is None else "characters"
        return f"n-grams of 1 to {self.longest_ngram} {unit}"


class TruncationSettings(NamedTuple):
    """How a model reads texts that are longer than its encoder takes.

    A text that is cut keeps tokens of its start, of its end, or of both (Sun et al. 2019, arXiv 1905.05583). Windows
    read all tokens: each has the text's first and last token, which are special, and a part of those between.

    Args:
        strategy: `head`, `tail` or `head_tail` for texts that are cut, or `windows`.
        max_length: the longest text, or window, in tokens that the encoder takes.
        max_text_length: the longest text in tokens that the model takes.
        kept_at_start: the tokens that a text keeps of its start if it is cut; the others are those of its end.
        stride: the tokens that consecutive windows have in common.
        window_pooling: `mean`, `max` or `attention`, by which the windows of a text become one vector.
    """

    strategy: str
    max_length: int
    max_text_length: int
    kept_at_start: int
    stride: int = 0
    window_pooling: str = "mean"

    @property
    def window_step(self) -> int:
        """The tokens between the starts of consecutive windows."""
        return self.max_length - SPECIAL_TOKENS - self.stride

    def windows(self, lengths: Any) -> Any:
        """Returns the number of windows of texts with these tokens: an array or tensor like `lengths`."""
        surplus = (lengths - self.max_length).clip(min=0)
        return 1 + (surplus + self.window_step - 1) // self.window_step

    def encoder_lengths(self, lengths: Any) -> Any:
        """Returns how many tokens the encoder reads of texts with these tokens: an array or tensor like `lengths`."""
        if self.strategy != "windows":
            return lengths.clip(max=self.max_length)
        return lengths + (self.windows(lengths) - 1) * (self.stride + SPECIAL_TOKENS)

    def with_max_length(self, max_length: int | None) -> "TruncationSettings":
        """Returns the settings for an encoder that takes another number of tokens; None leaves them as they are.

        A model of whole texts takes as much as before; one that takes no more than its encoder takes the same.
        """
        if max_length is None:
            return self
        takes_more = self.max_text_length > self.max_length
        return self._replace(
            max_length=max_length,
            max_text_length=max(self.max_text_length, max_length) if takes_more else max_length,
            kept_at_start=kept_at_start(self.strategy, max_length, self.kept_at_start / self.max_length),
            stride=min(self.stride, max_length - SPECIAL_TOKENS - 1),
        )


def kept_at_start(strategy: str, max_length: int, share: float) -> int:
    """Returns how many tokens a cut text keeps of its start, where `share` is for `head_tail`."""
    kept = {"head": max_length - 1, "tail": 1}.get(strategy, round(share * max_length))
    return min(max(kept, 1), max_length - 1)


def encoder_has_pooler(encoder_config: PreTrainedConfig) -> bool:
    """Says whether the family has a pooler: BERT, RoBERTa, ALBERT … do; DistilBERT, ELECTRA, DeBERTa do not."""
    return "add_pooling_layer" in inspect.signature(MODEL_MAPPING[type(encoder_config)].__init__).parameters


def pooler_option(encoder_config: PreTrainedConfig, pooling: str) -> dict[str, bool]:
    """Returns the keyword arguments that build the encoder without its pooler if the pooling does not use it.

    An unused but trainable pooler gets no gradient, and DistributedDataParallel fails on such parameters.
    """
    return {"add_pooling_layer": pooling == "pooler"} if encoder_has_pooler(encoder_config) else {}


def pool_hidden_states(hidden_states: torch.Tensor, attention_mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """Pools the hidden states of one layer into one vector per text.

    Args:
        hidden_states: (batch, length, hidden) floats.
        attention_mask: (batch, length), 1 for real tokens.
        pooling: `cls`, `mean`, `max` or `cls_mean`.

    Returns:
        (batch, hidden), or (batch, 2 x hidden) for `cls_mean`.
    """
    if pooling == "cls":
        return hidden_states[:, 0]
    mask = attention_mask.unsqueeze(-1)
    if pooling == "max":
        return hidden_states.masked_fill(mask == 0, torch.finfo(hidden_states.dtype).min).amax(dim=1)
    mask = mask.to(hidden_states.dtype)
    mean = (hidden_states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    return mean if pooling == "mean" else torch.cat([hidden_states[:, 0], mean], dim=-1)


class PooledPart(NamedTuple):
    """A part of a text's pooled features: one kind of pooling of one layer.

    Args:
        kind: `cls`, `mean`, `max`, or `pooler` for the output of the encoder's own pooler.
        layer: the layer, counted from the end; -1 is the last.
    """

    kind: Literal["cls", "mean", "max", "pooler"]
    layer: int = -1


def pooled_parts(config: TextClassifierConfig) -> tuple[PooledPart, ...]:
    """Lists the parts of a text's pooled features, from the lowest layer to the last.

    Examples are the means of layers -2 and -1; the first token and the mean of layer -1; and the pooler's output.
    """
    if config.pooling == "pooler":
        return (PooledPart("pooler"),)
    kinds: tuple[Any, ...] = ("cls", "mean") if config.pooling == "cls_mean" else (config.pooling,)
    return tuple(PooledPart(kind, layer) for layer in range(-config.pooling_layers, 0) for kind in kinds)


def merge_parts(parts: Sequence[torch.Tensor], config: TextClassifierConfig) -> torch.Tensor:
    """Merges the parts, in the order of [`pooled_parts`], into features of shape (batch, `config.feature_size`)."""
    if config.pooling_layers_merge == "mean" and config.pooling_layers > 1:
        kinds = len(parts) // config.pooling_layers
        parts = [torch.stack(list(parts[kind::kinds])).mean(dim=0) for kind in range(kinds)]
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=-1)


class ClassificationHead(nn.Module):
    """The head `linear` (dropout, projection) or `mlp` (dropout, dense, activation, layer norm, dropout, projection).

    The layer norm of `mlp` is optional. With weighted layers, the head first averages the layers with learned weights.
    This is the scalar mix of Peters et al. 2018 (arXiv 1802.05365) without its scale, which the projection can learn.
    """

    def __init__(self, config: TextClassifierConfig):
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.layer_weights = None
        width = config.feature_size
        if config.pooling_layers_merge == "weighted":
            self.layer_weights = nn.Parameter(torch.zeros(config.pooling_layers))
            width = config.layer_size
        if config.head == "mlp":
            self.dense = nn.Linear(width, config.hidden_size)
            self.activation = ACT2FN[config.head_activation]
            self.norm = _head_norm(config.encoder_config) if config.head_layer_norm else nn.Identity()
            width = config.hidden_size
        self.is_mlp = config.head == "mlp"
        self.out_proj = nn.Linear(width, config.num_labels)
        self.window_pooling, self.window_query = config.window_pooling, None
        if self.window_pooling == "attention":
            # Zeros make it start as the mean.
            self.window_query = nn.Parameter(torch.zeros(config.feature_size))

    def forward(self, features: torch.Tensor, window_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Computes (batch, labels) logits from (batch, features), or from (batch, windows, features) and a mask."""
        if window_mask is not None:
            assert self.window_pooling is not None
            features = pool_windows(features, window_mask, self.window_pooling, self.window_query)
        if self.layer_weights is not None:
            layers = features.unflatten(-1, (len(self.layer_weights), -1))
            features = (layers * self.layer_weights.softmax(dim=0).unsqueeze(-1)).sum(dim=-2)
        hidden = self.dropout(features)
        if self.is_mlp:
            hidden = self.dropout(self.norm(self.activation(self.dense(hidden))))
        return self.out_proj(hidden)


def pool_windows(
    features: torch.Tensor, window_mask: torch.Tensor, pooling: str, query: torch.Tensor | None = None
) -> torch.Tensor:
    """Pools the features of each text's windows into one vector.

    Args:
        features: (batch, windows, size) floats.
        window_mask: (batch, windows) booleans that say which windows exist; each text has one at least.
        pooling: `mean`, `max` or `attention`.
        query: (size,), whose product with the features of a window is the window's score for attention.

    Returns:
        (batch, size).
    """
    mask = window_mask.unsqueeze(-1)
    if pooling == "max":
        return features.masked_fill(~mask, torch.finfo(features.dtype).min).amax(dim=1)
    if pooling == "mean":
        return features.masked_fill(~mask, 0).sum(dim=1) / mask.sum(dim=1)
    assert query is not None
    scores = features @ query.to(features.dtype) / features.shape[-1] ** 0.5
    shares = scores.masked_fill(~window_mask, torch.finfo(scores.dtype).min).softmax(dim=1)
    return (features.masked_fill(~mask, 0) * shares.unsqueeze(-1)).sum(dim=1)


def ngram_keys(
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    settings: LexicalSettings,
    characters: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hashes the n-grams that start at each token, or at each character of the tokens.

    An n-gram has no special token, so that those of a pair belong to one of its texts, and equal n-grams of its first
    and its second text have different hashes.

    Args:
        input_ids: (batch, length) int64.
        attention_mask: (batch, length), 1 for real tokens.
        settings: the longest n-gram and the special tokens.
        characters: (tokens, characters) int16 codes for n-grams of characters; see [`LexicalTable`].

    Returns:
        (batch, longest n-gram x units) int64 hashes below 2^31, and booleans that say where there is an n-gram. Units
        are tokens or characters.
    """
    is_unit = attention_mask.bool()
    for special_id in settings.special_ids:
        is_unit = is_unit & (input_ids != special_id)
    units, side = input_ids, torch.zeros_like(input_ids)
    if settings.separator_id is not None:
        side = (input_ids == settings.separator_id).long().cumsum(dim=1)
    if characters is not None:
        units, side, is_unit = _characters_of_tokens(input_ids, side, is_unit, characters)
    keys = ((units + 1) * FIRST_FACTOR + side) % HASH_PRIME
    all_keys, all_present, present = [keys], [is_unit], is_unit
    for offset in range(1, settings.longest_ngram):
        keys = (keys * NEXT_FACTOR + _shifted(units, offset) + 1 + offset) % HASH_PRIME
        present = present & _shifted(is_unit, offset)
        all_keys.append(keys)
        all_present.append(present)
    return torch.cat(all_keys, dim=1), torch.cat(all_present, dim=1)


def _characters_of_tokens(
    input_ids: torch.Tensor, side: torch.Tensor, is_word: torch.Tensor, characters: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Puts the characters of each text's tokens next to each other.

    Args:
        input_ids: (batch, length) int64.
        side: (batch, length) int64, the number of the text of a pair.
        is_word: (batch, length) booleans; other tokens become one character, which is not marked as one.
        characters: (tokens, characters) int16 codes.

    Returns:
        For each character its code, its side, and whether it belongs to a word: int64, int64 and booleans of shape
        (batch, characters of the longest text).
    """
    codes = characters[input_ids.clamp(max=len(characters) - 1)].long() - NO_CHARACTER
    stand_in = (torch.arange(codes.shape[-1], device=codes.device) == 0).long()
    is_word = is_word.unsqueeze(-1)
    codes = torch.where(is_word, codes, stand_in)
    is_there = (codes != 0).flatten(1)
    width = is_there.shape[1] if torch.compiler.is_compiling() else int(is_there.sum(dim=1).max())
    # What is no character lands behind the end, which is cut off.
    place = torch.where(is_there, is_there.long().cumsum(dim=1) - 1, width)

    def packed(values: torch.Tensor) -> torch.Tensor:
        values = values.expand(codes.shape).flatten(1)
        return values.new_zeros(values.shape[0], width + 1).scatter(1, place, values)[:, :width]

    return packed(codes), packed(side.unsqueeze(-1)), packed(is_word.long()).bool()


def _shifted(values: torch.Tensor, offset: int) -> torch.Tensor:
    """Returns at each position the value that is `offset` positions further on; 0 or False after the end."""
    return F.pad(values, (0, offset))[:, offset : offset + values.shape[1]]


class LexicalTable(nn.Module):
    """The wide part of a classifier: a linear function of the counts of a text's n-grams, of tokens or characters.

    It is fitted before the training (see `bertcls_hf.features.lexical_table`) and fixed, as in a stack of models
    (Wolpert 1992). Its scale is learned beside the head of a frozen encoder, or fitted after an encoder's training.
    N-grams that are not in the table count for nothing.

    Characters are read off the token ids: `characters`, (tokens, characters) int16, holds the UTF-16 units of each
    token, less 32,768, and -32,768 after the last one.
    """

    keys: torch.Tensor
    weights: torch.Tensor
    bias: torch.Tensor
    characters: torch.Tensor | None

    def __init__(self, config: TextClassifierConfig):
        super().__init__()
        settings = config.lexical
        assert settings is not None
        self.settings, self.num_labels = settings, config.num_labels
        self.is_single_label = config.problem_type == SINGLE_LABEL
        columns = lexical_columns(self.num_labels, self.is_single_label)
        # The hashes are in ascending order.
        self.register_buffer("keys", torch.zeros(settings.table_size, dtype=torch.int32))
        self.register_buffer("weights", torch.zeros(settings.table_size, columns, dtype=torch.float16))
        self.register_buffer("bias", torch.zeros(columns))
        shape = settings.token_characters
        self.register_buffer("characters", None if shape is None else torch.zeros(*shape, dtype=torch.int16))
        self.scale = nn.Parameter(torch.ones(1))

    @property
    def megabytes(self) -> float:
        """The size of the table."""
        return sum(buffer.nbytes for buffer in self.buffers()) / 1e6

    def fill(
        self, keys: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor, characters: torch.Tensor | None = None
    ) -> None:
        """Copies a fitted table into the module; characters belong to n-grams of characters."""
        self.keys.copy_(keys)
        self.weights.copy_(weights)
        self.bias.copy_(bias)
        if self.characters is not None and characters is not None:
            self.characters.copy_(characters)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Computes (batch, labels) float32 logits, not scaled yet, from (batch, length) token ids and their mask."""
        keys, present = ngram_keys(input_ids, attention_mask, self.settings, self.characters)
        place = self._places(keys)
        is_known = present & (self.keys[place] == keys)
        weights = self.weights[place].float() * is_known.unsqueeze(-1)
        return lexical_logits(weights.sum(dim=1) + self.bias.float(), self.num_labels, self.is_single_label)

    def _places(self, keys: torch.Tensor) -> torch.Tensor:
        """Returns the place in the table of the greatest hash that is not above each key, or 0, by a binary search."""
        if not torch.compiler.is_compiling():
            return (torch.searchsorted(self.keys, keys, right=True) - 1).clamp(min=0)
        # The same, as `searchsorted` has no operator in ONNX.
        place, size = torch.zeros_like(keys), self.settings.table_size
        step = 1 << max(size - 1, 0).bit_length()
        while step := step // 2:
            further = place + step
            is_below = (further < size) & (self.keys[further.clamp(max=size - 1)] <= keys)
            place = torch.where(is_below, further, place)
        return place


def lexical_columns(num_labels: int, is_single_label: bool) -> int:
    """Returns the number of linear functions: one for two labels that exclude each other, else one per label."""
    return 1 if is_single_label and num_labels == 2 else num_labels


def lexical_logits(decisions: torch.Tensor, num_labels: int, is_single_label: bool) -> torch.Tensor:
    """Turns the (batch, columns) values of the linear functions into (batch, labels) logits.

    Of more than two labels that exclude each other, each has a yes-or-no function, whose probabilities are scaled to a
    sum of one.
    """
    if not is_single_label:
        return decisions
    if num_labels == 2:
        return torch.cat([torch.zeros_like(decisions), decisions], dim=1)
    # `F.logsigmoid` becomes the logarithm of a sigmoid in ONNX, which is that of 0 for what is very unlikely.
    return decisions.clamp(max=0) - torch.log1p(torch.exp(-decisions.abs()))


def _cut_for_encoder(inputs: dict[str, Any], settings: TruncationSettings) -> dict[str, Any]:
    """Cuts texts that are too long for the encoder.

    The first and the last token are special tokens, and are kept.
    """
    ids, limit = inputs["input_ids"], settings.max_length
    # A graph for texts of any length always holds the cut.
    if not torch.compiler.is_compiling() and ids.shape[1] <= limit:
        return inputs
    lengths = inputs["attention_mask"].sum(dim=1, keepdim=True)
    place = torch.arange(ids.shape[1], device=ids.device)[:limit].expand(ids.shape[0], -1)
    place = place + (lengths - limit).clamp(min=0) * (place >= settings.kept_at_start)
    return inputs | {name: inputs[name].gather(1, place) for name in _inputs_per_token(inputs)}


def _inputs_per_token(inputs: dict[str, Any]) -> list[str]:
    return [name for name in ("input_ids", "token_type_ids", "attention_mask") if inputs.get(name) is not None]


def split_windows(
    inputs: dict[str, Any], settings: TruncationSettings, pad_token_id: int
) -> tuple[dict[str, Any], torch.Tensor]:
    """Splits texts into windows for the encoder.

    Args:
        inputs: `input_ids`, `attention_mask` and maybe `token_type_ids`, (batch, length) int64, and other inputs.
        settings: the length and the stride of the windows.
        pad_token_id: the id that fills windows to one length.

    Returns:
        The inputs of all windows, text by text, and (batch, windows) booleans that say which windows exist. In a
        compiled graph, the inputs hold the windows that do not exist too, which have one token.
    """
    ids, limit, step = inputs["input_ids"], settings.max_length, settings.window_step
    lengths = inputs["attention_mask"].sum(dim=1).view(-1, 1, 1)
    column = torch.arange(ids.shape[1], device=ids.device)
    # The longest text has a window from each multiple of the step, until one reaches its end.
    start = (torch.arange(settings.windows(lengths).max().item(), device=ids.device) * step).view(1, -1, 1)
    place = column[:limit].view(1, 1, -1)
    width = (lengths - start).clamp(max=limit)
    window_mask = ((start == 0) | (width > limit - step)).squeeze(-1)
    source = torch.where(place == width - 1, lengths - 1, start + place)
    source = torch.minimum(torch.where(place == 0, 0, source).clamp(min=0), column[-1])
    is_token = (place < width) & window_mask.unsqueeze(-1) | (place == 0)
    chosen = {
        name: inputs[name].unsqueeze(1).expand(-1, start.shape[1], -1).gather(2, source)
        for name in _inputs_per_token(inputs)
    }
    chosen["input_ids"] = chosen["input_ids"].masked_fill(~is_token, pad_token_id)
    chosen["attention_mask"] = is_token.to(inputs["attention_mask"].dtype)
    # How many windows exist is unknown when a graph is made.
    windows = {
        name: values.flatten(0, 1) if torch.compiler.is_compiling() else values[window_mask]
        for name, values in chosen.items()
    }
    return inputs | windows, window_mask


def _by_text(features: torch.Tensor, window_mask: torch.Tensor) -> torch.Tensor:
    """Puts the (windows, size) features of [`split_windows`]' windows into (batch, windows, size)."""
    if torch.compiler.is_compiling():
        return features.unflatten(0, window_mask.shape)
    by_text = features.new_zeros(*window_mask.shape, features.shape[-1])
    by_text[window_mask] = features
    return by_text


def _head_norm(encoder_config: PreTrainedConfig) -> nn.LayerNorm:
    eps = getattr(encoder_config, "norm_eps", 1e-5)
    return nn.LayerNorm(encoder_config.hidden_size, eps=eps, bias=getattr(encoder_config, "norm_bias", True))


def task_of(labels: torch.Tensor, config: TextClassifierConfig) -> str:
    """Returns `config.problem_type`, or, if it is not set, the task that transformers' classes infer from the labels.

    A single label is a regression. With several, integers are single labels, and all other types are multi-label.
    """
    if config.problem_type is not None:
        return config.problem_type
    if config.loss in TASK_OF_LOSS:
        return TASK_OF_LOSS[config.loss]
    if config.num_labels == 1:
        return REGRESSION
    return SINGLE_LABEL if labels.dtype in (torch.int64, torch.int32) else MULTI_LABEL


def classification_loss(logits: torch.Tensor, labels: torch.Tensor, config: TextClassifierConfig) -> torch.Tensor:
    """Computes the mean loss over the rows.

    For a single label, the labels are smoothed first, and the weight of a row's gold label then multiplies the whole
    loss of the row. `torch.nn.functional.cross_entropy` weighs each class's part of a smoothed label instead, so that
    the smoothed share of a rare class can outweigh the gold label of a frequent one. The sum is divided by the number
    of rows, not by the sum of the weights. The mean over a batch therefore equals the mean over its micro-batches,
    whatever labels these hold.

    For multi-label, the weight of a label multiplies the loss of its positives.

    Args:
        logits: (batch, labels).
        labels: (batch,) integers for single label, (batch, labels) numbers for multi-label, (batch,) numbers for
            regression, or (batch, labels) for a regression of several values.
        config: the configuration, which names the loss and its settings.

    Returns:
        A scalar.

    Raises:
        ValueError: if the labels have another shape, if single labels are not integers, or if there is another number
            of class weights than of labels.
    """
    logits = logits.float()
    task = task_of(labels, config)
    labels = _checked_labels(logits, labels, task)
    if task == REGRESSION:
        return F.mse_loss(logits, labels)
    weights = None if config.class_weights is None else logits.new_tensor(config.class_weights)
    if weights is not None and len(weights) != logits.shape[-1]:
        raise ValueError(f"class_weights has {len(weights)} numbers for {logits.shape[-1]} labels: set it to None")
    if task == MULTI_LABEL:
        return _multi_label_loss(logits, labels, weights, config)
    losses = F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing, reduction="none")
    if config.loss == "focal":
        gold = logits.softmax(dim=-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        losses = losses * (1 - gold) ** config.focal_gamma
    if weights is not None:
        losses = losses * weights[labels]
    return losses.mean()


def _checked_labels(logits: torch.Tensor, labels: torch.Tensor, task: str) -> torch.Tensor:
    """Returns the labels in the shape and the dtype of their loss: (batch,) int64, or (batch, labels) floats."""
    rows, columns = logits.shape
    per_row = 1 if task == SINGLE_LABEL else columns
    # One value per row may come as a column; several values per row must not come in another order.
    fits = labels.numel() == rows if per_row == 1 else labels.shape == logits.shape
    if not fits:
        expected = (rows,) if per_row == 1 else (rows, columns)
        raise ValueError(
            f"labels have the shape {tuple(labels.shape)}, but {task} of {rows} texts with {columns} outputs takes "
            f"{expected}"
        )
    if task != SINGLE_LABEL:
        return labels.to(logits.dtype).view(rows, columns)
    if labels.is_floating_point():
        raise ValueError(f"labels are {labels.dtype}, but {task} takes integers: the numbers of the labels")
    return labels.view(-1).long()


def _multi_label_loss(
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None, config: TextClassifierConfig
) -> torch.Tensor:
    losses = F.binary_cross_entropy_with_logits(logits, labels, pos_weight=weights, reduction="none")
    if config.loss == "focal":
        probabilities = logits.sigmoid()
        gold = torch.where(labels > 0.5, probabilities, 1 - probabilities)
        losses = losses * (1 - gold) ** config.focal_gamma
    return losses.mean()


def classify_features(
    head: ClassificationHead,
    features: torch.Tensor,
    labels: torch.Tensor | None,
    config: TextClassifierConfig,
    wide_logits: torch.Tensor | None = None,
    window_mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Applies the head to pooled features; returns the loss, which is None without labels, and the logits.

    Args:
        head: the head.
        features: (batch, `config.feature_size`), or (batch, windows, `config.feature_size`).
        labels: see [`classification_loss`].
        config: the configuration.
        wide_logits: (batch, labels) scaled logits of the lexical features, which are added to the head's.
        window_mask: (batch, windows) booleans that say which windows exist, for features of windows.
    """
    weight = head.out_proj.weight
    # A quantised projection has a method in place of the tensor, and takes float32.
    logits = head(features.to(weight.dtype if isinstance(weight, torch.Tensor) else torch.float32), window_mask)
    if wide_logits is not None:
        logits = logits + wide_logits.to(logits.dtype)
    return None if labels is None else classification_loss(logits, labels, config), logits


class TextClassifierPreTrainedModel(PreTrainedModel):
    """What the encoder alone and the classifier have in common: settings, loading, and the encoder's inputs."""

    config_class = TextClassifierConfig
    base_model_prefix = "encoder"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: TextClassifierConfig):
        super().__init__(config)
        self.encoder = AutoModel.from_config(
            config.encoder_config, **pooler_option(config.encoder_config, config.pooling)
        )
        self._encoder_inputs = frozenset(inspect.signature(self.encoder.forward).parameters)
        if getattr(config.encoder_config, "type_vocab_size", 2) < 2:
            # A tokenizer may give the second text of a pair a type for which the encoder has no embedding.
            self._encoder_inputs -= {"token_type_ids"}

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *args: Any, config: Any = None, **kwargs: Any
    ) -> "TextClassifierPreTrainedModel":
        """Loads a saved model, or the checkpoint of an encoder, which gets a new head.

        Args:
            pretrained_model_name_or_path: a local folder or a Hub id.
            *args: passed on to transformers.
            config: the configuration; by default the stored one, or the default one for an encoder.
            **kwargs: see transformers' `from_pretrained`; values of the configuration can be given too.
        """
        files = {name: value for name, value in kwargs.items() if name in FILE_OPTIONS}
        if not _is_encoder(pretrained_model_name_or_path, files):
            return super().from_pretrained(pretrained_model_name_or_path, *args, config=config, **kwargs)
        kwargs = {name: value for name, value in kwargs.items() if name not in FILE_OPTIONS}
        loading = {name: kwargs.pop(name) for name in ("dtype", "torch_dtype") if name in kwargs}
        if not isinstance(config, PreTrainedConfig):
            named = config or pretrained_model_name_or_path
            options = {name: value for name, value in files.items() if name != "trust_remote_code"}
            config, kwargs = cls.config_class.from_pretrained(named, return_unused_kwargs=True, **options, **kwargs)
            kwargs = {name: value for name, value in kwargs.items() if name not in FILE_OPTIONS}
        pooler = pooler_option(config.encoder_config, config.pooling)
        encoder = AutoModel.from_pretrained(pretrained_model_name_or_path, **files, **loading, **pooler)
        weights = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
        loaded = super().from_pretrained(None, *args, config=config, state_dict=weights, **loading, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.config.name_or_path = str(pretrained_model_name_or_path)
        return loaded

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Resizes the encoder's token embeddings as in transformers, and corrects the size in its configuration."""
        embeddings = super().resize_token_embeddings(*args, **kwargs)
        self.encoder.config.vocab_size = self.config.vocab_size = embeddings.num_embeddings
        return embeddings

    def encode(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **options: Any,
    ) -> BaseModelOutput:
        """Runs the encoder.

        Args:
            input_ids: (batch, length) int64.
            attention_mask: (batch, length), 1 for real tokens; by default all tokens are real.
            token_type_ids: like `input_ids`; encoders that have no token types ignore them.
            position_ids: like `input_ids`; by default the encoder counts.
            inputs_embeds: (batch, length, embedding) floats in place of `input_ids`.
            **options: further arguments of the encoder; those that are None are left out.
        """
        inputs = {"input_ids": input_ids, "position_ids": position_ids, "inputs_embeds": inputs_embeds, **options}
        inputs["attention_mask"] = _attention_mask(input_ids, attention_mask, inputs_embeds)
        if "token_type_ids" in self._encoder_inputs:
            inputs["token_type_ids"] = token_type_ids
        inputs = {name: value for name, value in inputs.items() if value is not None}
        return self.encoder(**inputs, return_dict=True)


def _is_encoder(name: Any, files: dict[str, Any]) -> bool:
    """Says whether the checkpoint is that of an encoder, and not of a class of this file."""
    if name is None:
        return False
    try:
        values, _ = PreTrainedConfig.get_config_dict(name, **files)
    except OSError:  # There is no configuration, as in the folder of an adapter.
        return False
    own = TextClassifierConfig.model_type
    return values.get("model_type", own) != own


def _attention_mask(
    input_ids: torch.Tensor | None, attention_mask: torch.Tensor | None, inputs_embeds: torch.Tensor | None
) -> torch.Tensor:
    """Returns the mask, which is 1 everywhere if it is not given.

    Raises:
        ValueError: if there are neither ids nor embeddings, or both.
    """
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError("give input_ids, or inputs_embeds or features in their place")
    if attention_mask is not None:
        return attention_mask
    if input_ids is not None:
        return torch.ones_like(input_ids)
    assert inputs_embeds is not None
    return torch.ones(inputs_embeds.shape[:2], dtype=torch.int64, device=inputs_embeds.device)


class TextClassifierModel(TextClassifierPreTrainedModel):
    """The encoder of a classifier alone, which `AutoModel` loads; it has a pooler if the classifier uses one."""

    _keys_to_ignore_on_load_unexpected = [r"^head\."]

    def __init__(self, config: TextClassifierConfig):
        super().__init__(config)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | int | list[int] | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput | tuple:
        """Runs the encoder; see [`TextClassifierPreTrainedModel.encode`] for the inputs.

        Returns:
            The encoder's output, as a tuple if `return_dict` is false here or in the configuration.
        """
        outputs = self.encode(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds,
            output_attentions=_first_set(output_attentions, self.config.output_attentions),
            output_hidden_states=_first_set(output_hidden_states, self.config.output_hidden_states), **kwargs,
        )  # fmt: skip
        return outputs if _first_set(return_dict, self.config.return_dict) else outputs.to_tuple()


def _first_set(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _selected_states(
    states: tuple[torch.Tensor, ...] | None, asked: bool | int | list[int] | None
) -> tuple[torch.Tensor | None, ...] | None:
    """Returns the hidden states that `output_hidden_states` asks for.

    These are all for True, none for False, and otherwise those with the given numbers, among None for the others.
    """
    if states is None or asked is None or asked is False:
        return None
    if asked is True:
        return states
    numbers = [asked] if isinstance(asked, int) else asked
    chosen = {number % len(states) for number in numbers if -len(states) <= number < len(states)}
    return tuple(state if number in chosen else None for number, state in enumerate(states))


class TextClassifierForSequenceClassification(TextClassifierPreTrainedModel):
    """Encoder, pooling, head and loss in one model.

    If `features` are given, the encoder is skipped. A model whose head is trained on cached features can therefore be
    saved as it is, and classifies raw text.
    """

    # Otherwise, the Trainer would pass `num_items_in_batch`, or assume that the loss is already divided by it.
    accepts_loss_kwargs = False

    def __init__(self, config: TextClassifierConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.head = ClassificationHead(config)
        self.lexical = None if config.lexical_features is None else LexicalTable(config)
        self.truncation = config.truncation_settings
        # A part of the names of the encoder's weights that are trained, where adapters learn in place of all others.
        self.encoder_weights_mark: str | None = None
        self.post_init()
        self.apply_freezing()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ClassificationHead) and module.layer_weights is not None:
            nn.init.zeros_(module.layer_weights)
        if isinstance(module, ClassificationHead) and module.window_query is not None:
            nn.init.zeros_(module.window_query)
        if isinstance(module, LexicalTable):
            for buffer in module.buffers():
                nn.init.zeros_(buffer)
            nn.init.ones_(module.scale)

    def trainable_encoder_modules(self) -> list[nn.Module]:
        """Lists the parts of the encoder that are trained.

        Raises:
            ValueError: if the encoder has fewer layers than `trainable_layers`, or if its layers share their weights
                (ALBERT).
        """
        if not self.config.freeze_backbone and self.config.trainable_layers is None:
            return [self.encoder]
        if not self.config.trainable_layers:
            return []
        layers = encoder_layers(self.encoder)
        if self.config.trainable_layers > len(layers):
            raise ValueError(
                f"trainable_layers={self.config.trainable_layers}, but the encoder has {len(layers)} layers"
            )
        after_layers = [getattr(self.encoder, name, None) for name in ("pooler", "final_norm")]
        return [*layers[-self.config.trainable_layers :], *(module for module in after_layers if module is not None)]

    def freeze_backbone(self, frozen: bool) -> None:
        """Freezes the encoder, or makes it trainable again."""
        self.config.freeze_backbone = frozen
        self.apply_freezing()

    def apply_freezing(self) -> None:
        """Freezes the encoder, except for the parts that [`trainable_encoder_modules`] lists."""
        self.encoder.requires_grad_(False)
        for module in self.trainable_encoder_modules():
            module.requires_grad_(True)
        if self.encoder_weights_mark is not None:
            for name, weight in self.encoder.named_parameters():
                weight.requires_grad_(weight.requires_grad and self.encoder_weights_mark in name)
        if self.lexical is not None:
            self.lexical.scale.requires_grad_(self.config.freeze_backbone)
        self.train(self.training)

    def train(self, mode: bool = True) -> "TextClassifierForSequenceClassification":
        """Sets the mode like `nn.Module.train`, but keeps frozen parts in evaluation mode.

        Dropout in frozen parts would add noise, and their output would differ from the cached features.
        """
        super().train(mode)
        self.encoder.eval()
        for module in self.trainable_encoder_modules():
            module.train(mode)
        return self

    def enable_input_require_grads(self) -> None:
        """Makes the inputs require gradients for activation checkpointing, but only if the whole encoder is trained.

        Only reentrant checkpointing needs inputs that require gradients. With such inputs, frozen layers would store
        their activations for gradients that no parameter uses.
        """
        if self.trainable_encoder_modules() == [self.encoder]:
            super().enable_input_require_grads()

    def encode_parts(self, parts: Sequence[PooledPart], **inputs: Any) -> list[torch.Tensor]:
        """Runs the encoder once, and pools its output into the parts, each (batch, hidden); see [`pooled_parts`].

        A model with windows returns a row for each window of the texts.

        Args:
            parts: the parts to compute.
            **inputs: see [`TextClassifierPreTrainedModel.encode`].
        """
        return self._encode_and_pool(parts, **inputs)[1]

    def _encode_and_pool(
        self, parts: Sequence[PooledPart], output_hidden_states: Any = None, **inputs: Any
    ) -> tuple[BaseModelOutput, list[torch.Tensor], torch.Tensor | None]:
        """Returns the encoder's output, the pooled parts, and the mask of the windows if the model has them."""
        needs_layers = any(part.layer < -1 for part in parts)
        inputs["attention_mask"] = _attention_mask(
            inputs.get("input_ids"), inputs.get("attention_mask"), inputs.get("inputs_embeds")
        )
        inputs, window_mask = self._read(inputs)
        outputs = self.encode(output_hidden_states=True if needs_layers else output_hidden_states, **inputs)

        def pooled(part: PooledPart) -> torch.Tensor:
            if part.kind == "pooler":
                return outputs.pooler_output
            # The last entry of `hidden_states` lacks the final norm in some families; the last hidden state has it.
            states = outputs.last_hidden_state if part.layer == -1 else outputs.hidden_states[part.layer]
            return pool_hidden_states(states, inputs["attention_mask"], part.kind)

        return outputs, [pooled(part) for part in parts], window_mask

    def _read(self, inputs: dict[str, Any]) -> tuple[dict[str, Any], torch.Tensor | None]:
        """Cuts or splits long texts for the encoder; embeddings are taken as they are."""
        if self.truncation is None:
            return inputs, None
        if self.truncation.strategy != "windows":
            return (_cut_for_encoder(inputs, self.truncation) if inputs.get("input_ids") is not None else inputs), None
        if inputs.get("input_ids") is None:
            return inputs, torch.ones_like(inputs["attention_mask"][:, :1], dtype=torch.bool)
        pad_token_id = self.config.pad_token_id
        return split_windows(inputs, self.truncation, 0 if pad_token_id is None else pad_token_id)

    def pooled_features(self, input_ids: torch.Tensor | None = None, **inputs: Any) -> torch.Tensor:
        """Computes (batch, `config.feature_size`) features from the inputs of the encoder; see [`encode_parts`]."""
        return merge_parts(self.encode_parts(pooled_parts(self.config), input_ids=input_ids, **inputs), self.config)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        features: torch.Tensor | None = None,
        lexical_logits: torch.Tensor | None = None,
        window_mask: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | int | list[int] | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput | tuple:
        """Classifies texts, or features that were computed from them before.

        Args:
            input_ids: (batch, length) int64.
            attention_mask: (batch, length), 1 for real tokens.
            token_type_ids: like `input_ids`; families that have no token types ignore them.
            position_ids: like `input_ids`; by default the encoder counts.
            inputs_embeds: (batch, length, embedding) floats in place of `input_ids`.
            labels: see [`classification_loss`].
            features: (batch, `config.feature_size`) floats, or (batch, windows, `config.feature_size`); if they are
                given, the encoder is not run.
            lexical_logits: (batch, labels) logits of the lexical features, for a classifier that has them; if they are
                not given, they are computed from `input_ids`.
            window_mask: (batch, windows) booleans that say which windows exist, beside features of windows.
            output_attentions: whether to return the encoder's attentions; by default the configuration says.
            output_hidden_states: whether to return the encoder's hidden states, or the numbers of those to return; by
                default the configuration says.
            return_dict: whether to return an output with names; by default the configuration says.
            **kwargs: further arguments of the encoder.

        Returns:
            The loss, if labels are given, logits of shape (batch, labels), and hidden states and attentions as asked;
            without `return_dict`, a tuple of those that are not None.

        Raises:
            ValueError: if no input is given, or both `input_ids` and `inputs_embeds`; or if the labels do not fit the
                task.
        """
        asked_states = _first_set(output_hidden_states, self.config.output_hidden_states)
        wide_logits = self._wide_logits(input_ids, attention_mask, lexical_logits)
        outputs = BaseModelOutput()
        if features is None:
            outputs, parts, window_mask = self._encode_and_pool(
                pooled_parts(self.config), input_ids=input_ids, attention_mask=attention_mask,
                token_type_ids=token_type_ids, position_ids=position_ids, inputs_embeds=inputs_embeds,
                output_attentions=_first_set(output_attentions, self.config.output_attentions),
                output_hidden_states=asked_states, **kwargs,
            )  # fmt: skip
            features = merge_parts(parts, self.config)
            features = features if window_mask is None else _by_text(features, window_mask)
        loss, logits = classify_features(self.head, features, labels, self.config, wide_logits, window_mask)
        if labels is not None and self.config.problem_type is None:
            # As in transformers' classes: a pipeline reads from the saved task how to make probabilities.
            self.config.problem_type = task_of(labels, self.config)
        output = SequenceClassifierOutput(
            loss=loss,
            logits=logits,
            hidden_states=_selected_states(outputs.hidden_states, asked_states),
            attentions=outputs.attentions,
        )
        return output if _first_set(return_dict, self.config.return_dict) else output.to_tuple()

    def _wide_logits(
        self, input_ids: torch.Tensor | None, attention_mask: torch.Tensor | None, lexical_logits: torch.Tensor | None
    ) -> torch.Tensor | None:
        """Returns the scaled logits of the lexical features, or None where the head stands alone.

        An encoder learns the task by itself, since what n-grams leave open is too faint to train it with; both parts
        are weighed afterwards. The head of a frozen encoder learns what n-grams leave open.
        """
        if self.lexical is None or (self.training and not self.config.freeze_backbone):
            return None
        if lexical_logits is None:
            if input_ids is None:
                raise ValueError(
                    "the model has lexical features: give input_ids, or lexical_logits beside the features"
                )
            lexical_logits = self.lexical(input_ids, _attention_mask(input_ids, attention_mask, None))
        return self.lexical.scale * lexical_logits


# The name of the class in folders that were saved by earlier versions.
TextClassifier = TextClassifierForSequenceClassification


def encoder_layers(encoder: PreTrainedModel) -> nn.ModuleList:
    """Returns the encoder's layers, from the lowest to the last.

    Raises:
        ValueError: if the encoder has no separate layers (those of ALBERT are one shared layer).
    """
    for module in encoder.modules():
        if isinstance(module, nn.ModuleList) and len(module) == encoder.config.num_hidden_layers:
            return module
    raise ValueError(
        f"{type(encoder).__name__} has no stack of separate layers: trainable_layers cannot be used with it"
    )


@dataclass(frozen=True)
class StockHead:
    """The head of a family's stock `…ForSequenceClassification`, and the names of its modules.

    Args:
        head: `linear` after the encoder's pooler, or `mlp` after the first token.
        dense: the name of the mlp's first projection in the stock class.
        out_proj: the name of the last projection in the stock class.
        activation: the mlp's activation, or `config.` and the configuration field that names it.
        norm: the name of the mlp's layer norm in the stock class; empty without layer norm.
        settings: configuration values that the stock class needs to compute the same as this head.
    """

    head: str
    out_proj: str = "classifier"
    dense: str = ""
    activation: str = "gelu"
    norm: str = ""
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def pooling(self) -> str:
        """The pooling before the head."""
        return "pooler" if self.head == "linear" else "cls"

    def activation_of(self, encoder_config: PreTrainedConfig) -> str:
        """Returns the name of the activation in this encoder's stock class."""
        prefix, _, field = self.activation.partition("config.")
        return getattr(encoder_config, field) if not prefix else self.activation


_POOLER_LINEAR = StockHead(head="linear")
_ROBERTA = StockHead(head="mlp", dense="classifier.dense", out_proj="classifier.out_proj", activation="tanh")
_ELECTRA = StockHead(head="mlp", dense="classifier.dense", out_proj="classifier.out_proj", activation="gelu")
_DEBERTA = StockHead(head="mlp", dense="pooler.dense", activation="config.pooler_hidden_act")
STOCK_HEADS: dict[str, StockHead] = {
    "bert": _POOLER_LINEAR,
    "albert": _POOLER_LINEAR,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "mpnet": _ROBERTA,
    "electra": _ELECTRA,
    "distilbert": StockHead(head="mlp", dense="pre_classifier", activation="relu"),
    "deberta": _DEBERTA,
    "deberta-v2": _DEBERTA,
    "modernbert": StockHead(
        head="mlp",
        dense="head.dense",
        norm="head.norm",
        activation="config.classifier_activation",
        settings=(("classifier_bias", True), ("classifier_pooling", "cls")),
    ),
}


def fold_layer_weights(
    model: TextClassifier, state_dict: dict[str, torch.Tensor] | None = None
) -> tuple[TextClassifier, dict[str, torch.Tensor] | None]:
    """Multiplies learned layer weights into the head's first projection, which gives an equal model without them.

    Args:
        model: any classifier; one without layer weights is returned as it is.
        state_dict: its weights if they were gathered from several processes; by default the model's own.

    Returns:
        A model in evaluation mode that concatenates its layers and has equal logits; and its weights if `state_dict`
        was given, else None.
    """
    if model.head.layer_weights is None:
        return model, state_dict
    weights = dict(model.state_dict() if state_dict is None else state_dict)
    shares = weights.pop("head.layer_weights").softmax(dim=0)
    first = "head.dense.weight" if model.head.is_mlp else "head.out_proj.weight"
    weights[first] = torch.cat([share * weights[first] for share in shares], dim=1)
    config = type(model.config).from_dict({**model.config.to_dict(), "pooling_layers_merge": "concat"})
    folded = TextClassifier(config)
    folded.load_state_dict(weights)
    return folded.eval(), None if state_dict is None else weights


def stock_head_of(config: TextClassifierConfig) -> StockHead | None:
    """Returns the stock head that computes exactly what this head does, or None if there is none."""
    stock = STOCK_HEADS.get(config.encoder_config.model_type)
    if stock is None or config.pooling_layers != 1 or config.lexical_features is not None:
        return None
    # The pooler of RoBERTa and MPNet is a dense layer and tanh on the first token, and so is their stock head.
    pooler_is_stock_dense = stock is _ROBERTA and (config.pooling, config.head) == ("pooler", "linear")
    same_head = (
        (config.pooling, config.head) == (stock.pooling, stock.head)
        and config.head_layer_norm == bool(stock.norm)
        and (config.head == "linear" or config.head_activation == stock.activation_of(config.encoder_config))
    )
    return stock if same_head or pooler_is_stock_dense else None


def to_stock(model: TextClassifier, state_dict: dict[str, torch.Tensor] | None = None) -> PreTrainedModel | None:
    """Converts a classifier to an equal stock `…ForSequenceClassification`, which loads without remote code.

    Args:
        model: the trained classifier.
        state_dict: its weights if they were gathered from several processes (FSDP, DeepSpeed); by default the model's
            own.

    Returns:
        A model in evaluation mode with equal logits, or None if no stock class represents the classifier exactly.
    """
    config = model.config
    # No stock class cuts or splits texts for its encoder.
    stock = stock_head_of(config) if config.truncation is None else None
    if stock is None:
        return None
    stock_config = type(config.encoder_config).from_dict(config.encoder_config.to_dict() | dict(stock.settings))
    stock_config.id2label, stock_config.label2id = config.id2label, config.label2id
    stock_config.problem_type = config.problem_type
    exported = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(stock_config)](stock_config)
    weights = dict(model.state_dict() if state_dict is None else state_dict)
    names = _stock_names(stock, config, exported)
    result = exported.load_state_dict({names(name): value for name, value in weights.items()}, strict=False)
    _require_complete(result, exported)
    return exported.eval()


def _stock_names(stock: StockHead, config: TextClassifierConfig, exported: PreTrainedModel) -> Any:
    """Returns a function that maps the name of a parameter of [`TextClassifier`] to its name in the stock class."""
    head_names = {"head.out_proj": stock.out_proj, "head.dense": stock.dense, "head.norm": stock.norm}
    if config.pooling == "pooler" and stock.head == "mlp":
        head_names["encoder.pooler.dense"] = stock.dense

    def name_in_stock(name: str) -> str:
        module, _, parameter = name.rpartition(".")
        if module in head_names:
            return f"{head_names[module]}.{parameter}"
        return exported.base_model_prefix + name.removeprefix("encoder")

    return name_in_stock


def _require_complete(result: Any, exported: PreTrainedModel) -> None:
    if result.missing_keys or result.unexpected_keys:
        raise RuntimeError(
            f"the map to {type(exported).__name__} is not exact: missing {result.missing_keys}, "
            f"unexpected {result.unexpected_keys}"
        )


def from_stock(stock_model: PreTrainedModel, config: TextClassifierConfig) -> TextClassifier:
    """Builds a [`TextClassifier`] with the weights of a stock classifier.

    Args:
        stock_model: the stock classifier.
        config: a configuration that [`to_stock`] maps to the same class.

    Raises:
        ValueError: if the configuration has no equal stock class.
    """
    stock = stock_head_of(config)
    if stock is None:
        raise ValueError(
            f"no exact map from {type(stock_model).__name__} to pooling={config.pooling}, head={config.head}"
        )
    model = TextClassifier(config)
    names = _stock_names(stock, config, stock_model)
    weights = stock_model.state_dict()
    model.load_state_dict({name: weights[names(name)] for name in model.state_dict()})
    return model


AutoConfig.register(TextClassifierConfig.model_type, TextClassifierConfig, exist_ok=True)
MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.register(TextClassifierConfig, TextClassifier, exist_ok=True)
MODEL_MAPPING.register(TextClassifierConfig, TextClassifierModel, exist_ok=True)
TextClassifierConfig.register_for_auto_class()
TextClassifierModel.register_for_auto_class("AutoModel")
TextClassifier.register_for_auto_class("AutoModelForSequenceClassification")
