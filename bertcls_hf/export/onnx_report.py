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
from bertcls_hf.export.onnx_graph import Batch, Runner, largest_difference
from bertcls_hf.metrics.metrics import DEFAULT_METRIC, compute_metrics
from bertcls_hf.metrics.probabilities import predicted_labels, probabilities


LATENCY_ROWS = (1, 32)
LATENCY_TOKENS = 128
# The number of measurements of each latency. Their median is reported.
LATENCY_ROUNDS = 10
EVALUATION_ROWS = 32
PACKAGES = ("torch", "transformers", "onnx", "onnxruntime", "onnxscript")


@dataclass
class Variant:
    """One form of the model, such as the int8 graph, and its measurements.

    Args:
        name: the name in the table.
        run: computes logits.
        size: the size of its weights on disk in bytes.
        latency_ms: the median latency in milliseconds, by number of texts.
        metrics: the evaluation's metrics, `largest_difference` to the logits of PyTorch, and `same_prediction`, the
            share of rows with PyTorch's prediction.
    """

    name: str
    run: Runner
    size: int
    latency_ms: dict[int, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Returns the variant's entry in the report."""
        return {"bytes": self.size, "latency_ms": self.latency_ms, "metrics": self.metrics}


@dataclass(frozen=True)
class Evaluation:
    """The data that the metrics are measured on.

    Args:
        split: the name of the split.
        rows: the token ids and the labels.
        tokenizer: pads the rows.
        input_names: the columns that the graph reads.
        labels: the labels of the task.
    """

    split: str
    rows: Dataset
    tokenizer: PreTrainedTokenizerBase
    input_names: tuple[str, ...]
    labels: LabelSet


def measure_latency(variants: Sequence[Variant], batches: Mapping[int, Batch]) -> None:
    """Measures each variant and sets its `latency_ms`.

    The variants are measured in turn, so that other load on the machine affects all of them.

    Args:
        variants: the variants to measure.
        batches: the batches by their number of texts.
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
    """Sets `metrics` of each variant; its logits and predictions are compared with those of the first variant."""
    gold = np.asarray(evaluation.rows["labels"][:])
    problem_type = evaluation.labels.problem_type
    expected = evaluation_logits(variants[0].run, evaluation)
    reference = predicted_labels(probabilities(expected, problem_type), problem_type)
    for variant in variants:
        logits = expected if variant is variants[0] else evaluation_logits(variant.run, evaluation)
        variant.metrics = compute_metrics(logits, gold, problem_type)
        variant.metrics["largest_difference"] = largest_difference(expected, logits)
        if problem_type != REGRESSION:
            predicted = predicted_labels(probabilities(logits, problem_type), problem_type)
            is_same = (predicted == reference).reshape(len(gold), -1).all(axis=1)
            variant.metrics["same_prediction"] = float(is_same.mean())


def evaluation_logits(run: Runner, evaluation: Evaluation) -> np.ndarray:
    """Computes (rows, labels) float32 logits in the order of the rows; texts of similar length share a batch."""
    rows, names = evaluation.rows, evaluation.input_names
    logits = np.empty((len(rows), len(evaluation.labels.names)), dtype=np.float32)
    order = np.argsort(-np.asarray(rows["length"][:]), kind="stable")
    for start in range(0, len(order), EVALUATION_ROWS):
        batch_rows = order[start : start + EVALUATION_ROWS]
        columns = rows.select(batch_rows)[:]
        batch = pad_texts(columns, evaluation.tokenizer)
        logits[batch_rows] = run({name: batch[name].numpy() for name in names})
    return logits


def environment() -> dict[str, Any]:
    """Returns the versions of the packages, the kind of machine and its load average."""
    return {
        **{package: version(package) for package in PACKAGES},
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def table(variants: Sequence[Variant], problem_type: ProblemType) -> str:
    """Formats the measurements as a text table with aligned columns."""
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
