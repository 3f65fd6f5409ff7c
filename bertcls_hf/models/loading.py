"""Loads a classifier and its tokenizer from the checkpoint of an encoder, of a stock classifier or of this package."""

import inspect
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    MODEL_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.integrations.hub_kernels import is_kernel
from transformers.utils import logging as transformers_logging

from bertcls_hf.config.arguments import ModelArguments
from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL, LabelSet
from bertcls_hf.data.python_packages import is_packaged, packaged_model
from bertcls_hf.data.tokenization import leave_out_token_types, resolve_max_seq_length
from bertcls_hf.errors import ArgumentsError, one_line
from bertcls_hf.models.modeling import (
    STOCK_HEADS,
    LexicalSettings,
    TextClassifier,
    TextClassifierConfig,
    TextClassifierModel,
    TruncationSettings,
    encoder_has_pooler,
    from_stock,
    pooler_option,
)
from bertcls_hf.models.positions import first_position


logger = logging.getLogger(__name__)

CONFIG_FILE = "config.json"
# In a folder with this prefix, output_dir gets its next model. A push and the rotation of checkpoints leave it out.
STAGING_PREFIX = "_saving-"
FROZEN_POOLING, FROZEN_POOLING_LAYERS = "mean", 4
# On which side a tokenizer cuts texts. What the model reads of texts that it cuts itself starts at their head.
TRUNCATION_SIDES = {"head": "right", "tail": "left", "head_tail": "right", "windows": "right"}
# The dropout of attention weights, as the families' configurations call it.
ATTENTION_DROPOUTS = ("attention_probs_dropout_prob", "attention_dropout")
LOSSES = {SINGLE_LABEL: ("cross_entropy", "focal"), MULTI_LABEL: ("bce", "focal"), REGRESSION: ("mse",)}


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint that `model_name_or_path` names; its weights are not read yet.

    Args:
        path: a local folder or a Hub id.
        config: the stored configuration.
        labels: the labels of a trained classifier, or None for an encoder.
    """

    path: str
    config: PreTrainedConfig
    labels: LabelSet | None

    @property
    def encoder_config(self) -> PreTrainedConfig:
        """The encoder's part of the configuration."""
        return self.config.encoder_config if isinstance(self.config, TextClassifierConfig) else self.config

    @property
    def position_limit(self) -> int:
        """The largest number of tokens that the encoder reads."""
        return self.encoder_config.max_position_embeddings - first_position(self.encoder_config)

    @property
    def trained_config(self) -> TextClassifierConfig | None:
        """The configuration of a classifier that this package trained; None if it is none, or gets a new head."""
        is_kept = isinstance(self.config, TextClassifierConfig) and self.labels is not None
        return self.config if is_kept else None

    @property
    def lexical(self) -> LexicalSettings | None:
        """The lexical features of a trained classifier; None if it has none, or gets a new head."""
        return None if self.trained_config is None else self.trained_config.lexical

    @property
    def truncation(self) -> TruncationSettings | None:
        """How a trained classifier reads longer texts than its encoder; None if it takes none, or gets a new head."""
        return None if self.trained_config is None else self.trained_config.truncation_settings

    @property
    def has_token_types(self) -> bool:
        """Whether the encoder tells the texts of a pair apart by token types.

        Some families, such as MPNet, take no types, whatever their tokenizer returns. Some models have only one type,
        such as a RoBERTa with the tokenizer of BERT. The second type of that tokenizer would lie outside their
        embeddings.
        """
        # The class is unknown for code of the Hub.
        forward = getattr(MODEL_MAPPING.get(type(self.encoder_config), None), "forward", None)
        takes_types = forward is None or "token_type_ids" in inspect.signature(forward).parameters
        return takes_types and getattr(self.encoder_config, "type_vocab_size", 2) >= 2


def interrupted_save(path: str) -> str | None:
    """Says that a local folder lacks its configuration because the saving of its model was interrupted; else None."""
    folder = Path(path)
    if (folder / CONFIG_FILE).is_file() or not any(folder.glob(f"{STAGING_PREFIX}*")):
        return None
    return "its saving was interrupted: train again, with --resume_from_checkpoint auto where there are checkpoints"


def remote_kernel(config: PreTrainedConfig) -> str | None:
    """Returns the kernel of the Hub, compiled code, that a configuration asks for; None if it asks for none."""
    for part in (config, getattr(config, "encoder_config", None)):
        name = getattr(part, "_attn_implementation", None)
        if isinstance(name, str) and is_kernel(name):
            return name
    return None


