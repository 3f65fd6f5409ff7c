"""The card that a run leaves: right for every kind of run, readable by the Hub, and safe to publish."""

import csv
import dataclasses
import json
import logging
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, metadata_load

from bertcls_hf.config.parsing import parse_arguments
from bertcls_hf.hub.card import licences, model_card
from bertcls_hf.hub.card.finished_run import FinishedRun
from bertcls_hf.hub.card.model_card import CARD_MARK, write_model_card
from bertcls_hf.metrics.metrics import METRICS, metric_words
from bertcls_hf.run import main
from bertcls_hf.run.pipeline import run
from tests.helpers.reviews import review, write_reviews


pytestmark = pytest.mark.whole_output


Command = Callable[..., list[str]]


def card_of(folder: Path) -> str:
    """The card's Markdown, after a check that every picture that it shows is there, and none other."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[[^\]]+\.\]\((figures/[a-z_]+\.png)\)", text)
    assert shown
    assert {folder / name for name in shown} == set((folder / "figures").iterdir())
    assert all((folder / name).stat().st_size > 5_000 for name in shown)
    assert "\n\n\n" not in text
    assert "{{" not in text
    return text


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows_of(text: str, first: str) -> dict[str, list[str]]:
    """The table whose header begins with a word, by the first cell of each row."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    table: dict[str, list[str]] = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        table[name] = cells
    return table


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[FinishedRun]:
    """The runs whose cards were written."""
    runs: list[FinishedRun] = []

    def keep(run: FinishedRun) -> None:
        runs.append(run)
        write_model_card(run)

    monkeypatch.setattr(model_card, "write_model_card", keep)
    return runs


@pytest.fixture
def other_task(tmp_path: Path) -> Callable[[str], dict[str, Path]]:
    """Files of another task."""

    def write(task: str) -> dict[str, Path]:
        files = {}
        for split, rows in (("train", 40), ("validation", 12), ("test", 30)):
            files[f"{split}_file"] = path = tmp_path / f"{split}.jsonl"
            labels = [["pos", "long"][: 1 + i % 2] if i % 3 else [] for i in range(rows)]
            values = labels if task == "multi_label" else [i % 5 + 0.5 for i in range(rows)]
            lines = [json.dumps({"text": review(i)[0], "label": value}) for i, value in enumerate(values)]
            path.write_text("\n".join(lines) + "\n")
        return files

    return write


PICTURES = {
    "single_label": {"training_curves", "confusion_matrix", "reliability", "by_length"},
    "multi_label": {"training_curves", "label_scores", "reliability", "by_length"},
    "regression": {"training_curves", "predicted_vs_gold", "by_length"},
}


@pytest.mark.parametrize("task", list(PICTURES))
def test_metadata_holds_the_figures_of_all_results(
    task: str, command: Command, other_task: Callable, tmp_path: Path
) -> None:
    files = {} if task == "single_label" else other_task(task)
    assert main(command(**files, num_train_epochs=1)) == 0
    out = tmp_path / "out"
    text = card_of(out)
    assert {path.stem for path in (out / "figures").iterdir()} == PICTURES[task]
    results = json.loads((out / "all_results.json").read_text())
    metadata = metadata_load(out / "README.md")
    assert metadata is not None
    (model,) = metadata["model-index"]
    (result,) = model["results"]
    assert model["name"] == "out"
    assert result["task"] == {"type": "text-classification"}
    assert result["dataset"]["split"] == "test"
    assert metadata["pipeline_tag"] == "text-classification"
    examples = [entry["text"] for entry in metadata["widget"]]
    assert 2 <= len(examples) <= 5
    assert len(set(examples)) == len(examples)
    assert set(examples) <= {review(row)[0] for row in range(217)}
    assert "base_model" not in metadata
    assert "datasets" not in metadata
    by_name = {metric["name"]: metric for metric in result["metrics"]}
    names = [name.removeprefix("test_") for name in results if name.startswith("test_")]
    hub_names = {metric.name: metric.hub_name for metrics in METRICS.values() for metric in metrics}
    found = 0
    for name in names:
        metric = by_name.get(metric_words(name))
        if metric is not None:
            found += 1
            assert metric["value"] == results[f"test_{name}"]
            assert metric["type"] == hub_names[name]
    assert found == len(by_name) >= 6
    # The card can be read, changed and saved by the Hub's own class.
    card = ModelCard.load(out / "README.md")
    assert len(card.data.eval_results) == found
    assert ModelCard(str(card)).data.to_dict() == card.data.to_dict()
    shown = rows_of(section(text, "Results"), "metric")
    for name in set(names) & {"accuracy", "macro_f1", "micro_f1", "rmse", "mae"}:
        value, interval, baseline, difference, validation = shown[metric_words(name)]
        assert baseline == f"{results[f'test_lexical_{name}']:.4f}"
        expected = results[f"test_{name}"] - results[f"test_lexical_{name}"]
        assert float(difference.split(" (")[0]) == pytest.approx(expected, abs=6e-5)
        low, high = map(float, interval.split(" to "))
        assert value == f"{results[f'test_{name}']:.4f}"
        assert low <= float(value) + 1e-3
        assert high >= float(value) - 1e-3
        assert validation == f"{results[f'eval_{name}']:.4f}"


