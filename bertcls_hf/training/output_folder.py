"""The output_dir of a run: one run at a time writes there, and its model changes from one whole model to the next."""

import contextlib
import json
import logging
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from bertcls_hf.atomic_files import read_json, storage_error, sync_folder
from bertcls_hf.config.arguments import ClassifierTrainingArguments
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.manifests import BILL_FILE, MANIFEST_FILE, SIGNATURE_FILE, WEIGHTS
from bertcls_hf.metrics.calibration import CALIBRATION_FILE
from bertcls_hf.metrics.cascade import CASCADE_FILE
from bertcls_hf.models.loading import CONFIG_FILE, STAGING_PREFIX
from bertcls_hf.predict.engines import GRAPH_FILE, INT8_FILE, LEXICAL_FILE


logger = logging.getLogger(__name__)

LOCK_FILE = ".running.lock"
CARD_FILE = "README.md"
# A card with these words was written by this project; another one belongs to the user.
CARD_MARK = "Written by bertcls_hf"
# What describes a model, and does not fit the next one.
OF_ONE_MODEL = (
    CALIBRATION_FILE, CASCADE_FILE, GRAPH_FILE, INT8_FILE, LEXICAL_FILE, "figures/*.png", "predictions.jsonl",
    "predictions.csv", MANIFEST_FILE, SIGNATURE_FILE, BILL_FILE, "lexical_baseline.json", "seeds.json",
    "cross_validation.json",
    *(f"{split}_{kind}" for split in ("eval", "test") for kind in ("results.json", "report.json", "outputs.npz")),
)  # fmt: skip


@contextlib.contextmanager
def claimed(args: ClassifierTrainingArguments) -> Iterator[None]:
    """Creates output_dir, and keeps other runs out of it for the time of a block.

    The system releases the lock of a process that dies, so that no stale lock keeps a run out.

    Raises:
        ArgumentsError: if another run writes there, or output_dir cannot be created or written.
    """
    folder = Path(args.output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentsError(f"--output_dir {folder}: {error.strerror}") from error
    if args.process_index > 0:
        yield
        return
    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        holder = _holder(folder / LOCK_FILE)
        raise ArgumentsError(
            f"--output_dir {folder}: another run writes there{holder}: wait for it, or use another folder"
        ) from error
    except OSError as error:
        raise ArgumentsError(f"--output_dir {folder} cannot be written: {error.strerror}") from error
    try:
        _describe_holder(folder / LOCK_FILE)
        for leftover in folder.glob(f"{STAGING_PREFIX}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / LOCK_FILE).unlink()
        lock.release()


def _describe_holder(path: Path) -> None:
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    # The lock holds without it, also on a disk that is full.
    with contextlib.suppress(OSError):
        path.write_text(json.dumps(holder), encoding="utf-8")


def _holder(path: Path) -> str:
    try:
        holder = read_json(path)
        return f" (process {holder['pid']} on {holder['host']}, since {holder['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def tell_of_overwriting(args: ClassifierTrainingArguments) -> None:
    """Logs a warning if a training that starts afresh will replace a finished model."""
    if args.do_train and args.resume_from_checkpoint is None and (Path(args.output_dir) / CONFIG_FILE).is_file():
        logger.warning(
            "%s holds a finished model, which this training will overwrite: another --output_dir keeps it",
            args.output_dir,
        )


def replace_model(folder: Path, save: Callable[[Path], None]) -> None:
    """Replaces the model in output_dir by another one, with nothing of the one before.

    The new model is written into a folder of its own. Then the old configuration goes first, without which no library
    loads a model, and the new one comes last: between the two, a folder that a kill or a power cut leaves behind is
    refused by all that would load it.

    Args:
        folder: output_dir.
        save: writes the files of the model into the folder that it is called with.

    Raises:
        StorageError: the disk is full or cannot be written. Before the new model is written, the old one stays.
    """
    staging = folder / f"{STAGING_PREFIX}{uuid.uuid4().hex}"
    try:
        staging.mkdir(parents=True)
        save(staging)
        files = sorted(path for path in staging.iterdir() if path.is_file())
        for path in files:
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        (folder / CONFIG_FILE).unlink(missing_ok=True)
        sync_folder(folder)
        _remove_what_belongs_to_the_old_model(folder)
        for path in sorted(files, key=lambda path: path.name == CONFIG_FILE):
            os.replace(path, folder / path.name)
        sync_folder(folder)
    except OSError as error:
        raise storage_error(folder, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _remove_what_belongs_to_the_old_model(folder: Path) -> None:
    for pattern in (*OF_ONE_MODEL, *WEIGHTS):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
    card = folder / CARD_FILE
    if card.is_file() and CARD_MARK in card.read_text(encoding="utf-8", errors="replace"):
        card.unlink()
