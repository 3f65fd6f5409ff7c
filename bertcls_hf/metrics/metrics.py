"""The metrics of each task, one row per metric, and their values for a model's outputs."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse, stats
from sklearn import metrics as sk
from transformers import EvalPrediction

from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL, LabelSet
from bertcls_hf.metrics.probabilities import expected_calibration_error, predicted_labels, probabilities


SMALLEST_PROBABILITY = 1e-15


class LabelScores(NamedTuple):
    """Precision, recall and F1, averaged over the labels."""

    precision: float
    recall: float
    f1: float


# A report of more labels lists the most frequent errors instead of a matrix, which grows with the square of them.
MOST_LABELS_OF_A_MATRIX = 100
MOST_ERRORS_LISTED = 1000


@dataclass(frozen=True)
class EvaluatedRows:
    """A model's outputs beside the gold labels, with what several metrics share, computed once.

    Args:
        outputs: (rows, labels) float64 probabilities, or (rows,) float64 numbers for regression.
        predicted: (rows,) int64 positions, (rows, labels) int64 of 0 and 1, or the numbers of a regression.
        gold: (rows,) int64 positions, (rows, labels) int64 of 0 and 1, or (rows,) float64 numbers.
    """

    outputs: np.ndarray
    predicted: np.ndarray
    gold: np.ndarray
    _label_scores: dict[str, LabelScores] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of_logits(cls, logits: np.ndarray, gold: np.ndarray, problem_type: str) -> "EvaluatedRows":
        """The rows of an evaluation.

        Args:
            logits: (rows, labels) float.
            gold: (rows,) positions or numbers, or (rows, labels) of 0 and 1.
            problem_type: names the task.
        """
        outputs = probabilities(logits, problem_type)
        gold = np.asarray(gold, dtype=np.float64 if problem_type == REGRESSION else np.int64)
        return cls(outputs, predicted_labels(outputs, problem_type), gold)

    @cached_property
    def is_gold(self) -> np.ndarray:
        """(rows, labels) bool: the gold labels of a classification."""
        if self.gold.ndim == 2:
            return self.gold > 0
        return self.gold[:, None] == np.arange(self.outputs.shape[1])

    def label_scores(self, average: str) -> LabelScores:
        """Precision, recall and F1 in one of scikit-learn's averages; a score that is undefined counts as 0."""
        if average not in self._label_scores:
            # A single-label task also averages over labels that no row has.
            labels = None if self.gold.ndim == 2 else np.arange(self.outputs.shape[1])
            *scores, _ = sk.precision_recall_fscore_support(
                self.gold, self.predicted, labels=labels, average=average, zero_division=0
            )
            self._label_scores[average] = LabelScores(*scores)
        return self._label_scores[average]


def accuracy(rows: EvaluatedRows) -> float:
    """The share of rows whose labels are all right."""
    return sk.accuracy_score(rows.gold, rows.predicted)


def hamming_loss(rows: EvaluatedRows) -> float:
    """The share of yes-or-no decisions that are wrong."""
    return sk.hamming_loss(rows.gold, rows.predicted)


def precision(rows: EvaluatedRows, average: str) -> float:
    """Precision in one of scikit-learn's averages."""
    return rows.label_scores(average).precision


def recall(rows: EvaluatedRows, average: str) -> float:
    """Recall in one of scikit-learn's averages."""
    return rows.label_scores(average).recall


def f1(rows: EvaluatedRows, average: str) -> float:
    """F1 in one of scikit-learn's averages."""
    return rows.label_scores(average).f1


def matthews_correlation(rows: EvaluatedRows) -> float:
    """Matthews' correlation of predicted and gold positions (Gorodkin 2004); 0 where it is undefined.

    It is computed from counts per label, because scikit-learn builds the whole confusion matrix, whose size grows with
    the square of the number of labels.
    """
    labels = rows.outputs.shape[1]
    gold, predicted = np.bincount(rows.gold, minlength=labels), np.bincount(rows.predicted, minlength=labels)
    total, right = float(len(rows.gold)), float((rows.gold == rows.predicted).sum())
    spread = (total**2 - np.square(predicted, dtype=float).sum()) * (total**2 - np.square(gold, dtype=float).sum())
    return float((right * total - gold @ predicted) / np.sqrt(spread)) if spread > 0 else 0.0


def roc_auc(rows: EvaluatedRows) -> float:
    """The mean area under each label's ROC curve, over the labels with both kinds of rows; NaN where none has both.

    Two labels that exclude each other have one curve, that of the second.
    """
    is_single_label = rows.gold.ndim == 1
    columns = [1] if is_single_label and rows.outputs.shape[1] == 2 else range(rows.outputs.shape[1])
    areas = [
        sk.roc_auc_score(rows.is_gold[:, column], rows.outputs[:, column])
        for column in columns
        if 0 < rows.is_gold[:, column].sum() < len(rows.gold)
    ]
    return float(np.mean(areas)) if areas else float("nan")


