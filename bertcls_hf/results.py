"""What a run leaves beside its model: metrics in the Trainer's own files, per-class reports, predictions."""

import csv
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from bertcls_hf.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL, LabelSet
from bertcls_hf.metrics import classification_report, predicted_labels, probabilities


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


def write_predictions(path: Path, dataset: Dataset, logits: np.ndarray, labels: LabelSet) -> None:
    """Writes one line per text, in the order of the input: text, gold label where known, label and probabilities.

    Args:
        path: ends in `.jsonl` or `.csv`.
        dataset: the split as loaded, with its texts.
        logits: (rows, labels).
        labels: names the outputs.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = _prediction_rows(dataset, probabilities(logits, labels.problem_type), labels)
    if path.suffix == ".jsonl":
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        writer: csv.DictWriter | None = None
        for row in map(_flat_row, rows):
            if writer is None:
                writer = csv.DictWriter(file, fieldnames=list(row))
                writer.writeheader()
            writer.writerow(row)


def _prediction_rows(dataset: Dataset, scores: np.ndarray, labels: LabelSet) -> Iterator[dict[str, Any]]:
    predicted = predicted_labels(scores, labels.problem_type)
    for row, score, label in zip(dataset, scores, predicted, strict=True):
        output = {name: row[name] for name in ("id", "text", "text_pair") if name in row}
        if "label" in row:
            output["gold"] = _readable(row["label"], labels)
        output["label"] = _readable(label, labels)
        if labels.problem_type != REGRESSION:
            output["probabilities"] = {
                name: round(float(value), 6) for name, value in zip(labels.names, score, strict=True)
            }
        yield output


def _readable(value: Any, labels: LabelSet) -> Any:
    if labels.problem_type == SINGLE_LABEL:
        return labels.names[int(value)]
    if labels.problem_type == MULTI_LABEL:
        return [name for name, on in zip(labels.names, value, strict=True) if on]
    return float(value)


def _flat_row(row: dict[str, Any]) -> dict[str, Any]:
    """One cell per probability; lists of labels are joined by |."""
    flat: dict[str, Any] = {name: "|".join(value) if isinstance(value, list) else value for name, value in row.items()}
    scores = flat.pop("probabilities", {})
    return flat | {f"probability_{name}": value for name, value in scores.items()}
