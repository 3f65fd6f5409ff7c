"""Pushes a run to the Hub: its model at each save, if the options ask for it, and the whole run at the end."""

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
from bertcls_hf.training.saving import save_for_use


if TYPE_CHECKING:
    from bertcls_hf.training.trainer import ClassificationTrainer

logger = logging.getLogger(__name__)

# A folder in output_dir, whose disk has room for a model. The rotation of checkpoints and a push of the run ignore it.
SNAPSHOT_FOLDER = "_pushing"


class PushRun(TrainerCallback):
    """Pushes a run from its first process.

    With the `hub_strategy` every_save, the training waits while the model is written, and continues while it is
    uploaded. A save during an upload is not pushed. The last save is not pushed either, since the whole run is pushed
    soon after it. A failed upload only logs a warning.

    Args:
        trainer: the trainer of the run; with every_save, the callback adds itself to it.
        settings: the options of the run, and not those of the trainer, in which `push_to_hub` is off.

    Raises:
        ArgumentsError: if the `hub_strategy` is every_save and no process has the whole model.
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
        except Exception as error:  # safetensors and tokenizers each raise their own kind of error
            if (problem := storage_problem(error)) is None:
                raise
            logger.warning("step %d is not pushed: its model cannot be written (%s)", state.global_step, problem)
            return
        # The thread is a daemon, so that a run can stop without waiting for it. A commit is never incomplete.
        self._upload = threading.Thread(target=self._push_snapshot, args=(state.global_step,), daemon=True)
        self._upload.start()

    def _write_snapshot(self) -> None:
        snapshot = self._folder / SNAPSHOT_FOLDER
        if snapshot.exists():  # left by the save before, or by a run that was killed
            shutil.rmtree(snapshot)
        model = self._trainer.accelerator.unwrap_model(self._trainer.model)
        with self._trainer.with_average():
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
        """Waits for an upload that still runs, and pushes output_dir.

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