def open_checkpoint(args: ModelArguments) -> Checkpoint:
    """Reads the configuration of the model that `model_name_or_path` names.

    Raises:
        ArgumentsError: if there is no such model, if it is not an encoder, or if it lacks what an option changes.
    """
    path = (
        str(packaged_model(args.model_name_or_path))
        if is_packaged(args.model_name_or_path)
        else args.model_name_or_path
    )
    if (problem := interrupted_save(path)) is not None:
        raise ArgumentsError(f"--model_name_or_path {args.model_name_or_path}: {problem}")
    try:
        config = AutoConfig.from_pretrained(path, **_hub_options(args))
        refuse_not_a_number(config.to_dict())
        if Path(path).is_dir():
            # A local path means nothing on other machines, and should not be published with the model.
            config.name_or_path = ""
            getattr(config, "encoder_config", config).name_or_path = ""
    except Exception as error:  # each class of configuration raises its own kinds for values that it does not take
        raise ArgumentsError(f"--model_name_or_path {args.model_name_or_path}: {one_line(error)}") from error
    if not args.trust_remote_code and args.attn_implementation is None and (kernel := remote_kernel(config)):
        raise ArgumentsError(
            f"--model_name_or_path {args.model_name_or_path}: its configuration names the kernel {kernel}, code "
            "of the Hub: it needs --trust_remote_code true, or another --attn_implementation"
        )
    labels = None if args.ignore_mismatched_sizes else labels_of(config)
    checkpoint = Checkpoint(path, config, labels)
    for name, rate in attention_dropout(args, checkpoint.encoder_config).items():
        setattr(checkpoint.encoder_config, name, rate)
    if getattr(checkpoint.encoder_config, "is_decoder", False) or config.is_encoder_decoder:
        raise ArgumentsError(f"--model_name_or_path {args.model_name_or_path}: {config.model_type} is not an encoder")
    return checkpoint


def refuse_not_a_number(config: Mapping[str, Any]) -> None:
    """Refuses a configuration with a NaN, which no layer would notice before it computes.

    Raises:
        ValueError: the configuration has one.
    """
    for name, value in config.items():
        if isinstance(value, Mapping):
            refuse_not_a_number(value)
        elif isinstance(value, float) and math.isnan(value):
            raise ValueError(f"{CONFIG_FILE}: {name} is not a number")


def attention_dropout(args: ModelArguments, encoder_config: PreTrainedConfig) -> dict[str, float]:
    """Returns the value of the configuration that `attention_dropout` changes, by its name in the encoder's family.

    Raises:
        ArgumentsError: if the family has no such dropout.
    """
    if args.attention_dropout is None:
        return {}
    name = next((name for name in ATTENTION_DROPOUTS if hasattr(encoder_config, name)), None)
    if name is None:
        raise ArgumentsError(f"--attention_dropout: {encoder_config.model_type} has none: leave it out")
    return {name: args.attention_dropout}


def load_tokenizer(
    args: ModelArguments, checkpoint: Checkpoint, max_seq_length: int | None = None
) -> PreTrainedTokenizerBase:
    """Loads the tokenizer that `tokenizer_name` names, by default the model's own.

    Its `model_max_length` is set to the encoder's longest text in tokens, its `truncation_side` follows from the
    truncation strategy, and it returns no token types if the encoder has none. All of these are saved with the
    tokenizer, so that later uses of the model tokenize texts as the training did.

    Args:
        args: the options that name the tokenizer and the truncation strategy.
        checkpoint: the checkpoint of the model.
        max_seq_length: see [`resolve_max_seq_length`].

    Raises:
        ArgumentsError: if there is no such tokenizer, or if `max_seq_length` exceeds the encoder's positions.
    """
    name = args.tokenizer_name or checkpoint.path
    side = TRUNCATION_SIDES.get(args.truncation_strategy or "")
    truncation = {} if side is None else {"truncation_side": side}
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **_hub_options(args), **truncation)
    except (OSError, ValueError, KeyError) as error:
        raise ArgumentsError(f"tokenizer {name}: {one_line(error)}") from error
    if max_seq_length is None and checkpoint.truncation is not None:
        max_seq_length = checkpoint.truncation.max_length
    tokenizer.model_max_length = resolve_max_seq_length(max_seq_length, tokenizer, checkpoint.position_limit)
    fit_token_types(tokenizer, checkpoint)
    return tokenizer


def fit_token_types(tokenizer: PreTrainedTokenizerBase, checkpoint: Checkpoint) -> None:
    """Makes the tokenizer return no token types if the encoder has less than two; otherwise, it stays as it is."""
    if not checkpoint.has_token_types and "token_type_ids" in tokenizer.model_input_names:
        leave_out_token_types(tokenizer)


