"""Trains the encoder as a masked language model on the task's own texts, before the classifier.

Sun et al. 2019 (arXiv 1905.05583) call it within-task pre-training, and Gururangan et al. 2020 (arXiv 2004.10964)
task-adaptive pre-training. A tenth or so of the tokens is masked anew each time that a text is read, and the encoder
learns to tell what stood there; labels play no part. The adapted encoder is an ordinary checkpoint.
"""

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset, concatenate_datasets
from datasets.fingerprint import Hasher
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoModel,
    AutoModelForMaskedLM,
    DataCollatorForLanguageModeling,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from bertcls_hf.atomic_files import read_json, write_json_atomically
from bertcls_hf.config.arguments import Arguments, ClassifierTrainingArguments
from bertcls_hf.data.load import ClassificationData
from bertcls_hf.data.texts import text_columns
from bertcls_hf.data.tokenization import LENGTH_COLUMN
from bertcls_hf.data.unlabelled import load_unlabelled
from bertcls_hf.errors import ArgumentsError, one_line
from bertcls_hf.models.fingerprints import tokenizer_fingerprint, weights_fingerprint
from bertcls_hf.models.loading import Checkpoint, attention_dropout
from bertcls_hf.models.masked_tokens import score_masked_tokens_alone
from bertcls_hf.models.modeling import TextClassifierConfig
from bertcls_hf.training.callbacks import training_callbacks
from bertcls_hf.training.checkpoints import asks_to_resume, resolve_resume
from bertcls_hf.training.phases import encoder_phase, train_until_signalled, trainer_arguments
from bertcls_hf.training.resolve import ResolvedRun
from bertcls_hf.training.resume import checkpoint_differences
from bertcls_hf.training.run_identity import RunIdentity
from bertcls_hf.training.trainer import ClassificationTrainer


logger = logging.getLogger(__name__)

# In output_dir: the adapted encoder, and in it what it was made of, which is written last.
FOLDER, DESCRIPTION_FILE = "adapted", "adaptation.json"
# Part of the key. Increase it when the same options give another encoder.
VERSION = 2


@dataclass(frozen=True)
class Adaptation:
    """What an adapted encoder was made of.

    Args:
        key: a hash of all that it depends on.
        texts: the number of its texts, of which `unlabelled` have no label.
        unlabelled: see `texts`.
        epochs: the passes over the texts.
        loss_before: the mean loss of a masked token of the validation texts before the training; None without them.
        loss_after: the same after the training.
    """

    key: str
    texts: int
    unlabelled: int
    epochs: float
    loss_before: float | None = None
    loss_after: float | None = None


def check_adaptation(args: Arguments, checkpoint: Checkpoint, tokenizer: PreTrainedTokenizerBase) -> None:
    """Checks that the encoder can learn from masked tokens, if `adapt_num_train_epochs` asks for it.

    Raises:
        ArgumentsError: if the model is a trained classifier or has a class of this package, if its family has no
            masked language model, or if its tokenizer has no mask.
    """
    if not args.adapt.adapt_num_train_epochs:
        return
    option, name = "--adapt_num_train_epochs", args.model.model_name_or_path
    if checkpoint.labels is not None or isinstance(checkpoint.config, TextClassifierConfig):
        raise ArgumentsError(f"{option} trains an encoder, and {name} is a classifier: start from its encoder")
    if type(checkpoint.config) not in MODEL_FOR_MASKED_LM_MAPPING:
        raise ArgumentsError(f"{option}: {checkpoint.config.model_type} has no masked language model")
    if tokenizer.mask_token is None:
        raise ArgumentsError(f"{option}: {type(tokenizer).__name__} has no token for a mask")


