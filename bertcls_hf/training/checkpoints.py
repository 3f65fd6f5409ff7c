"""Decides which checkpoint a run may resume from, and whether the disk can hold new ones.

The Trainer writes a checkpoint file by file, and resumes from the one with the highest step without checking it. A run
that is killed while saving leaves an incomplete checkpoint, from which the Trainer would resume with wrong results and
no error. A checkpoint is therefore complete once it has a manifest, which is written last. It holds the digest of each
file and the identity of the training, which are compared before a run resumes.
"""

import logging
import shutil
from pathlib import Path

from torch import nn
from transformers import TrainerState, TrainingArguments

from bertcls_hf.data.stream_order import StreamPosition
from bertcls_hf.errors import ArgumentsError, StorageError, one_line
from bertcls_hf.manifests import IDENTITY, MANIFEST_FILE, all_files, changed_files, read_manifest, write_manifest
from bertcls_hf.training.run_identity import RunIdentity


logger = logging.getLogger(__name__)

WEIGHTS, STATE = "model.safetensors", "trainer_state.json"
# Rotation deletes only `checkpoint-*`, and a push skips `_*`: both leave folders with this prefix alone.
REJECTED_PREFIX = "_incomplete-"


def complete_checkpoint(folder: Path, step: int, identity: RunIdentity | None) -> None:
    """Writes the manifest of a checkpoint, which makes it one that can be resumed from.

    Args:
        folder: the checkpoint, whose files are all written.
        step: its step.
        identity: what the training depends on; None for one that is never resumed.

    Raises:
        StorageError: the disk is full or cannot be written.
    """
    description = None if identity is None else identity.as_json()
    write_manifest(folder, all_files(folder), {"step": step, IDENTITY: description})


def resolve_resume(
    asked: str | None,
    output_dir: Path,
    world_size: int,
    is_main_process: bool,
    is_stream: bool = False,
) -> Path | None:
    """Finds the checkpoint to resume from; returns None to start fresh.

    Args:
        asked: the value of `--resume_from_checkpoint`: auto, true, false, a path or None.
        output_dir: the folder that holds the checkpoints.
        world_size: the number of processes. Each process saves its own random state.
        is_main_process: whether this process renames the incomplete checkpoints. Only one process may.
        is_stream: whether the training data is a stream. Each process then also saves its position in the stream.

    Raises:
        ArgumentsError: if a checkpoint is required, by true or by a path, and no complete one exists.
    """
    if asked is None or not asks_to_resume(asked):
        return None
    if names_folder(asked):
        problem = checkpoint_problem(Path(asked), world_size, is_stream)
        if problem is not None:
            raise ArgumentsError(f"--resume_from_checkpoint {asked}: {problem}")
        return Path(asked)
    newest_complete = find_resumable_checkpoint(output_dir, world_size, is_main_process, is_stream)
    if newest_complete is None and asked.lower() != "auto":
        raise ArgumentsError(
            f"--resume_from_checkpoint {asked}: {output_dir} holds no complete checkpoint; auto starts fresh"
        )
    if newest_complete is None:
        logger.info("no complete checkpoint in %s: starting fresh", output_dir)
    return newest_complete


def asks_to_resume(asked: str | None) -> bool:
    """Says whether a value of `--resume_from_checkpoint` asks for a resume where there is something to go on from."""
    return asked is not None and asked.lower() not in {"false", "no"}


def names_folder(asked: str) -> bool:
    """Says whether a value of `--resume_from_checkpoint` is the path of a checkpoint."""
    return asked.lower() not in {"auto", "true", "yes", "false", "no"}


def find_resumable_checkpoint(
    output_dir: Path, world_size: int, is_main_process: bool = True, is_stream: bool = False
) -> Path | None:
    """Returns the newest complete `checkpoint-N`; renames newer incomplete checkpoints, with a warning for each."""
    for folder in sorted(output_dir.glob("checkpoint-*"), key=step_of, reverse=True):
        problem = checkpoint_problem(folder, world_size, is_stream)
        if problem is None:
            return folder
        logger.warning("%s cannot be resumed from (%s) and is set aside", folder, problem)
        if is_main_process:
            _set_aside(folder)
    return None


def newest_checkpoint(folder: Path) -> Path | None:
    """Returns the newest checkpoint whose saving ended, or None if there is none; its content is not compared."""
    saved = [path for path in folder.glob("checkpoint-*") if (path / MANIFEST_FILE).is_file()]
    return max(saved, key=step_of, default=None)


def step_of(folder: Path) -> int:
    """Returns the step in the name of a checkpoint's folder, or -1 if it has another name."""
    suffix = folder.name.removeprefix("checkpoint-")
    return int(suffix) if suffix.isdigit() else -1


