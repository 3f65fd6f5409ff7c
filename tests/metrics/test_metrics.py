"""Metrics on arrays small enough to check by hand."""

import socket
from pathlib import Path

import numpy as np
import pytest
from transformers import EvalPrediction

from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL, LabelSet
from bertcls_hf.metrics.metrics import (
    METRIC_NAMES,
    build_compute_metrics,
    classification_report,
    expected_calibration_error,
    greater_is_better,
)


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


def test_constant_prediction_has_no_correlation() -> None:
    results = compute(LabelSet(REGRESSION, ("score",)), np.array([[1.0], [1.0]]), [1.0, 3.0])
    assert np.isnan(results["pearson"])


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