def adapt_encoder(
    resolved: ResolvedRun, data: ClassificationData, tokenizer: PreTrainedTokenizerBase, asked_resume: str | None
) -> ResolvedRun:
    """Adapts the encoder in output_dir/adapted, unless an equal one is there, and returns the run that starts from it.

    Args:
        resolved: the run.
        data: the splits with their texts.
        tokenizer: the run's tokenizer; longer texts than its `model_max_length` are learned from in parts.
        asked_resume: `--resume_from_checkpoint`; unless it is off, an adaptation that was interrupted goes on.

    Raises:
        ArgumentsError: if weights cannot be read, or are divided among processes.
    """
    args = resolved.args
    folder = Path(args.training.output_dir, FOLDER)
    splits = cast(dict[str, Dataset], data.splits)
    with args.training.main_process_first(desc="texts"):
        # A teacher has added these texts to the training rows.
        more = None if args.training.teacher else load_unlabelled(args.data, data)
        train = _pieces([splits["train"], *([] if more is None else [more])], tokenizer, "train")
        validation = _pieces([splits["validation"]], tokenizer, "validation") if "validation" in splits else None
    set_seed(args.training.seed)
    model = _load(args, resolved.checkpoint)
    key = _key(args, model, tokenizer, train)
    found = read_adaptation(folder)
    if found is None or found.key != key:
        extra = 0 if more is None else len(more)
        found = Adaptation(key, len(splits["train"]) + extra, extra, args.adapt.adapt_num_train_epochs)
        _adapt(resolved, model, tokenizer, train, validation, folder, found, asked_resume)
    else:
        logger.info("%s holds the same adapted encoder: nothing is trained", folder)
    return resolved.starting_from(folder)


def read_adaptation(folder: Path) -> Adaptation | None:
    """Reads what the adapted encoder in a folder was made of; returns None if there is none, or it is not whole."""
    try:
        return Adaptation(**read_json(folder / DESCRIPTION_FILE))
    except (OSError, ValueError, TypeError):
        return None


def _pieces(splits: list[Dataset], tokenizer: PreTrainedTokenizerBase, name: str) -> Dataset:
    """Tokenizes texts, and splits those that are too long for the encoder, so that all of each is learned from."""
    key = (tokenizer_fingerprint(tokenizer), tokenizer.model_max_length, tokenizer.truncation_side, VERSION)
    parts = [
        split.select_columns(text_columns(split)).map(
            _tokenize_pieces,
            batched=True,
            fn_kwargs={"tokenizer": tokenizer},
            remove_columns=text_columns(split),
            new_fingerprint=Hasher.hash((split._fingerprint, key)),
            desc=f"Tokenizing {name} for masks",
        )
        for split in splits
    ]
    return concatenate_datasets(parts)


def _tokenize_pieces(batch: dict[str, list], tokenizer: PreTrainedTokenizerBase) -> dict[str, list]:
    first = [text or "" for text in batch["text"]]
    pairs = [text or "" for text in batch["text_pair"]] if "text_pair" in batch else None
    encoded = tokenizer(
        first, pairs, truncation=True, return_special_tokens_mask=True, return_token_type_ids=False,
        # The texts of a pair are cut together, and slow tokenizers return the rest of a text without special tokens.
        return_overflowing_tokens=pairs is None and tokenizer.is_fast,
    )  # fmt: skip
    # Empty texts have nothing to mask.
    kept = [row for row, mask in enumerate(encoded["special_tokens_mask"]) if not all(mask)]
    names = ("input_ids", "attention_mask", "special_tokens_mask")
    columns = {name: [encoded[name][row] for row in kept] for name in names}
    return {**columns, LENGTH_COLUMN: [len(ids) for ids in columns["input_ids"]]}


class _MaskingCollator(DataCollatorForLanguageModeling):
    """Masks tokens anew in each batch; the lengths of the texts are for the samplers alone."""

    def __call__(self, features: Any, return_tensors: str | None = None) -> dict[str, Any]:
        rows = [{name: value for name, value in row.items() if name != LENGTH_COLUMN} for row in features]
        batch = super().__call__(rows, return_tensors)
        # The mean loss of a short batch without a masked token would not be a number.
        while batch["labels"].eq(-100).all():
            batch = super().__call__(rows, return_tensors)
        return batch


def _load(args: Arguments, checkpoint: Checkpoint) -> PreTrainedModel:
    try:
        model, info = AutoModelForMaskedLM.from_pretrained(
            checkpoint.path, output_loading_info=True, attn_implementation=args.model.attn_implementation,
            **_loading_options(args), **attention_dropout(args.model, checkpoint.encoder_config),
        )  # fmt: skip
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise ArgumentsError(f"--model_name_or_path {args.model.model_name_or_path}: {one_line(error)}") from error
    if info["missing_keys"]:
        logger.info("the checkpoint has no whole head for masked tokens: a new one reads the encoder's embeddings")
    score_masked_tokens_alone(model)
    return model


def _loading_options(args: Arguments) -> dict[str, Any]:
    return {
        "revision": args.model.model_revision,
        "trust_remote_code": args.model.trust_remote_code,
        "dtype": torch.float32,
        "use_safetensors": True,
    }


