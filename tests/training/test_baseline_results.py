"""The lexical baseline beside a run's results: files, card, warnings, and the outputs that are kept."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bertcls_hf.data.labels import REGRESSION, SINGLE_LABEL, LabelSet
from bertcls_hf.run import main
from bertcls_hf.training import saved_outputs
from bertcls_hf.training.baseline_results import evaluate_baseline, shortfall
from bertcls_hf.training.saved_outputs import read_outputs
from tests.helpers.reviews import review


Command = Callable[..., list[str]]
LABELS = LabelSet(SINGLE_LABEL, ("neg", "pos"))


def two_systems(only_right: int, other_only_right: int, rows: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of two systems that differ on some rows, and the gold labels."""
    gold = np.arange(rows) % 2
    right, wrong = np.eye(2)[gold], np.eye(2)[1 - gold]
    first, second = right.copy(), right.copy()
    second[:only_right] = wrong[:only_right]
    first[-other_only_right or rows :] = wrong[-other_only_right or rows :]
    return first, second, gold


class TestShortfall:
    @pytest.mark.parametrize(
        ("only_right", "other_only_right", "verdict"),
        [(30, 5, None), (12, 10, "is not clearly better than"), (0, 0, "is not clearly better than"),
         (2, 30, "is worse than")],
    )  # fmt: skip
    def test_says_what_the_interval_of_the_difference_says(
        self, only_right: int, other_only_right: int, verdict: str | None
    ) -> None:
        model, baseline, gold = two_systems(only_right, other_only_right)
        sentence = shortfall(evaluate_baseline(baseline, model, gold, LABELS), LABELS)
        assert (sentence is None) if verdict is None else (sentence is not None and verdict in sentence)

    def test_gives_the_figures(self) -> None:
        model, baseline, gold = two_systems(0, 20)
        sentence = shortfall(evaluate_baseline(baseline, model, gold, LABELS), LABELS)
        assert sentence is not None
        assert "accuracy 0.9000 against 1.0000, difference -0.1000 (95 % interval -0.1" in sentence

    def test_a_lower_error_is_better(self) -> None:
        gold = np.linspace(0, 5, 100)
        close, far = (gold + error * np.sin(np.arange(100)) for error in (0.1, 1.0))
        labels = LabelSet(REGRESSION, ("score",))
        assert shortfall(evaluate_baseline(far[:, None], close[:, None], gold, labels), labels) is None
        sentence = shortfall(evaluate_baseline(close[:, None], far[:, None], gold, labels), labels)
        assert sentence is not None
        assert "is worse than" in sentence

    def test_outputs_that_are_not_finite_are_not_compared(self) -> None:
        model, baseline, gold = two_systems(5, 5)
        model[0, 0] = np.nan
        evaluated = evaluate_baseline(baseline, model, gold, LABELS)
        assert evaluated.comparison is None
        assert evaluated.metrics["accuracy"] == pytest.approx(0.975)
        assert shortfall(evaluated, LABELS) is None


@pytest.mark.parametrize("mode", [{"boost": True, "learning_rate": None}, {}], ids=["boost", "fine-tuned"])
def test_a_run_reports_its_baseline(command: Command, tmp_path: Path, mode: dict[str, object]) -> None:
    assert main(command(num_train_epochs=1, do_train=True, do_eval=True, do_predict=True, **mode)) == 0
    out = tmp_path / "out"
    results = json.loads((out / "test_results.json").read_text())
    report = json.loads((out / "lexical_baseline.json").read_text())
    assert report["ngrams"] == "n-grams of 1 to 2 words"
    assert set(report["splits"]) == {"validation", "test"}
    test = report["splits"]["test"]
    assert test["metrics"]["accuracy"] == results["test_lexical_accuracy"] > 0.9
    difference = test["comparison"]["differences"]["accuracy"]["value"]
    assert difference == pytest.approx(results["test_accuracy"] - results["test_lexical_accuracy"])
    assert json.loads((out / "all_results.json").read_text())["eval_lexical_macro_f1"] > 0.9
    card = (out / "README.md").read_text()
    assert "| metric | test | 95% interval | lexical baseline | difference | validation |" in card
    assert "a logistic regression (Wang & Manning 2012) on n-grams of 1 to 2 words of" in card
    assert "McNemar's exact test gives p" in card


def test_a_model_that_does_not_beat_it_says_so(
    command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(command(num_train_epochs=0.1, learning_rate=1e-9)) == 0
    assert "test: the model is worse than a logistic regression on n-grams: accuracy" in caplog.text
    assert (
        "**Note:** the model is worse than a logistic regression on n-grams"
        in (tmp_path / "out/README.md").read_text()
    )


@pytest.mark.parametrize("options", [{"lexical_baseline": False}, {"do_eval": True}], ids=["off", "nothing trained"])
def test_no_baseline(command: Command, tmp_path: Path, options: dict[str, object]) -> None:
    if "do_eval" in options:
        assert main(command(num_train_epochs=1, lexical_baseline=False)) == 0
        options = {**options, "model_name_or_path": tmp_path / "out", "output_dir": tmp_path / "evaluated"}
    assert main(command(num_train_epochs=1, **options)) == 0
    out = Path(str(options.get("output_dir", tmp_path / "out")))
    assert not (out / "lexical_baseline.json").exists()
    assert "lexical" not in (out / "all_results.json").read_text()
    assert "lexical" not in (out / "README.md").read_text().split("## Repeating it")[0]


def test_a_stream_gives_a_sample_of_several_files(command: Command, tmp_path: Path) -> None:
    """Each file holds one label, so that the start of the stream has one label alone."""
    folder = tmp_path / "parts"
    folder.mkdir()
    for part in range(4):
        lines = [json.dumps(dict(zip(("text", "label"), review(2 * i + part // 2), strict=True))) for i in range(20)]
        (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n")
    assert main(command(train_file=folder, streaming=True, max_steps=3)) == 0
    report = json.loads((tmp_path / "out/lexical_baseline.json").read_text())
    assert report["train_rows"] == 80
    assert report["splits"]["test"]["metrics"]["accuracy"] > 0.9


def test_the_outputs_of_every_row_are_kept(command: Command, tmp_path: Path) -> None:
    assert main(command(num_train_epochs=1, do_train=True, do_predict=True)) == 0
    out = tmp_path / "out"
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    kept = read_outputs(out / "test_outputs.npz")
    assert kept.labels == LABELS
    assert [kept.labels.names[position] for position in kept.gold] == [line["gold"] for line in lines]
    assert [kept.labels.names[position] for position in kept.logits.argmax(axis=1)] == [
        line["label"] for line in lines
    ]
    assert len(set(kept.rows.tolist())) == len({line["text"] for line in lines})
    assert kept.baseline_logits is not None
    assert kept.baseline_logits.shape == kept.logits.shape


def test_outputs_that_are_too_large_are_not_kept(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(command(num_train_epochs=1)) == 0
    monkeypatch.setattr(saved_outputs, "MOST_NUMBERS", 20)
    assert main(command(num_train_epochs=1)) == 0
    assert not list((tmp_path / "out").glob("*_outputs.npz"))
    assert "test_outputs.npz is not written" in caplog.text
