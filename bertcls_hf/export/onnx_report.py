"""The report of an export: size, latency and metrics of each graph beside those of PyTorch."""

import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from bertcls_hf.data.labels import REGRESSION, LabelSet, ProblemType
from bertcls_hf.data.tokenization import pad_texts
from bertcls_hf.export.onnx_graph import Batch, Runner
from bertcls_hf.metrics.metrics import DEFAULT_METRIC, compute_metrics
from bertcls_hf.metrics.probabilities import predicted_labels, probabilities


LATENCY_ROWS = (1, 32)
LATENCY_TOKENS = 128
# Measurements of each latency, of which the median counts.
LATENCY_ROUNDS = 10
EVALUATION_ROWS = 32
PACKAGES = ("torch", "transformers", "onnx", "onnxruntime", "onnxscript")


@dataclass
class Variant:
    """One form of the model, such as the int8 graph, and its measurements.

    Args:
        name: in the table.
        run: computes logits.
        size: bytes of its weights on disk.
        latency_ms: median milliseconds by number of texts.
        metrics: of the evaluation, and `same_prediction`, the share of rows with the prediction of PyTorch.
    """

    name: str
    run: Runner
    size: int
    latency_ms: dict[int, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The variant's entry in the report."""
        return {"bytes": self.size, "latency_ms": self.latency_ms, "metrics": self.metrics}


@dataclass(frozen=True)
class Evaluation:
    """The data that the metrics are measured on.

    Args:
        split: name of the split.
        rows: token ids and labels.
        tokenizer: pads the rows.
        input_names: columns that the graph reads.
        labels: names the task.
    """

    split: str
    rows: Dataset
    tokenizer: PreTrainedTokenizerBase
    input_names: tuple[str, ...]
    labels: LabelSet


def measure_latency(variants: Sequence[Variant], batches: Mapping[int, Batch]) -> None:
    """Sets `latency_ms` of each variant. The variants take turns, so that a slow minute of the machine hits them all.

    Args:
        variants: to measure.
        batches: by number of texts.
    """
    for rows, batch in batches.items():
        seconds: dict[str, list[float]] = {variant.name: [] for variant in variants}
        for variant in variants:
            variant.run(batch)
        for _ in range(LATENCY_ROUNDS):
            for variant in variants:
                begin = time.perf_counter()
                variant.run(batch)
                seconds[variant.name].append(time.perf_counter() - begin)
        for variant in variants:
            variant.latency_ms[rows] = 1000 * statistics.median(seconds[variant.name])


def measure_metrics(variants: Sequence[Variant], evaluation: Evaluation) -> None:
    """Sets `metrics` of each variant; its predictions are compared with those of the first variant."""
    gold = np.asarray(evaluation.rows["labels"][:])
    problem_type = evaluation.labels.problem_type
    first = None
    for variant in variants:
        logits = evaluation_logits(variant.run, evaluation)
        variant.metrics = compute_metrics(logits, gold, problem_type)
        predicted = predicted_labels(probabilities(logits, problem_type), problem_type)
        first = predicted if first is None else first
        if problem_type != REGRESSION:
            same = (predicted == first).reshape(len(gold), -1).all(axis=1)
            variant.metrics["same_prediction"] = float(same.mean())


def evaluation_logits(run: Runner, evaluation: Evaluation) -> np.ndarray:
    """(rows, labels) float32 in the order of the rows; texts of like length share a batch."""
    rows, names = evaluation.rows, evaluation.input_names
    logits = np.empty((len(rows), len(evaluation.labels.names)), dtype=np.float32)
    order = np.argsort(-np.asarray(rows["length"][:]), kind="stable")
    for start in range(0, len(order), EVALUATION_ROWS):
        chosen = order[start : start + EVALUATION_ROWS]
        columns = rows.select(chosen)[:]
        batch = pad_texts(columns, evaluation.tokenizer)
        logits[chosen] = run({name: batch[name].numpy() for name in names})
    return logits


def environment() -> dict[str, Any]:
    """Versions of the packages, the machine, and the load that other programs put on it."""
    return {
        **{package: version(package) for package in PACKAGES},
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def table(variants: Sequence[Variant], problem_type: ProblemType) -> str:
    """The measurements as a text table with aligned columns."""
    metric = DEFAULT_METRIC[problem_type]
    rows = [("", "MB", *(f"{rows} text{'s' * (rows > 1)}, ms" for rows in LATENCY_ROWS), metric.replace("_", " "))]
    for variant in variants:
        latencies = (_figure(variant.latency_ms.get(rows), 1) for rows in LATENCY_ROWS)
        rows.append((variant.name, f"{variant.size / 1e6:.1f}", *latencies, _figure(variant.metrics.get(metric), 4)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join((name.ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells, widths[1:], strict=True))))
        for name, *cells in rows
    )


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
