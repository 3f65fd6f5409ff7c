"""Decides which checkpoint a run may resume from, and whether the disk can hold new ones.

The Trainer writes a checkpoint file by file, and resumes from the one with the highest step without checking it. A run
that is killed while saving leaves an incomplete checkpoint, from which the Trainer would resume with wrong results and
no error. This module therefore checks every file of a checkpoint before a run resumes from it.
"""

import json
import logging
import shutil
import struct
from pathlib import Path

from safetensors import safe_open
from torch import nn
from transformers import PreTrainedConfig, TrainerState, TrainingArguments

from bertcls_hf.data.stream_order import StreamPosition
from bertcls_hf.errors import ArgumentsError, StorageError, one_line
from bertcls_hf.training.weight_averaging import STEP_WEIGHTS


logger = logging.getLogger(__name__)

WEIGHTS, STATE = "model.safetensors", "trainer_state.json"
# Rotation deletes only `checkpoint-*`, and a push skips `_*`: both leave folders with this prefix alone.
REJECTED_PREFIX = "_incomplete-"
# The fields of a TextClassifierConfig that must not change when a training resumes.
SHAPE_FIELDS = (
    "id2label", "problem_type", "pooling", "pooling_layers", "pooling_layers_merge", "head", "loss", "truncation",
)  # fmt: skip
INCOMPLETE_SENTINEL = "checkpoint-is-incomplete.txt"


def resolve_resume(
    asked: str | None,
    output_dir: Path,
    world_size: int,
    is_main_process: bool,
    is_stream: bool = False,
    is_averaged: bool = False,
) -> Path | None:
    """Finds the checkpoint to resume from; returns None to start fresh.

    Args:
        asked: the value of `--resume_from_checkpoint`: auto, true, false, a path or None.
        output_dir: the folder that holds the checkpoints.
        world_size: the number of processes. Each process saves its own random state.
        is_main_process: whether this process renames the incomplete checkpoints. Only one process may.
        is_stream: whether the training data is a stream. Each process then also saves its position in the stream.
        is_averaged: whether the run averages its weights, so that a checkpoint holds the weights of its step too.

    Raises:
        ArgumentsError: if a checkpoint is required, by true or by a path, and no complete one exists.
    """
    if asked is None or not asks_to_resume(asked):
        return None
    if asked.lower() not in {"auto", "true", "yes"}:
        problem = checkpoint_problem(Path(asked), world_size, is_stream)
        if problem is not None:
            raise ArgumentsError(f"--resume_from_checkpoint {asked}: {problem}")
        return _with_same_averaging(Path(asked), is_averaged)
    # If no checkpoint has the weights of its step, none was damaged: the run has another option now.
    has_step_weights = is_averaged and any(output_dir.glob(f"checkpoint-*/{STEP_WEIGHTS}"))
    newest_complete = find_resumable_checkpoint(output_dir, world_size, is_main_process, is_stream, has_step_weights)
    if newest_complete is None and asked.lower() != "auto":
        raise ArgumentsError(
            f"--resume_from_checkpoint {asked}: {output_dir} holds no complete checkpoint; auto starts fresh"
        )
    if newest_complete is None:
        logger.info("no complete checkpoint in %s: starting fresh", output_dir)
        return None
    logger.info("resuming from %s", newest_complete)
    return _with_same_averaging(newest_complete, is_averaged)


def asks_to_resume(asked: str | None) -> bool:
    """Says whether a value of `--resume_from_checkpoint` asks for a resume where there is something to go on from."""
    return asked is not None and asked.lower() not in {"false", "no"}


def _with_same_averaging(checkpoint: Path, is_averaged: bool) -> Path:
    """Refuses a checkpoint whose model file is an average and the run's is not, or the other way round."""
    if (checkpoint / STEP_WEIGHTS).exists() != is_averaged:
        was, add = ("with", "add it") if not is_averaged else ("without", "leave it out")
        raise ArgumentsError(f"{checkpoint} was saved {was} --weight_averaging: {add}, or use a new --output_dir")
    return checkpoint


def find_resumable_checkpoint(
    output_dir: Path,
    world_size: int,
    is_main_process: bool = True,
    is_stream: bool = False,
    has_step_weights: bool = False,
) -> Path | None:
    """Returns the newest complete `checkpoint-N`; renames newer incomplete checkpoints, with a warning for each."""
    for folder in sorted(output_dir.glob("checkpoint-*"), key=_step_of, reverse=True):
        problem = checkpoint_problem(folder, world_size, is_stream, has_step_weights)
        if problem is None:
            return folder
        logger.warning("%s cannot be resumed from (%s) and is set aside", folder, problem)
        if is_main_process:
            _set_aside(folder)
    return None


def _step_of(folder: Path) -> int:
    suffix = folder.name.removeprefix("checkpoint-")
    return int(suffix) if suffix.isdigit() else -1


