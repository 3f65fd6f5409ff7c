"""From the options to a classifier and its tokenizer: checkpoints of encoders, of stock classifiers and of our own."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from bertcls_hf.config.arguments import ModelArguments
from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL, LabelSet
from bertcls_hf.data.python_packages import is_packaged, packaged_model
from bertcls_hf.data.tokenization import resolve_max_seq_length
from bertcls_hf.errors import ArgumentsError, one_line
from bertcls_hf.models.modeling import (
    STOCK_HEADS,
    TextClassifier,
    TextClassifierConfig,
    encoder_has_pooler,
    from_stock,
    pooler_option,
)
from bertcls_hf.models.positions import first_position


logger = logging.getLogger(__name__)

FROZEN_POOLING, FROZEN_POOLING_LAYERS = "mean", 4
LOSSES = {SINGLE_LABEL: ("cross_entropy", "focal"), MULTI_LABEL: ("bce", "focal"), REGRESSION: ("mse",)}


@dataclass(frozen=True)
class Checkpoint:
    """What `model_name_or_path` points to, before any weight is read.

    Args:
        path: a local folder or a Hub id.
        config: the configuration stored there.
        labels: those of a trained classifier, or None for an encoder.
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
        """The longest input in tokens."""
        return self.encoder_config.max_position_embeddings - first_position(self.encoder_config)


def open_checkpoint(args: ModelArguments) -> Checkpoint:
    """Reads the configuration that `model_name_or_path` names.

    Raises:
        ArgumentsError: there is no such model, or it is not an encoder.
    """
    path = (
        str(packaged_model(args.model_name_or_path))
        if is_packaged(args.model_name_or_path)
        else args.model_name_or_path
    )
    try:
        config = AutoConfig.from_pretrained(path, **_hub_options(args))
        if Path(path).is_dir():
            # A folder of this machine says nothing to others, and should not be published with the model.
            config.name_or_path = ""
            getattr(config, "encoder_config", config).name_or_path = ""
    except (OSError, ValueError, KeyError) as error:
        raise ArgumentsError(f"--model_name_or_path {args.model_name_or_path}: {one_line(error)}") from error
    labels = None if args.ignore_mismatched_sizes else labels_of(config)
    checkpoint = Checkpoint(path, config, labels)
    if getattr(checkpoint.encoder_config, "is_decoder", False) or config.is_encoder_decoder:
        raise ArgumentsError(f"--model_name_or_path {args.model_name_or_path}: {config.model_type} is not an encoder")
    return checkpoint


def load_tokenizer(
    args: ModelArguments, checkpoint: Checkpoint, max_seq_length: int | None = None
) -> PreTrainedTokenizerBase:
    """The model's tokenizer, or `tokenizer_name`.

    Its `model_max_length` is the longest text in tokens. It is saved with that and with its `truncation_side`, so that
    whoever loads it cuts texts where the training did.

    Args:
        args: name the tokenizer.
        checkpoint: of the model.
        max_seq_length: see [`resolve_max_seq_length`].

    Raises:
        ArgumentsError: there is none, or more tokens were asked for than the encoder has positions.
    """
    name = args.tokenizer_name or checkpoint.path
    side = {} if args.truncation_side is None else {"truncation_side": args.truncation_side}
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **_hub_options(args), **side)
    except (OSError, ValueError, KeyError) as error:
        raise ArgumentsError(f"tokenizer {name}: {one_line(error)}") from error
    tokenizer.model_max_length = resolve_max_seq_length(max_seq_length, tokenizer, checkpoint.position_limit)
    return tokenizer


def _hub_options(args: ModelArguments) -> dict[str, Any]:
    return {"revision": args.model_revision, "trust_remote_code": args.trust_remote_code}