def _hub_options(args: ModelArguments) -> dict[str, Any]:
    return {"revision": args.model_revision, "trust_remote_code": args.trust_remote_code}


def labels_of(config: PreTrainedConfig) -> LabelSet | None:
    """Returns the labels of a trained classifier, or None for an encoder."""
    architectures = config.architectures or []
    if isinstance(config, TextClassifierConfig):
        is_classifier = TextClassifierModel.__name__ not in architectures
    else:
        is_classifier = any("ForSequenceClassification" in name for name in architectures)
    if not is_classifier:
        return None
    problem_type = config.problem_type or (REGRESSION if config.num_labels == 1 else SINGLE_LABEL)
    return LabelSet(problem_type, tuple(str(config.id2label[position]) for position in range(config.num_labels)))


def resolve_config(
    args: ModelArguments,
    checkpoint: Checkpoint,
    labels: LabelSet,
    class_weights: list[float] | None = None,
    label_smoothing: float = 0.0,
    lexical: LexicalSettings | None = None,
    truncation: TruncationSettings | None = None,
) -> TextClassifierConfig:
    """Builds the classifier's configuration, and resolves every default for the encoder's family and the task.

    Raises:
        ArgumentsError: if the encoder or the task does not allow an option.
    """
    encoder_config = checkpoint.encoder_config
    pooling, pooling_layers, merge, head = _resolve_head(args, checkpoint)
    if pooling == "pooler" and not encoder_has_pooler(encoder_config):
        raise ArgumentsError(f"--pooling pooler: {encoder_config.model_type} has no pooler; use cls or mean")
    if pooling_layers > encoder_config.num_hidden_layers:
        raise ArgumentsError(
            f"--pooling_layers {pooling_layers}: the encoder has {encoder_config.num_hidden_layers} layers"
        )
    if args.trainable_layers and args.trainable_layers > encoder_config.num_hidden_layers:
        raise ArgumentsError(
            f"--trainable_layers {args.trainable_layers}: the encoder has {encoder_config.num_hidden_layers} layers"
        )
    return TextClassifierConfig(
        encoder_config=encoder_config,
        pooling=pooling,
        pooling_layers=pooling_layers,
        pooling_layers_merge=merge,
        head=head,
        **_mlp_settings(checkpoint, pooling, head),
        dropout=args.dropout,
        loss=_resolve_loss(args.loss, labels, label_smoothing),
        class_weights=class_weights,
        label_smoothing=label_smoothing,
        focal_gamma=args.focal_gamma,
        freeze_backbone=args.has_frozen_backbone,
        trainable_layers=args.trainable_layers,
        lexical_features=None if lexical is None else lexical._asdict(),
        truncation=None if truncation is None else truncation._asdict(),
        problem_type=labels.problem_type,
        id2label=labels.id2label,
        label2id=labels.label2id,
        pad_token_id=encoder_config.pad_token_id,
        attn_implementation=args.attn_implementation,
    )


def _resolve_head(args: ModelArguments, checkpoint: Checkpoint) -> tuple[str, int, str, str]:
    """Returns the pooling, the number of pooled layers, their merge, and the head.

    A trained classifier of this package keeps its own values. Otherwise, the options decide; values that are not given
    depend on the encoder's family and on whether the encoder is frozen.
    """
    asked = (args.pooling, args.pooling_layers, args.pooling_layers_merge, args.head)
    config = checkpoint.trained_config
    if config is not None:
        trained = (config.pooling, config.pooling_layers, config.pooling_layers_merge, config.head)
        if any(value not in (None, own) for value, own in zip(asked, trained, strict=True)):
            raise ArgumentsError(
                f"the model was trained with --pooling {trained[0]} --pooling_layers {trained[1]} "
                f"--pooling_layers_merge {trained[2]} --head {trained[3]}: leave these out, or pass "
                "--ignore_mismatched_sizes true for a new head"
            )
        return trained
    merge = args.pooling_layers_merge or "concat"
    if args.pooling is None and args.has_frozen_backbone and checkpoint.labels is None:
        return FROZEN_POOLING, args.pooling_layers or _frozen_layers(checkpoint), merge, args.head or "linear"
    stock = STOCK_HEADS.get(checkpoint.encoder_config.model_type)
    pooling = args.pooling or (stock.pooling if stock else "cls")
    if args.pooling_layers and args.pooling_layers > 1 and pooling == "pooler":
        pooling = "cls"
    family_head = stock.head if stock and pooling == stock.pooling else "linear"
    return pooling, args.pooling_layers or 1, merge, args.head or family_head


