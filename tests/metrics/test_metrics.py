"""Metrics on arrays small enough to check by hand."""

import socket
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
from transformers import EvalPrediction

from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL, LabelSet
from bertcls_hf.metrics.metrics import (
    METRIC_NAMES,
    METRICS,
    build_compute_metrics,
    classification_report,
    compute_metrics,
    greater_is_better,
    metric_words,
)
from bertcls_hf.metrics.probabilities import expected_calibration_error


BINARY = LabelSet(SINGLE_LABEL, ("no", "yes"))
TOPICS = LabelSet(SINGLE_LABEL, ("a", "b", "c"))


def log(probabilities: list[list[float]]) -> np.ndarray:
    return np.log(np.array(probabilities))


def compute(labels: LabelSet, logits: np.ndarray, gold: list) -> dict[str, float]:
    return build_compute_metrics(labels)(EvalPrediction(predictions=logits, label_ids=np.array(gold)))


def test_single_label_by_hand() -> None:
    results = compute(BINARY, log([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]]), [0, 1, 1, 0])
    assert set(results) == set(METRIC_NAMES[SINGLE_LABEL])
    assert (
        results["accuracy"] == results["macro_f1"] == results["macro_recall"] == results["weighted_precision"] == 0.5
    )
    assert results["mcc"] == 0
    # Pairs (yes, no): .8 > .1, .8 > .7, .4 > .1, .4 < .7.
    assert results["roc_auc"] == 0.75
    assert results["log_loss"] == pytest.approx(-np.log([0.9, 0.8, 0.4, 0.3]).mean())


def test_an_absent_class_counts_as_zero_f1_and_does_not_break_the_rest() -> None:
    results = compute(TOPICS, log([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]]), [0, 1])
    assert results["accuracy"] == 1
    assert results["macro_f1"] == pytest.approx(2 / 3)
    assert results["roc_auc"] == 1


def test_one_class_in_the_gold_labels_has_no_roc_auc() -> None:
    assert np.isnan(compute(BINARY, log([[0.8, 0.2], [0.7, 0.3]]), [0, 0])["roc_auc"])


def test_logits_that_are_not_finite_give_nan_not_a_score() -> None:
    results = compute(BINARY, np.array([[np.nan, 0.0], [1.0, 0.0]]), [0, 1])
    assert all(np.isnan(value) for value in results.values())


def test_calibration_error_by_hand() -> None:
    scores = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [1.0, 0.0]])
    # Two of confidence .9, one wrong: gap .4; one of .6, wrong: .6; one of 1, right: 0.
    assert expected_calibration_error(scores, np.array([0, 1, 1, 0])) == pytest.approx((2 * 0.4 + 0.6) / 4)


def test_multi_label_by_hand() -> None:
    labels = LabelSet(MULTI_LABEL, ("x", "y"))
    results = compute(labels, np.array([[2.0, -2.0], [2.0, 2.0]]), [[1, 0], [0, 1]])
    assert set(results) == set(METRIC_NAMES[MULTI_LABEL])
    assert results["subset_accuracy"] == 0.5
    assert results["hamming_loss"] == 0.25
    assert results["micro_f1"] == pytest.approx(0.8)


def test_regression_by_hand() -> None:
    results = compute(LabelSet(REGRESSION, ("score",)), np.array([[1.0], [2.0], [4.0]]), [1.0, 3.0, 5.0])
    assert set(results) == set(METRIC_NAMES[REGRESSION])
    assert results["mse"] == pytest.approx(2 / 3)
    assert results["mae"] == pytest.approx(2 / 3)
    assert results["spearman"] == pytest.approx(1)
    assert results["r2"] == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("predicted", "gold"), [([[1.0], [1.0]], [1.0, 3.0]), ([[1.0], [3.0]], [0.1, 0.1]), ([[1.0]], [1.0])]
)
def test_constants_and_single_rows_have_no_correlation(predicted: list, gold: list) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = compute(LabelSet(REGRESSION, ("score",)), np.array(predicted), gold)
    assert np.isnan(results["pearson"])
    assert np.isnan(results["spearman"])


