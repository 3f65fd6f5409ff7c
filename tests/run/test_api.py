"""Training from Python: options as keywords, data from files or memory, and what comes back."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest
import yaml
from datasets import Dataset

import bertcls_hf
from bertcls_hf.errors import ArgumentsError, DataError
from bertcls_hf.run.pipeline import main
from tests.helpers.documentation import README, marked_code
from tests.helpers.reviews import review


def rows(count: int, start: int = 0) -> dict[str, list[str]]:
    found = [review(start + index) for index in range(count)]
    return {"text": [text for text, _ in found], "label": [label for _, label in found]}


@pytest.fixture
def options(tiny_bert: Path, tmp_path: Path) -> dict[str, object]:
    return {
        "model_name_or_path": tiny_bert, "output_dir": tmp_path / "out", "num_train_epochs": 2, "learning_rate": 1e-3,
        "per_device_train_batch_size": 8, "logging_steps": 1, "disable_tqdm": True, "use_cpu": True,
    }  # fmt: skip


def test_it_is_the_run_of_the_command_line(
    command: Callable[..., list[str]], options: dict, reviews: dict[str, Path], tmp_path: Path
) -> None:
    files = {f"{split}_file": path for split, path in reviews.items()}
    result = bertcls_hf.train(**options, **files)
    assert main(command(output_dir=tmp_path / "again")) == 0
    weights = [(folder / "model.safetensors").read_bytes() for folder in (result.output_dir, tmp_path / "again")]
    assert weights[0] == weights[1]
    saved = json.loads((tmp_path / "again/all_results.json").read_text())
    timings = ("runtime", "per_second", "preparation_time")
    same = {name: value for name, value in saved.items() if not any(part in name for part in timings)}
    assert {name: result.metrics[name] for name in same} == pytest.approx(same, rel=1e-6)
    mine, theirs = (yaml.safe_load((tmp_path / name / "recipe.yaml").read_text()) for name in ("out", "again"))
    assert mine | {"output_dir": ""} == theirs | {"output_dir": ""}


@pytest.mark.parametrize("kind", [Dataset.from_dict, pandas.DataFrame], ids=["Dataset", "DataFrame"])
def test_rows_in_memory_train_and_predict(kind: Callable[[dict], object], options: dict) -> None:
    result = bertcls_hf.train(options, train_data=kind(rows(48)), test_data=kind(rows(16, start=100)), seed=3)
    assert {"train_loss", "eval_accuracy", "test_macro_f1"} <= set(result.metrics)
    (prediction,) = result.predictor.predict(["a good great film"])
    assert prediction.label in {"neg", "pos"}
    assert sum((prediction.probabilities or {}).values()) == pytest.approx(1, abs=1e-5)
    recipe = yaml.safe_load((result.output_dir / "recipe.yaml").read_text())
    assert recipe["seed"] == 3
    assert not any(name.endswith("_file") for name in recipe)
    card = (result.output_dir / "README.md").read_text()
    assert " texts of rows in memory." in card
    assert "# Called as bertcls_hf.train(…, test_data=…, train_data=…), with rows in memory" in card


def test_rows_in_memory_give_the_weights_of_rows_in_a_file(
    options: dict, reviews: dict[str, Path], tmp_path: Path
) -> None:
    files = {"validation_file": reviews["validation"]}
    in_memory = bertcls_hf.train(**options, **files, train_data=Dataset.from_dict(rows(48)))
    again = bertcls_hf.train(**{**options, "output_dir": tmp_path / "again"}, **files, train_file=reviews["train"])
    weights = [(result.output_dir / "model.safetensors").read_bytes() for result in (in_memory, again)]
    assert weights[0] == weights[1]


def test_options_win_over_a_recipe_file(options: dict, reviews: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"train_file: {reviews['train']}\nnum_train_epochs: 50\nsave_strategy: 'no'\n"
                    "load_best_model_at_end: false\ntext_column_names: [text]\n")  # fmt: skip
    result = bertcls_hf.train(path, **{**options, "num_train_epochs": 1})
    assert yaml.safe_load((result.output_dir / "recipe.yaml").read_text())["num_train_epochs"] == 1.0


class TestRefusals:
    def test_an_unknown_option_is_guessed_at(self) -> None:
        with pytest.raises(ArgumentsError, match=r"unknown option learnin_rate; did you mean learning_rate\?"):
            bertcls_hf.train(learnin_rate=1)

    def test_a_value_of_another_type(self) -> None:
        with pytest.raises(ArgumentsError, match="--num_train_epochs: invalid float value: 'many'"):
            bertcls_hf.train(num_train_epochs="many")

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            ({"train_file": "train.csv"}, "train_data is in memory, and --train_file names a file"),
            ({"dataset_name": "imdb"}, "--dataset_name imdb and data in memory are two sources"),
            ({"streaming": True, "max_steps": 3}, "--streaming reads training data from files or the Hub"),
        ],
    )
    def test_two_sources(self, options: dict, other: dict, message: str) -> None:
        with pytest.raises(ArgumentsError, match=message):
            bertcls_hf.train(**options, **other, train_data=Dataset.from_dict(rows(4)))

    def test_no_training_data(self, options: dict) -> None:
        with pytest.raises(ArgumentsError, match="no training data"):
            bertcls_hf.train(**options)

    def test_a_missing_label_in_memory(self, options: dict) -> None:
        frame = pandas.DataFrame(rows(8))
        frame.loc[2, "label"] = None
        with pytest.raises(DataError, match="no label in 1 of 8 rows"):
            bertcls_hf.train(**options, train_data=frame)


def test_options_stay_as_they_were_given(options: dict, reviews: dict[str, Path]) -> None:
    given = {**options, "train_file": reviews["train"], "head_learning_rate": None, "text_column_names": ["text"]}
    before = dict(given)
    bertcls_hf.train(given, num_train_epochs=1)
    assert given == before


def test_the_readmes_example_says_what_a_reader_expects(tmp_path: Path) -> None:
    code = [sys.executable, "-c", marked_code(README, "python-api")]
    done = subprocess.run(code, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    accuracy, predictions = done.stdout.splitlines()[-2:]
    assert float(accuracy) >= 0.5
    labels = re.findall(r"Prediction\(label='(\w+)'", predictions)
    assert labels == ["sport", "business"]
