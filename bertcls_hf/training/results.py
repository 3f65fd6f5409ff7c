"""Writes the reports and the predictions of a run. The Trainer itself writes the metrics."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from bertcls_hf.atomic_files import read_json, write_atomically, write_json_atomically
from bertcls_hf.data.labels import REGRESSION, LabelSet
from bertcls_hf.metrics.calibration import Calibration
from bertcls_hf.metrics.metrics import classification_report
from bertcls_hf.predict.lines import format_rows, prediction_rows
from bertcls_hf.training.baseline_results import BaselineEvaluation, flat_results


logger = logging.getLogger(__name__)

# The start of the names of a split's files and results.
PREFIXES = {"test": "test", "validation": "eval"}
RESULTS_SUFFIX, ALL_RESULTS = "_results.json", "all_results.json"
RESULT_FILES = ("train", *PREFIXES.values())
# More labels than this are not listed in the log.
MOST_LOGGED = 50


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation on a labelled split.

    Args:
        split: `validation` or `test`.
        metrics: the value of each metric, by its name without the prefix `eval_` or `test_`.
        logits: (rows, labels) floats, in the order of the split's rows.
        gold: the gold labels: (rows,) label indices, (rows,) numbers for regression, or (rows, labels) of 0 and 1 for
            multi-label.
        baseline: the lexical baseline on the same rows; None where the run has none.
    """

    split: str
    metrics: dict[str, float]
    logits: np.ndarray
    gold: np.ndarray
    baseline: BaselineEvaluation | None = None

    @property
    def prefix(self) -> str:
        """The start of the names of this split's files and results: `test` or `eval`."""
        return PREFIXES[self.split]

    @property
    def results(self) -> dict[str, float]:
        """The metrics, the baseline's metrics and the number of rows, by their names in the files of results."""
        baseline = flat_results(self.baseline) if self.baseline else {}
        metrics = {f"{self.prefix}_{name}": value for name, value in {**self.metrics, **baseline}.items()}
        return {**metrics, f"{self.prefix}_samples": len(self.gold)}


def write_metrics(folder: Path, split: str, metrics: Mapping[str, Any]) -> None:
    """Writes `<split>_results.json`, and the results of all splits together to `all_results.json`.

    Args:
        folder: output_dir.
        split: `train`, `eval` or `test`. A training begins `all_results.json` anew.
        metrics: the results by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json_atomically(folder / f"{split}{RESULTS_SUFFIX}", dict(sorted(metrics.items())))
    found: dict[str, Any] = dict(metrics)
    for name in RESULT_FILES if split != "train" else ():
        found = {**_read_metrics(folder / f"{name}{RESULTS_SUFFIX}"), **found}
    write_json_atomically(folder / ALL_RESULTS, dict(sorted(found.items())))


def _read_metrics(path: Path) -> dict[str, Any]:
    """Reads a file of results; one that is missing or damaged holds none."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_report(folder: Path, split: str, logits: np.ndarray, gold: np.ndarray, labels: LabelSet) -> None:
    """Writes `<split>_report.json` with figures per class, and logs these figures.

    The file also holds the confusion matrix of a single-label task, or its most frequent errors if there are many
    labels. A regression has no report.
    """
    if labels.problem_type == REGRESSION:
        return
    report = classification_report(logits, gold, labels)
    write_json_atomically(folder / f"{split}_report.json", report)
    shown = report["per_class"]
    if len(shown) > MOST_LOGGED:
        shown = dict(sorted(shown.items(), key=lambda item: item[1]["f1-score"])[:MOST_LOGGED])
    width = max(len(name) for name in shown)
    lines = [f"{split}: {'':{width}}  precision  recall      f1    rows"]
    for name, row in shown.items():
        figures = f"{row['precision']:9.4f}  {row['recall']:6.4f}  {row['f1-score']:6.4f}  {row['support']:6.0f}"
        lines.append(f"{split}: {name:{width}}  {figures}")
    if len(shown) < len(labels.names):
        lines.append(f"{split}: the {MOST_LOGGED} labels with the lowest F1 of {len(labels.names):,}")
    logger.info("\n".join(lines))


def write_predictions(
    path: Path,
    dataset: Dataset,
    logits: np.ndarray,
    labels: LabelSet,
    calibration: Calibration = Calibration(),  # noqa: B008 - frozen
    is_safe: bool = False,
) -> None:
    """Writes one line per text, in the order of the input: text, gold label if known, label and probabilities.

    Args:
        path: the file to write; its suffix, `.jsonl` or `.csv`, sets the format.
        dataset: the split as loaded, with its texts.
        logits: (rows, labels) floats, in the order of `dataset`.
        labels: the labels of the task.
        calibration: the temperature and thresholds that turn logits into probabilities and labels.
        is_safe: whether a csv keeps a spreadsheet from taking texts for formulas.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    probabilities = calibration.probabilities(logits, labels)
    predicted = calibration.predicted(probabilities, labels)
    rows = prediction_rows(_inputs(dataset, labels), probabilities, predicted, labels)

    def fill(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            file.writelines(format_rows(rows, "csv" if path.suffix == ".csv" else "jsonl", is_safe=is_safe))

    write_atomically(path, fill)


def _inputs(dataset: Dataset, labels: LabelSet) -> Iterator[dict[str, Any]]:
    for row in dataset:
        known = {name: row[name] for name in ("id", "text", "text_pair") if name in row}
        yield known | {"gold": labels.readable(row["label"])} if "label" in row else known
