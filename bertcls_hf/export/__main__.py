"""Exports a trained classifier to ONNX: encoder, pooling and head in one graph, from token ids to logits.

    python -m bertcls_hf.export outputs/quickstart --output_dir outputs/quickstart_onnx --quantize int8 --evaluate

The new folder does not need the old one. The metadata of the graph hold the labels, the longest text, the temperature
and the thresholds. If the logits of the graph differ from PyTorch's by more than 1e-4, nothing is written.
"""

import argparse
import sys
from collections.abc import Collection, Sequence
from dataclasses import fields
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.config.command import run_command, set_up_logging
from bertcls_hf.config.parsing import (
    COMPANIONS,
    RECIPE_FILE,
    DataclassParser,
    OptionParser,
    read_recipe,
    unknown_option,
)
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.export.arguments import ExportArguments


PROGRAM = "python -m bertcls_hf.export"
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
# The files that an export writes, and those that earlier versions wrote beside the configuration. A folder that holds
# any other file is never replaced.
GRAPH_FOLDER = "onnx"
GRAPH_FILES = ("model.onnx*", "model_quantized.onnx*")
EXPORTED_FILES = (
    "model.onnx*", "model_int8.onnx*", "onnx_report.json", "calibration.json", "config.json", "tokenizer*.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model",
)  # fmt: skip
DATA_OPTIONS = tuple(f.name for f in fields(DataArguments))
SOURCES = frozenset({"dataset_name", "train_file", "validation_file", "test_file"})
# Options that tell how a run read its own sources; they do not apply to other sources.
OF_A_SOURCE = SOURCES.union(
    COMPANIONS["dataset_name"], ("streaming", "validation_split_percentage", "test_split_percentage")
)


def parse(argv: Sequence[str], program: str = PROGRAM) -> tuple[Path, ExportArguments, dict[str, Any]]:
    """Reads the model's folder, the export's options, and those data options that are given.

    `--help` prints the options and exits.

    Raises:
        ArgumentsError: if an option is wrong.
    """
    parser = DataclassParser(
        [ExportArguments, DataArguments],
        prog=program,
        usage="%(prog)s MODEL --output_dir DIR [--option value ...]",
        description="Exports a trained classifier to ONNX. Data options change what --evaluate reads; left out, they "
        "are those of the run's recipe.yaml.",
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help="output_dir of a run, or any folder like it")
    for action in parser._actions:
        if action.dest in DATA_OPTIONS:
            action.default = argparse.SUPPRESS
    given, unknown = parser.parse_known_args(argv)
    if unknown:
        known = {*DATA_OPTIONS, *(f.name for f in fields(ExportArguments))}
        raise ArgumentsError(unknown_option(unknown[0], known, "--"))
    options = vars(given)
    folder = options.pop("model")
    export_args = ExportArguments(**{f.name: options.pop(f.name) for f in fields(ExportArguments)})
    return folder, export_args, options


def main(argv: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Runs the command line and returns the exit code."""
    set_up_logging()
    return run_command(lambda words: _export(words, program), argv)


def _export(argv: Sequence[str], program: str) -> None:
    folder, args, given = parse(argv, program)
    check_before_loading(folder, args)
    data_args = data_arguments(folder, args.evaluate, given)
    # Imported here, because onnx, torch and datasets take seconds to import, and onnx may be missing.
    from bertcls_hf.export.onnx_export import export

    sys.stdout.write(export(folder, args, data_args) + "\n")


def check_before_loading(folder: Path, args: ExportArguments) -> None:
    """Makes the checks that need no heavy import.

    Raises:
        ArgumentsError: if a package is missing, if the folder holds no model, or if output_dir is in use.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ArgumentsError(
            f"exporting needs {' and '.join(missing)}: pip install -c constraints.txt -r requirements-deploy.txt"
        )
    if not (folder / "config.json").is_file():
        raise ArgumentsError(f"{folder} holds no trained model (no config.json): name the output_dir of a run")
    _refuse_used_folder(Path(args.output_dir), args.overwrite)


def _refuse_used_folder(target: Path, overwrite: bool) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise ArgumentsError(f"--output_dir {target} is a file: name a folder")
    graphs = target / GRAPH_FOLDER
    foreign = _foreign_names(target, EXPORTED_FILES, {GRAPH_FOLDER} if graphs.is_dir() else set())
    foreign += [f"{GRAPH_FOLDER}/{name}" for name in _foreign_names(graphs, GRAPH_FILES)] if graphs.is_dir() else []
    if foreign:
        raise ArgumentsError(f"--output_dir {target} holds {foreign[0]}, which is of no export: name another folder")
    if any(target.iterdir()) and not overwrite:
        raise ArgumentsError(
            f"--output_dir {target} holds an earlier export: name another folder, or pass --overwrite"
        )


def _foreign_names(folder: Path, known: Sequence[str], expected: Collection[str] = ()) -> list[str]:
    """Returns the names in a folder that neither match a known pattern nor are expected."""
    names = sorted({path.name for path in folder.iterdir()}.difference(expected))
    return [name for name in names if not any(fnmatch(name, pattern) for pattern in known)]


def data_arguments(folder: Path, evaluate: bool, given: dict[str, Any]) -> DataArguments:
    """Merges the data options of the run's recipe with the given ones, which take precedence.

    If a data source is given, it replaces all data sources of the run.

    Args:
        folder: holds the run's `recipe.yaml`, if it has one.
        evaluate: whether `--evaluate` is given.
        given: options from the command line, by field name.

    Raises:
        ArgumentsError: if data is given without `--evaluate`, if `--evaluate` has no data, or if the recipe or a value
            is wrong.
    """
    given_sources = sorted(SOURCES & given.keys())
    if given_sources and not evaluate:
        raise ArgumentsError(f"--{given_sources[0]} names data to evaluate on: add --evaluate")
    recipe = read_recipe(folder / RECIPE_FILE, OptionParser()) if (folder / RECIPE_FILE).exists() else {}
    usable = set(DATA_OPTIONS).difference(OF_A_SOURCE if given_sources else ())
    merged = {name: value for name, value in recipe.items() if name in usable} | given
    if evaluate and not SOURCES & merged.keys():
        raise ArgumentsError(f"--evaluate: {folder} has no {RECIPE_FILE} that names data: give --test_file")
    if merged.get("test_file"):
        # The other splits are not needed, and may not exist.
        merged |= {"train_file": None, "validation_file": None, "streaming": False}
    return DataArguments(**merged)


if __name__ == "__main__":
    sys.exit(main())
