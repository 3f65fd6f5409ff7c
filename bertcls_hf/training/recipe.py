"""Starts the log of a run, and writes the recipe: a YAML file of options that repeats the run."""

import logging
import sys
from collections.abc import Mapping
from dataclasses import asdict, fields
from enum import Enum
from pathlib import Path
from typing import Any

import datasets
import transformers
import yaml

from bertcls_hf.atomic_files import write_text_atomically
from bertcls_hf.config.arguments import (
    ARGUMENT_CLASSES,
    Arguments,
    ClassifierTrainingArguments,
    own_fields,
)
from bertcls_hf.config.parsing import COMMAND_LINE_ONLY, RECIPE_FILE
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.models.modeling import TextClassifierConfig


logger = logging.getLogger(__name__)

# These options concern one start of a run, such as a resume; a repeated run must not have them.
LEFT_OUT_OF_RECIPE = frozenset({*COMMAND_LINE_ONLY, "resume_from_checkpoint"})


def start_run(args: Arguments) -> None:
    """Sets up logging, and checks the number of GPUs.

    Raises:
        ArgumentsError: if one process without `--boost` sees several GPUs.
    """
    _set_up_logging(args.training)
    if args.training.n_gpu > 1 and not args.boost.boost:
        raise ArgumentsError(
            f"one process sees {args.training.n_gpu} GPUs: start with `accelerate launch run_classification.py …`, or "
            "set CUDA_VISIBLE_DEVICES=0"
        )


def _set_up_logging(args: ClassifierTrainingArguments) -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    is_main = args.process_index == 0
    logging.getLogger("bertcls_hf").setLevel(logging.INFO if is_main else logging.ERROR)
    logging.getLogger().setLevel(logging.WARNING if is_main else logging.ERROR)
    if not is_main:
        datasets.disable_progress_bars()
        transformers.utils.logging.disable_progress_bar()


def resolved_options(
    args: Arguments, options: Mapping[str, Any], config: TextClassifierConfig, max_seq_length: int
) -> dict[str, Any]:
    """Returns the options that repeat the run.

    These are this project's own options with their resolved values, and the transformers options that the user gave.
    """
    groups = (args.model, args.data, args.adapt, args.few_shot, args.boost, args.training)
    own = {f.name: getattr(group, f.name) for group in groups for f in own_fields(type(group))}
    given = {name: getattr(group, name) for group in groups for name in options if name in _field_names(group)}
    chosen = {
        "pooling": config.pooling,
        "pooling_layers": config.pooling_layers,
        "pooling_layers_merge": config.pooling_layers_merge,
        "head": config.head,
        "max_seq_length": max_seq_length,
        "metric_for_best_model": args.training.asked_best_metric,
        # The precision can come from accelerate's configuration, which a repeated run may not have.
        **{name: True for name in ("bf16", "fp16") if getattr(args.training, name)},
    }
    resolved = {name: _plain(value) for name, value in {**own, **given, **chosen}.items()}
    # `batch_size` and the Trainer's option for it exclude each other; the Trainer's own is kept.
    resolved.pop("batch_size", None)
    return {k: v for k, v in resolved.items() if v is not None and k not in LEFT_OUT_OF_RECIPE}


def _field_names(group: Any) -> set[str]:
    return {f.name for f in fields(group) if f.init}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list):
        return [_plain(item) for item in value] if value else "none"
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value


def write_recipe(folder: Path, recipe: Mapping[str, Any]) -> None:
    """Writes `recipe.yaml` into output_dir.

    Args:
        folder: output_dir.
        recipe: the options of [`resolved_options`].
    """
    write_text_atomically(folder / RECIPE_FILE, recipe_text(recipe))


def recipe_text(recipe: Mapping[str, Any]) -> str:
    """Formats a recipe as YAML, with a comment above each group of options."""
    groups = [(c._argument_group_name, [f.name for f in own_fields(c)]) for c in ARGUMENT_CLASSES]
    lines = [f"# Repeats this run: python run_classification.py {RECIPE_FILE}"]
    ungrouped = dict(recipe)
    for title, names in groups:
        part = {name: ungrouped.pop(name) for name in names if name in ungrouped}
        lines += ["", f"# {title}", _dump(part)]
    if ungrouped:
        lines += ["", "# other options of transformers.TrainingArguments", _dump(ungrouped)]
    return "\n".join(lines).rstrip() + "\n"


def _dump(options: dict[str, Any]) -> str:
    return yaml.safe_dump(options, sort_keys=False, allow_unicode=True).rstrip()