def _mlp_settings(checkpoint: Checkpoint, pooling: str, head: str) -> dict[str, Any]:
    """Returns the activation and the layer norm of an mlp head.

    They are those of a trained classifier of this package, else those of the family's stock head if pooling and head
    are the same, else GELU without layer norm.
    """
    config = checkpoint.trained_config
    if config is not None:
        return {"head_activation": config.head_activation, "head_layer_norm": config.head_layer_norm}
    stock = STOCK_HEADS.get(checkpoint.encoder_config.model_type)
    if head != "mlp" or stock is None or (pooling, head) != (stock.pooling, stock.head):
        return {"head_activation": "gelu", "head_layer_norm": False}
    activation = stock.activation_of(checkpoint.encoder_config)
    return {"head_activation": activation, "head_layer_norm": bool(stock.norm)}


def _frozen_layers(checkpoint: Checkpoint) -> int:
    return min(FROZEN_POOLING_LAYERS, checkpoint.encoder_config.num_hidden_layers)


def _resolve_loss(asked: str, labels: LabelSet, label_smoothing: float) -> str:
    allowed = LOSSES[labels.problem_type]
    if asked != "auto" and asked not in allowed:
        raise ArgumentsError(f"--loss {asked}: {labels.problem_type} takes {' or '.join(allowed)}")
    if label_smoothing and labels.problem_type != SINGLE_LABEL:
        raise ArgumentsError(f"--label_smoothing_factor is for {SINGLE_LABEL}, not {labels.problem_type}")
    return allowed[0] if asked == "auto" else asked


def load_classifier(args: ModelArguments, checkpoint: Checkpoint, config: TextClassifierConfig) -> TextClassifier:
    """Loads all weights of a trained classifier, or the weights of an encoder, which gets a new head.

    Raises:
        ArgumentsError: if weights cannot be read, or if a frozen pooler was never trained.
    """
    options = {**_hub_options(args), "dtype": torch.float32, "use_safetensors": True}
    dropout = attention_dropout(args, checkpoint.encoder_config)
    # transformers reports the weights of pre-training heads as unused, but they are left out on purpose.
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        if checkpoint.labels is not None and isinstance(checkpoint.config, TextClassifierConfig):
            return _load_own(checkpoint, config, options)
        if checkpoint.labels is not None:
            stock_model = AutoModelForSequenceClassification.from_pretrained(checkpoint.path, **options, **dropout)
            return from_stock(stock_model, config)
        return _load_encoder(checkpoint, config, options, dropout)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise ArgumentsError(f"--model_name_or_path {args.model_name_or_path}: {one_line(error)}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)


def _load_own(checkpoint: Checkpoint, config: TextClassifierConfig, options: dict[str, Any]) -> TextClassifier:
    trained = TextClassifier.from_pretrained(checkpoint.path, **{**options, "trust_remote_code": False})
    model = TextClassifier(config)
    model.load_state_dict(trained.state_dict())
    return model


def _load_encoder(
    checkpoint: Checkpoint, config: TextClassifierConfig, options: dict[str, Any], dropout: dict[str, float]
) -> TextClassifier:
    model = TextClassifier(config)
    if isinstance(checkpoint.config, TextClassifierConfig):
        trained = TextClassifier.from_pretrained(checkpoint.path, **{**options, "trust_remote_code": False})
        # The encoder that was trained may have a pooler that the new head does not read, or lack one that it reads.
        missing, _ = model.encoder.load_state_dict(trained.encoder.state_dict(), strict=False)
        _check_missing_weights(set(missing), config)
    else:
        model.encoder, loading_info = AutoModel.from_pretrained(
            checkpoint.path,
            # That of the whole classifier may be one that this encoder lacks.
            attn_implementation=model.encoder.config._attn_implementation,
            output_loading_info=True,
            **pooler_option(config.encoder_config, config.pooling),
            **options,
            **dropout,
        )
        _check_missing_weights(loading_info["missing_keys"], config)
    model.apply_freezing()
    return model


def _check_missing_weights(missing: set[str], config: TextClassifierConfig) -> None:
    if any("pooler" not in key for key in missing):
        raise ValueError(f"the checkpoint lacks weights of the encoder: {', '.join(sorted(missing)[:3])} …")
    if missing and config.freeze_backbone:
        raise ValueError(
            "--pooling pooler with a frozen backbone, but the model's pooler was never trained: use cls or mean"
        )
    if missing:
        logger.info("the checkpoint has no pooler: a new one is trained")