def _key(args: Arguments, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, train: Dataset) -> str:
    adapt, training = args.adapt, args.training
    settings = [
        adapt.adapt_num_train_epochs, adapt.adapt_learning_rate, adapt.mlm_probability,
        training.per_device_train_batch_size, training.gradient_accumulation_steps, training.world_size,
        training.weight_decay, training.warmup_steps, str(training.lr_scheduler_type), training.bf16, training.fp16,
        training.seed, training.optim, training.train_sampling_strategy, tokenizer.model_max_length,
        args.model.attention_dropout,
    ]  # fmt: skip
    content = [VERSION, str(settings), weights_fingerprint(model.state_dict()), tokenizer_fingerprint(tokenizer)]
    return hashlib.sha256(json.dumps([*content, train._fingerprint]).encode()).hexdigest()[:32]


def _adapt(
    resolved: ResolvedRun,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Dataset,
    validation: Dataset | None,
    folder: Path,
    description: Adaptation,
    asked_resume: str | None,
) -> None:
    args = _arguments(resolved.args, folder)
    is_main = args.process_index == 0
    checkpoint = resolve_resume("auto" if asks_to_resume(asked_resume) else None, folder, args.world_size, is_main)
    identity = RunIdentity({"texts, encoder or options": description.key}, {}, {}, {})
    if checkpoint is not None and (differences := checkpoint_differences(checkpoint, identity)):
        logger.warning("%s is of another adaptation (%s): starting fresh", checkpoint, "; ".join(differences))
        checkpoint = None
    elif checkpoint is not None:
        logger.info("resuming from %s", checkpoint)
    trainer = ClassificationTrainer(
        model=model,
        args=trainer_arguments(args),
        data_collator=_MaskingCollator(tokenizer, mlm_probability=resolved.args.adapt.mlm_probability),
        train_dataset=train,
        processing_class=tokenizer,
        callbacks=training_callbacks(args),
    )
    trainer.identity = identity
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise ArgumentsError("--adapt_num_train_epochs: with FSDP or DeepSpeed a process has a part of the weights")
    logger.info("adapting the encoder to %d texts (%d parts)", description.texts, len(train))
    before = _masked_loss(trainer, validation)
    set_seed(args.seed)
    train_until_signalled(trainer, None if checkpoint is None else str(checkpoint))
    after = _masked_loss(trainer, validation)
    if before is not None:
        logger.info("loss of a masked token of the validation texts: %.4f before, %.4f after", before, after)
    if is_main:
        _save_encoder(resolved, trainer.accelerator.unwrap_model(trainer.model), tokenizer, folder)
        found = replace(description, loss_before=before, loss_after=after)
        write_json_atomically(folder / DESCRIPTION_FILE, asdict(found))
    trainer.accelerator.wait_for_everyone()


def _arguments(args: Arguments, folder: Path) -> ClassifierTrainingArguments:
    """Returns the options of the masked language model's training."""
    adapt, training = args.adapt, args.training
    return encoder_phase(
        training, folder, adapt.adapt_learning_rate, num_train_epochs=adapt.adapt_num_train_epochs, max_steps=-1,
        save_strategy="epoch" if training.save_strategy == "best" else training.save_strategy, save_total_limit=1,
        prediction_loss_only=True,
        # The scores of all words for each masked token take much memory.
        per_device_eval_batch_size=training.per_device_train_batch_size,
    )  # fmt: skip


def _masked_loss(trainer: ClassificationTrainer, validation: Dataset | None) -> float | None:
    """Returns the mean loss of a masked token; the masks are the same each time."""
    if validation is None:
        return None
    set_seed(trainer.args.seed)
    return trainer.evaluate(validation)["eval_loss"]


def _save_encoder(
    resolved: ResolvedRun, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> None:
    """Saves the encoder with its pooler, which the masked language model leaves out."""
    options = _loading_options(resolved.args)
    encoder = AutoModel.from_pretrained(resolved.checkpoint.path, **options)
    weights = {name: weight.cpu() for name, weight in model.base_model.state_dict().items()}
    unknown = encoder.load_state_dict(weights, strict=False).unexpected_keys
    if unknown:
        raise RuntimeError(f"the adapted encoder has weights that {type(encoder).__name__} lacks: {unknown[:3]}")
    encoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
