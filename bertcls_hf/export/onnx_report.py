"""What an export costs and what it gains: size, latency, and metrics beside those of PyTorch."""

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
from transformers import EvalPrediction, PreTrainedTokenizerBase

from bertcls_hf.data.labels import REGRESSION, LabelSet, ProblemType
from bertcls_hf.data.tokenization import pad_texts
from bertcls_hf.export.onnx_graph import Batch, Runner
from bertcls_hf.metrics.metrics import DEFAULT_METRIC, build_compute_metrics
from bertcls_hf.metrics.probabilities import predicted_labels, probabilities


LATENCY_ROWS = (1, 32)
LATENCY_TOKENS = 128
EVALUATION_ROWS = 32
PACKAGES = ("torch", "transformers", "onnx", "onnxruntime", "onnxscript")


@dataclass
class Variant:
    """One form of the model, and what is measured of it.

    Args:
        name: as the table calls it.
        run: gives logits.
        size: bytes of its weights on disk.
        latency_ms: median milliseconds by number of texts.
        metrics: of the evaluation; with `same_prediction`, the share of rows that are classified as by PyTorch.
    """

    name: str
    run: Runner
    size: int
    latency_ms: dict[int, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """What the report holds of it."""
        return {"bytes": self.size, "latency_ms": self.latency_ms, "metrics": self.metrics}


@dataclass(frozen=True)
class Evaluation:
    """What the metrics are measured on.

    Args:
        split: its name.
        rows: token ids and labels.
        tokenizer: pads them.
        input_names: columns that the graph reads.
        labels: names the task.
    """

    split: str
    rows: Dataset
    tokenizer: PreTrainedTokenizerBase
    input_names: tuple[str, ...]
    labels: LabelSet


def measure_latency(variants: Sequence[Variant], batches: Mapping[int, Batch], rounds: int) -> None:
    """Fills in `latency_ms`. The variants take turns, so that a machine's slow minutes fall on all of them.

    Args:
        variants: to measure.
        batches: by number of texts.
        rounds: number of measurements of each.
    """
    for rows, batch in batches.items():
        seconds: dict[str, list[float]] = {variant.name: [] for variant in variants}
        for variant in variants:
            variant.run(batch)
        for _ in range(rounds):
            for variant in variants:
                begin = time.perf_counter()
                variant.run(batch)
                seconds[variant.name].append(time.perf_counter() - begin)
        for variant in variants:
            variant.latency_ms[rows] = 1000 * statistics.median(seconds[variant.name])


def measure_metrics(variants: Sequence[Variant], evaluation: Evaluation) -> None:
    """Fills in `metrics`; the first variant is what the predictions of the others are compared with."""
    gold = np.asarray(evaluation.rows["labels"][:])
    problem_type = evaluation.labels.problem_type
    compute_metrics = build_compute_metrics(evaluation.labels)
    first = None
    for variant in variants:
        logits = evaluation_logits(variant.run, evaluation)
        variant.metrics = compute_metrics(EvalPrediction(predictions=logits, label_ids=gold))
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
    """Versions and machine, with the load that other work puts on it."""
    return {
        **{package: version(package) for package in PACKAGES},
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def table(variants: Sequence[Variant], problem_type: ProblemType) -> str:
    """The measurements as aligned columns."""
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