def test_sections_of_a_card(command: Command, tmp_path: Path) -> None:
    argv = command(num_train_epochs=2, seed=7)
    assert main(argv) == 0
    text = card_of(tmp_path / "out")
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert titles == ["How to use it", "Results", "Training", "Data", "Repeating it", "Limits", "Licence"]
    assert rows_of(section(text, "Data"), "split")["train"][0] == "48"
    assert "Columns: text: text; label: label." in section(text, "Data")
    assert section(text, "Data").count("24 (50.0%)") == 2
    settings = rows_of(section(text, "Training"), "setting")
    assert settings["length of the training"] == ["2 of 2 epochs, 12 steps"]
    assert settings["seed"] == ["7, of the splits 42"]
    assert settings["batch of a step"][0].startswith("8 texts")
    report = json.loads((tmp_path / "out/test_report.json").read_text())["per_class"]
    per_label = rows_of(section(text, "Results"), "label")
    assert per_label["pos"] == [
        *(f"{report['pos'][key]:.3f}" for key in ("precision", "recall", "f1-score")),
        f"{report['pos']['support']:.0f}",
    ]
    repeating = section(text, "Repeating it")
    assert "python run_classification.py --model_name_or_path" in repeating
    assert "--seed 7" in repeating
    assert "texts per second" in repeating
    for part in ("Python 3.", "torch ", "transformers ", "datasets ", "bertcls_hf "):
        assert part in repeating
    recipe = yaml.safe_load(re.search(r"```yaml\n(.*?)```", repeating, re.DOTALL).group(1))
    assert recipe["train_file"] == "train.csv"
    assert recipe["num_train_epochs"] == 2
    assert "trust_remote_code" not in section(text, "How to use it")
    assert "not known" in section(text, "Licence")


def test_the_snippet_of_a_card_gives_the_models_probabilities(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(command(pooling="mean", num_train_epochs=1, do_train=True, do_predict=True)) == 0
    text = card_of(tmp_path / "out")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)
    assert "needs transformers 4.57 or later" in " ".join(text.split())
    assert 'pipeline(\n    "text-classification", "out", top_k=None, trust_remote_code=True\n)' in code
    first = json.loads((tmp_path / "out/predictions.jsonl").read_text().splitlines()[0])
    script = code.replace('"One text, or a list of them"', repr([first["text"]])).replace(
        "\nclassify(", "\ngot = classify("
    )
    namespace: dict = {}
    exec(compile(script, "snippet", "exec"), namespace)
    found = {score["label"]: score["score"] for score in namespace["got"][0]}
    assert found == pytest.approx(first["probabilities"], abs=1e-5)


