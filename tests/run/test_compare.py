"""`bertcls compare`: figures against independent computations, rows in other orders, refusals, the files it writes."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from matplotlib import image
from safetensors.torch import load_file, save_file
from scipy.stats import binomtest, pearsonr
from sklearn.metrics import accuracy_score, f1_score, root_mean_squared_error

from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL, LabelSet
from bertcls_hf.errors import ExitCode
from bertcls_hf.run import main as train
from bertcls_hf.run.command import main as bertcls
from bertcls_hf.run.compare import main
from bertcls_hf.training.baseline_results import evaluate_baseline
from bertcls_hf.training.results import Evaluation
from bertcls_hf.training.saved_outputs import write_outputs
from tests.metrics.test_intervals import example


TASKS = [SINGLE_LABEL, MULTI_LABEL, REGRESSION]
MAIN = {SINGLE_LABEL: "accuracy", MULTI_LABEL: "macro_f1", REGRESSION: "mse"}
# The titles of the columns, and the names of their metrics.
HEADLINES = {
    SINGLE_LABEL: {"accuracy": "accuracy", "macro F1": "macro_f1"},
    MULTI_LABEL: {"micro F1": "micro_f1", "macro F1": "macro_f1"},
    REGRESSION: {"RMSE": "rmse", "Pearson's r": "pearson"},
}
ROWS = 240


class Runs:
    """Folders of runs on one set of rows, whose outputs are more or less noisy."""

    def __init__(self, root: Path, task: str = SINGLE_LABEL, rows: int = ROWS):
        logits, self.gold, self.labels = example(task, rows)
        self.root, self.logits = root, logits.reshape(rows, -1)
        self.texts = [f"text {row}" for row in range(rows)]

    def noisy(self, seed: int, noise: float) -> np.ndarray:
        logits = self.logits + np.random.default_rng(seed).normal(0, noise, self.logits.shape)
        return logits.astype(np.float32)

    def write(
        self,
        name: str,
        logits: np.ndarray,
        baseline: np.ndarray | None = None,
        order: Sequence[int] | np.ndarray | None = None,
        prefix: str = "test",
        **changes: Any,
    ) -> str:
        """Writes the outputs of a run, its rows in the given order, and returns its folder."""
        order = np.arange(len(self.texts)) if order is None else np.asarray(order)
        gold, labels = changes.get("gold", self.gold), changes.get("labels", self.labels)
        texts = changes.get("texts", self.texts)
        compared = None
        if baseline is not None:
            compared = evaluate_baseline(baseline[order], logits[order], gold[order], labels)
        evaluation = Evaluation("test" if prefix == "test" else "validation", {}, logits[order], gold[order], compared)
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        write_outputs(folder, evaluation, Dataset.from_dict({"text": [texts[row] for row in order]}), labels)
        return str(folder)


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


@pytest.fixture
def pair(runs: Runs) -> tuple[str, str]:
    return runs.write("a", runs.noisy(1, 0.1)), runs.write("b", runs.noisy(2, 1.5))


def compared(capsys: pytest.CaptureFixture, folder: Path, *words: str) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """The figures of a comparison, and the printed table's cells by title."""
    assert main([*words, "--output_dir", str(folder)]) == ExitCode.DONE
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in lines)
    return json.loads((folder / "comparison.json").read_text()), [dict(zip(header, row, strict=True)) for row in rows]


def refusal(capsys: pytest.CaptureFixture, code: ExitCode, *words: str) -> str:
    """The message of a refused command, which prints no table."""
    assert main(list(words)) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert len(printed.err.splitlines()) == 1
    return printed.err


def right(runs: Runs, logits: np.ndarray) -> np.ndarray:
    """Which rows are right, without the package's code."""
    if runs.labels.problem_type == MULTI_LABEL:
        return ((logits > 0) == (runs.gold > 0)).all(axis=1)
    return logits.argmax(axis=1) == runs.gold


def main_metric(task: str, logits: np.ndarray, gold: np.ndarray) -> float:
    if task == REGRESSION:
        return float(np.square(logits[:, 0] - gold).mean())
    if task == MULTI_LABEL:
        return f1_score(gold, (logits > 0).astype(int), average="macro")
    return float((logits.argmax(axis=1) == gold).mean())


