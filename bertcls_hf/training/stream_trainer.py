"""Trains on a stream: each rank reads its own share of the rows, and saves its position in every checkpoint."""

from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader
from transformers import TrainerState

from bertcls_hf.data.stream_order import StreamOrder, StreamPosition
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.training.checkpoints import STATE
from bertcls_hf.training.trainer import ClassificationTrainer


class StreamTrainer(ClassificationTrainer):
    """Trains on a [`TokenStream`], whose number of rows is unknown."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.train_dataset.order = StreamOrder(
            seed=self.order_seed,
            rank=self.args.process_index,
            ranks=self.args.world_size,
            step_rows=self.args.train_batch_size * self.args.gradient_accumulation_steps,
            strategy=self.args.train_sampling_strategy,
            buffer_rows=self.train_dataset.order.buffer_rows,
        )

    @property
    def train_rows(self) -> None:
        """None, because the number of rows of a stream is unknown."""
        return None

    def get_train_dataloader(self) -> DataLoader:
        """Loads this rank's batches without accelerate, which would divide them among the ranks a second time."""
        return DataLoader(
            self.train_dataset,
            self._train_batch_size,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def go_on_from(self, checkpoint: Path) -> None:
        """Moves the stream to the position at which this rank saved the checkpoint.

        Raises:
            ArgumentsError: if the checkpoint was trained with another batch size or another order of rows.
        """
        super().go_on_from(checkpoint)
        position = StreamPosition.read(checkpoint, self.args.process_index, self.args.world_size)
        steps = TrainerState.load_from_json(str(checkpoint / STATE)).global_step
        rows = steps * self.args.gradient_accumulation_steps * self.args.train_batch_size
        if position.rows != rows:
            raise ArgumentsError(
                f"{checkpoint}: {position.rows} rows were trained on, but {steps} steps of this batch size are {rows}"
                ": resume with the batch size of before"
            )
        self.train_dataset.go_to(position)

    def _save_rng_state(self, output_dir: str) -> None:
        """Saves this rank's position in the stream together with its random state.

        This method is overridden because every rank calls it, and before the Trainer deletes old checkpoints.
        """
        super()._save_rng_state(output_dir)
        self.train_dataset.position.write(Path(output_dir))
