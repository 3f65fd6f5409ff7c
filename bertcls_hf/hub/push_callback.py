"""The pushes of a run: its model at each save where that is asked for, and the whole of it at the end."""

import logging
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from bertcls_hf.config.arguments import ClassifierTrainingArguments
from bertcls_hf.config.parsing import RECIPE_FILE
from bertcls_hf.errors import ArgumentsError, PushError, storage_problem
from bertcls_hf.hub.push import push_folder, run_repository, upload
from bertcls_hf.train.saving import save_for_use


if TYPE_CHECKING:
    from bertcls_hf.train.trainer import ClassificationTrainer

logger = logging.getLogger(__name__)

# In output_dir, which has room for a model. Neither the rotation of checkpoints nor a push looks at it.
SNAPSHOT_FOLDER = "_pushing"


class PushRun(TrainerCallback):
    """Pushes a run from its first process.

    With `hub_strategy` every_save the training waits while the model is written, and goes on while it is uploaded. A
    save during an upload is not pushed, nor is the last one, which the end of the run follows. A failed upload is a
    warning.

    Args:
        trainer: of the run; the callback adds itself.
        settings: the run's own, with `push_to_hub` as it was given.

    Raises:
        ArgumentsError: every_save, and no process has the whole model.
    """

    def __init__(self, trainer: "ClassificationTrainer", settings: ClassifierTrainingArguments):
        self._trainer, self._settings = trainer, settings
        self._folder = Path(settings.output_dir)
        self._repository = run_repository(self._folder, settings)
        self._upload: threading.Thread | None = None
        if settings.hub_strategy == "every_save":
            if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
                raise ArgumentsError(
                    "--hub_strategy every_save: with FSDP or DeepSpeed no process has the whole model during "
                    "training; use end"
                )
            trainer.add_callback(self)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if not state.is_world_process_zero or control.should_training_stop:
            return
        if self._upload is not None and self._upload.is_alive():
            logger.info("step %d is not pushed: an earlier push still runs", state.global_step)
            return
        try:
            self._write_snapshot()
        except Exception as error:  # safetensors and tokenizers each raise a kind of their own
            if (problem := storage_problem(error)) is None:
                raise
            logger.warning("step %d is not pushed: its model cannot be written (%s)", state.global_step, problem)
            return
        # A run that is stopped does not wait for it: a commit is there as a whole or not at all.
        self._upload = threading.Thread(target=self._push_snapshot, args=(state.global_step,), daemon=True)
        self._upload.start()

    def _write_snapshot(self) -> None:
        snapshot = self._folder / SNAPSHOT_FOLDER
        if snapshot.exists():  # also left by a run that was killed
            shutil.rmtree(snapshot)
        model = self._trainer.accelerator.unwrap_model(self._trainer.model)
        save_for_use(model, self._trainer.processing_class, snapshot)
        shutil.copy(self._folder / RECIPE_FILE, snapshot)

    def _push_snapshot(self, step: int) -> None:
        try:
            message = f"Training in progress, step {step}"
            address = upload(self._folder / SNAPSHOT_FOLDER, self._repository, message, waits=())
            logger.info("step %d is pushed: %s", step, address)
        except PushError as error:
            logger.warning("step %d: %s", step, error)

    def finish(self) -> None:
        """Pushes output_dir.

        Raises:
            PushError: see [`push_folder`].
        """
        if not self._trainer.is_world_process_zero():
            return
        if self._upload is not None:
            self._upload.join()
        snapshot = self._folder / SNAPSHOT_FOLDER
        if snapshot.exists():
            shutil.rmtree(snapshot)
        logger.info("the model is pushed: %s", push_folder(self._folder, self._repository))
