"""Which checkpoint a run may resume from.

The Trainer writes a checkpoint file by file and takes the newest by its name: a run killed while saving leaves one
that resumes silently wrong. So the reading side is strict.
"""

import json
import logging
import shutil
import struct
from pathlib import Path

from torch import nn
from transformers import PreTrainedConfig, TrainerState, TrainingArguments

from bertcls_hf.data.stream_order import position_path
from bertcls_hf.errors import ArgumentsError, StorageError


logger = logging.getLogger(__name__)

WEIGHTS, STATE = "model.safetensors", "trainer_state.json"
# Neither rotation (`checkpoint-*`) nor a push (which skips `_*`) looks at what this stands before.
REJECTED_PREFIX = "_incomplete-"
# What a classifier of ours cannot change between two steps.
SHAPE_FIELDS = ("id2label", "problem_type", "pooling", "pooling_layers", "pooling_layers_merge", "head", "loss")
INCOMPLETE_SENTINEL = "checkpoint-is-incomplete.txt"


def resolve_resume(
    asked: str | None, output_dir: Path, world_size: int, is_main_process: bool, is_stream: bool = False
) -> Path | None:
    """The checkpoint to go on from, or None to start fresh.

    Args:
        asked: `--resume_from_checkpoint`: auto, true, false, a path or None.
        output_dir: where checkpoints lie.
        world_size: number of processes, each of which saved its random state.
        is_main_process: only this one renames what it rejects.
        is_stream: whether each process also saved its position in a stream.

    Raises:
        ArgumentsError: a checkpoint was asked for and there is no complete one.
    """
    if asked is None or asked.lower() in {"false", "no"}:
        return None
    if asked.lower() not in {"auto", "true", "yes"}:
        problem = checkpoint_problem(Path(asked), world_size, is_stream)
        if problem is not None:
            raise ArgumentsError(f"--resume_from_checkpoint {asked}: {problem}")
        return Path(asked)
    found = find_resumable_checkpoint(output_dir, world_size, is_main_process, is_stream)
    if found is None and asked.lower() != "auto":
        raise ArgumentsError(
            f"--resume_from_checkpoint {asked}: {output_dir} holds no complete checkpoint; auto starts fresh"
        )
    logger.info("resuming from %s", found) if found else logger.info(
        "no complete checkpoint in %s: starting fresh", output_dir
    )
    return found


def find_resumable_checkpoint(
    output_dir: Path, world_size: int, is_main_process: bool = True, is_stream: bool = False
) -> Path | None:
    """The newest complete `checkpoint-N`; newer incomplete ones are renamed out of the way, with a warning."""
    for folder in sorted(output_dir.glob("checkpoint-*"), key=_step_of, reverse=True):
        problem = checkpoint_problem(folder, world_size, is_stream)
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


def checkpoint_problem(folder: Path, world_size: int, is_stream: bool = False) -> str | None:
    """Why a checkpoint cannot be resumed from exactly, or None."""
    if not folder.is_dir():
        return "no such folder"
    if (folder / INCOMPLETE_SENTINEL).exists():
        return "its saving was interrupted"
    random_states = ["rng_state.pth"] if world_size <= 1 else [f"rng_state_{rank}.pth" for rank in range(world_size)]
    positions = [position_path(folder, rank, world_size).name for rank in range(world_size)] if is_stream else []
    for name in (WEIGHTS, "optimizer.pt", "scheduler.pt", *random_states, *positions, STATE):
        if not (folder / name).is_file() or (folder / name).stat().st_size == 0:
            return f"{name} is missing or empty"
    return (
        _state_problem(folder)
        or _weights_problem(folder / WEIGHTS)
        or _archive_problem(folder, random_states)
        or next(filter(None, (_position_problem(folder / name) for name in positions)), None)
    )


def _state_problem(folder: Path) -> str | None:
    try:
        step = json.loads((folder / STATE).read_text())["global_step"]
    except (ValueError, KeyError):
        return f"{STATE} is cut off"
    expected = _step_of(folder)
    return None if expected in (step, -1) else f"{STATE} is of step {step}"


def _weights_problem(path: Path) -> str | None:
    """Compares the file's size with what its header promises; the format has no checksum."""
    with path.open("rb") as file:
        start = file.read(8)
        try:
            header_size = struct.unpack("<Q", start)[0]
            if header_size > path.stat().st_size:
                return f"{WEIGHTS} is cut off"
            header = json.loads(file.read(header_size))
        except (struct.error, ValueError):
            return f"{WEIGHTS} has a damaged header"
    end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    return None if path.stat().st_size == 8 + header_size + end else f"{WEIGHTS} is cut off"


def _position_problem(path: Path) -> str | None:
    try:
        json.loads(path.read_text())
    except ValueError:
        return f"{path.name} is cut off"
    return None


def _archive_problem(folder: Path, random_states: list[str]) -> str | None:
    """torch.save writes zip archives, whose directory comes last: a cut-off one has none."""
    for name in ("optimizer.pt", "scheduler.pt", *random_states):
        with (folder / name).open("rb") as file:
            file.seek(0, 2)
            file.seek(max(file.tell() - 65_557, 0))
            if b"PK\x05\x06" not in file.read():
                return f"{name} is cut off"
    return None


def require_checkpoint_space(args: TrainingArguments, model: nn.Module) -> None:
    """Refuses to start a training whose checkpoints the disk cannot hold.

    A checkpoint has the weights, and two moments of each that learns; one more is written before the oldest goes. A
    push at each save writes the weights once more.

    Raises:
        StorageError: with the numbers.
    """
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    moments = sum(2 * parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    kept = 0 if args.save_strategy == "no" else 1 if args.resume_from_checkpoint else (args.save_total_limit or 1) + 1
    pushed = weights if args.hub_strategy == "every_save" else 0
    needed, free = weights + pushed + kept * (weights + moments), shutil.disk_usage(args.output_dir).free
    if needed > free:
        raise StorageError(
            f"the model and {kept} checkpoints need {needed / 2**20:,.1f} MiB, and {args.output_dir} has "
            f"{free / 2**20:,.1f} MiB free: free some, or lower --save_total_limit"
        )


def stopped_early(checkpoint: Path, patience: int) -> bool:
    """Whether early stopping had already ended the training that saved this checkpoint."""
    state = TrainerState.load_from_json(str(checkpoint / STATE))
    saved = state.stateful_callbacks.get("EarlyStoppingCallback")
    if patience == -1 or saved is None:
        return False
    return saved["attributes"]["early_stopping_patience_counter"] >= patience


def refuse_other_model(checkpoint: Path, config: PreTrainedConfig) -> None:
    """Refuses to resume a training of another model; the Trainer would load what fits and start the rest anew.

    Args:
        checkpoint: a complete one.
        config: of the model that is about to be trained.

    Raises:
        ArgumentsError: names each difference, old and new.
    """
    saved = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    current = json.loads(config.to_json_string(use_diff=False))
    changed = [name for name in SHAPE_FIELDS if saved.get(name) != current.get(name)]
    if changed:
        listed = "; ".join(f"{name} was {saved.get(name)}, is {current.get(name)}" for name in changed)
        raise ArgumentsError(
            f"{checkpoint} is of another model: {listed}; resume with its options, or use a new --output_dir"
        )
