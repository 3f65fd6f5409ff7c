"""How to repeat a run, for its model card: command, recipe, machine, time and versions."""

import re
from pathlib import Path

from bertcls_hf.hub.card.environment import device_name, versions
from bertcls_hf.hub.card.finished_run import FinishedRun
from bertcls_hf.hub.card.public_text import escape_markdown, public_command, without_local_paths
from bertcls_hf.hub.card.sections.tables import table
from bertcls_hf.training.recipe import recipe_text, resolved_options


PROGRAM, LAUNCHER = "run_classification.py", "accelerate launch --num_processes"


def repeating_section(run: FinishedRun) -> dict[str, str]:
    """The command, the recipe with a code fence for it, and the table of the environment."""
    recipe = _recipe(run)
    # It is longer than any run of backticks in the recipe.
    fence = "`" * max([3, *(len(ticks) + 1 for ticks in re.findall("`+", recipe))])
    return {
        "command": _command(run),
        "recipe": recipe,
        "fence": fence,
        "environment_table": _environment_table(run),
    }


def _command(run: FinishedRun) -> str:
    command = public_command(_program(run.args.training.world_size), run.command)
    if not run.args.in_memory:
        return command
    given = ", ".join(f"{split}_data=…" for split in sorted(run.args.in_memory))
    return f"# Called as bertcls_hf.train(…, {given}), with rows in memory and these options:\n{command}"


def _program(processes: int) -> str:
    """The words before the options. A process does not know which launcher started it: accelerate's is named."""
    return f"python {PROGRAM}" if processes == 1 else f"{LAUNCHER} {processes} {PROGRAM}"


def _recipe(run: FinishedRun) -> str:
    options = resolved_options(run.args, dict(run.options), run.trainer.model.config, run.max_seq_length)
    return recipe_text(without_local_paths(options)).rstrip()


def _environment_table(run: FinishedRun) -> str:
    """The machine, the time of the training, and the versions of the packages."""
    rows = [["machine", escape_markdown(device_name(run.args.training))]]
    runtime = run.train_results.get("train_runtime")
    if runtime is not None:
        texts = _trained_texts(run)
        resumed = run.args.training.resume_from_checkpoint
        part = f", from {Path(resumed).name} on" if resumed else ""
        rows.append(["training", f"{_duration(runtime)}{part}; {texts / max(runtime, 1e-9):,.0f} texts per second"])
    rows.append(["versions", ", ".join(f"{name} {version}" for name, version in versions().items())])
    return table(["", ""], rows, left=2)


def _trained_texts(run: FinishedRun) -> float:
    """The texts that this start of the run trained on.

    The Trainer's own rate counts all planned steps, even where a training ended early.
    """
    args, state = run.args.training, run.state
    before = int(Path(args.resume_from_checkpoint).name.rpartition("-")[2]) if args.resume_from_checkpoint else 0
    steps = max(state.global_step - before, 0)
    train = run.data.splits["train"]
    if train.num_rows is None:
        return steps * args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    return (state.epoch or 0) * train.num_rows * steps / max(state.global_step, 1)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