def _set_aside(folder: Path) -> None:
    target = folder.with_name(REJECTED_PREFIX + folder.name)
    number = 1
    while target.exists():
        number += 1
        target = folder.with_name(f"{REJECTED_PREFIX}{folder.name}-{number}")
    folder.rename(target)


def checkpoint_problem(folder: Path, world_size: int, is_stream: bool = False) -> str | None:
    """Says why an exact resume from this checkpoint is impossible; returns None for a complete checkpoint."""
    if not folder.is_dir():
        return "no such folder"
    if is_stream:
        # A stream goes on with any number of processes; the random states are those of the ones that saved them.
        try:
            position = StreamPosition.read(folder)
        except (OSError, ValueError) as error:
            return f"the position in the stream cannot be read: {one_line(error)}"
        if not position.is_whole:
            return "the position in the stream is not known for every part"
        if step_of(folder) not in (position.steps, -1):
            return f"the position in the stream is of step {position.steps}"
        world_size = position.ranks
    random_states = ["rng_state.pth"] if world_size <= 1 else [f"rng_state_{rank}.pth" for rank in range(world_size)]
    for name in (WEIGHTS, "optimizer.pt", "scheduler.pt", *random_states, STATE):
        if not (folder / name).is_file():
            return f"{name} is missing"
    return damage(folder)


def damage(folder: Path) -> str | None:
    """Says how a checkpoint differs from what was saved; returns None if it does not."""
    if not folder.is_dir():
        return "no such folder"
    try:
        manifest = read_manifest(folder)
    except FileNotFoundError:
        return f"it has no {MANIFEST_FILE}: its saving was interrupted, or an earlier version saved it"
    except (OSError, ValueError) as error:
        return f"{MANIFEST_FILE} cannot be read: {one_line(error)}"
    if step_of(folder) not in (manifest.get("step"), -1):
        return f"{MANIFEST_FILE} is of step {manifest.get('step')}"
    return next(changed_files(folder, manifest), None)


def best_checkpoint(saved: str, *folders: Path) -> Path:
    """Finds the best checkpoint of a training, which may have been moved with its folder since it was saved.

    Args:
        saved: its path at that time.
        folders: where it is looked for first, by its name.

    Raises:
        StorageError: it is gone or damaged.
    """
    problems: dict[Path, str] = {}
    for place in dict.fromkeys([*(folder / Path(saved).name for folder in folders), Path(saved)]):
        if (problem := damage(place)) is None:
            return place
        problems[place] = problem
    place, problem = next(iter(problems.items()))
    raise StorageError(
        f"{place}, the best checkpoint, cannot be loaded ({problem}), and the last one is no substitute: train "
        "again, or set --load_best_model_at_end false"
    )


def require_checkpoint_space(args: TrainingArguments, model: nn.Module) -> None:
    """Checks that the disk can hold the checkpoints of a training, before the training starts.

    A checkpoint holds all weights, and two moments of the optimizer for each trainable weight; where weights are
    averaged, also these weights a second time. The Trainer writes a
    new checkpoint before it deletes the oldest, so the disk must hold one checkpoint more than `save_total_limit`. A
    push at each save writes one more copy of the weights.

    Raises:
        StorageError: if there is too little free space; the message gives the needed and the free MiB.
    """
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    copies = 2 if getattr(args, "weight_averaging", None) is None else 3
    copied = sum(copies * parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    if args.save_strategy == "no":
        checkpoints = 0
    else:
        checkpoints = 1 if args.resume_from_checkpoint else (args.save_total_limit or 1) + 1
    pushed = weights if args.hub_strategy == "every_save" else 0
    needed, free = weights + pushed + checkpoints * (weights + copied), shutil.disk_usage(args.output_dir).free
    if needed > free:
        raise StorageError(
            f"the model and {checkpoints} checkpoints need {needed / 2**20:,.1f} MiB, and {args.output_dir} has "
            f"{free / 2**20:,.1f} MiB free: free some, or lower --save_total_limit"
        )


def is_finished(checkpoint: Path, args: TrainingArguments) -> bool:
    """Says whether the training had ended when it saved this checkpoint: by early stopping, or with its last step."""
    state = TrainerState.load_from_json(str(checkpoint / STATE))
    if 0 < args.max_steps <= state.global_step:
        return True
    patience = getattr(args, "early_stopping_patience", -1)
    saved = state.stateful_callbacks.get("EarlyStoppingCallback")
    if patience == -1 or saved is None:
        return False
    return saved["attributes"]["early_stopping_patience_counter"] >= patience
