"""Compares runs that were evaluated on the same texts: metrics, paired differences, McNemar's test and costs.

    python -m bertcls_hf.run.compare outputs/frozen outputs/finetuned --output_dir outputs/comparison

Prints a Markdown table: a row per run, and one of the lexical baseline. Exit codes: 0 done, 2 a wrong option or
folder, 65 runs that cannot be compared or a damaged file, 74 the disk is full.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from transformers.hf_argparser import HfArg

from bertcls_hf.atomic_files import storage_error, write_text_atomically
from bertcls_hf.config.command import run_command, set_up_logging
from bertcls_hf.config.parsing import DataclassParser
from bertcls_hf.errors import ArgumentsError


if TYPE_CHECKING:
    from bertcls_hf.predict.input import Row
    from bertcls_hf.run.compared_runs import ComparedRun
    from bertcls_hf.run.comparison import Comparison


PROGRAM = "python -m bertcls_hf.run.compare"
MARKDOWN, FIGURES, PICTURE = "comparison.md", "comparison.json", "comparison.png"


@dataclass
class CompareArguments:
    """The options of `bertcls compare`."""

    _argument_group_name = "compare"

    split: Literal["test", "validation"] | None = HfArg(
        default=None, help="The data to compare on. Default: the test data where all runs have them, else validation."
    )
    against: str | None = HfArg(
        default=None, help="The run that the others are compared with, one of those named. Default: the first."
    )
    output_dir: str | None = HfArg(
        default=None, help=f"Also write {MARKDOWN}, {FIGURES} and {PICTURE} into this folder."
    )
    texts: str | None = HfArg(
        default=None, help="Also measure how many texts a second each run classifies, on the first 256 of this file."
    )


def parse(argv: Sequence[str], program: str = PROGRAM) -> tuple[list[Path], CompareArguments]:
    """Reads the folders of the runs and the options; `--help` prints the options and exits.

    Raises:
        ArgumentsError: if an option is wrong.
    """
    parser = DataclassParser(
        [CompareArguments],
        prog=program,
        usage="%(prog)s RUN RUN ... [--option value ...]",
        description="Compares runs that were evaluated on the same texts.",
    )
    parser.add_argument("runs", metavar="RUN", nargs="*", help="output_dir of a run")
    options, positional = parser.parse_command(argv, "runs come before the options")
    return [Path(name).expanduser() for name in positional.runs], options


def run(folders: Sequence[Path], options: CompareArguments) -> None:
    """Compares the runs, prints the table and writes the files.

    Args:
        folders: output_dir of each run.
        options: the options of the command.

    Raises:
        RunError: see [`read_runs`], [`aligned`], [`read_texts`] and [`texts_per_second`]; or a file cannot be written.
    """
    reference = check_arguments(folders, options)
    # Imported here, because datasets and torch take seconds to import and a mistyped option should fail at once.
    from bertcls_hf.run.compared_runs import read_runs
    from bertcls_hf.run.comparison import compare_runs
    from bertcls_hf.run.comparison_report import comparison_markdown
    from bertcls_hf.run.prediction_speed import read_texts
    from bertcls_hf.run.row_alignment import aligned

    texts = None if options.texts is None else read_texts(options.texts)
    split, runs = read_runs(folders, options.split)
    if len(runs) == 1 and runs[0].outputs.baseline_logits is None:
        raise ArgumentsError(f"{folders[0]} has no lexical baseline to be compared with: name a second run")
    runs = aligned(runs, split)
    comparison = compare_runs(runs, runs[reference], split)
    if texts is not None:
        comparison = _with_speeds(comparison, runs, texts)
    sys.stdout.write(comparison_markdown(comparison))
    if options.output_dir is not None:
        _write_files(Path(options.output_dir), comparison)


def check_arguments(folders: Sequence[Path], options: CompareArguments) -> int:
    """Makes the checks that need no heavy import, and returns the place of the reference among the runs.

    Raises:
        ArgumentsError: if there is no run, a run is named twice, the reference is not among the runs, or output_dir is
            a file.
    """
    if not folders:
        raise ArgumentsError("name two runs or more, or one that has a lexical baseline")
    places = {folder.resolve(): place for place, folder in reversed(list(enumerate(folders)))}
    for place, folder in enumerate(folders):
        first = places[folder.resolve()]
        if first != place:
            raise ArgumentsError(f"{folders[first]} and {folder} are the same folder: name each run once")
    if options.output_dir is not None and Path(options.output_dir).is_file():
        raise ArgumentsError(f"--output_dir {options.output_dir} is a file: name a folder")
    if options.against is None:
        return 0
    against = Path(options.against).expanduser().resolve()
    if against not in places:
        raise ArgumentsError(f"--against {options.against}: not among the runs {', '.join(map(str, folders))}")
    return places[against]


def _with_speeds(comparison: "Comparison", runs: Sequence["ComparedRun"], texts: "Sequence[Row]") -> "Comparison":
    """Measures the runs that have a model in their folder."""
    from bertcls_hf.run.comparison import with_speeds
    from bertcls_hf.run.prediction_speed import texts_per_second

    measured = [run for run in runs if (run.folder / "config.json").is_file()]
    return with_speeds(comparison, {run.name: texts_per_second(run.folder, texts) for run in measured}, len(texts))


def _write_files(folder: Path, comparison: "Comparison") -> None:
    from bertcls_hf.run.comparison_picture import draw_comparison
    from bertcls_hf.run.comparison_report import comparison_json, comparison_markdown

    try:
        folder.mkdir(parents=True, exist_ok=True)
        picture = draw_comparison(folder / PICTURE, comparison)
    except OSError as error:
        raise storage_error(folder, error) from error
    contents = {MARKDOWN: comparison_markdown(comparison, picture), FIGURES: comparison_json(comparison)}
    for name, content in contents.items():
        write_text_atomically(folder / name, content)


def main(argv: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Runs the command line and returns the exit code."""
    set_up_logging()
    return run_command(lambda words: run(*parse(words, program)), argv)


if __name__ == "__main__":
    sys.exit(main())