def test_labels_are_scored_once_per_average(monkeypatch: pytest.MonkeyPatch) -> None:
    averages = []
    score = sklearn.metrics.precision_recall_fscore_support

    def counted(*args: Any, average: str, **options: Any) -> tuple:
        averages.append(average)
        return score(*args, average=average, **options)

    monkeypatch.setattr(sklearn.metrics, "precision_recall_fscore_support", counted)
    compute_metrics(log([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1]), SINGLE_LABEL)
    assert sorted(averages) == ["macro", "weighted"]


def test_report_and_confusion_matrix() -> None:
    report = classification_report(
        log([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1]]), np.array([0, 1, 2]), TOPICS
    )
    assert report["confusion_matrix"] == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]
    assert report["per_class"]["b"]["precision"] == 0.5
    assert report["per_class"]["c"]["support"] == 1


def test_no_network_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*args: object) -> None:
        raise AssertionError("a metric opened a connection")

    monkeypatch.setattr(socket.socket, "connect", connect)
    assert compute(BINARY, log([[0.9, 0.1], [0.2, 0.8]]), [0, 1])["accuracy"] == 1


def test_a_users_metric_joins(tmp_path: Path) -> None:
    module = tmp_path / "share_of_yes" / "share_of_yes.py"
    module.parent.mkdir()
    module.write_text(
        "import datasets\nimport evaluate\n"
        "class ShareOfYes(evaluate.Metric):\n"
        "    def _info(self):\n"
        "        feature = datasets.Value('int64')\n"
        "        features = datasets.Features({'predictions': feature, 'references': feature})\n"
        "        return evaluate.MetricInfo(description='', citation='', features=features)\n"
        "    def _compute(self, predictions, references):\n"
        "        return {'share_of_yes': sum(predictions) / len(predictions)}\n"
    )
    metrics = build_compute_metrics(BINARY, [str(module)])
    results = metrics(EvalPrediction(predictions=log([[0.9, 0.1], [0.2, 0.8]]), label_ids=np.array([0, 1])))
    assert results["share_of_yes"] == 0.5


def test_direction_of_each_metric() -> None:
    assert greater_is_better("macro_f1")
    assert greater_is_better("eval_accuracy")
    assert not greater_is_better("eval_log_loss")
    assert not greater_is_better("loss")
    assert not greater_is_better("mse")


@pytest.mark.parametrize(
    ("name", "words", "hub_name"),
    [
        ("accuracy", "accuracy", "accuracy"),
        ("subset_accuracy", "subset accuracy", "accuracy"),
        ("macro_f1", "macro F1", "f1"),
        ("weighted_precision", "weighted precision", "precision"),
        ("mcc", "MCC", "matthews_correlation"),
        ("roc_auc", "ROC AUC", "roc_auc"),
        ("log_loss", "log loss", "log_loss"),
        ("rmse", "RMSE", "rmse"),
        ("r2", "R²", "r_squared"),
        ("pearson", "Pearson's r", "pearsonr"),
        ("spearman", "Spearman's rho", "spearmanr"),
    ],
)
def test_what_cards_and_the_hub_call_a_metric(name: str, words: str, hub_name: str) -> None:
    rows = [metric for metrics in METRICS.values() for metric in metrics if metric.name == name]
    assert rows
    assert {(metric.words, metric.hub_name) for metric in rows} == {(words, hub_name)}
    assert metric_words(name) == words


def test_a_metric_of_several_tasks_has_one_name_and_direction() -> None:
    """Words and directions are looked up by name alone."""
    rows = {(metric.name, metric.words, metric.greater_is_better) for m in METRICS.values() for metric in m}
    assert len(rows) == len({name for name, *_ in rows})


def test_words_of_a_users_metric() -> None:
    assert metric_words("share_of_yes") == "share of yes"
    assert metric_words("loss") == "loss"
