"""Metrics as `evaluate.Metric`s that need no network: their arithmetic is scikit-learn's."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from scipy.stats import rankdata
from sklearn import metrics as sk
from transformers import EvalPrediction

from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL, LabelSet
from bertcls_hf.metrics.probabilities import expected_calibration_error, predicted_labels, probabilities


DEFAULT_METRIC = {SINGLE_LABEL: "accuracy", MULTI_LABEL: "macro_f1", REGRESSION: "mse"}
LOWER_IS_BETTER = frozenset({"loss", "log_loss", "expected_calibration_error", "mse", "rmse", "mae", "hamming_loss"})
METRIC_NAMES = {
    SINGLE_LABEL: (
        "accuracy", "macro_f1", "weighted_f1", "macro_precision", "weighted_precision", "macro_recall",
        "weighted_recall", "mcc", "roc_auc", "log_loss", "expected_calibration_error",
    ),
    MULTI_LABEL: (
        "subset_accuracy", "hamming_loss", "micro_f1", "macro_f1", "weighted_f1", "samples_f1", "macro_precision",
        "macro_recall", "roc_auc", "log_loss",
    ),
    REGRESSION: ("mse", "rmse", "mae", "r2", "pearson", "spearman"),
}  # fmt: skip


class SingleLabelMetrics(evaluate.Metric):
    """`METRIC_NAMES[SINGLE_LABEL]` from probabilities and positions."""

    def _info(self) -> evaluate.MetricInfo:
        return _metric_info(datasets.Sequence(datasets.Value("float64")), datasets.Value("int64"))

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        scores, gold = np.asarray(predictions), np.asarray(references)
        predicted = scores.argmax(axis=-1)
        labels = np.arange(scores.shape[1])
        results = {"accuracy": sk.accuracy_score(gold, predicted), "mcc": sk.matthews_corrcoef(gold, predicted)}
        results |= _averages(gold, predicted, ("macro", "weighted"), labels)
        results["roc_auc"] = _single_label_roc_auc(scores, gold)
        results["log_loss"] = sk.log_loss(gold, scores, labels=labels)
        results["expected_calibration_error"] = expected_calibration_error(scores, gold)
        return {name: float(results[name]) for name in METRIC_NAMES[SINGLE_LABEL]}


def _averages(
    gold: np.ndarray, predicted: np.ndarray, averages: Sequence[str], labels: np.ndarray | None = None
) -> dict[str, float]:
    """Precision, recall and F1 in each of scikit-learn's averages; what is undefined counts as zero."""
    results: dict[str, float] = {}
    for average in averages:
        precision, recall, f1, _ = sk.precision_recall_fscore_support(
            gold, predicted, labels=labels, average=average, zero_division=0
        )
        results |= {f"{average}_precision": precision, f"{average}_recall": recall, f"{average}_f1": f1}
    return results


def _single_label_roc_auc(scores: np.ndarray, gold: np.ndarray) -> float:
    """One label against the rest, averaged over the labels that have both kinds of rows; NaN where none has."""
    columns = [1] if scores.shape[1] == 2 else range(scores.shape[1])
    areas = [sk.roc_auc_score(gold == c, scores[:, c]) for c in columns if 0 < (gold == c).sum() < len(gold)]
    return float(np.mean(areas)) if areas else float("nan")


class MultiLabelMetrics(evaluate.Metric):
    """`METRIC_NAMES[MULTI_LABEL]` from probabilities and rows of 0 and 1."""

    def _info(self) -> evaluate.MetricInfo:
        sequence = datasets.Sequence(datasets.Value("float64"))
        return _metric_info(sequence, datasets.Sequence(datasets.Value("int64")))

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        scores, gold = np.asarray(predictions), np.asarray(references)
        predicted = predicted_labels(scores, MULTI_LABEL)
        results = {
            "subset_accuracy": sk.accuracy_score(gold, predicted),
            "hamming_loss": sk.hamming_loss(gold, predicted),
        }
        results |= _averages(gold, predicted, ("micro", "macro", "weighted", "samples"))
        both = [c for c in range(gold.shape[1]) if 0 < gold[:, c].sum() < len(gold)]
        results["roc_auc"] = (
            np.mean([sk.roc_auc_score(gold[:, c], scores[:, c]) for c in both]) if both else float("nan")
        )
        clipped = np.clip(scores, 1e-15, 1 - 1e-15)
        results["log_loss"] = -(gold * np.log(clipped) + (1 - gold) * np.log(1 - clipped)).mean()
        return {name: float(results[name]) for name in METRIC_NAMES[MULTI_LABEL]}


