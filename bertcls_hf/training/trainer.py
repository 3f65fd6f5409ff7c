"""The Trainer for classifiers, which changes the optimizer, loss, row order and saving of transformers' Trainer."""

import contextlib
from collections.abc import Sized
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler
from transformers import Trainer, TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, EvalLoopOutput, rotate_checkpoints

from bertcls_hf.data.tokenization import token_lengths
from bertcls_hf.errors import ArgumentsError, StorageError, storage_problem
from bertcls_hf.features.logits_columns import TEACHER_COLUMN
from bertcls_hf.models.modeling import TextClassifier, classification_loss
from bertcls_hf.training.callbacks import KnowBestCheckpoint
from bertcls_hf.training.checkpoints import STATE, best_checkpoint, complete_checkpoint
from bertcls_hf.training.distillation import distillation_loss
from bertcls_hf.training.optimizer import parameter_groups
from bertcls_hf.training.output_folder import replace_model
from bertcls_hf.training.run_identity import RunIdentity
from bertcls_hf.training.samplers import EpochSampler, RankBatches, longest_first
from bertcls_hf.training.saving import save_for_use, save_with_tokenizer
from bertcls_hf.training.weight_averaging import WeightAverage


class ClassificationTrainer(Trainer):
    """Trains a [`TextClassifier`] or any stock `…ForSequenceClassification`.

    It differs from transformers' Trainer in four points: learning rates by depth, a loss that does not depend on how a
    step is split into micro-batches or ranks, an order of rows that a resumed run repeats, and files without secrets.
    """

    optimizer: torch.optim.Optimizer | None

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # The Trainer then counts the labels of a step with several micro-batches; `compute_loss` divides by the count.
        self.model_accepts_loss_kwargs = self.args.gradient_accumulation_steps * self.args.world_size > 1
        if isinstance(self.model, TextClassifier):
            # The model applies label smoothing itself, together with class weights.
            self.label_smoother = None
        self.weight_average = self._weight_average()
        # What a checkpoint says that it belongs to.
        self.identity: RunIdentity | None = None

    def _weight_average(self) -> WeightAverage | None:
        args = self.args
        if args.weight_averaging is None or not args.do_train:
            return None
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ArgumentsError("--weight_averaging: with FSDP or DeepSpeed a process has only a part of the weights")
        average = WeightAverage(self.model, args.weight_averaging, args.ema_decay, args.swa_start)
        self.add_callback(average)
        return average

    def with_average(self) -> contextlib.AbstractContextManager[None]:
        """Puts the average of the weights into the model for the time of a block, if there is one."""
        return contextlib.nullcontext() if self.weight_average is None else self.weight_average.applied()

    @property
    def train_rows(self) -> int | None:
        """The number of training rows, or None if it is unknown."""
        return len(cast(Sized, self.train_dataset))

    @property
    def order_seed(self) -> int:
        """The seed for the order of the training rows: `data_seed`, or `seed` if that is not set."""
        return self.args.seed if self.args.data_seed is None else self.args.data_seed

    def go_on_from(self, checkpoint: Path) -> None:
        """Prepares a resume from a checkpoint.

        The order of loaded rows depends only on seed and epoch, and needs nothing; [`StreamTrainer`] finds its place.

        Raises:
            StorageError: if the best checkpoint before this one is gone or damaged.
        """
        saved = TrainerState.load_from_json(str(checkpoint / STATE)).best_model_checkpoint
        if saved is not None and self.args.load_best_model_at_end:
            folders = (Path(self.args.output_dir), checkpoint.parent)
            self.add_callback(KnowBestCheckpoint(best_checkpoint(saved, *folders)))
        if self.weight_average is not None:
            self.weight_average.go_on_from(checkpoint)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Computes the mean loss of a micro-batch, weighted by its share of the labels of the whole step.

        The loss of a step is then the same for 1 x 16, 4 x 4 and 16 x 1 rows, for an uneven last step, and for any
        division among ranks (transformers#47688 shows the error without the weight).
        """
        labels, teacher_logits = inputs.get("labels"), inputs.get(TEACHER_COLUMN)
        inputs = {name: value for name, value in inputs.items() if name != TEACHER_COLUMN}
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
        if teacher_logits is not None:
            task = self.accelerator.unwrap_model(self.model).config.problem_type
            loss = distillation_loss(loss, outputs["logits"], teacher_logits, task, self.args)
        if num_items_in_batch is not None and labels is not None:
            ranks = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
            loss = loss * labels.ne(-100).sum() * ranks / num_items_in_batch
        return (loss, outputs) if return_outputs else loss

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Creates the optimizer with the groups of [`parameter_groups`]."""
        if self.optimizer is None:
            trained = self.model if model is None else model
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            decayed = set(self.get_decay_parameter_names(trained))
            groups = parameter_groups(trained, self.accelerator.unwrap_model(self.model), self.args, decayed)
            self.optimizer = optimizer_class(groups, **options)
        return self.optimizer

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the learning rate of every parameter group, and corrects `train_loss` with [`mean_train_loss`]."""
        if "train_loss" in logs:
            logs["train_loss"] = self.mean_train_loss()
        if "learning_rate" in logs:
            logs |= self._group_rates(logs["learning_rate"])
        super().log(logs, start_time)

    def _group_rates(self, first_rate: float) -> dict[str, float]:
        """Computes each group's rate at the logged step from the first group's logged rate.

        The groups themselves hold the rate of the next step, because the scheduler has advanced before the log.
        """
        assert self.optimizer is not None
        groups = self.optimizer.param_groups
        first_initial_rate = groups[0].get("initial_lr")
        if not first_initial_rate:
            return {f"learning_rate_{group['name']}": group["lr"] for group in groups}
        return {
            f"learning_rate_{group['name']}": group["initial_lr"] * first_rate / first_initial_rate for group in groups
        }

    def mean_train_loss(self) -> float:
        """Returns the mean loss of all steps; the Trainer's own mean omits the steps before a resume."""
        total, previous_step = self._tr_loss.item() if self.is_in_train else 0.0, 0
        for line in self.state.log_history:
            if "loss" in line:
                total += line["loss"] * (line["step"] - previous_step)
                previous_step = line["step"]
        return total / max(self.state.global_step, 1)

    def get_train_dataloader(self) -> DataLoader:
        """Divides the rows of an epoch's last step evenly among the ranks, see [`RankBatches`]."""
        dataloader = super().get_train_dataloader()
        shard = dataloader.batch_sampler
        if isinstance(shard, BatchSamplerShard) and not shard.drop_last:
            shard.batch_sampler = RankBatches(shard.batch_sampler.sampler, shard.batch_size, shard.num_processes)
            shard.batch_size = None  # Batches differ in size.
        return dataloader

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        """Returns an [`EpochSampler`], whose order a resumed epoch repeats.

        The Trainer's own samplers draw from the global random generator, whose state differs after a resume.
        """
        strategy = self.args.train_sampling_strategy
        if strategy not in {"group_by_length", "random"}:
            return super()._get_train_sampler(train_dataset)
        lengths = token_lengths(self.train_dataset) if strategy == "group_by_length" else None
        lengths_list = None if lengths is None else lengths.tolist()
        rows = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return EpochSampler(len(cast(Sized, self.train_dataset)), self.order_seed, lengths_list, rows)

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Any:
        """Reads the longest texts first, which reduces padding; [`evaluation_loop`] restores the order of the rows."""
        order = longest_first(eval_dataset)
        return SequentialSampler(cast(Sized, eval_dataset)) if order is None else order.tolist()

    def evaluation_loop(
        self, dataloader: Any, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any
    ) -> EvalLoopOutput:
        """Returns predictions and labels in the order of the dataset, and a mean loss that counts each row once."""
        with self.with_average():
            output = super().evaluation_loop(dataloader, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        self._count_each_row_once(output, f"{metric_key_prefix}_loss")
        order = longest_first(dataloader.dataset)
        if order is None:
            return output
        # positions[i] is the position at which row i was evaluated.
        positions = np.argsort(order)
        return output._replace(
            predictions=_reordered(output.predictions, positions), label_ids=_reordered(output.label_ids, positions)
        )

    def _count_each_row_once(self, output: EvalLoopOutput, name: str) -> None:
        """Replaces the Trainer's mean loss over several ranks, which counts rows that pad the last batches twice."""
        model = self.accelerator.unwrap_model(self.model)
        is_ours = self.args.world_size > 1 and isinstance(model, TextClassifier)
        if is_ours and output.metrics is not None and name in output.metrics and output.predictions is not None:
            logits, labels = torch.as_tensor(output.predictions), torch.as_tensor(output.label_ids)
            output.metrics[name] = classification_loss(logits, labels, model.config).item()

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Completes a checkpoint with its manifest, before older ones are deleted.

        Raises:
            StorageError: if the disk is full or gone; the checkpoint before is still complete.
        """
        kept, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(*args, **kwargs)
            # Each process writes files of its own.
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                folder, step = Path(self.args.output_dir), self.state.global_step
                complete_checkpoint(folder / f"{PREFIX_CHECKPOINT_DIR}-{step}", step, self.identity)
                rotate_checkpoints(str(folder), kept, self.state.best_model_checkpoint, use_mtime=True)
        except Exception as error:  # safetensors, torch and tokenizers each raise a kind of their own
            if (problem := storage_problem(error)) is None:
                raise
            raise StorageError(
                f"{self.args.output_dir}: the checkpoint of step {self.state.global_step} cannot be written "
                f"({problem}): free some space; --resume_from_checkpoint auto goes on from the one before"
            ) from error
        finally:
            self.args.save_total_limit = kept

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Overridden because the Trainer only warns of weights that a checkpoint lacks, or has under other names.

        Raises:
            ArgumentsError: if the weights of the checkpoint are not those of the model.
        """
        weights = self.model.state_dict()
        read = {weight.data_ptr() for name, weight in weights.items() if name not in load_result.missing_keys}
        # A file holds weights that a model uses under two names once.
        missing = [name for name in load_result.missing_keys if weights[name].data_ptr() not in read]
        for names, difference in ((missing, "lacks"), (load_result.unexpected_keys, "alone has")):
            if names:
                raise ArgumentsError(
                    f"the checkpoint {difference} the weights {', '.join(sorted(names)[:3])}: it is of another model"
                )

    def _load_best_model(self) -> None:
        """Overridden because the Trainer only warns if the best checkpoint is gone, and saves the last weights.

        Raises:
            StorageError: if the best checkpoint is gone or damaged.
        """
        saved = str(self.state.best_model_checkpoint)
        self.state.best_model_checkpoint = str(best_checkpoint(saved, Path(self.args.output_dir)))
        super()._load_best_model()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Saves the final model with [`save_for_use`], and a checkpoint in the training model's own format.

        The Trainer's own method also pickles its arguments, which hold the Hub token, into `training_args.bin`.
        """
        if not self.args.should_save:
            return
        model, folder = self.accelerator.unwrap_model(self.model), Path(output_dir or self.args.output_dir)
        if folder == Path(self.args.output_dir):
            replace_model(folder, lambda staging: save_for_use(model, self.processing_class, staging, state_dict))
            return
        with self.with_average():
            save_with_tokenizer(model, self.processing_class, folder, state_dict)
            if self.weight_average is not None:
                self.weight_average.save_step_weights(folder)


def _reordered(arrays: Any, positions: np.ndarray) -> Any:
    if isinstance(arrays, tuple | list):
        return type(arrays)(_reordered(array, positions) for array in arrays)
    return arrays if arrays is None else arrays[positions]
