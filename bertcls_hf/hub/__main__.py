"""Pushes a finished run to the Hub, for a run that could not push its model.

python -m bertcls_hf.hub push outputs/mine

Exit codes: 0 done, 2 a wrong option, 77 the push failed.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from bertcls_hf.config.command import run_command
from bertcls_hf.config.parsing import RECIPE_FILE
from bertcls_hf.errors import ArgumentsError, one_line
from bertcls_hf.hub.push import push_folder, run_repository


PROGRAM = "python -m bertcls_hf.hub"


def main(argv: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Runs the command line and returns the exit code."""
    return run_command(lambda words: _push(words, program), argv)


def _push(argv: Sequence[str], program: str) -> None:
    parser = argparse.ArgumentParser(prog=program, description="Pushes a finished run to the Hub.")
    parser.add_argument("command", choices=["push"])
    parser.add_argument("folder", type=Path, help="output_dir of the run")
    parser.add_argument("--hub_model_id", help="default: the run's, or the folder's name")
    parser.add_argument("--hub_private_repo", choices=["true", "false"], help="default: the run's, or true")
    parser.add_argument("--hub_revision", help="branch; default: the run's, or main")
    args = parser.parse_args(argv)
    sys.stdout.write(push_folder(args.folder, run_repository(args.folder, _with_recipe(args))) + "\n")


def _with_recipe(args: argparse.Namespace) -> argparse.Namespace:
    """The `hub_` options; those that are not given come from the run's recipe."""
    recipe = _recipe(args.folder / RECIPE_FILE)
    is_private = {"true": True, "false": False, None: recipe.get("hub_private_repo")}[args.hub_private_repo]
    return argparse.Namespace(
        hub_model_id=args.hub_model_id or recipe.get("hub_model_id"),
        hub_private_repo=is_private,
        hub_revision=args.hub_revision or recipe.get("hub_revision"),
    )


def _recipe(path: Path) -> dict[str, Any]:
    """Reads the recipe of a run; a run from elsewhere has none."""
    if not path.is_file():
        return {}
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ArgumentsError(f"{path} cannot be read: {one_line(error)}") from error
    if not isinstance(recipe, dict):
        raise ArgumentsError(f"{path} is no recipe: delete it, or write it anew by a run")
    return recipe


if __name__ == "__main__":
    sys.exit(main())
