"""A thin subclass of `transformers.Trainer`: learning rates by depth, exact accumulation, row order, safe files."""

import re
from collections.abc import Iterator, Sized
from pathlib import Path
from typing import Any, cast

import datasets
import numpy as np
import torch
from accelerate.data_loader import BatchSamplerShard
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import DistributedType
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, SequentialSampler
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer
from transformers.trainer_pt_utils import get_length_grouped_indices
from transformers.trainer_utils import EvalLoopOutput

from bertcls_hf.data.streaming import StreamOrder, TokenStream
from bertcls_hf.data.tokenization import pad_texts
from bertcls_hf.errors import StorageError, storage_problem
from bertcls_hf.features.dataset import FeatureDataset
from bertcls_hf.metrics.calibration import CALIBRATION_FILE
from bertcls_hf.models.modeling import (
    TextClassifier,
    classification_loss,
    classify_features,
    fold_layer_weights,
    to_stock,
)


LENGTH_COLUMN = "length"
LAYER_NUMBER = re.compile(r"\.(?:layer|layers)\.(\d+)\.")


class ClassificationCollator:
    """Pads a batch to its longest text; a batch of cached features comes whole and stays as it is.

    Two texts of 3 and 2 tokens give `input_ids` and `attention_mask` of shape (2, 3), and `labels` of shape (2,).

    Args:
        tokenizer: knows what to pad with.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer

    def __call__(self, features: list[Any] | dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if isinstance(features, dict):
            return features
        if features[0] is None:
            return {}  # Rows of a stream that an earlier part of this training has taken.
        columns = {name: [row[name] for row in features] for name in features[0]}
        batch = pad_texts(columns, self.tokenizer)
        return batch | ({"labels": torch.tensor(columns["labels"])} if "labels" in columns else {})


class EpochSampler(Sampler[int]):
    """Rows in an order that depends on the seed and the epoch alone.

    Upstream's samplers draw from the global generator, so that the order of a resumed epoch is another one.

    Args:
        rows: number of rows.
        seed: of all epochs.
        lengths: tokens of each row; given, rows of like length come together.
        batch_size: rows of an optimizer step, within which lengths are alike.
    """

    def __init__(self, rows: int, seed: int, lengths: list[int] | None = None, batch_size: int = 1):
        self.rows, self.seed, self.lengths, self.batch_size = rows, seed, lengths, batch_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader at the start of each epoch."""
        self.epoch = epoch

    def order(self, epoch: int) -> list[int]:
        """All rows in the order of an epoch."""
        generator = torch.Generator().manual_seed(self.seed + epoch)
        if self.lengths is None:
            return torch.randperm(self.rows, generator=generator).tolist()
        return get_length_grouped_indices(self.lengths, self.batch_size, generator=generator)

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[int]:
        return iter(self.order(self.epoch))


class RankBatches(BatchSampler):
    """Batches that ranks take in turn, of which those of an epoch's last step share its rows evenly.

    Upstream fills up the last ranks' batches with rows of the epoch's start, so that an epoch counts these twice. Here
    47 rows in batches of 3 for 2 ranks end with one batch of 3 and one of 2; only a step with fewer rows than ranks
    repeats some.

    Args:
        sampler: all rows in their order.
        batch_size: most rows of a rank's batch.
        ranks: the number of processes.
    """

    def __init__(self, sampler: Any, batch_size: int, ranks: int):
        super().__init__(sampler, batch_size, drop_last=False)
        self.ranks = ranks

    def set_epoch(self, epoch: int) -> None:
        """Passes the epoch on."""
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return -(-len(cast(Sized, self.sampler)) // (self.batch_size * self.ranks)) * self.ranks

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self.sampler)
        for start in range(0, len(order), self.batch_size * self.ranks):
            rows = order[start : start + self.batch_size * self.ranks]
            rows = rows if len(rows) >= self.ranks else list(np.resize(rows, self.ranks))
            yield from (part.tolist() for part in np.array_split(rows, self.ranks))


def length_order(dataset: Any) -> np.ndarray | None:
    """Row numbers from the longest text to the shortest, or None for a dataset without lengths."""
    if not isinstance(dataset, datasets.Dataset) or LENGTH_COLUMN not in dataset.column_names:
        return None
    return np.argsort(-np.asarray(dataset[LENGTH_COLUMN][:]), kind="stable")


