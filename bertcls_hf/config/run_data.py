"""The data options of a command that reads the data of a finished run, or other data in its place."""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.config.parsing import (
    COMPANIONS,
    RECIPE_FILE,
    DataclassParser,
    OptionParser,
    read_recipe,
    unknown_option,
)
from bertcls_hf.errors import ArgumentsError


DATA_OPTIONS = tuple(f.name for f in fields(DataArguments))
SOURCES = frozenset({"dataset_name", "train_file", "validation_file", "test_file"})
# Options that tell how a run read its own sources; they do not apply to other sources.
OF_A_SOURCE = SOURCES.union(
    COMPANIONS["dataset_name"], ("streaming", "validation_split_percentage", "test_split_percentage")
)
Options = TypeVar("Options")


def parse_with_data(
    options_class: type[Options], argv: Sequence[str], program: str, usage: str, description: str
) -> tuple[Path, Options, dict[str, Any]]:
    """Reads a model's folder, a command's own options, and those data options that are given.

    `--help` prints the options and exits.

    Args:
        options_class: the dataclass of the command's options.
        argv: the words of the command line.
        program: the command's name.
        usage: the line of the help that follows the name.
        description: a sentence for the help.

    Raises:
        ArgumentsError: if an option is wrong.
    """
    parser = DataclassParser(
        [options_class, DataArguments], prog=program, usage=f"%(prog)s {usage}", description=description
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help="output_dir of a run, or any folder like it")
    for action in parser._actions:
        if action.dest in DATA_OPTIONS:
            action.default = argparse.SUPPRESS
    given, unknown = parser.parse_known_args(argv)
    own = [f.name for f in fields(options_class)]  # type: ignore[arg-type]
    if unknown:
        raise ArgumentsError(unknown_option(unknown[0], {*DATA_OPTIONS, *own}, "--"))
    options = vars(given)
    folder = options.pop("model")
    return folder, options_class(**{name: options.pop(name) for name in own}), options


def check_model_folder(folder: Path) -> None:
    """Refuses a folder without a model, before anything heavy is imported.

    Raises:
        ArgumentsError: if it holds none.
    """
    if not (folder / "config.json").is_file():
        raise ArgumentsError(f"{folder} holds no whole model (no config.json): name the output_dir of a run")


def data_of_run(folder: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Merges the data options of the run's recipe with the given ones, which take precedence.

    If a data source is given, it replaces all data sources of the run.

    Args:
        folder: holds the run's `recipe.yaml`, if it has one.
        given: options from the command line, by field name.

    Raises:
        ArgumentsError: if the recipe is wrong.
    """
    recipe = read_recipe(folder / RECIPE_FILE, OptionParser()) if (folder / RECIPE_FILE).exists() else {}
    usable = set(DATA_OPTIONS).difference(OF_A_SOURCE if SOURCES & given.keys() else ())
    return {name: value for name, value in recipe.items() if name in usable} | given
