"""Lets the lexical features of a model answer where they are sure, and marks what a person should read.

    python -m bertcls_hf.cascade outputs/mine --max_difference 0.005
    python -m bertcls_hf.cascade outputs/mine --abstain_at_risk 0.01 --validation_file labelled.csv

It reads the validation data of the run, or other labelled data in their place, and writes `cascade.json` beside the
model. Exit codes: 0 done, 2 a wrong option or model, 65 bad data, 74 the disk is full.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bertcls_hf.cascade.arguments import CascadeArguments
from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.config.command import run_command, set_up_logging
from bertcls_hf.config.parsing import RECIPE_FILE
from bertcls_hf.config.run_data import SOURCES, check_model_folder, data_of_run, parse_with_data
from bertcls_hf.errors import ArgumentsError


PROGRAM = "python -m bertcls_hf.cascade"


def parse(argv: Sequence[str], program: str = PROGRAM) -> tuple[Path, CascadeArguments, dict[str, Any]]:
    """Reads the model's folder, the options, and those data options that are given; `--help` prints them and exits.

    Raises:
        ArgumentsError: if an option is wrong.
    """
    return parse_with_data(
        CascadeArguments,
        argv,
        program,
        "MODEL [--option value ...]",
        "Chooses which texts the lexical features of a trained model answer, and which a person should read. Data "
        "options change the validation data; left out, they are those of the run's recipe.yaml.",
    )


def main(argv: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Runs the command line and returns the exit code."""
    set_up_logging()
    return run_command(lambda words: _run(words, program), argv)


def _run(argv: Sequence[str], program: str) -> None:
    folder, args, given = parse(argv, program)
    check_model_folder(folder)
    data_args = data_arguments(folder, given)
    # Imported here, because torch and datasets take seconds to import.
    from bertcls_hf.cascade.fit import write_cascade

    sys.stdout.write(write_cascade(folder, args, data_args) + "\n")


def data_arguments(folder: Path, given: dict[str, Any]) -> DataArguments:
    """Merges the data options of the run's recipe with the given ones; see [`data_of_run`].

    Raises:
        ArgumentsError: if no data is named, or if the recipe or a value is wrong.
    """
    merged = data_of_run(folder, given)
    if not SOURCES & merged.keys():
        raise ArgumentsError(f"{folder} has no {RECIPE_FILE} that names data: give --validation_file")
    # The other splits are not needed, and may not exist.
    merged["test_file"] = None
    if merged.get("validation_file"):
        merged |= {"train_file": None, "streaming": False}
    return DataArguments(**merged)


if __name__ == "__main__":
    sys.exit(main())
