"""Exports a trained classifier to ONNX: encoder, pooling and head in one graph, from token ids to logits.

    python -m bertcls_hf.export outputs/quickstart --output_dir outputs/quickstart_onnx --quantize int8 --evaluate

The new folder does not need the old one. The metadata of the graph hold the labels, the longest text, the temperature
and the thresholds. If the logits of the graph differ from PyTorch's by more than 1e-4, nothing is written.
"""

import sys
from collections.abc import Collection, Sequence
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.config.command import run_command, set_up_logging
from bertcls_hf.config.parsing import RECIPE_FILE
from bertcls_hf.config.run_data import SOURCES, check_model_folder, data_of_run, parse_with_data
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.export.arguments import ExportArguments


PROGRAM = "python -m bertcls_hf.export"
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
# The files that an export writes, and those that earlier versions wrote beside the configuration. A folder that holds
# any other file is never replaced.
GRAPH_FOLDER = "onnx"
GRAPH_FILES = ("model.onnx*", "model_quantized.onnx*", "lexical.onnx")
EXPORTED_FILES = (
    "model.onnx*", "model_int8.onnx*", "onnx_report.json", "calibration.json", "cascade.json", "config.json",
    "tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model",
)  # fmt: skip


def parse(argv: Sequence[str], program: str = PROGRAM) -> tuple[Path, ExportArguments, dict[str, Any]]:
    """Reads the model's folder, the export's options, and those data options that are given.

    `--help` prints the options and exits.

    Raises:
        ArgumentsError: if an option is wrong.
    """
    return parse_with_data(
        ExportArguments,
        argv,
        program,
        "MODEL --output_dir DIR [--option value ...]",
        "Exports a trained classifier to ONNX. Data options change what --evaluate reads; left out, they are those of "
        "the run's recipe.yaml.",
    )


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
    check_model_folder(folder)
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
    merged = data_of_run(folder, given)
    if evaluate and not SOURCES & merged.keys():
        raise ArgumentsError(f"--evaluate: {folder} has no {RECIPE_FILE} that names data: give --test_file")
    if merged.get("test_file"):
        # The other splits are not needed, and may not exist.
        merged |= {"train_file": None, "validation_file": None, "streaming": False}
    return DataArguments(**merged)


if __name__ == "__main__":
    sys.exit(main())