def labels_of(config: PreTrainedConfig) -> LabelSet | None:
    """The labels of a trained classifier, or None for an encoder."""
    architectures = config.architectures or []
    is_classifier = isinstance(config, TextClassifierConfig) or any(
        "ForSequenceClassification" in a for a in architectures
    )
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
) -> TextClassifierConfig:
    """The classifier's configuration, with every default resolved for the encoder's family and the task.

    Raises:
        ArgumentsError: options that the encoder or the task does not allow.
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
        problem_type=labels.problem_type,
        id2label=labels.id2label,
        label2id=labels.label2id,
        pad_token_id=encoder_config.pad_token_id,
        attn_implementation=args.attn_implementation,
    )


def _resolve_head(args: ModelArguments, checkpoint: Checkpoint) -> tuple[str, int, str, str]:
    """Pooling, pooled layers, their merge, and head: as trained, else as asked, else by family and freezing."""
    asked = (args.pooling, args.pooling_layers, args.pooling_layers_merge, args.head)
    trained = _trained_config(checkpoint)
    if trained is not None:
        there = (trained.pooling, trained.pooling_layers, trained.pooling_layers_merge, trained.head)
        if any(wanted not in (None, is_there) for wanted, is_there in zip(asked, there, strict=True)):
            raise ArgumentsError(
                f"the model was trained with --pooling {there[0]} --pooling_layers {there[1]} --pooling_layers_merge "
                f"{there[2]} --head {there[3]}: leave these out, or pass --ignore_mismatched_sizes true for a new head"
            )
        return there
    merge = args.pooling_layers_merge or "concat"
    if args.pooling is None and args.has_frozen_backbone and checkpoint.labels is None:
        return FROZEN_POOLING, args.pooling_layers or _frozen_layers(checkpoint), merge, args.head or "linear"
    stock = STOCK_HEADS.get(checkpoint.encoder_config.model_type)
    pooling = args.pooling or (stock.pooling if stock else "cls")
    if args.pooling_layers and args.pooling_layers > 1 and pooling == "pooler":
        pooling = "cls"
    family_head = stock.head if stock and pooling == stock.pooling else "linear"
    return pooling, args.pooling_layers or 1, merge, args.head or family_head


def _trained_config(checkpoint: Checkpoint) -> TextClassifierConfig | None:
    """The configuration of a classifier of ours whose head is kept."""
    is_ours = isinstance(checkpoint.config, TextClassifierConfig) and checkpoint.labels is not None
    return checkpoint.config if is_ours else None


def _mlp_settings(checkpoint: Checkpoint, pooling: str, head: str) -> dict[str, Any]:
    """The activation and norm of an mlp head: as trained, or the family's own, or GELU without norm."""
    trained = _trained_config(checkpoint)
    if trained is not None:
        return {"head_activation": trained.head_activation, "head_layer_norm": trained.head_layer_norm}
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
    """The classifier with its weights: all of them from a trained classifier, else the encoder's under a new head.

    Raises:
        ArgumentsError: weights that cannot be read, or a frozen pooler that was never trained.
    """
    options = {**_hub_options(args), "dtype": torch.float32, "use_safetensors": True}
    # The library's load report lists the checkpoint's pre-training heads, which are left out on purpose.
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        if checkpoint.labels is not None and isinstance(checkpoint.config, TextClassifierConfig):
            return _load_own(checkpoint, config, options)
        if checkpoint.labels is not None:
            stock = AutoModelForSequenceClassification.from_pretrained(checkpoint.path, **options)
            return from_stock(stock, config)
        return _load_encoder(checkpoint, config, options)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise ArgumentsError(f"--model_name_or_path {args.model_name_or_path}: {one_line(error)}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)


def _load_own(checkpoint: Checkpoint, config: TextClassifierConfig, options: dict[str, Any]) -> TextClassifier:
    trained = TextClassifier.from_pretrained(checkpoint.path, **{**options, "trust_remote_code": False})
    model = TextClassifier(config)
    model.load_state_dict(trained.state_dict())
    return model


def _load_encoder(checkpoint: Checkpoint, config: TextClassifierConfig, options: dict[str, Any]) -> TextClassifier:
    model = TextClassifier(config)
    if isinstance(checkpoint.config, TextClassifierConfig):
        model.encoder = TextClassifier.from_pretrained(checkpoint.path, **options).encoder
    else:
        model.encoder, loading = AutoModel.from_pretrained(
            checkpoint.path,
            attn_implementation=config._attn_implementation,
            output_loading_info=True,
            **pooler_option(config.encoder_config, config.pooling),
            **options,
        )
        _check_missing_weights(loading["missing_keys"], config)
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