def parameter_depth(name: str, layers: int) -> int:
    """0 for the embeddings, i + 1 for layer i, and `layers` for what lies above them in the encoder."""
    match = LAYER_NUMBER.search(name)
    if match is not None:
        return int(match.group(1)) + 1
    return 0 if "embedding" in name else layers


class HeadOnFeatures(torch.nn.Module):
    """The head of a model, as what the training loop sees on cached features.

    At every step the loop walks over all modules and parameters of its model: those of a frozen encoder, which cached
    features never reach, cost more than the head's arithmetic.

    Args:
        model: owns the head, and the loss.
    """

    def __init__(self, model: TextClassifier):
        super().__init__()
        self.head, self.config = model.head, model.config

    def train(self, mode: bool = True) -> "HeadOnFeatures":
        """Looks at the head, which an evaluation of the whole model switches without this module."""
        return self if self.head.training == mode else super().train(mode)

    def forward(self, features: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor | None]:
        """The loss and logits of the model, in the plainest container that the loop takes."""
        loss, logits = classify_features(self.head, features, labels, self.config)
        return {"loss": loss, "logits": logits}


class ClassificationTrainer(Trainer):
    """Trains a [`TextClassifier`], or any stock `…ForSequenceClassification`."""

    optimizer: torch.optim.Optimizer | None

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # Makes the Trainer count the labels of a step that has several parts; `compute_loss` divides by the count.
        self.model_accepts_loss_kwargs = self.args.gradient_accumulation_steps * self.args.world_size > 1
        if isinstance(self.train_dataset, TokenStream):
            self.train_dataset.order = self._stream_order()
        if isinstance(self.model, TextClassifier):
            # The model smooths its own loss, which also knows class weights.
            self.label_smoother = None

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The mean loss of a micro-batch, weighted by its share of the labels of the whole step.

        1 x 16, 4 x 4 and 16 x 1 rows, an uneven last step, and any split over ranks then give one and the same loss
        (transformers#47688 shows what happens otherwise).
        """
        labels = inputs.get("labels")
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
        if num_items_in_batch is not None and labels is not None:
            ranks = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
            loss = loss * labels.ne(-100).sum() * ranks / num_items_in_batch
        return (loss, outputs) if return_outputs else loss

    def _stream_order(self) -> StreamOrder:
        args = self.args
        return StreamOrder(
            seed=args.seed if args.data_seed is None else args.data_seed,
            rank=args.process_index,
            ranks=args.world_size,
            step_rows=args.train_batch_size * args.gradient_accumulation_steps,
            strategy=args.train_sampling_strategy,
            buffer_rows=self.train_dataset.order.buffer_rows,
        )

    @property
    def _trains_head_alone(self) -> bool:
        """Whether the loop reads cached features, and nothing (ranks, mixed precision) wraps the model."""
        return (
            isinstance(self.train_dataset, FeatureDataset)
            and self.accelerator.distributed_type == DistributedType.NO
            and self.accelerator.mixed_precision == "no"
        )

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> tuple[torch.nn.Module, Any]:
        """Hands the loop the head alone, where that is all that it trains; what is saved stays the whole model."""
        model, dataloader = super()._prepare_for_training(*args, **kwargs)
        is_head_alone = self._trains_head_alone and model is self.model
        return (HeadOnFeatures(model) if is_head_alone else model), dataloader

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Takes the optimizer of a head alone out of accelerate's wrapper, which costs as much as the step itself."""
        if self._trains_head_alone and isinstance(self.optimizer, AcceleratedOptimizer):
            self.optimizer = self.optimizer.optimizer
        return super().create_scheduler(num_training_steps, optimizer)

    def _clip_grad_norm(self, model: torch.nn.Module) -> torch.Tensor:
        """A head has few tensors, for which torch's fused path over lists of them is the slower one."""
        if not isinstance(model, HeadOnFeatures):
            return super()._clip_grad_norm(model)
        return torch.nn.utils.clip_grad_norm_(model.parameters(), self.args.max_grad_norm, foreach=False)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """One parameter group per learning rate and weight decay, each with a name for the log."""
        if self.optimizer is None:
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            self.optimizer = optimizer_class(self._parameter_groups(self.model if model is None else model), **options)
        return self.optimizer

    def _parameter_groups(self, model: torch.nn.Module) -> list[dict[str, Any]]:
        decayed = set(self.get_decay_parameter_names(model))
        layers = self._encoder_layers()
        groups: dict[tuple[int, bool], dict[str, Any]] = {}
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            depth = self._depth(name, layers)
            group = groups.setdefault((depth, name in decayed), self._group(depth, layers, name in decayed))
            group["params"].append(parameter)
        # The encoder's top layer comes first: its rate is the one logged as `learning_rate`.
        return [groups[key] for key in sorted(groups, key=lambda key: (key[0] > layers, -key[0], not key[1]))]

    def _depth(self, name: str, layers: int) -> int:
        """See [`parameter_depth`]; the head is one above, and without a decay all of the encoder is alike."""
        if not self._is_encoder(name):
            return layers + 1
        return layers if self.args.layerwise_lr_decay == 1 else parameter_depth(name, layers)

    def _group(self, depth: int, layers: int, decays: bool) -> dict[str, Any]:
        is_head = depth > layers
        decay = self.args.layerwise_lr_decay
        head_rate = self.args.head_learning_rate or self.args.learning_rate
        name = "head" if is_head else "encoder" if decay == 1 else f"depth_{depth}"
        return {
            "params": [],
            "lr": head_rate if is_head else self.args.learning_rate * decay ** (layers - depth),
            "weight_decay": self.args.weight_decay if decays else 0.0,
            "name": name,
        }

    def _encoder_layers(self) -> int:
        config = self.accelerator.unwrap_model(self.model).config
        return getattr(config, "encoder_config", config).num_hidden_layers

    def _is_encoder(self, parameter_name: str) -> bool:
        prefix = self.accelerator.unwrap_model(self.model).base_model_prefix
        return f".{prefix}." in f".{parameter_name}"

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the learning rate of every parameter group, by its name, and mends the closing line's mean loss."""
        if "train_loss" in logs:
            logs["train_loss"] = self.mean_train_loss()
        if "learning_rate" in logs:
            logs |= self._group_rates(logs["learning_rate"])
        super().log(logs, start_time)

    def _group_rates(self, first_rate: float) -> dict[str, float]:
        """Each group's rate at the step that is logged; the schedulers have moved on to the next one by now."""
        assert self.optimizer is not None
        groups = self.optimizer.param_groups
        first = groups[0].get("initial_lr")
        if not first:
            return {f"learning_rate_{group['name']}": group["lr"] for group in groups}
        return {f"learning_rate_{group['name']}": group["initial_lr"] * first_rate / first for group in groups}

    def mean_train_loss(self) -> float:
        """The mean loss of all steps; upstream's leaves out those before a resumed checkpoint."""
        total, before = self._tr_loss.item() if self.is_in_train else 0.0, 0
        for line in self.state.log_history:
            if "loss" in line:
                total += line["loss"] * (line["step"] - before)
                before = line["step"]
        return total / max(self.state.global_step, 1)

    def _set_signature_columns_if_needed(self) -> None:
        """Keeps the lengths, which the samplers read and the collator drops."""
        super()._set_signature_columns_if_needed()
        if LENGTH_COLUMN not in self._signature_columns:
            self._signature_columns.append(LENGTH_COLUMN)

    def _get_collator_with_removed_columns(self, data_collator: Any, description: str | None = None) -> Any:
        """Cached features hold nothing to remove, and come as whole batches rather than rows."""
        return data_collator

    def _get_dataloader(
        self, dataset: Any, description: str, batch_size: int, *args: Any, is_training: bool = False, **kwargs: Any
    ) -> DataLoader:
        """See [`RankBatches`]; a stream comes as the share of this process, which accelerate would share out again."""
        if isinstance(dataset, TokenStream):
            pin_memory = self.args.dataloader_pin_memory
            return DataLoader(dataset, batch_size, collate_fn=self.data_collator, pin_memory=pin_memory)
        dataloader = super()._get_dataloader(
            dataset, description, batch_size, *args, is_training=is_training, **kwargs
        )
        shard = dataloader.batch_sampler
        if is_training and isinstance(shard, BatchSamplerShard) and not shard.drop_last:
            shard.batch_sampler = RankBatches(shard.batch_sampler.sampler, shard.batch_size, shard.num_processes)
            shard.batch_size = None  # Batches differ in size.
        return dataloader

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        strategy = self.args.train_sampling_strategy
        if strategy not in {"group_by_length", "random"} or not hasattr(dataset, "__len__"):
            return super()._get_train_sampler(train_dataset)
        grouped = strategy == "group_by_length" and LENGTH_COLUMN in getattr(dataset, "column_names", ())
        lengths = dataset[LENGTH_COLUMN][:] if grouped else None
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        rows = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return EpochSampler(len(dataset), seed, lengths, rows)

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Any:
        """From long to short, so that batches hold little padding; `evaluation_loop` restores the order."""
        order = length_order(eval_dataset)
        return SequentialSampler(cast(Sized, eval_dataset)) if order is None else order.tolist()

    def evaluation_loop(
        self, dataloader: Any, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any
    ) -> EvalLoopOutput:
        """Row i of the predictions and labels belongs to row i of the dataset, and each row counts once."""
        output = super().evaluation_loop(dataloader, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        self._count_each_row_once(output, f"{metric_key_prefix}_loss")
        order = length_order(dataloader.dataset)
        if order is None:
            return output
        row_of = np.argsort(order)
        return output._replace(
            predictions=_reordered(output.predictions, row_of), label_ids=_reordered(output.label_ids, row_of)
        )

    def _count_each_row_once(self, output: EvalLoopOutput, name: str) -> None:
        """Upstream's mean loss over ranks also counts the rows that fill up their last batches."""
        model = self.accelerator.unwrap_model(self.model)
        is_ours = self.args.world_size > 1 and isinstance(model, TextClassifier)
        if is_ours and output.metrics is not None and name in output.metrics and output.predictions is not None:
            logits, labels = torch.as_tensor(output.predictions), torch.as_tensor(output.label_ids)
            output.metrics[name] = classification_loss(logits, labels, model.config).item()

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """A checkpoint that the disk does not take ends the run; the one before is still there.

        Raises:
            StorageError: the disk is full or gone.
        """
        try:
            super()._save_checkpoint(*args, **kwargs)
        except Exception as error:  # safetensors, torch and tokenizers each raise a kind of their own
            if (problem := storage_problem(error)) is None:
                raise
            raise StorageError(
                f"{self.args.output_dir}: the checkpoint of step {self.state.global_step} cannot be written "
                f"({problem}): free some space; --resume_from_checkpoint auto goes on from the one before"
            ) from error

    def _save_rng_state(self, output_dir: str) -> None:
        """Also the position in a stream, which like the random state is one of each process."""
        super()._save_rng_state(output_dir)
        if isinstance(self.train_dataset, TokenStream):
            self.train_dataset.position.write(Path(output_dir))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Saves the final model for use, checkpoints in the training model's own format; never pickles the arguments.

        Upstream's `training_args.bin` holds the Hub token in clear.
        """
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        if folder == Path(self.args.output_dir):
            self.save_for_use(folder, state_dict)
            # One that is there belongs to the model that was there.
            (folder / CALIBRATION_FILE).unlink(missing_ok=True)
        else:
            self._save_with_tokenizer(self.accelerator.unwrap_model(self.model), folder, state_dict)

    def save_for_use(self, folder: Path, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Saves the model as its users load it: as a stock class where one is exact, else with its code.

        Args:
            folder: where to, beside the tokenizer.
            state_dict: the weights where they are gathered elsewhere (FSDP, DeepSpeed); else the model's own.
        """
        model = self.accelerator.unwrap_model(self.model)
        # A stock class draws weights before it gets the trained ones; a training that goes on must not notice.
        with torch.random.fork_rng(devices=()):
            if isinstance(model, TextClassifier):
                model, state_dict = fold_layer_weights(model, state_dict)
                stock = to_stock(model, state_dict)
                model, state_dict = (model, state_dict) if stock is None else (stock, None)
            self._save_with_tokenizer(model, folder, state_dict)

    def _save_with_tokenizer(
        self, model: PreTrainedModel, folder: Path, state_dict: dict[str, torch.Tensor] | None
    ) -> None:
        model.save_pretrained(folder, state_dict=state_dict)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)


def _reordered(arrays: Any, row_of: np.ndarray) -> Any:
    if isinstance(arrays, tuple | list):
        return type(arrays)(_reordered(array, row_of) for array in arrays)
    return arrays if arrays is None else arrays[row_of]
