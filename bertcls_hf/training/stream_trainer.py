"""Trains on a stream: each rank reads its own share of the rows, and saves its position in every checkpoint."""

import logging
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from bertcls_hf.data.stream_order import StreamOrder, StreamPosition, stream_parts
from bertcls_hf.training.trainer import ClassificationTrainer


logger = logging.getLogger(__name__)


class StreamTrainer(ClassificationTrainer):
    """Trains on a [`TokenStream`], whose number of rows is unknown."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        settings, stream = self.args, self.train_dataset
        step_rows = settings.train_batch_size * settings.gradient_accumulation_steps * settings.world_size
        strategy = settings.train_sampling_strategy
        parts = stream_parts(stream.texts.source.dataset.num_shards, step_rows, strategy)
        stream.order = StreamOrder(self.order_seed, step_rows, parts, strategy, stream.order.buffer_rows)
        stream.rank, stream.ranks = settings.process_index, settings.world_size
        logger.info(
            "stream: read in %d part%s; a step takes %d rows of each", parts, "s" * (parts > 1), stream.order.part_rows
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
        """Moves the stream to the position of the checkpoint, which another number of processes may have saved.

        Raises:
            ArgumentsError: if the checkpoint was trained with another batch size or another order of rows.
        """
        super().go_on_from(checkpoint)
        position = StreamPosition.read(checkpoint)
        self.train_dataset.go_to(position)
        if position.ranks != self.args.world_size:
            logger.warning(
                "%s is of %d processes, this run has %d: it trains on the same rows in each step, but dropout draws "
                "other random numbers", checkpoint, position.ranks, self.args.world_size,
            )  # fmt: skip

    def _save_rng_state(self, output_dir: str) -> None:
        """Saves this rank's position in the stream together with its random state.

        This method is overridden because every rank calls it, and before the Trainer deletes old checkpoints.
        """
        super()._save_rng_state(output_dir)
        self.train_dataset.position.write(Path(output_dir), self.args.process_index)
