"""A BERT-family encoder with a pooling and a classification head.

This file is copied beside the weights of every saved model that no stock class can represent. It therefore imports
only torch, transformers and what transformers requires.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    AutoModel,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.activations import ACT2FN
from transformers.configuration_utils import SubConfigSpec
from transformers.modeling_outputs import SequenceClassifierOutput


@strict
class TextClassifierConfig(PreTrainedConfig):
    """The configuration of a [`TextClassifier`]; its fields have the names of the command line's options."""

    model_type = "bert_text_classifier"
    sub_configs_defaults = {"encoder_config": SubConfigSpec(config_class=AutoConfig, model_type="bert")}

    encoder_config: Any = None
    pooling: Literal["cls", "pooler", "mean", "max", "cls_mean"] = "cls"
    pooling_layers: int = 1
    pooling_layers_merge: Literal["mean", "concat", "weighted"] = "concat"
    head: Literal["linear", "mlp"] = "linear"
    head_activation: str = "gelu"
    head_layer_norm: bool = False
    dropout: float | int = 0.1
    loss: Literal["cross_entropy", "focal", "bce", "mse"] = "cross_entropy"
    class_weights: list[float] | None = None
    label_smoothing: float | int = 0.0
    focal_gamma: float | int = 2.0
    freeze_backbone: bool = False
    trainable_layers: int | None = None
    pad_token_id: int | None = None

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Builds a configuration; that of a bare encoder becomes the `encoder_config` of a new classifier.

        Raises:
            ValueError: if the configuration is of an encoder with a head, whose weights have other names than those of
                a bare encoder, so that the classifier's encoder would be left with random weights.
        """
        model_type = config_dict.get("model_type")
        if model_type not in (None, cls.model_type):
            with_head = [name for name in config_dict.get("architectures") or [] if not name.endswith("Model")]
            if with_head:
                raise ValueError(
                    f"the folder holds a {with_head[0]}, not a bare encoder: save its encoder alone first, with "
                    "AutoModel.from_pretrained(folder).save_pretrained(other_folder)"
                )
            config_dict = {"encoder_config": dict(config_dict)}
        return super().from_dict(config_dict, **kwargs)

    @property
    def hidden_size(self) -> int:
        """Width of the encoder's hidden states."""
        return self.encoder_config.hidden_size

    @property
    def vocab_size(self) -> int:
        """Number of the encoder's tokens; `resize_token_embeddings` sets it."""
        return self.encoder_config.vocab_size

    @vocab_size.setter
    def vocab_size(self, size: int) -> None:
        self.encoder_config.vocab_size = size

    @property
    def layer_size(self) -> int:
        """Width of the features that are pooled from one layer."""
        return self.hidden_size * (2 if self.pooling == "cls_mean" else 1)

    @property
    def feature_size(self) -> int:
        """Width of a text's pooled features, which are the input of the head."""
        return self.layer_size * (1 if self.pooling_layers_merge == "mean" else self.pooling_layers)


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

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Computes (batch, labels) logits from (batch, features)."""
        if self.layer_weights is not None:
            layers = features.unflatten(-1, (len(self.layer_weights), -1))
            features = (layers * self.layer_weights.softmax(dim=0).unsqueeze(-1)).sum(dim=-2)
        hidden = self.dropout(features)
        if self.is_mlp:
            hidden = self.dropout(self.norm(self.activation(self.dense(hidden))))
        return self.out_proj(hidden)


def _head_norm(encoder_config: PreTrainedConfig) -> nn.LayerNorm:
    eps = getattr(encoder_config, "norm_eps", 1e-5)
    return nn.LayerNorm(encoder_config.hidden_size, eps=eps, bias=getattr(encoder_config, "norm_bias", True))


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
        labels: (batch,) int64 for single label, (batch, labels) float for multi-label, and (batch,) or (batch, labels)
            float for regression.
        config: the configuration, which names the task, the loss and its settings. If it does not name the task, the
            labels tell it, as in transformers' own classifiers.

    Returns:
        A scalar.

    Raises:
        ValueError: if the labels have another shape than the task needs, or the class weights another number.
    """
    logits = logits.float()
    problem_type = config.problem_type or _problem_type_of(logits, labels)
    _require_shape(logits, labels, problem_type)
    weights = None if config.class_weights is None else logits.new_tensor(config.class_weights)
    if weights is not None and len(weights) != logits.shape[-1]:
        raise ValueError(f"class_weights has {len(weights)} numbers for {logits.shape[-1]} labels: set it to None")
    if problem_type == "regression":
        return F.mse_loss(logits.reshape(-1), labels.to(logits.dtype).reshape(-1))
    if problem_type == "multi_label_classification":
        return _multi_label_loss(logits, labels.to(logits.dtype), weights, config)
    labels = labels.view(-1)
    losses = F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing, reduction="none")
    if config.loss == "focal":
        gold = logits.softmax(dim=-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        losses = losses * (1 - gold) ** config.focal_gamma
    if weights is not None:
        losses = losses * weights[labels]
    return losses.mean()


def _problem_type_of(logits: torch.Tensor, labels: torch.Tensor) -> str:
    if logits.shape[-1] == 1:
        return "regression"
    return "multi_label_classification" if labels.is_floating_point() else "single_label_classification"


def _require_shape(logits: torch.Tensor, labels: torch.Tensor, problem_type: str) -> None:
    rows = logits.shape[0]
    shapes = {
        "single_label_classification": [(rows,), (rows, 1)],
        "multi_label_classification": [tuple(logits.shape)],
        "regression": [(logits.numel(),), tuple(logits.shape)],
    }[problem_type]
    if tuple(labels.shape) not in shapes:
        raise ValueError(f"labels have the shape {tuple(labels.shape)}, but {problem_type} needs {shapes[0]}")


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
    head: ClassificationHead, features: torch.Tensor, labels: torch.Tensor | None, config: TextClassifierConfig
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Applies the head to pooled features; returns the loss, which is None without labels, and the logits."""
    weight = head.out_proj.weight
    # The weight of a module that torch has quantised is a method, and the module takes float32.
    logits = head(features.to(weight.dtype if isinstance(weight, torch.Tensor) else torch.float32))
    return None if labels is None else classification_loss(logits, labels, config), logits


class TextClassifierForSequenceClassification(PreTrainedModel):
    """Encoder, pooling, head and loss in one model.

    If `features` are given, the encoder is skipped. A model whose head is trained on cached features can therefore be
    saved as it is, and classifies raw text.
    """

    config_class = TextClassifierConfig
    base_model_prefix = "encoder"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    # Otherwise, the Trainer would pass `num_items_in_batch`, or assume that the loss is already divided by it.
    accepts_loss_kwargs = False

    def __init__(self, config: TextClassifierConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.encoder = AutoModel.from_config(
            config.encoder_config, **pooler_option(config.encoder_config, config.pooling)
        )
        self.head = ClassificationHead(config)
        parameters = inspect.signature(self.encoder.forward).parameters
        self._encoder_inputs = frozenset(parameters)
        self._encoder_takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        self.post_init()
        self.apply_freezing()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ClassificationHead) and module.layer_weights is not None:
            nn.init.zeros_(module.layer_weights)

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

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> Any:
        """Saves the model with this file, and names the class that `AutoModel` loads in its configuration."""
        self.config.auto_map = {"AutoModel": f"{__name__.rpartition('.')[2]}.{TextEncoder.__name__}"}
        return super().save_pretrained(save_directory, **kwargs)

    def encode_parts(
        self, parts: Sequence[PooledPart], input_ids: torch.Tensor | None = None, **inputs: Any
    ) -> list[torch.Tensor]:
        """Runs the encoder once, and pools its output into the parts, each (batch, hidden); see [`pooled_parts`]."""
        return self._encode(parts, input_ids, **inputs)[0]

    def _encode(
        self,
        parts: Sequence[PooledPart],
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        output_hidden_states: bool = False,
        **inputs: Any,
    ) -> tuple[list[torch.Tensor], Any]:
        """Returns the pooled parts, and the outputs of the encoder."""
        tokens = input_ids if inputs_embeds is None else inputs_embeds[..., 0]
        if tokens is None or (input_ids is not None and inputs_embeds is not None):
            raise ValueError("give exactly one of input_ids, inputs_embeds and features")
        mask = torch.ones_like(tokens, dtype=torch.long) if attention_mask is None else attention_mask
        given = {**inputs, "input_ids": input_ids, "inputs_embeds": inputs_embeds, "attention_mask": mask}
        given = {name: value for name, value in given.items() if value is not None}
        # Families without token types are given none; an unknown argument is passed on if the encoder takes any.
        if not self._encoder_takes_any:
            given = {name: value for name, value in given.items() if name in self._encoder_inputs}
        elif "token_type_ids" not in self._encoder_inputs:
            given.pop("token_type_ids", None)
        needs_layers = output_hidden_states or any(part.layer < -1 for part in parts)
        outputs = self.encoder(**given, output_hidden_states=needs_layers, return_dict=True)

        def pooled(part: PooledPart) -> torch.Tensor:
            if part.kind == "pooler":
                return outputs.pooler_output
            # The last entry of `hidden_states` lacks the final norm in some families; the last hidden state has it.
            states = outputs.last_hidden_state if part.layer == -1 else outputs.hidden_states[part.layer]
            return pool_hidden_states(states, mask, part.kind)

        return [pooled(part) for part in parts], outputs

    def pooled_features(self, input_ids: torch.Tensor | None = None, **inputs: Any) -> torch.Tensor:
        """Computes the input of the head, (batch, `config.feature_size`), from the inputs of the encoder."""
        return merge_parts(self.encode_parts(pooled_parts(self.config), input_ids, **inputs), self.config)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        features: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput | tuple[Any, ...]:
        """Classifies texts, or features that were computed from them before.

        Args:
            input_ids: (batch, length) int64.
            attention_mask: (batch, length), 1 for real tokens.
            token_type_ids: like `input_ids`; families that have no token types ignore them.
            position_ids: like `input_ids`, or (1, length); by default the encoder's own.
            inputs_embeds: (batch, length, hidden) floats, instead of `input_ids`.
            features: (batch, `config.feature_size`) floats; if they are given, the encoder is not run.
            labels: see [`classification_loss`].
            output_attentions: whether to return the attention weights; by default as in the configuration.
            output_hidden_states: whether to return the hidden states; by default as in the configuration.
            return_dict: whether to return an output object instead of a tuple; by default as in the configuration.
            **kwargs: further inputs of the encoder.

        Returns:
            The loss, if labels are given, logits of shape (batch, labels), and the encoder's hidden states and
            attention weights if they are asked for.
        """
        hidden_states = attentions = None
        if features is None:
            returns_states = self._option("output_hidden_states", output_hidden_states)
            returns_attentions = self._option("output_attentions", output_attentions)
            parts, outputs = self._encode(
                pooled_parts(self.config), input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids,
                position_ids=position_ids, inputs_embeds=inputs_embeds, output_hidden_states=returns_states,
                output_attentions=returns_attentions or None, **kwargs,
            )  # fmt: skip
            features = merge_parts(parts, self.config)
            hidden_states = outputs.hidden_states if returns_states else None
            attentions = getattr(outputs, "attentions", None) if returns_attentions else None
        loss, logits = classify_features(self.head, features, labels, self.config)
        output = SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=hidden_states, attentions=attentions)
        return output if self._option("return_dict", return_dict) else output.to_tuple()

    def _option(self, name: str, asked: bool | None) -> bool:
        return bool(getattr(self.config, name, False)) if asked is None else asked


# The name of the class in folders that were saved by earlier versions, and in code.
TextClassifier = TextClassifierForSequenceClassification


class TextEncoder(PreTrainedModel):
    """The encoder of a saved classifier alone, which `AutoModel` loads from its folder."""

    config_class = TextClassifierConfig
    base_model_prefix = "encoder"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _keys_to_ignore_on_load_unexpected = [r"^head\."]

    def __init__(self, config: TextClassifierConfig):
        super().__init__(config)
        self.encoder = AutoModel.from_config(
            config.encoder_config, **pooler_option(config.encoder_config, config.pooling)
        )
        self.post_init()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the output of the encoder, whose arguments it takes."""
        return self.encoder(*args, **kwargs)


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
    """Returns the stock head that computes exactly what this configuration does, or None if there is none."""
    stock = STOCK_HEADS.get(config.encoder_config.model_type)
    if stock is None or config.pooling_layers != 1:
        return None
    # RoBERTa's pooler is a dense layer and tanh on the first token. Its stock head is the same under another name.
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
    stock = stock_head_of(config)
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
MODEL_MAPPING.register(TextClassifierConfig, TextEncoder, exist_ok=True)
MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.register(TextClassifierConfig, TextClassifier, exist_ok=True)
TextClassifierConfig.register_for_auto_class()
TextEncoder.register_for_auto_class("AutoModel")
TextClassifier.register_for_auto_class("AutoModelForSequenceClassification")
