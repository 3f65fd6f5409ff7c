"""What a training depends on: its data, encoder, tokenizer and options. A checkpoint goes on with the same ones."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from bertcls_hf.data.content_digests import column_digests, stream_digest
from bertcls_hf.data.load import ClassificationData
from bertcls_hf.data.texts import text_columns
from bertcls_hf.features.logits_columns import TEACHER_COLUMN
from bertcls_hf.models.fingerprints import tokenizer_fingerprint


if TYPE_CHECKING:
    from bertcls_hf.training.resolve import ResolvedRun

READ_BYTES = 2**20
# What the model's configuration holds of the task, the head and the loss.
CONFIG_FIELDS = (
    "id2label", "problem_type", "pooling", "pooling_layers", "pooling_layers_merge", "head", "head_activation",
    "head_layer_norm", "dropout", "loss", "class_weights", "label_smoothing", "focal_gamma", "freeze_backbone",
    "trainable_layers", "lexical_features", "truncation",
)  # fmt: skip
MODEL_OPTIONS = ("attention_dropout", "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules")
BOOST_OPTIONS = ("boost", "boost_dtype", "boost_storage", "head_init", "head_num_train_epochs")
# A resumed training takes most of these from its checkpoint, whatever the command says.
TRAINING_OPTIONS = (
    "learning_rate", "head_learning_rate", "layerwise_lr_decay", "weight_decay", "warmup_steps", "lr_scheduler_type",
    "lr_scheduler_kwargs", "optim", "optim_args", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm",
    "weight_averaging", "ema_decay", "swa_start", "train_sampling_strategy", "distillation_temperature",
    "distillation_weight", "neftune_noise_alpha", "bf16", "fp16", "seed", "data_seed", "metric_for_best_model",
    "greater_is_better",
)  # fmt: skip
# A training may get longer, not shorter: a checkpoint beyond its end would be taken for its result.
LENGTHS = ("num_train_epochs", "max_steps")


@dataclass(frozen=True)
class RunIdentity:
    """What a training depends on.

    Args:
        digests: hashes of the data, the encoder and the tokenizer, by what they are of, in words.
        options: the values of the options that the weights depend on, by name.
        lengths: the epochs and the steps of the training.
        recipe: all options that repeat the run.
    """

    digests: dict[str, str]
    options: dict[str, Any]
    lengths: dict[str, float]
    recipe: dict[str, Any]

    @classmethod
    def from_json(cls, content: Any) -> "RunIdentity":
        """Reads what [`as_json`] returned.

        Raises:
            ValueError: it is something else.
        """
        try:
            identity = cls(**content)
        except TypeError as error:
            raise ValueError("of another version") from error
        if not all(isinstance(part, dict) for part in vars(identity).values()):
            raise ValueError("of another version")
        return identity

    def as_json(self) -> dict[str, Any]:
        """Returns it as it stands in files."""
        return asdict(self)

    @property
    def key(self) -> str:
        """A hash of what the weights depend on."""
        return xxhash.xxh3_128_hexdigest(repr((self.digests, self.options, self.lengths)).encode())

    def differences(self, saved: "RunIdentity") -> list[str]:
        """Lists how a saved training differs, in words; an empty list for the same training, or a shorter one."""
        found = [
            f"the {name} differ{'' if name.endswith('s') else 's'}"
            for name in dict.fromkeys([*saved.digests, *self.digests])
            if saved.digests.get(name) != self.digests.get(name)
        ]
        for name in dict.fromkeys([*saved.options, *self.options]):
            if saved.options.get(name) != self.options.get(name):
                found.append(f"{name} was {saved.options.get(name)}, is {self.options.get(name)}")
        for name, length in self.lengths.items():
            if 0 < length < saved.lengths.get(name, 0):
                found.append(f"{name} was {saved.lengths[name]}, is {length}")
        return found


def content_digests_of(
    resolved: "ResolvedRun", data: ClassificationData, splits: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase
) -> dict[str, str]:
    """Returns hashes of the data that a run trains on and chooses by, of its encoder, and of its tokenizer.

    Args:
        resolved: the run.
        data: the splits with their texts.
        splits: the tokenized splits, with the logits of teachers.
        tokenizer: the run's tokenizer.
    """
    digests = {}
    chooses = resolved.args.training.eval_strategy != "no"
    for split, name in (("train", "training"), ("validation", "validation")):
        rows = data.splits.get(split)
        if isinstance(rows, Dataset) and (split == "train" or chooses):
            columns = [*text_columns(rows), *(["label"] if "label" in rows.column_names else [])]
            found = column_digests(rows, columns)
            labels = found.pop("label", None)
            digests[f"{name} texts"] = " ".join(found.values())
            digests |= {} if labels is None else {f"{name} labels": labels}
        elif rows is not None and split == "train":
            digests["training files"] = stream_digest(resolved.args.data)
    train = splits.get("train")
    if isinstance(train, Dataset) and TEACHER_COLUMN in train.column_names:
        digests["teachers' answers"] = column_digests(train, [TEACHER_COLUMN])[TEACHER_COLUMN]
    return {
        **digests,
        "encoder": _encoder_digest(resolved),
        "tokenizer": f"{tokenizer_fingerprint(tokenizer)} {tokenizer.model_max_length} {tokenizer.truncation_side}",
    }


def _encoder_digest(resolved: "ResolvedRun") -> str:
    """Returns a hash of the files of weights that the encoder is read from, or the commit of one of the Hub."""
    folder = Path(resolved.checkpoint.path)
    if not folder.is_dir():
        return f"{resolved.checkpoint.path} {getattr(resolved.checkpoint.config, '_commit_hash', None)}"
    digest = xxhash.xxh3_128()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(READ_BYTES):
                digest.update(block)
    return digest.hexdigest()


def identify(resolved: "ResolvedRun", digests: Mapping[str, str], recipe: Mapping[str, Any]) -> RunIdentity:
    """Returns the identity of a run.

    Args:
        resolved: the run.
        digests: those of [`content_digests_of`].
        recipe: all options that repeat the run.
    """
    args, config = resolved.args, resolved.config.to_dict()
    training = args.training
    rows = training.per_device_train_batch_size * training.gradient_accumulation_steps * training.world_size
    options = {
        **{name: config.get(name) for name in CONFIG_FIELDS},
        **{name: getattr(args.model, name) for name in MODEL_OPTIONS},
        **{name: getattr(args.boost, name) for name in BOOST_OPTIONS},
        **{name: getattr(training, name) for name in TRAINING_OPTIONS},
        "rows of a step": rows,
    }
    if args.few_shot.label_descriptions:
        options["label_descriptions"] = args.few_shot.label_descriptions
    lengths = {name: getattr(training, name) for name in LENGTHS}
    # As a manifest gives them back, which has texts for choices and lists for tuples.
    return RunIdentity(dict(digests), json.loads(json.dumps(options)), lengths, dict(recipe))