def headlines(runs: Runs, logits: np.ndarray) -> tuple[float, float]:
    if runs.labels.problem_type == REGRESSION:
        numbers = logits[:, 0].astype(float)
        return root_mean_squared_error(runs.gold, numbers), pearsonr(runs.gold, numbers).statistic
    if runs.labels.problem_type == MULTI_LABEL:
        predicted = (logits > 0).astype(int)
        return tuple(f1_score(runs.gold, predicted, average=average) for average in ("micro", "macro"))
    predicted = logits.argmax(axis=1)
    return accuracy_score(runs.gold, predicted), f1_score(runs.gold, predicted, average="macro")


class TestFigures:
    @pytest.mark.parametrize("task", TASKS)
    def test_metrics_are_those_of_scikit_learn(self, task: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
        runs = Runs(tmp_path, task)
        logits = [runs.noisy(1, 0.1), runs.noisy(2, 1.5)]
        names = [runs.write(name, part) for name, part in zip("ab", logits, strict=True)]
        found, rows = compared(capsys, tmp_path / "out", *names)
        for system, row, part in zip(found["systems"], rows, logits, strict=True):
            for (title, name), value in zip(HEADLINES[task].items(), headlines(runs, part), strict=True):
                assert system["metrics"][name] == pytest.approx(value, abs=1e-9)
                low, high = system["intervals"][name]
                assert low < value < high
                assert row[title] == f"{value:.4f} ({low:.3f} to {high:.3f})"
        assert (found["rows"], found["split"], found["confidence"], found["seed"]) == (ROWS, "test", 0.95, 0)
        assert (found["problem_type"], found["main_metric"]) == (task, MAIN[task])

    @pytest.mark.parametrize("task", TASKS)
    def test_the_difference_is_that_of_resampled_rows(
        self, task: str, tmp_path: Path, capsys: pytest.CaptureFixture
    ) -> None:
        runs = Runs(tmp_path, task)
        logits = [runs.noisy(1, 0.1), runs.noisy(2, 1.5)]
        names = [runs.write(name, part) for name, part in zip("ab", logits, strict=True)]
        found, rows = compared(capsys, tmp_path / "out", *names)
        difference = found["systems"][1]["against_reference"]["differences"][MAIN[task]]

        def of_rows(chosen: np.ndarray) -> float:
            first, second = (main_metric(task, part[chosen], runs.gold[chosen]) for part in logits)
            return second - first

        generator = np.random.default_rng(5)
        values = [of_rows(generator.integers(0, ROWS, ROWS)) for _ in range(200)]
        low, high = np.quantile(values, (0.025, 0.975))
        assert difference["value"] == pytest.approx(of_rows(np.arange(ROWS)), abs=1e-9)
        assert difference["interval"] == pytest.approx((low, high), abs=0.25 * (high - low))
        (title,) = (title for title in rows[1] if title.startswith("difference in "))
        assert rows[0][title] == "reference"
        assert rows[1][title].startswith(f"{difference['value']:+.4f} (")

    @pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL])
    def test_mcnemar_is_the_binomial_test_of_the_rows_that_differ(
        self, task: str, tmp_path: Path, capsys: pytest.CaptureFixture
    ) -> None:
        runs = Runs(tmp_path, task)
        logits = [runs.noisy(1, 0.1), runs.noisy(2, 1.5)]
        names = [runs.write(name, part) for name, part in zip("ab", logits, strict=True)]
        found, rows = compared(capsys, tmp_path / "out", *names)
        first, second = (right(runs, part) for part in logits)
        alone, others = int((second & ~first).sum()), int((first & ~second).sum())
        p_value = binomtest(alone, alone + others).pvalue
        against = found["systems"][1]["against_reference"]
        assert (against["only_right"], against["other_only_right"]) == (alone, others)
        assert against["mcnemar_p"] == pytest.approx(p_value)
        assert rows[1]["McNemar's test"] in (f"p = {p_value:.2g}", "p < 0.0001")
        assert rows[0]["McNemar's test"] == ""

    def test_a_regression_has_no_mcnemar(self, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
        runs = Runs(tmp_path, REGRESSION)
        found, rows = compared(
            capsys, tmp_path / "out", runs.write("a", runs.noisy(1, 0.1)), runs.write("b", runs.noisy(2, 1.0))
        )
        assert "McNemar's test" not in rows[0]
        assert found["systems"][1]["against_reference"]["mcnemar_p"] is None
        assert rows[1]["difference in MSE"].startswith("+")

    def test_the_interval_of_accuracy_is_wilsons(
        self, runs: Runs, pair: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
    ) -> None:
        found, _ = compared(capsys, tmp_path / "out", *pair)
        share, z = right(runs, runs.noisy(1, 0.1)).mean(), 1.959964
        centre = (share + z**2 / (2 * ROWS)) / (1 + z**2 / ROWS)
        half = z / (1 + z**2 / ROWS) * math.sqrt(share * (1 - share) / ROWS + z**2 / (4 * ROWS**2))
        assert found["systems"][0]["intervals"]["accuracy"] == pytest.approx((centre - half, centre + half), abs=1e-6)

    @pytest.mark.parametrize("task", TASKS)
    def test_the_other_order_changes_the_sign(self, task: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
        runs = Runs(tmp_path, task)
        a, b = runs.write("a", runs.noisy(1, 0.1)), runs.write("b", runs.noisy(2, 1.5))
        there, _ = compared(capsys, tmp_path / "out", a, b)
        back, rows = compared(capsys, tmp_path / "out", b, a)
        assert [row["run"] for row in rows] == ["b", "a"]
        assert back["reference"] == "b"
        forth, reverse = (found["systems"][1]["against_reference"] for found in (there, back))
        assert forth["mcnemar_p"] == reverse["mcnemar_p"]
        for name, difference in forth["differences"].items():
            low, high = reverse["differences"][name]["interval"]
            assert difference["value"] == pytest.approx(-reverse["differences"][name]["value"], abs=1e-12)
            assert difference["interval"] == pytest.approx((-high, -low), abs=0.25 * (high - low))

    def test_against_names_the_reference(
        self, pair: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
    ) -> None:
        first, _ = compared(capsys, tmp_path / "out", pair[1], pair[0])
        found, rows = compared(capsys, tmp_path / "out", *pair, "--against", pair[1] + "/")
        assert [row["difference in accuracy"] == "reference" for row in rows] == [False, True]
        assert found["systems"][0] == first["systems"][1]
        assert found["systems"][1]["against_reference"] is None


class TestRows:
    @pytest.mark.parametrize("task", TASKS)
    def test_another_order_of_the_rows_changes_nothing(
        self, task: str, tmp_path: Path, capsys: pytest.CaptureFixture
    ) -> None:
        runs = Runs(tmp_path, task)
        logits, baseline = runs.noisy(2, 1.5), runs.noisy(3, 2.0)
        a, b = runs.write("a", runs.noisy(1, 0.1), baseline), runs.write("b", logits, baseline)
        plain, _ = compared(capsys, tmp_path / "out", a, b)
        runs.write("b", logits, baseline, order=np.random.default_rng(0).permutation(ROWS))
        assert compared(capsys, tmp_path / "out", a, b)[0] == plain

    def test_repeated_texts_are_aligned_by_gold_label_and_in_order(
        self, tmp_path: Path, capsys: pytest.CaptureFixture
    ) -> None:
        """Each text occurs four times, twice with either label; both runs are right on the same occurrences."""
        runs = Runs(tmp_path, rows=8)
        runs.texts, runs.labels = ["x"] * 4 + ["y"] * 4, LabelSet(SINGLE_LABEL, ("neg", "pos"))
        runs.gold = np.array([0, 1, 0, 1, 0, 1, 0, 1])
        hits = np.array([True, False, False, True, True, True, False, False])
        logits = np.eye(2, dtype=np.float32)[np.where(hits, runs.gold, 1 - runs.gold)]
        # Other texts and labels first, but the occurrences of one text and label in their order.
        order = [5, 4, 7, 1, 6, 0, 3, 2]
        a, b = runs.write("a", logits), runs.write("b", logits, order=order)
        found, _ = compared(capsys, tmp_path / "out", a, b)
        against = found["systems"][1]["against_reference"]
        assert (against["only_right"], against["other_only_right"]) == (0, 0)
        assert [system["metrics"]["accuracy"] for system in found["systems"]] == [0.5, 0.5]

    def test_different_rows_are_counted(self, runs: Runs, capsys: pytest.CaptureFixture) -> None:
        a, b = (runs.write(name, runs.logits, order=rows) for name, rows in (("a", range(200)), ("b", range(3, 240))))
        message = refusal(capsys, ExitCode.BAD_DATA, a, b)
        assert f"{a} and {b} were evaluated on different test rows: 3 are only in {a}, 40 only in {b}" in message
        assert "--test_file, --split_seed and --max_predict_samples" in message

    def test_a_text_that_occurs_more_often_is_a_different_row(self, runs: Runs, capsys: pytest.CaptureFixture) -> None:
        a, b = (runs.write(name, runs.logits, order=rows) for name, rows in (("a", [0, 1, 1, 2]), ("b", [0, 1, 2, 2])))
        assert f"1 are only in {a}, 1 only in {b}" in refusal(capsys, ExitCode.BAD_DATA, a, b)

    @pytest.mark.parametrize("task", TASKS)
    def test_other_gold_labels_are_refused(self, task: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
        runs = Runs(tmp_path, task)
        changed = runs.gold.copy()
        changed[:5] = 1 - changed[:5] if task == MULTI_LABEL else changed[:5] + (1 if task == REGRESSION else -1)
        changed = np.where(changed < 0, 3, changed) if task == SINGLE_LABEL else changed
        a, b = runs.write("a", runs.logits), runs.write("b", runs.logits, gold=changed)
        message = refusal(capsys, ExitCode.BAD_DATA, a, b)
        assert f"have different gold labels for 5 of their {ROWS} test rows" in message


class TestSplit:
    def test_test_data_come_first(self, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
        names = [runs.write(name, runs.logits) for name in "ab"]
        for name in "ab":
            runs.write(name, runs.logits, prefix="eval", order=range(100))
        assert compared(capsys, tmp_path / "out", *names)[0]["split"] == "test"
        found, _ = compared(capsys, tmp_path / "out", *names, "--split", "validation")
        assert (found["split"], found["rows"]) == ("validation", 100)

    def test_validation_data_where_a_run_has_no_test_data(
        self, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture
    ) -> None:
        names = [runs.write(name, runs.logits, prefix="eval") for name in "ab"]
        runs.write("a", runs.logits)
        assert main(names) == ExitCode.DONE
        assert capsys.readouterr().out.startswith(f"On {ROWS} validation texts.")
        message = refusal(capsys, ExitCode.BAD_ARGUMENTS, *names, "--split", "test")
        assert (
            f"{names[1]} has no test_outputs.npz: it was not evaluated on labelled test data, or by an earlier "
            "version; run it again with --do_eval" in message
        )

    def test_a_run_without_outputs_is_named(self, runs: Runs, capsys: pytest.CaptureFixture) -> None:
        names = [runs.write(name, runs.logits, prefix="eval") for name in "ab"]
        (runs.root / "empty").mkdir()
        message = refusal(capsys, ExitCode.BAD_ARGUMENTS, *names, str(runs.root / "empty"))
        assert f"{runs.root / 'empty'} has no eval_outputs.npz: it was not evaluated on labelled validation" in message


class TestBaseline:
    def test_one_row_of_an_equal_baseline(self, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
        baseline = runs.noisy(9, 2.0)
        names = [runs.write("a", runs.noisy(1, 0.1)), runs.write("b", runs.noisy(2, 1.0), baseline),
                 runs.write("c", runs.noisy(3, 1.0), baseline + 1e-6)]  # fmt: skip
        (tmp_path / "b" / "lexical_baseline.json").write_text('{"seconds": 1.26}')
        found, rows = compared(capsys, tmp_path / "out", *names)
        assert [row["run"] for row in rows] == ["a", "b", "c", "lexical baseline"]
        assert [system["is_baseline"] for system in found["systems"]] == [False, False, False, True]
        assert found["systems"][3]["metrics"]["accuracy"] == pytest.approx(right(runs, baseline).mean())
        assert rows[3]["training, s"] == "1.3"
        assert rows[3]["difference in accuracy"].startswith("-")

    def test_a_row_for_each_different_baseline(
        self, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture
    ) -> None:
        names = [runs.write(name, runs.logits, runs.noisy(seed, 2.0)) for name, seed in (("a", 8), ("b", 9))]
        _, rows = compared(capsys, tmp_path / "out", *names)
        assert [row["run"] for row in rows] == ["a", "b", "lexical baseline of a", "lexical baseline of b"]

    def test_a_single_run_is_compared_with_its_baseline(
        self, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture
    ) -> None:
        _, rows = compared(capsys, tmp_path / "out", runs.write("a", runs.logits, runs.noisy(9, 2.0)))
        assert [row["run"] for row in rows] == ["a", "lexical baseline"]


class TestCosts:
    def test_seconds_and_the_size_of_whole_and_split_models(
        self, runs: Runs, pair: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
    ) -> None:
        a, b = map(Path, pair)
        weights = {"matrix": torch.zeros(30, 20), "vector": torch.zeros(7, dtype=torch.bfloat16)}
        save_file(weights, a / "model.safetensors")
        for shard, name in enumerate(weights, 1):
            save_file({name: weights[name]}, b / f"model-0000{shard}-of-00002.safetensors")
        (a / "train_results.json").write_text('{"train_runtime": 1234.56}')
        found, rows = compared(capsys, tmp_path / "out", *pair, runs.write("c", runs.logits))
        assert [row["parameters"] for row in rows] == ["607", "607", ""]
        sizes = [sum(path.stat().st_size for path in folder.glob("*.safetensors")) for folder in (a, b)]
        assert [system["cost"]["file_bytes"] for system in found["systems"]] == [*sizes, None]
        assert [row["training, s"] for row in rows] == ["1,234.6", "", ""]
        assert [row["MB"] for row in rows] == ["0.0", "0.0", ""]
        assert not any("texts/s" in title for title in rows[0])

    @pytest.mark.parametrize("content", ["{", f'{{"train_runtime": 1{"0" * 400}}}'])
    def test_a_damaged_file_leaves_its_cell_empty_and_says_so(
        self,
        pair: tuple[str, str],
        tmp_path: Path,
        capsys: pytest.CaptureFixture,
        caplog: pytest.LogCaptureFixture,
        content: str,
    ) -> None:
        (Path(pair[0]) / "model.safetensors").write_bytes(b"damaged")
        (Path(pair[0]) / "train_results.json").write_text(content)
        _, rows = compared(capsys, tmp_path / "out", *pair)
        assert (rows[0]["parameters"], rows[0]["MB"], rows[0]["training, s"]) == ("", "", "")
        assert "the size of its model is left out" in caplog.text
        assert "train_results.json is left out" in caplog.text


class TestFiles:
    @pytest.mark.parametrize(("number", "height"), [(2, (200, 260)), (20, (700, 1000))])
    def test_the_picture(
        self, number: int, height: tuple[int, int], runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture
    ) -> None:
        names = [runs.write(f"a_run_with_a_long_name_{seed}_of_many", runs.noisy(seed, 1.0)) for seed in range(number)]
        compared(capsys, tmp_path / "out", *names)
        pixels = image.imread(tmp_path / "out" / "comparison.png")
        assert 800 < pixels.shape[1] <= 1000
        assert height[0] < pixels.shape[0] < height[1]
        assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 50

    def test_the_page_is_what_was_printed_with_the_picture(
        self, pair: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
    ) -> None:
        assert main([*pair, "--output_dir", str(tmp_path / "new" / "out")]) == ExitCode.DONE
        page = (tmp_path / "new" / "out" / "comparison.md").read_text().split("\n\n")
        assert capsys.readouterr().out.split("\n\n") == [*page[:2], page[-1]]
        assert page[2].startswith("![Accuracy is 0.")
        assert page[2].endswith(" for b.](comparison.png)")

    def test_nothing_holds_the_paths_of_the_machine(
        self, runs: Runs, pair: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
    ) -> None:
        other = runs.write("deep/er/a", runs.noisy(4, 1.0))
        found, rows = compared(capsys, tmp_path / "out", *pair, other)
        assert [row["run"] for row in rows] == [f"{tmp_path.name}/a", "b", "er/a"]
        assert [system["name"] for system in found["systems"]] == [row["run"] for row in rows]
        for name in ("comparison.md", "comparison.json"):
            assert str(tmp_path) not in (tmp_path / "out" / name).read_text()

    def test_a_figure_that_is_not_defined_is_null(self, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
        runs = Runs(tmp_path, REGRESSION)
        constant = runs.write("b", np.ones((ROWS, 1), dtype=np.float32))
        found, rows = compared(capsys, tmp_path / "out", runs.write("a", runs.logits), constant)
        assert found["systems"][1]["metrics"]["pearson"] is None
        assert rows[1]["Pearson's r"] == ""

    def test_names_are_escaped(self, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
        _, rows = compared(capsys, tmp_path / "out", *(runs.write(name, runs.logits) for name in ("a|b", "c")))
        assert rows[0]["run"] == "a&#124;b"


@pytest.mark.parametrize("is_stale", [False, True])
def test_a_run_over_seeds_has_its_mean(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture, is_stale: bool
) -> None:
    """A summary that an earlier run left in the folder is not that of the outputs."""
    folders = runs.write("a", runs.noisy(1, 0.1)), runs.write("b", runs.noisy(2, 1.5))
    own = main_metric(SINGLE_LABEL, runs.noisy(2, 1.5), runs.gold)
    figures = {"mean": 0.7, "standard_deviation": 0.01, "values": [own + 0.1 * is_stale, 0.7, 0.71]}
    summary = {"seeds": [42, 43, 44], "splits": {"test": {"accuracy": figures}}}
    Path(folders[1], "seeds.json").write_text(json.dumps(summary))
    content, rows = compared(capsys, tmp_path / "comparison", *folders)
    assert [row.get("accuracy over seeds") for row in rows] == (
        [None, None] if is_stale else ["", "0.7000 ± 0.0100 (3)"]
    )
    assert (content["systems"][1]["over_seeds"] is None) == is_stale


class TestRefusals:
    def test_too_few_runs(self, pair: tuple[str, str], capsys: pytest.CaptureFixture) -> None:
        assert "name two runs or more" in refusal(capsys, ExitCode.BAD_ARGUMENTS)
        message = refusal(capsys, ExitCode.BAD_ARGUMENTS, pair[0])
        assert "has no lexical baseline to be compared with: name a second run" in message

    def test_the_same_folder_twice(self, pair: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
        (tmp_path / "link").symlink_to(pair[0])
        for again in (pair[0], f"{pair[1]}/../a", str(tmp_path / "link")):
            message = refusal(capsys, ExitCode.BAD_ARGUMENTS, *pair, again)
            assert f"{pair[0]} and {again} are the same folder" in message

    def test_a_reference_that_is_not_among_the_runs(
        self, pair: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
    ) -> None:
        message = refusal(capsys, ExitCode.BAD_ARGUMENTS, *pair, "--against", str(tmp_path / "c"))
        assert f"--against {tmp_path / 'c'}: not among the runs {pair[0]}, {pair[1]}" in message

    def test_no_such_folder(self, pair: tuple[str, str], capsys: pytest.CaptureFixture) -> None:
        assert "none: no such folder" in refusal(capsys, ExitCode.BAD_ARGUMENTS, *pair, "none")

    def test_wrong_options(self, pair: tuple[str, str], capsys: pytest.CaptureFixture) -> None:
        message = refusal(capsys, ExitCode.BAD_ARGUMENTS, *pair, "--output_dri", "out")
        assert "unknown option --output_dri; did you mean --output_dir?" in message
        assert "invalid choice: 'train'" in refusal(capsys, ExitCode.BAD_ARGUMENTS, *pair, "--split", "train")
        file = str(Path(pair[0]) / "test_outputs.npz")
        assert "is a file: name a folder" in refusal(capsys, ExitCode.BAD_ARGUMENTS, *pair, "--output_dir", file)

    @pytest.mark.parametrize("content", [b"", b"no archive", b"cut off"], ids=["empty", "something else", "cut off"])
    def test_a_damaged_file(self, content: bytes, pair: tuple[str, str], capsys: pytest.CaptureFixture) -> None:
        path = Path(pair[1]) / "test_outputs.npz"
        path.write_bytes(path.read_bytes()[:-200] if content == b"cut off" else content)
        assert f"{path} is damaged (" in refusal(capsys, ExitCode.BAD_DATA, *pair)

    @pytest.mark.parametrize(
        ("name", "value"),
        [("gold", np.zeros(3, dtype=int)), ("gold", np.full(ROWS, 9)), ("logits", np.zeros((ROWS, 3))),
         ("rows", np.zeros(ROWS)), ("rows", np.zeros(0, dtype=np.uint64)), ("description", np.array("[]")),
         ("description", np.array('{"problem_type": "song", "labels": ["a", "b", "c", "d"]}')), ("logits", None),
         ("baseline_logits", np.full((ROWS, 4), np.nan))],
        ids=["rows of gold", "gold", "shape", "no hashes", "no rows", "description", "task", "no part", "baseline"],
    )  # fmt: skip
    def test_a_file_that_contradicts_itself(
        self, name: str, value: np.ndarray | None, pair: tuple[str, str], capsys: pytest.CaptureFixture
    ) -> None:
        path = Path(pair[0]) / "test_outputs.npz"
        with np.load(path) as stored:
            parts = dict(stored) | {name: value}
        np.savez(path, **{key: part for key, part in parts.items() if part is not None})
        assert f"{path} is damaged (" in refusal(capsys, ExitCode.BAD_DATA, *pair)

    def test_different_tasks(self, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
        names = []
        for task in (SINGLE_LABEL, REGRESSION):
            runs = Runs(tmp_path, task)
            names.append(runs.write(task, runs.logits))
        message = refusal(capsys, ExitCode.BAD_DATA, *names)
        assert "are of different tasks, single label classification and regression" in message

    @pytest.mark.parametrize(
        ("labels", "words"),
        [(("a", "b", "c", "e"), 'only one of them has "d", "e"'), (("b", "a", "c", "d"), "in different orders")],
    )
    def test_different_labels(
        self, labels: tuple[str, ...], words: str, runs: Runs, capsys: pytest.CaptureFixture
    ) -> None:
        other = runs.write("b", runs.logits, labels=LabelSet(SINGLE_LABEL, labels))
        assert words in refusal(capsys, ExitCode.BAD_DATA, runs.write("a", runs.logits), other)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_a_run_that_diverged(self, value: float, runs: Runs, capsys: pytest.CaptureFixture) -> None:
        logits = runs.noisy(1, 1.0)
        logits[3, 1] = value
        a, b = runs.write("a", runs.logits), runs.write("b", logits)
        message = refusal(capsys, ExitCode.BAD_DATA, a, b)
        assert f"{b}: its test outputs are not finite, because its training diverged" in message

    def test_texts_that_cannot_be_read(
        self, pair: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
    ) -> None:
        (tmp_path / "empty.jsonl").write_text("")
        for name in ("none.csv", "empty.jsonl"):
            assert name in refusal(capsys, ExitCode.BAD_DATA, *pair, "--texts", str(tmp_path / name))


def test_two_trained_runs(
    command: Callable[..., list[str]], reviews: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    names = []
    for epochs in (1, 2):
        names.append(str(tmp_path / f"epochs_{epochs}"))
        assert train(command(num_train_epochs=epochs, output_dir=names[-1])) == 0
    capsys.readouterr()
    options = ["--texts", str(reviews["train"]), "--output_dir", str(tmp_path / "compared")]
    assert bertcls(["compare", *names, *options]) == ExitCode.DONE
    printed = capsys.readouterr().out
    assert printed.startswith("On 17 test texts. Differences are those to epochs_1")
    assert "| texts/s (of 48) |" in printed
    found = json.loads((tmp_path / "compared" / "comparison.json").read_text())
    assert found["timed_texts"] == 48
    *systems, baseline = found["systems"]
    assert baseline["name"] == "lexical baseline"
    for system, name in zip(systems, names, strict=True):
        results, trained = (
            json.loads((Path(name) / f"{part}_results.json").read_text()) for part in ("test", "train")
        )
        for metric, value in system["metrics"].items():
            assert value == pytest.approx(results[f"test_{metric}"], abs=1e-6), metric
            assert baseline["metrics"][metric] == pytest.approx(results[f"test_lexical_{metric}"], abs=1e-6), metric
        assert system["cost"]["train_seconds"] == trained["train_runtime"]
        assert system["cost"]["file_bytes"] == (Path(name) / "model.safetensors").stat().st_size
        weights = load_file(Path(name) / "model.safetensors")
        assert system["cost"]["parameters"] == sum(tensor.numel() for tensor in weights.values())
        assert system["cost"]["texts_per_second"] > 0
    report = json.loads((Path(names[0]) / "lexical_baseline.json").read_text())
    # The run's file has the model against its baseline, and the comparison the baseline against the run.
    theirs, ours = report["splits"]["test"]["comparison"], baseline["against_reference"]
    assert ours["mcnemar_p"] == theirs["mcnemar_p"]
    assert ours["differences"]["accuracy"]["value"] == -theirs["differences"]["accuracy"]["value"]
    assert baseline["cost"]["train_seconds"] == report["seconds"]
