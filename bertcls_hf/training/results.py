"""What a run leaves beside its model: metrics in the Trainer's own files, per-class reports, predictions."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from bertcls_hf.data.labels import REGRESSION, LabelSet
from bertcls_hf.metrics.calibration import Calibration
from bertcls_hf.metrics.metrics import classification_report
from bertcls_hf.predict.lines import format_rows, prediction_rows


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """What was found on a labelled split.

    Args:
        split: `validation` or `test`.
        metrics: by name, without the split's prefix.
        logits: (rows, labels), in the order of the split's rows.
        gold: (rows,) positions or numbers, or (rows, labels) of 0 and 1.
    """

    split: str
    metrics: dict[str, float]
    logits: np.ndarray
    gold: np.ndarray


def write_report(folder: Path, split: str, logits: np.ndarray, gold: np.ndarray, labels: LabelSet) -> None:
    """Writes and logs `<split>_report.json`: figures per class, and the confusion matrix of a single-label task."""
    if labels.problem_type == REGRESSION:
        return
    report = classification_report(logits, gold, labels)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{split}_report.json").write_text(
        json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    width = max(len(name) for name in labels.names)
    lines = [f"{split}: {'':{width}}  precision  recall      f1    rows"]
    for name, row in report["per_class"].items():
        figures = f"{row['precision']:9.4f}  {row['recall']:6.4f}  {row['f1-score']:6.4f}  {row['support']:6.0f}"
        lines.append(f"{split}: {name:{width}}  {figures}")
    logger.info("\n".join(lines))


def write_predictions(
    path: Path,
    dataset: Dataset,
    logits: np.ndarray,
    labels: LabelSet,
    calibration: Calibration = Calibration(),  # noqa: B008 - frozen
) -> None:
    """Writes one line per text, in the order of the input: text, gold label where known, label and probabilities.

    Args:
        path: ends in `.jsonl` or `.csv`.
        dataset: the split as loaded, with its texts.
        logits: (rows, labels).
        labels: names the outputs.
        calibration: stands between logits and labels.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scores = calibration.probabilities(logits, labels)
    rows = prediction_rows(_inputs(dataset, labels), scores, calibration.predicted(scores, labels), labels)
    with path.open("w", encoding="utf-8", newline="") as file:
        file.writelines(format_rows(rows, "csv" if path.suffix == ".csv" else "jsonl"))


def _inputs(dataset: Dataset, labels: LabelSet) -> Iterator[dict[str, Any]]:
    for row in dataset:
        known = {name: row[name] for name in ("id", "text", "text_pair") if name in row}
        yield known | {"gold": labels.readable(row["label"])} if "label" in row else known
