"""Temperature and thresholds: against a search of all candidates, and through a run."""

import csv
import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from bertcls_hf.data.labels import MULTI_LABEL, SINGLE_LABEL, LabelSet
from bertcls_hf.errors import ArgumentsError, DivergedError, ExitCode
from bertcls_hf.metrics.calibration import (
    Calibration,
    fit_calibration,
    fit_temperature,
    fit_threshold,
    negative_log_likelihood,
    read_calibration,
    write_calibration,
)
from bertcls_hf.metrics.probabilities import predicted_labels
from bertcls_hf.predict.predictor import Predictor
from bertcls_hf.run import main
from bertcls_hf.training import phases as training
from tests.helpers.broken_content import turn_last_bit
from tests.helpers.classifiers import save_classifier
from tests.helpers.reviews import review


GENERATOR = np.random.default_rng(0)
LABELS = LabelSet(MULTI_LABEL, ("a", "b", "c"))


def drawn(temperature: float, rows: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and gold labels drawn from what they say at a temperature."""
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(rows, 4)) * 3
    chances = softmax(logits / temperature, axis=1).cumsum(axis=1)
    return logits, (generator.random((rows, 1)) > chances).sum(axis=1)


class TestTemperature:
    @pytest.mark.parametrize("problem_type", [SINGLE_LABEL, MULTI_LABEL])
    @pytest.mark.parametrize("scale", [0.3, 1.0, 5.0])
    def test_no_candidate_of_a_grid_is_better(self, problem_type: str, scale: float) -> None:
        logits, gold = drawn(1.3, rows=300)
        if problem_type == MULTI_LABEL:
            gold = (GENERATOR.random(logits.shape) < 1 / (1 + np.exp(-logits / 1.3))).astype(float)
        logits = logits * scale
        found = fit_temperature(logits, gold, problem_type)
        grid = np.exp(np.linspace(np.log(0.05), np.log(20), 2000))
        losses = [negative_log_likelihood(logits / temperature, gold, problem_type) for temperature in grid]
        assert negative_log_likelihood(logits / found, gold, problem_type) <= min(losses)
        assert found == pytest.approx(grid[np.argmin(losses)], rel=0.004)

    def test_it_finds_the_temperature_that_the_labels_were_drawn_at(self) -> None:
        assert fit_temperature(*drawn(2.5), SINGLE_LABEL) == pytest.approx(2.5, rel=0.1)

    @pytest.mark.parametrize(("sign", "words"), [(1, "right in every row"), (-1, "no better than chance")])
    def test_without_a_best_one_it_stays_at_1(self, caplog: pytest.LogCaptureFixture, sign: int, words: str) -> None:
        logits = np.eye(3)[[0, 1, 2, 0]] * sign
        with caplog.at_level(logging.WARNING):
            assert fit_temperature(logits, np.array([0, 1, 2, 0]), SINGLE_LABEL) == 1.0
        assert words in caplog.text

    def test_the_loss_is_that_of_the_definition(self) -> None:
        logits, gold = np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([0, 0])
        chances = softmax(logits, axis=1)[:, 0]
        assert negative_log_likelihood(logits, gold, SINGLE_LABEL) == pytest.approx(-np.log(chances).mean())
        sigmoid = 1 / (1 + np.exp(-logits))
        expected = -np.log([[sigmoid[0, 0], 1 - sigmoid[0, 1]], [1 - sigmoid[1, 0], sigmoid[1, 1]]]).mean()
        assert negative_log_likelihood(logits, np.eye(2), MULTI_LABEL) == pytest.approx(expected)

    def test_outputs_that_are_not_finite(self) -> None:
        logits, gold = drawn(1.0, rows=10)
        logits[3, 2] = np.nan
        with pytest.raises(DivergedError, match="not finite"):
            fit_calibration(logits, gold, LabelSet(SINGLE_LABEL, tuple("abcd")))


def f1(predicted: np.ndarray, gold: np.ndarray) -> float:
    both = (predicted & (gold > 0)).sum()
    return 2 * both / max(predicted.sum() + gold.sum(), 1)


class TestThresholds:
    @pytest.mark.parametrize("digits", [1, 2, 8], ids=["many ties", "ties", "no ties"])
    @pytest.mark.parametrize("share", [0.03, 0.4, 0.97])
    def test_no_other_threshold_is_better(self, digits: int, share: float) -> None:
        for seed in range(20):
            generator = np.random.default_rng(seed)
            scores = generator.random(60).round(digits)
            gold = (generator.random(60) < share).astype(float)
            found = fit_threshold(scores, gold)
            candidates = np.unique([0.0, 0.5, *scores, *(scores - 1e-9).clip(0)])
            best = max(f1(scores > candidate, gold) for candidate in candidates)
            assert 0 <= found < 1
            if gold.any():
                assert f1(scores > found, gold) == pytest.approx(best)

    @pytest.mark.parametrize(
        ("scores", "gold", "threshold"),
        [
            ([0.9, 0.8, 0.1], [0, 0, 0], 0.5),  # the label is absent
            ([0.9, 0.8, 0.1], [1, 1, 0], 0.5),  # as good as any
            ([0.9, 0.8, 0.6], [1, 0, 0], 0.85),  # the middle between two rows
            ([0.2, 0.1], [1, 1], 0.05),  # always
            ([0.3, 0.3, 0.3], [1, 0, 0], 0.15),  # all alike: all or none
            ([1.0, 1.0, 0.0], [1, 1, 0], 0.5),
        ],
    )
    def test_by_hand(self, scores: list[float], gold: list[float], threshold: float) -> None:
        assert fit_threshold(np.array(scores), np.array(gold)) == pytest.approx(threshold)

    def test_neighbouring_floats_are_told_apart(self) -> None:
        low = 0.7
        high = np.nextafter(low, 1)
        threshold = fit_threshold(np.array([high, low]), np.array([1, 0]))
        assert low <= threshold < high

    def test_labels(self) -> None:
        scores = np.array([[0.4, 0.6], [0.1, 0.9], [0.5, 0.5]])
        assert predicted_labels(scores, SINGLE_LABEL).tolist() == [1, 1, 0]
        assert predicted_labels(scores, SINGLE_LABEL, 0.7).tolist() == [0, 1, 0]
        assert predicted_labels(scores, MULTI_LABEL).tolist() == [[0, 1], [0, 1], [0, 0]]
        assert predicted_labels(scores, MULTI_LABEL, (0.3, 0.95)).tolist() == [[1, 0], [0, 0], [1, 0]]


class TestFile:
    def test_it_comes_back_as_it_was_fitted(self, tmp_path: Path) -> None:
        generator = np.random.default_rng(2)
        logits, gold = generator.normal(size=(50, 3)), (generator.random((50, 3)) < 0.4).astype(float)
        gold[:, 1] = 0
        path = tmp_path / "calibration.json"
        write_calibration(path, logits, gold, LABELS)
        assert read_calibration(path, LABELS) == fit_calibration(logits, gold, LABELS)
        content = json.loads(path.read_text())
        assert list(content["thresholds"]) == ["a", "b", "c"]
        assert content["thresholds"]["b"] == 0.5
        assert content["rows"] == 50
        assert content["after"]["nll"] < content["before"]["nll"]
        assert content["after"]["macro_f1"] > content["before"]["macro_f1"]
        assert [path.name for path in tmp_path.iterdir()] == ["calibration.json"]

    def test_an_overconfident_model_becomes_a_calibrated_one(self, tmp_path: Path) -> None:
        logits, gold = drawn(3.0)
        write_calibration(tmp_path / "c.json", logits, gold, LabelSet(SINGLE_LABEL, tuple("abcd")))
        content = json.loads((tmp_path / "c.json").read_text())
        assert content["thresholds"] is None
        assert content["before"]["expected_calibration_error"] > 0.2
        assert content["after"]["expected_calibration_error"] < 0.03


def write_topics(path: Path, rows: int, start: int = 0) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for index in range(start, start + rows):
            text, label = review(index)
            writer.writerow([text, "|".join([label] * (index % 3 > 0) + ["odd"] * (index % 2))])
    return path


class TestRun:
    def test_single_label(self, command: Callable, tmp_path: Path) -> None:
        out = tmp_path / "out"
        assert main(command(calibrate=True, do_train=True, do_predict=True, learning_rate=2e-3)) == 0
        content = json.loads((out / "calibration.json").read_text())
        assert (content["split"], content["rows"], content["thresholds"]) == ("validation", 16, None)
        loss = json.loads((out / "eval_results.json").read_text())["eval_loss"]
        assert content["before"]["nll"] == pytest.approx(loss, abs=1e-4)
        assert content["temperature"] != 1
        assert content["after"]["nll"] < content["before"]["nll"]
        # The run's own predictions and those of whoever loads the model agree.
        lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
        predictions = Predictor.from_pretrained(str(out), device="cpu").predict([line["text"] for line in lines])
        for line, prediction in zip(lines, predictions, strict=True):
            assert line["probabilities"] == pytest.approx(prediction.probabilities, abs=2e-6)
        assert "calibrate: true" in (out / "recipe.yaml").read_text()

        (out / "cascade.json").write_text("{}")
        assert main(command(do_train=True, num_train_epochs=1)) == 0
        assert not (out / "calibration.json").exists()
        assert not (out / "cascade.json").exists()

    def test_multi_label(self, command: Callable, tmp_path: Path) -> None:
        train, validation = write_topics(tmp_path / "t.csv", 48), write_topics(tmp_path / "v.csv", 30, start=500)
        options = {"train_file": train, "validation_file": validation, "test_file": None, "label_delimiter": "|"}
        assert main(command(**options, calibrate=True)) == 0
        content = json.loads((tmp_path / "out" / "calibration.json").read_text())
        assert list(content["thresholds"]) == ["neg", "odd", "pos"]
        assert content["after"]["macro_f1"] >= content["before"]["macro_f1"]
        calibration = Predictor.from_pretrained(str(tmp_path / "out"), device="cpu").calibration
        assert calibration == Calibration(content["temperature"], tuple(content["thresholds"].values()))

    def test_a_model_that_is_trained_already(
        self, command: Callable, tmp_path: Path, tiny_bert: Path, reviews: dict[str, Path]
    ) -> None:
        folder = save_classifier(tmp_path / "model", tiny_bert, "two_labels")
        validation = tmp_path / "v.csv"
        validation.write_text(reviews["validation"].read_text().replace(",pos", ",yes").replace(",neg", ",no"))
        options = {"model_name_or_path": folder, "output_dir": folder, "train_file": None, "test_file": None,
                   "validation_file": validation, "do_eval": True}  # fmt: skip
        assert main(command(**options, calibrate=True)) == 0
        written = (folder / "calibration.json").read_bytes()
        # An evaluation changes no model, so that its calibration stays.
        assert main(command(**options)) == 0
        assert (folder / "calibration.json").read_bytes() == written
        # It is known to be of these weights, and not of others with the same labels.
        turn_last_bit(folder / "model.safetensors")
        with pytest.raises(ArgumentsError, match="fitted for other weights"):
            Predictor.from_pretrained(str(folder), device="cpu")
        Predictor.from_pretrained(str(folder), device="cpu", calibrated=False)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"do_eval": False, "do_train": True}, "--calibrate reads the evaluation"),
            ({"do_predict": True}, "--calibrate reads the evaluation"),
            ({"do_eval": True}, "--calibrate without training"),
            ({"validation_file": None, "validation_split_percentage": 0, "eval_strategy": "no"}, "no labelled valid"),
            ({"train_file": "numbers.csv", "validation_file": None}, "a regression has no probabilities"),
        ],
    )  # fmt: skip
    def test_refused_before_anything_is_trained(
        self,
        command: Callable,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        options: dict,
        message: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(training, "build_trainer", lambda *_: pytest.fail("a model was built"))
        rows = (f"{review(index)[0]},{index / 7}\n" for index in range(40))
        Path("numbers.csv").write_text("text,label\n" + "".join(rows))
        options = {"test_file": None, **options} if "train_file" in options else options
        assert main(command(calibrate=True, **options)) == ExitCode.BAD_ARGUMENTS
        assert message in capsys.readouterr().err
