"""Formats predictions as lines of jsonl or csv, for a training run and for the prediction command."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np

from bertcls_hf.data.labels import REGRESSION, LabelSet


PredictionFormat = Literal["jsonl", "csv"]
DIGITS = 6
# With one of these at its start, a spreadsheet takes a cell for a formula (OWASP, CSV injection).
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def prediction_rows(
    inputs: Iterable[Mapping[str, Any]],
    scores: np.ndarray,
    predicted: np.ndarray,
    labels: LabelSet,
    top_k: int | None = None,
    remarks: Callable[[int], Mapping[str, Any]] = lambda number: {},
) -> Iterator[dict[str, Any]]:
    """Yields one row per text: its input values, the predicted label, remarks and the probabilities.

    Args:
        inputs: the values that come before the label in each row.
        scores: (rows, labels) probabilities, or (rows,) numbers for regression.
        predicted: see [`predicted_labels`].
        labels: the labels, which name the columns of `scores`.
        top_k: the number of probabilities to keep, the highest first; by default all, in the order of the labels.
        remarks: returns what else there is to say of the row with this number.
    """
    for number, (values, score, label) in enumerate(zip(inputs, scores, predicted, strict=True)):
        row = {**values, "label": labels.readable(label), **remarks(number)}
        if labels.problem_type != REGRESSION:
            order = range(len(labels.names)) if top_k is None else np.argsort(-score, kind="stable")[:top_k]
            row["probabilities"] = {labels.names[column]: round(float(score[column]), DIGITS) for column in order}
        yield row


def format_rows(
    rows: Iterable[dict[str, Any]],
    prediction_format: PredictionFormat,
    header: bool = True,
    ranked: bool = False,
    is_safe: bool = False,
) -> Iterator[str]:
    """Formats rows as lines, which include their line ends.

    Args:
        rows: see [`prediction_rows`].
        prediction_format: jsonl, or csv with one cell per probability and with lists of labels joined by |.
        header: whether a csv starts with its column names.
        ranked: whether the rows have probabilities of different labels, so that csv cells hold the labels' names too.
        is_safe: whether texts in a csv that a spreadsheet would take for a formula get an apostrophe before them.
    """
    if prediction_format == "jsonl":
        yield from (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        return
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    for row in rows:
        flat = _flat_row(row, ranked)
        if is_safe:
            flat = {_defused(name): _defused(value) for name, value in flat.items()}
        if header:
            writer.writerow(flat)
            header = False
        writer.writerow(flat.values())
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def _defused(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value


def _flat_row(row: dict[str, Any], ranked: bool) -> dict[str, Any]:
    flat: dict[str, Any] = {name: "|".join(value) if isinstance(value, list) else value for name, value in row.items()}
    scores = flat.pop("probabilities", {})
    if not ranked:
        return flat | {f"probability_{name}": value for name, value in scores.items()}
    for rank, (name, value) in enumerate(scores.items(), start=1):
        flat |= {f"label_{rank}": name, f"probability_{rank}": value}
    return flat