def test_nothing_of_the_machine_is_in_a_card(
    command: Command, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canaryCANARYcanary0123456789")
    assert main(command(num_train_epochs=1, boost=True, learning_rate=None, boost_cache_dir=tmp_path / "cache")) == 0
    text = card_of(tmp_path / "out")
    for private in (str(tmp_path), str(tiny_bert.parent), str(Path.home()), "hf_canary", "/tmp"):
        assert private not in text
    assert "--train_file train.csv" in text
    assert f"--model_name_or_path {tiny_bert.name} " in text


class TestTexts:
    @pytest.fixture
    def korean(self, command: Command, tmp_path: Path) -> list[str]:
        """Labels and texts in Korean, with everything that breaks a table."""
        nasty = (
            "정말 | 별로\n<img src=x onerror=alert(1)> `코드` [링크](http://x) $수식$ **굵게** \u202e " + "길" * 300
        )
        for split, rows in (("train", 40), ("validation", 12), ("test", 24)):
            with (tmp_path / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(["text", "label"])
                # Labels that nothing in the text tells.
                writer.writerows([f"{i} {nasty}", "긍정|👍" if i % 2 else "부정_*"] for i in range(rows))
        return command(num_train_epochs=1)

    @pytest.mark.filterwarnings("error::UserWarning")
    def test_every_letter_is_shown_and_none_is_markup(
        self, korean: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING):
            assert main(korean) == 0
        assert "glyph" not in caplog.text.lower()
        text = card_of(tmp_path / "out")
        (table,) = re.findall(r"### The \d+ most confident errors\n\n(.*?)\n\n", text, re.DOTALL)
        lines = table.splitlines()[2:]
        assert 1 < len(lines) <= 20
        for line in lines:
            assert line.count("|") == 5
            assert (
                "정말 &#124; 별로 &lt;img src=x onerror=alert(1)&gt; &#96;코드&#96; &#91;링크&#93;(http&#58;//x)"
                in line
            )
            assert "&#36;수식&#36; &#42;&#42;굵게&#42;&#42;" in line
            assert "길…" in line
            assert "길" * 200 not in line
        confidence = [float(line.rsplit("|", 2)[1]) for line in lines]
        assert confidence == sorted(confidence, reverse=True)
        assert "긍정&#124;👍" in text
        assert "부정&#95;&#42;" in text
        assert "\u202e" not in text

    def test_errors_are_those_of_the_predictions(self, command: Command, tmp_path: Path) -> None:
        assert main(command(num_train_epochs=1, learning_rate=1e-9, do_train=True, do_predict=True)) == 0
        lines = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").read_text().splitlines()]
        wrong = [line for line in lines if line["gold"] != line["label"]]
        wrong.sort(key=lambda line: -line["probabilities"][line["label"]])
        assert wrong
        shown = rows_of(section(card_of(tmp_path / "out"), "Results"), "text")
        assert list(shown) == [line["text"] for line in wrong[:20]]
        assert list(shown.values()) == [
            [line["gold"], line["label"], f"{line['probabilities'][line['label']]:.3f}"] for line in wrong[:20]
        ]

    def test_errors_of_pairs_and_numbers(self, command: Command, other_task: Callable, tmp_path: Path) -> None:
        for split, rows in (("train", 24), ("test", 12)):
            lines = [{"sentence1": review(i)[0], "sentence2": f"other {i}", "label": i + 0.5} for i in range(rows)]
            (tmp_path / f"pairs_{split}.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
        files = {"train_file": tmp_path / "pairs_train.jsonl", "test_file": tmp_path / "pairs_test.jsonl"}
        assert main(command(**files, validation_file=None, num_train_epochs=1)) == 0
        text = card_of(tmp_path / "out")
        assert 'classify({"text": "One text", "text_pair": "and the other"}, truncation=True' in text
        assert "Held out of the training data before training: 10% for validation." in text
        shown = rows_of(section(text, "Results"), "text")
        assert len(shown) == 12
        assert next(iter(shown)).endswith("<br>other 11")


def test_many_labels(command: Command, tmp_path: Path) -> None:
    for split, rows in (("train", 130), ("validation", 65), ("test", 65)):
        with (tmp_path / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["text", "label"], *([review(i)[0], f"intent {i % 65}"] for i in range(rows))])
    assert main(command(num_train_epochs=1)) == 0
    text = card_of(tmp_path / "out")
    assert len(rows_of(section(text, "Results"), "label")) == 20
    assert "The 20 labels with the lowest F1 of 65; all are in `test_report.json`." in text
    assert len(rows_of(section(text, "Data"), "number")) == 20
    assert all(f"intent {i}" in section(text, "Data") for i in range(65))
    assert "65 of 65 labels have fewer than 30 test texts" in text
    assert max(map(len, text.splitlines())) < 2500


class TestKindsOfRuns:
    def test_without_test_data_validation_counts(self, command: Command, tmp_path: Path) -> None:
        assert main(command(test_file=None, num_train_epochs=1)) == 0
        text = card_of(tmp_path / "out")
        assert "On the validation data, 16 texts: accuracy" in text
        assert "its figures are somewhat too good" in text
        assert (
            metadata_load(tmp_path / "out/README.md")["model-index"][0]["results"][0]["dataset"]["split"]
            == "validation"
        )

    def test_without_any_evaluation(self, command: Command, tmp_path: Path) -> None:
        options = {"validation_file": None, "test_file": None, "validation_split_percentage": 0, "eval_strategy": "no"}
        assert main(command(**options, num_train_epochs=1)) == 0
        text = card_of(tmp_path / "out")
        assert "The model was not evaluated after training" in text
        assert "model-index" not in metadata_load(tmp_path / "out/README.md")
        assert {path.name for path in (tmp_path / "out/figures").iterdir()} == {"training_curves.png"}

    def test_an_evaluation_has_a_card_of_its_own_and_leaves_the_models_alone(
        self, command: Command, tmp_path: Path
    ) -> None:
        assert main(command(num_train_epochs=1)) == 0
        out, again = tmp_path / "out", tmp_path / "again"
        before = (out / "README.md").read_bytes(), sorted(path.name for path in (out / "figures").iterdir())
        evaluation = {"model_name_or_path": out, "train_file": None, "do_eval": True}
        assert main(command(**evaluation)) == 0
        assert before == ((out / "README.md").read_bytes(), sorted(path.name for path in (out / "figures").iterdir()))
        for rows in (17, 20):
            write_reviews(tmp_path / "test.csv", rows, start=200)
            assert main(command(**evaluation, output_dir=again)) == 0
            text = card_of(again)
            assert f"On the test data, {rows} texts" in text
        assert "# Evaluation of out\n" in text
        assert "nothing was trained" in text
        assert "## Training" not in text
        metadata = metadata_load(again / "README.md")
        assert metadata["model-index"][0]["name"] == "out"
        assert "base_model" not in metadata

    def test_predictions_without_labels_have_no_card(self, command: Command, tmp_path: Path) -> None:
        assert main(command(num_train_epochs=1)) == 0
        (tmp_path / "test.csv").write_text("text\n" + "\n".join(review(i)[0] for i in range(9)) + "\n")
        options = {"model_name_or_path": tmp_path / "out", "train_file": None, "validation_file": None}
        assert main(command(**options, do_predict=True, output_dir=tmp_path / "again")) == 0
        assert (tmp_path / "again/predictions.jsonl").exists()
        assert not (tmp_path / "again/README.md").exists()
        assert not (tmp_path / "again/figures").exists()

    def test_a_readme_of_the_users_is_kept(self, command: Command, tmp_path: Path) -> None:
        out = tmp_path / "out"
        out.mkdir()
        (out / "README.md").write_text("# My project\n")
        assert main(command(num_train_epochs=1)) == 0
        assert (out / "README.md").read_text() == "# My project\n"
        assert not (out / "figures").exists()

    def test_a_card_of_an_earlier_run_is_replaced_with_its_pictures(
        self, command: Command, other_task: Callable, tmp_path: Path
    ) -> None:
        assert main(command(num_train_epochs=1)) == 0
        assert CARD_MARK in card_of(tmp_path / "out")
        assert main(command(**other_task("regression"), num_train_epochs=1)) == 0
        assert {path.stem for path in (tmp_path / "out/figures").iterdir()} == PICTURES["regression"]
        assert "confusion" not in card_of(tmp_path / "out").lower()

    def test_a_resumed_run_tells_its_whole_course(
        self, command: Command, tmp_path: Path, kept: list[FinishedRun]
    ) -> None:
        assert main(command(num_train_epochs=1)) == 0
        assert main(command(num_train_epochs=3, resume_from_checkpoint="auto")) == 0
        text = card_of(tmp_path / "out")
        assert ", from checkpoint-6 on;" in section(text, "Repeating it")
        assert rows_of(section(text, "Training"), "setting")["length of the training"] == ["3 of 3 epochs, 18 steps"]
        losses = [line["step"] for line in kept[-1].state.log_history if "loss" in line]
        assert losses[0] == 1
        assert losses[-1] == 18

    @pytest.mark.parametrize("epochs", [2, 0])
    def test_lp_ft_shows_both_phases(self, epochs: int, command: Command, tmp_path: Path) -> None:
        options = {"boost": True, "freeze_backbone": False, "head_num_train_epochs": epochs, "num_train_epochs": 1}
        assert main(command(**options)) == 0
        text = card_of(tmp_path / "out")
        assert ("figures/head_training_curves.png" in text) == (epochs > 0)
        assert "a head was trained first, on cached features, and then all layers of" in text

    def test_boost_has_lengths_and_texts_as_any_run(self, command: Command, tmp_path: Path) -> None:
        options = {"head_init": "logistic", "num_train_epochs": 0}
        assert main(command(boost=True, learning_rate=None, eval_strategy="no", **options)) == 0
        text = card_of(tmp_path / "out")
        # Nothing was logged, since no step was made.
        assert {path.stem for path in (tmp_path / "out/figures").iterdir()} == PICTURES["single_label"] - {
            "training_curves"
        }
        settings = rows_of(section(text, "Training"), "setting")
        assert settings["start of the head"] == ["logistic"]
        assert settings["features"] == ["computed once by the frozen encoder, and cached"]

    def test_a_calibration_is_named_as_what_the_figures_leave_out(self, command: Command, tmp_path: Path) -> None:
        assert main(command(calibrate=True, num_train_epochs=1)) == 0
        assert "what `calibration.json` holds" in section(card_of(tmp_path / "out"), "Limits")

    def test_a_sweep_shows_its_best_trials(self, command: Command, tmp_path: Path) -> None:
        assert main(command(boost=True, sweep=3, learning_rate=None, num_train_epochs=1)) == 0
        text = card_of(tmp_path / "out")
        assert "the best of 3 trials by accuracy" in text
        sweep = json.loads((tmp_path / "out/sweep.json").read_text())
        shown = [cells[0] for cells in rows_of(section(text, "Training"), "number").values()]
        assert shown == sorted((f"{trial['accuracy']:.4g}" for trial in sweep["trials"]), reverse=True)

    def test_a_streamed_run_has_no_number_of_texts(self, command: Command, tmp_path: Path) -> None:
        assert main(command(streaming=True, max_steps=8, num_train_epochs=None, eval_steps=4, eval_strategy="steps",
                            save_strategy="steps", save_steps=4)) == 0  # fmt: skip
        text = card_of(tmp_path / "out")
        assert "on streamed texts of train.csv" in text
        assert rows_of(section(text, "Data"), "split")["train"] == ["streamed", "", "", ""]
        assert rows_of(section(text, "Training"), "setting")["length of the training"] == ["8 of 8 steps"]
        assert "at step 8" in section(text, "Training")
        assert "texts per second" in text

    def test_a_disk_that_takes_no_pictures_ends_the_run_with_its_model(
        self, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture
    ) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out/figures").touch()
        assert main(command(num_train_epochs=1)) == 74
        error = capsys.readouterr().err.splitlines()[-1]
        assert "figures cannot be written" in error
        assert error.endswith("the model and its results are saved, but not their card")
        assert (tmp_path / "out/model.safetensors").exists()

    def test_a_run_that_diverges_leaves_none(self, command: Command, tmp_path: Path) -> None:
        assert main(command(learning_rate=1e30, max_grad_norm=0)) == 76
        assert not (tmp_path / "out/README.md").exists()


@pytest.fixture(scope="module")
def finished(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """A run of one step, whose card tests write anew."""
    folder = tmp_path_factory.mktemp("finished")
    files = {name: write_reviews(folder / f"{name}.csv", 16) for name in ("train", "validation", "test")}
    argv = [
        *("--model_name_or_path", tiny_bert, "--train_file", files["train"], "--validation_file", files["validation"]),
        *("--test_file", files["test"], "--output_dir", folder / "out", "--max_steps", 1, "--use_cpu", True),
    ]
    words = [str(word) for word in argv]
    return run(*parse_arguments(words), words)


class TestSources:
    def test_names_and_licences_of_the_hub(
        self, finished: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []

        def cached(name: str, file: str, **options: object) -> str:
            asked.append((name, file, options["repo_type"], options["revision"], options["local_files_only"]))
            path = tmp_path / f"{options['repo_type']}.md"
            path.write_text(
                "---\nlicense: mit\n---\n" if options["repo_type"] == "model" else "---\nlicense: [cc0-1.0]\n---\n"
            )
            return str(path)

        monkeypatch.setattr(licences, "hf_hub_download", cached)
        card = written_card(finished, model_name_or_path="org/encoder", dataset_name="org/reviews", train_file=None)
        metadata = metadata_load(card)
        assert metadata["base_model"] == "org/encoder"
        assert metadata["datasets"] == ["org/reviews"]
        assert metadata["license"] == "mit"
        assert metadata["model-index"][0]["results"][0]["dataset"]["type"] == "org/reviews"
        licence = section(card_of(card.parent), "Licence")
        assert "| `org/encoder` | mit |" in licence
        assert "| org/reviews | cc0-1.0 |" in licence
        # The tests work offline: only the cache may be looked at.
        assert sorted(asked) == [
            ("org/encoder", "README.md", "model", "main", True),
            ("org/reviews", "README.md", "dataset", None, True),
        ]

    def test_what_the_hub_does_not_answer_is_not_known(self, finished: FinishedRun) -> None:
        card = written_card(finished, model_name_or_path="org/nowhere")
        assert "license" not in metadata_load(card)
        assert "| `org/nowhere` | not known |" in section(card_of(card.parent), "Licence")

    @pytest.mark.parametrize(
        ("readme", "licence"),
        [
            ("---\nlicense: apache-2.0\n---\n# Encoder\n", "apache-2.0"),
            ("---\nlicense: other\nlicense_name: my terms\n---\n", "my terms"),
            ("# Encoder\n", None),
            ("---\n{: broken\n---\n", None),
        ],
    )
    def test_licence_of_a_local_folder(
        self, readme: str, licence: str | None, tiny_bert: Path, finished: FinishedRun, tmp_path: Path
    ) -> None:
        folder = shutil.copytree(tiny_bert, tmp_path / "encoder")
        (folder / "README.md").write_text(readme)
        card = written_card(finished, model_name_or_path=str(folder))
        # A name that the Hub does not know would make it refuse the card.
        assert metadata_load(card).get("license") == (licence if licence == "apache-2.0" else None)
        assert f"| `encoder` | {licence or 'not known'} |" in section(card_of(card.parent), "Licence")


def written_card(finished: FinishedRun, model_name_or_path: str, **data: str | None) -> Path:
    """Writes the run's card as if it had begun from another model or data, and gives the card's path."""
    args = dataclasses.replace(
        finished.args,
        model=dataclasses.replace(finished.args.model, model_name_or_path=model_name_or_path),
        data=dataclasses.replace(finished.args.data, **data),
    )
    write_model_card(dataclasses.replace(finished, args=args))
    return Path(finished.args.training.output_dir) / "README.md"


def test_a_metric_that_is_not_defined_is_left_out_of_the_metadata(command: Command, tmp_path: Path) -> None:
    """Test data of one class has no ROC curve."""
    with (tmp_path / "test.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text", "label"], *(review(i) for i in range(1, 20, 2))])
    assert main(command(num_train_epochs=1)) == 0
    assert math.isnan(json.loads((tmp_path / "out/test_results.json").read_text())["test_roc_auc"])
    metrics = metadata_load(tmp_path / "out/README.md")["model-index"][0]["results"][0]["metrics"]
    assert "roc_auc" not in {metric["type"] for metric in metrics}
    assert rows_of(section(card_of(tmp_path / "out"), "Results"), "metric")["ROC AUC"][0] == "nan"