def log_loss(rows: EvaluatedRows) -> float:
    """The mean negative logarithm of the gold label's probability."""
    return sk.log_loss(rows.gold, rows.outputs, labels=np.arange(rows.outputs.shape[1]))


def decision_log_loss(rows: EvaluatedRows) -> float:
    """The mean negative logarithm of the probability of the right yes or no, over all rows and labels."""
    clipped = np.clip(rows.outputs, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return sk.log_loss(rows.gold.ravel(), clipped.ravel(), labels=[0, 1])


def calibration_error(rows: EvaluatedRows) -> float:
    """The expected calibration error."""
    return expected_calibration_error(rows.outputs, rows.gold)


def mean_squared_error(rows: EvaluatedRows) -> float:
    """The mean of the squared errors."""
    return sk.mean_squared_error(rows.gold, rows.predicted)


def root_mean_squared_error(rows: EvaluatedRows) -> float:
    """The root of the mean of the squared errors."""
    return sk.root_mean_squared_error(rows.gold, rows.predicted)


def mean_absolute_error(rows: EvaluatedRows) -> float:
    """The mean size of the errors."""
    return sk.mean_absolute_error(rows.gold, rows.predicted)


def r_squared(rows: EvaluatedRows) -> float:
    """The share of the gold numbers' variance that the predictions explain; NaN for a single row."""
    return sk.r2_score(rows.gold, rows.predicted) if len(rows.gold) > 1 else float("nan")


def pearson(rows: EvaluatedRows) -> float:
    """Pearson's correlation; NaN with a constant, and for a single row."""
    return _correlation(stats.pearsonr, rows)


def spearman(rows: EvaluatedRows) -> float:
    """Spearman's correlation; NaN with a constant, and for a single row."""
    return _correlation(stats.spearmanr, rows)


def _correlation(correlate: Callable[..., Any], rows: EvaluatedRows) -> float:
    if len(rows.gold) < 2:
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        return correlate(rows.predicted, rows.gold).statistic


@dataclass(frozen=True)
class Metric:
    """A metric of a task.

    Args:
        name: in the files of results.
        function: computes it.
        words: what model cards and pictures call it.
        hub_name: what the Hub's model index calls it.
        greater_is_better: whether a higher value is better.
    """

    name: str
    function: Callable[[EvaluatedRows], float]
    words: str
    hub_name: str
    greater_is_better: bool = True


METRICS: dict[str, tuple[Metric, ...]] = {
    SINGLE_LABEL: (
        Metric("accuracy", accuracy, "accuracy", "accuracy"),
        Metric("macro_f1", partial(f1, average="macro"), "macro F1", "f1"),
        Metric("weighted_f1", partial(f1, average="weighted"), "weighted F1", "f1"),
        Metric("macro_precision", partial(precision, average="macro"), "macro precision", "precision"),
        Metric("weighted_precision", partial(precision, average="weighted"), "weighted precision", "precision"),
        Metric("macro_recall", partial(recall, average="macro"), "macro recall", "recall"),
        Metric("weighted_recall", partial(recall, average="weighted"), "weighted recall", "recall"),
        Metric("mcc", matthews_correlation, "MCC", "matthews_correlation"),
        Metric("roc_auc", roc_auc, "ROC AUC", "roc_auc"),
        Metric("log_loss", log_loss, "log loss", "log_loss", greater_is_better=False),
        Metric(
            "expected_calibration_error", calibration_error, "expected calibration error",
            "expected_calibration_error", greater_is_better=False,
        ),
    ),
    MULTI_LABEL: (
        Metric("subset_accuracy", accuracy, "subset accuracy", "accuracy"),
        Metric("hamming_loss", hamming_loss, "hamming loss", "hamming_loss", greater_is_better=False),
        Metric("micro_f1", partial(f1, average="micro"), "micro F1", "f1"),
        Metric("macro_f1", partial(f1, average="macro"), "macro F1", "f1"),
        Metric("weighted_f1", partial(f1, average="weighted"), "weighted F1", "f1"),
        Metric("samples_f1", partial(f1, average="samples"), "samples F1", "f1"),
        Metric("macro_precision", partial(precision, average="macro"), "macro precision", "precision"),
        Metric("macro_recall", partial(recall, average="macro"), "macro recall", "recall"),
        Metric("roc_auc", roc_auc, "ROC AUC", "roc_auc"),
        Metric("log_loss", decision_log_loss, "log loss", "log_loss", greater_is_better=False),
    ),
    REGRESSION: (
        Metric("mse", mean_squared_error, "MSE", "mse", greater_is_better=False),
        Metric("rmse", root_mean_squared_error, "RMSE", "rmse", greater_is_better=False),
        Metric("mae", mean_absolute_error, "MAE", "mae", greater_is_better=False),
        Metric("r2", r_squared, "R²", "r_squared"),
        Metric("pearson", pearson, "Pearson's r", "pearsonr"),
        Metric("spearman", spearman, "Spearman's rho", "spearmanr"),
    ),
}  # fmt: skip
DEFAULT_METRIC = {SINGLE_LABEL: "accuracy", MULTI_LABEL: "macro_f1", REGRESSION: "mse"}
# The metrics that a short report names.
HEADLINES = {
    SINGLE_LABEL: ("accuracy", "macro_f1"),
    MULTI_LABEL: ("micro_f1", "macro_f1"),
    REGRESSION: ("rmse", "pearson"),
}
METRIC_NAMES = {task: tuple(metric.name for metric in metrics) for task, metrics in METRICS.items()}
_BY_NAME = {metric.name: metric for metrics in METRICS.values() for metric in metrics}


def metric_words(name: str) -> str:
    """What model cards and pictures call a metric, which may also be the loss or one of `--extra_metrics`."""
    return _BY_NAME[name].words if name in _BY_NAME else name.replace("_", " ")


def greater_is_better(name: str) -> bool:
    """Whether a higher value of a metric is better; of metrics that are not in [`METRICS`], all but the loss.

    Args:
        name: of the metric, maybe with `eval_` in front of it.
    """
    name = name.removeprefix("eval_")
    return _BY_NAME[name].greater_is_better if name in _BY_NAME else name != "loss"


def compute_metrics(logits: np.ndarray, gold: np.ndarray, problem_type: str) -> dict[str, float]:
    """The values of a task's metrics, in the order of [`METRICS`]; all are NaN where a logit is not finite.

    Args:
        logits: (rows, labels) float.
        gold: (rows,) positions or numbers, or (rows, labels) of 0 and 1.
        problem_type: names the task.
    """
    if not np.isfinite(logits).all():
        return dict.fromkeys(METRIC_NAMES[problem_type], float("nan"))
    rows = EvaluatedRows.of_logits(logits, gold, problem_type)
    with warnings.catch_warnings():
        # A class without rows has an undefined recall; zero_division says what it counts as.
        warnings.filterwarnings("ignore", module="sklearn")
        return {metric.name: float(metric.function(rows)) for metric in METRICS[problem_type]}


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
    extras = [_load_extra(name) for name in extra_metrics or ()]

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        logits, gold = prediction.predictions, prediction.label_ids
        results = compute_metrics(logits, gold, labels.problem_type)
        if extras and np.isfinite(logits).all():
            predicted = predicted_labels(probabilities(logits, labels.problem_type), labels.problem_type)
            for extra in extras:
                results |= extra.compute(predictions=predicted, references=gold)
        return results

    return compute


def _load_extra(name: str) -> Any:
    # Importing it takes a second, which runs without extra metrics need not wait for.
    import evaluate

    return evaluate.load(name)


def classification_report(logits: np.ndarray, gold: np.ndarray, labels: LabelSet) -> dict[str, Any]:
    """Per-class precision, recall, F1 and rows; for single label the confusion matrix (row: gold, column: predicted).

    With more than `MOST_LABELS_OF_A_MATRIX` labels, `confusions` lists the most frequent errors instead.

    Args:
        logits: (rows, labels) float.
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
        counts = confusion_counts(gold, predicted, len(labels.names))
        if len(labels.names) <= MOST_LABELS_OF_A_MATRIX:
            report["confusion_matrix"] = counts.toarray().tolist()
        else:
            report["confusions"] = _most_frequent_errors(counts, labels)
        report["label_names"] = list(labels.names)
    return report


def confusion_counts(gold: np.ndarray, predicted: np.ndarray, labels: int) -> sparse.csr_array:
    """Counts the rows by gold and predicted label, as a sparse (labels, labels) matrix of int64."""
    ones = np.ones(len(gold), dtype=np.int64)
    # Rows of the same cell are summed by the conversion.
    return sparse.coo_array((ones, (np.asarray(gold), np.asarray(predicted))), (labels, labels)).tocsr()


def _most_frequent_errors(counts: sparse.csr_array, labels: LabelSet) -> list[dict[str, Any]]:
    """Lists the most frequent pairs of a gold label and another predicted one, with the number of their rows."""
    cells = counts.tocoo()
    is_error = cells.row != cells.col
    gold, predicted, rows = cells.row[is_error], cells.col[is_error], cells.data[is_error]
    order = np.argsort(-rows, kind="stable")[:MOST_ERRORS_LISTED]
    return [
        {"gold": labels.names[gold[cell]], "predicted": labels.names[predicted[cell]], "rows": int(rows[cell])}
        for cell in order
    ]