class RegressionMetrics(evaluate.Metric):
    """`METRIC_NAMES[REGRESSION]` from numbers; a correlation with a constant is NaN."""

    def _info(self) -> evaluate.MetricInfo:
        return _metric_info(datasets.Value("float64"), datasets.Value("float64"))

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        predicted, gold = np.asarray(predictions), np.asarray(references)
        mse = sk.mean_squared_error(gold, predicted)
        results = {"mse": mse, "rmse": mse**0.5, "mae": sk.mean_absolute_error(gold, predicted)}
        results["r2"] = sk.r2_score(gold, predicted) if len(gold) > 1 else float("nan")
        results["pearson"] = _correlation(predicted, gold)
        results["spearman"] = _correlation(rankdata(predicted), rankdata(gold))
        return {name: float(value) for name, value in results.items()}


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if first.std() == 0 or second.std() == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def _metric_info(predictions: Any, references: Any) -> evaluate.MetricInfo:
    return evaluate.MetricInfo(
        description="Computed by scikit-learn, without a network.",
        citation="",
        features=datasets.Features({"predictions": predictions, "references": references}),
    )


_METRICS = {SINGLE_LABEL: SingleLabelMetrics, MULTI_LABEL: MultiLabelMetrics, REGRESSION: RegressionMetrics}


def greater_is_better(metric: str) -> bool:
    """Whether a higher value of the metric is better; `eval_` in front of the name does not matter."""
    return metric.removeprefix("eval_") not in LOWER_IS_BETTER


def build_compute_metrics(
    labels: LabelSet, extra_metrics: Sequence[str] | None = None
) -> Callable[[EvalPrediction], dict[str, float]]:
    """The Trainer's `compute_metrics` for a task.

    Args:
        labels: names the task.
        extra_metrics: more metrics for `evaluate.load`; they get predicted labels.

    Raises:
        FileNotFoundError: an extra metric is neither on the Hub nor a local path.
    """
    metric: Any = _METRICS[labels.problem_type]()
    extras: list[Any] = [evaluate.load(name) for name in extra_metrics or ()]

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        logits = prediction.predictions
        if not np.isfinite(logits).all():
            return {name: float("nan") for name in METRIC_NAMES[labels.problem_type]}
        scores = probabilities(logits, labels.problem_type)
        with warnings.catch_warnings():
            # A class without rows has an undefined recall; zero_division says what it counts as.
            warnings.filterwarnings("ignore", module="sklearn")
            results = metric.compute(predictions=scores, references=prediction.label_ids)
        predicted = predicted_labels(scores, labels.problem_type)
        for extra in extras:
            results |= extra.compute(predictions=predicted, references=prediction.label_ids)
        return results

    return compute_metrics


def classification_report(logits: np.ndarray, gold: np.ndarray, labels: LabelSet) -> dict[str, Any]:
    """Per-class precision, recall, F1 and rows; for single label the confusion matrix (row: gold, column: predicted).

    Args:
        logits: (rows, labels).
        gold: (rows,) positions, or (rows, labels) of 0 and 1.
        labels: a classification's labels.
    """
    predicted = predicted_labels(probabilities(logits, labels.problem_type), labels.problem_type)
    positions = list(range(len(labels.names)))
    per_class = sk.classification_report(
        gold, predicted, labels=positions, target_names=list(labels.names), output_dict=True, zero_division=0
    )
    report: dict[str, Any] = {"per_class": {name: per_class[name] for name in labels.names}}
    if labels.problem_type == SINGLE_LABEL:
        report["confusion_matrix"] = sk.confusion_matrix(gold, predicted, labels=positions).tolist()
        report["label_names"] = list(labels.names)
    return report