def _set_aside(folder: Path) -> None:
    target = folder.with_name(REJECTED_PREFIX + folder.name)
    number = 1
    while target.exists():
        number += 1
        target = folder.with_name(f"{REJECTED_PREFIX}{folder.name}-{number}")
    folder.rename(target)


def checkpoint_problem(
    folder: Path, world_size: int, is_stream: bool = False, has_step_weights: bool = False
) -> str | None:
    """Says why an exact resume from this checkpoint is impossible; returns None for a complete checkpoint."""
    if not folder.is_dir():
        return "no such folder"
    if (folder / INCOMPLETE_SENTINEL).exists():
        return "its saving was interrupted"
    if is_stream:
        # A stream goes on with any number of processes; the random states are those of the ones that saved them.
        try:
            position = StreamPosition.read(folder)
        except (OSError, ValueError) as error:
            return f"the position in the stream cannot be read: {one_line(error)}"
        if not position.is_whole:
            return "the position in the stream is not known for every part"
        if _step_of(folder) not in (position.steps, -1):
            return f"the position in the stream is of step {position.steps}"
        world_size = position.ranks
    random_states = ["rng_state.pth"] if world_size <= 1 else [f"rng_state_{rank}.pth" for rank in range(world_size)]
    step_weights = [STEP_WEIGHTS] if has_step_weights or (folder / STEP_WEIGHTS).exists() else []
    for name in (WEIGHTS, *step_weights, "optimizer.pt", "scheduler.pt", *random_states, STATE):
        if not (folder / name).is_file() or (folder / name).stat().st_size == 0:
            return f"{name} is missing or empty"
    return (
        _state_problem(folder)
        or next(filter(None, (_weights_problem(folder / name) for name in (WEIGHTS, *step_weights))), None)
        or _archive_problem(folder, random_states)
    )


def _state_problem(folder: Path) -> str | None:
    try:
        step = json.loads((folder / STATE).read_text())["global_step"]
    except (ValueError, KeyError):
        return f"{STATE} is cut off"
    expected = _step_of(folder)
    return None if expected in (step, -1) else f"{STATE} is of step {step}"


def _weights_problem(path: Path) -> str | None:
    """Compares the size of the file with the size that its header declares, since safetensors has no checksum."""
    with path.open("rb") as file:
        size_field = file.read(8)
        try:
            header_size = struct.unpack("<Q", size_field)[0]
            if header_size > path.stat().st_size:
                return f"{path.name} is cut off"
            header = json.loads(file.read(header_size))
        except (struct.error, ValueError):
            return f"{path.name} has a damaged header"
    end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    return None if path.stat().st_size == 8 + header_size + end else f"{path.name} is cut off"


def _rank_of_adapters(path: Path) -> int:
    """Returns the rank of the adapters among the weights of a file; 0 if there are none."""
    with safe_open(path, framework="pt") as weights:
        name = next((name for name in weights.keys() if ".lora_A." in name), None)
        return 0 if name is None else weights.get_slice(name).get_shape()[0]


def _archive_problem(folder: Path, random_states: list[str]) -> str | None:
    """Looks for the zip directory, which `torch.save` writes at the end of a file: a cut-off file lacks it."""
    for name in ("optimizer.pt", "scheduler.pt", *random_states):
        with (folder / name).open("rb") as file:
            file.seek(0, 2)
            # The end record of a zip archive lies within its last 65,557 bytes.
            file.seek(max(file.tell() - 65_557, 0))
            if b"PK\x05\x06" not in file.read():
                return f"{name} is cut off"
    return None


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


def stopped_early(checkpoint: Path, patience: int) -> bool:
    """Says whether early stopping had already ended the training when it saved this checkpoint."""
    state = TrainerState.load_from_json(str(checkpoint / STATE))
    saved = state.stateful_callbacks.get("EarlyStoppingCallback")
    if patience == -1 or saved is None:
        return False
    return saved["attributes"]["early_stopping_patience_counter"] >= patience


def refuse_other_model(checkpoint: Path, config: PreTrainedConfig, lora_r: int = 0) -> None:
    """Checks that a checkpoint belongs to the same kind of model as the one that is about to be trained.

    The Trainer would load the weights that fit, and initialise the others at random.

    Args:
        checkpoint: the folder of a complete checkpoint.
        config: the configuration of the model that is about to be trained.
        lora_r: the rank of its adapters; 0 without them.

    Raises:
        ArgumentsError: if a field of `SHAPE_FIELDS` or the rank differs; the message gives each old and new value.
    """
    saved = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    current = json.loads(config.to_json_string(use_diff=False))
    changed = [name for name in SHAPE_FIELDS if saved.get(name) != current.get(name)]
    listed = "; ".join(f"{name} was {saved.get(name)}, is {current.get(name)}" for name in changed)
    if (saved_r := _rank_of_adapters(checkpoint / WEIGHTS)) != lora_r:
        listed = "; ".join(filter(None, (listed, f"lora_r was {saved_r}, is {lora_r}")))
    if listed:
        raise ArgumentsError(
            f"{checkpoint} is of another model: {listed}; resume with its options, or use a new --output_dir"
        )
