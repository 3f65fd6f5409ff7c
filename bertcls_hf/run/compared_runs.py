"""The runs of a comparison: their names, the outputs that they left, and what keeps runs from being compared."""

import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bertcls_hf.data.labels import MOST_LISTED, REGRESSION, SINGLE_LABEL
from bertcls_hf.errors import ArgumentsError, DataError, one_line
from bertcls_hf.metrics.metrics import DEFAULT_METRIC
from bertcls_hf.training.results import PREFIXES
from bertcls_hf.training.saved_outputs import SUFFIX, SavedOutputs, read_outputs


@dataclass(frozen=True)
class ComparedRun:
    """A run with its outputs for the compared split.

    Args:
        name: tells it apart from the other runs.
        folder: output_dir.
        outputs: what it gave for each row.
    """

    name: str
    folder: Path
    outputs: SavedOutputs


def read_runs(folders: Sequence[Path], split: str | None) -> tuple[str, list[ComparedRun]]:
    """Reads the outputs of all runs, and refuses those that cannot be compared; their rows may differ in order.

    Args:
        folders: output_dir of each run, each one once.
        split: `test` or `validation`; None takes the test data where all runs have them, else the validation data.

    Returns:
        The name of the split, and the runs in the given order.

    Raises:
        ArgumentsError: a folder is absent, or has no outputs for the split.
        DataError: a file is damaged, outputs are not finite, or the runs differ in their task or labels.
    """
    split = _common_split(folders, split)
    runs = [
        ComparedRun(name, folder, _checked_outputs(folder, split))
        for name, folder in zip(distinct_names(folders), folders, strict=True)
    ]
    for run in runs[1:]:
        _refuse_other_labels(runs[0], run)
    return split, runs


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """Names each folder by the fewest last parts of its path that no other folder ends with."""
    paths = [Path(os.path.abspath(folder)).parts for folder in folders]
    return [_distinct_name(path, [other for other in paths if other != path]) for path in paths]


def _distinct_name(path: tuple[str, ...], others: Sequence[tuple[str, ...]]) -> str:
    lengths = range(1, len(path))
    length = next((n for n in lengths if all(other[-n:] != path[-n:] for other in others)), len(path))
    return str(Path(*path[-length:]))


def _outputs_path(folder: Path, split: str) -> Path:
    return folder / f"{PREFIXES[split]}{SUFFIX}"


def _common_split(folders: Sequence[Path], split: str | None) -> str:
    """Returns the asked split, or the one to compare if none is asked for; all runs have its outputs."""
    for folder in folders:
        if not folder.is_dir():
            raise ArgumentsError(f"{folder}: no such folder; name the output_dir of a run")
    lacking = {
        name: [folder for folder in folders if not _outputs_path(folder, name).is_file()]
        for name in ([split] if split else PREFIXES)  # the test data come first
    }
    common = next((name for name, without in lacking.items() if not without), None)
    if common is not None:
        return common
    # The split that most runs have is the one that was meant.
    meant = min(lacking, key=lambda name: len(lacking[name]))
    raise ArgumentsError(
        f"{lacking[meant][0]} has no {PREFIXES[meant]}{SUFFIX}: it was not evaluated on labelled {meant} data, or by "
        "an earlier version; run it again with --do_eval"
    )


def _checked_outputs(folder: Path, split: str) -> SavedOutputs:
    path = _outputs_path(folder, split)
    try:
        outputs = read_outputs(path)
        problem = next(_damages(outputs), None)
    except PermissionError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is damaged ({one_line(error)}): evaluate the run again with --do_eval") from error
    if problem is not None:
        raise DataError(f"{path} is damaged ({problem}): evaluate the run again with --do_eval")
    if not np.isfinite(outputs.logits).all():
        raise DataError(
            f"{folder}: its {split} outputs are not finite, because its training diverged: leave it out, or train it "
            "again with a lower --learning_rate"
        )
    return outputs


def _damages(outputs: SavedOutputs) -> Iterator[str]:
    """Yields what contradicts itself in a file that was read."""
    task, rows, labels = outputs.labels.problem_type, len(outputs.rows), len(outputs.labels.names)
    if task not in DEFAULT_METRIC:
        yield f"no task is called {task!r}"
    if rows == 0:
        yield "it has no rows"
    if outputs.rows.shape != (rows,) or outputs.rows.dtype != np.uint64:
        yield "its hashes of rows are none"
    for logits in (outputs.logits, outputs.baseline_logits):
        if logits is not None and logits.shape != (rows, labels):
            yield f"its outputs have the shape {logits.shape} for {rows:,} rows and {labels} label(s)"
    gold = outputs.gold if task == SINGLE_LABEL else outputs.gold.reshape(len(outputs.gold), -1)
    if gold.shape != ((rows,) if task == SINGLE_LABEL else (rows, labels)):
        yield f"its gold labels have the shape {outputs.gold.shape} for {rows:,} rows"
    elif task != REGRESSION and not np.isin(gold, np.arange(labels) if task == SINGLE_LABEL else (0, 1)).all():
        yield "a gold label is none of its labels"
    if outputs.baseline_logits is not None and not np.isfinite(outputs.baseline_logits).all():
        yield "the outputs of its lexical baseline are not finite"


def _refuse_other_labels(run: ComparedRun, other: ComparedRun) -> None:
    labels, others = run.outputs.labels, other.outputs.labels
    if labels.problem_type != others.problem_type:
        raise DataError(
            f"{run.folder} and {other.folder} are of different tasks, {_words(labels.problem_type)} and "
            f"{_words(others.problem_type)}: compare runs of one task"
        )
    if labels.names == others.names:
        return
    different = sorted(set(labels.names) ^ set(others.names))
    if not different:
        raise DataError(
            f"{run.folder} and {other.folder} have their labels in different orders: train them with the same "
            "--label_names"
        )
    listed = json.dumps(different[:MOST_LISTED], ensure_ascii=False)[1:-1]
    more = " …" if len(different) > MOST_LISTED else ""
    raise DataError(f"{run.folder} and {other.folder} have different labels: only one of them has {listed}{more}")


def _words(task: str) -> str:
    return task.replace("_", " ")
