"""Labels are read as what they are: lists in texts, zeros and ones, numbers of classes, several in a cell."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.labels import list_in_text
from bertcls_hf.data.load import ClassificationData, load_data
from bertcls_hf.errors import DataError
from tests.helpers.tables import PHRASES


def load(folder: Path, labels: list[Any], test: list[Any] | None = None, **options: Any) -> ClassificationData:
    """Loads rows with these labels, as JSON."""
    files: dict[str, str] = {}
    for split, values in (("train", labels), ("test", test or [])):
        if values:
            path = folder / f"{split}.jsonl"
            rows = [{"text": f"{split} {PHRASES[n % 20][0]} {n}", "label": value} for n, value in enumerate(values)]
            path.write_text("\n".join(map(json.dumps, rows)) + "\n")
            files[f"{split}_file"] = str(path)
    return load_data(DataArguments(validation_split_percentage=0, **files, **options), None, True, False)


def read(data: ClassificationData, split: str = "train") -> list[Any]:
    return [data.labels.readable(label) for label in data.splits[split]["label"]]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("['money', 'sport']", ["money", "sport"]),
        ('["money", "it\'s art"]', ["money", "it's art"]),
        ("[0, 1, 0]", [0, 1, 0]),
        ("[0 1 0]", [0, 1, 0]),
        ("[1. 0.]", [1, 0]),
        ("['a' 'b c']", ["a", "b c"]),
        ("[money, sport]", ["money", "sport"]),
        ("[]", []),
        ("[true, null]", [True, None]),
        ("('a', 'b')", ["a", "b"]),
        ("{'b', 'a'}", ["a", "b"]),
        ("(not sure)", "(not sure)"),
        ("{'a': 1}", "{'a': 1}"),
        ("[deleted]", "[deleted]"),
        ("[[1], [2]]", "[[1], [2]]"),
        ("[not a list", "[not a list"),
    ],
)
def test_a_list_in_a_text(text: str, value: Any) -> None:
    assert list_in_text(text) == value


class TestLists:
    def test_in_texts_are_labels(self, tmp_path: Path) -> None:
        data = load(tmp_path, ["['art']", "['art', 'sport']", "[]"])
        assert data.labels.problem_type == "multi_label_classification"
        assert read(data) == [["art"], ["art", "sport"], []]
        # A delimiter does not cut the list itself.
        assert read(load(tmp_path, ["['art']", "['art', 'sport']", "[]"], label_delimiter=",")) == read(data)

    @pytest.mark.parametrize(
        "labels",
        [
            [[0, 1, 0], [1, 1, 0], [0, 0, 0]],
            [[0.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]],
            ["[0, 1, 0]", "[1, 1, 0]", "[0, 0, 0]"],
            ["[0 1 0]", "[1 1 0]", "[0 0 0]"],
        ],
    )
    def test_of_zeros_and_ones_mark_labels(self, tmp_path: Path, labels: list[Any]) -> None:
        data = load(tmp_path, labels)
        assert data.labels.names == ("0", "1")
        assert read(data) == [["1"], ["0", "1"], []]
        named = load(tmp_path, labels, label_names=["a", "b", "c"])
        assert named.labels.names == ("a", "b", "c")
        assert read(named) == [["b"], ["a", "b"], []]
        with pytest.raises(DataError, match="a list of 3 zeros and ones, but --label_names gives 2 names"):
            load(tmp_path, labels, label_names=["a", "b"])

    def test_of_numbers_are_those_labels(self, tmp_path: Path) -> None:
        data = load(tmp_path, [[0], [0, 3], [2]], label_names=["a", "b", "c", "d"])
        assert read(data) == [["a"], ["a", "d"], ["c"]]

    def test_of_other_numbers_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"a list of labels holds the number 0\.3"):
            load(tmp_path, [[0.3, 0.7], [1.0, 0.0]])

    def test_of_one_are_single_labels_when_asked_for(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        labels = [["good"], ["bad"], ["good"]]
        assert load(tmp_path, labels).labels.problem_type == "multi_label_classification"
        assert "--problem_type single_label_classification makes it single-label" in caplog.text
        assert read(load(tmp_path, labels, problem_type="single_label_classification")) == ["good", "bad", "good"]

    def test_and_names_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="a label is 'art', and another is the list"):
            load(tmp_path, ["art", "['art', 'sport']"])

    def test_counts_are_logged(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO):
            load(tmp_path, [["a", "b"], ["b"], []])
        assert "train: 3 rows (a 1, b 2)" in caplog.text


class TestSeveralInACell:
    LABELS = ["0,1", "1", "0", "2", "0,2", "1,2"]

    def test_are_refused_with_the_option_that_splits_them(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="several labels in one cell: pass --label_delimiter ','"):
            load(tmp_path, self.LABELS)
        assert read(load(tmp_path, self.LABELS, label_delimiter=","))[0] == ["0", "1"]
        assert load(tmp_path, self.LABELS, problem_type="single_label_classification").labels.names[0] == "0"

    def test_a_name_with_a_comma_is_one_label(self, tmp_path: Path) -> None:
        assert load(tmp_path, ["Lakes, rivers", "Hills", "Lakes, rivers"]).labels.names == ("Hills", "Lakes, rivers")


class TestNames:
    def test_numbers_are_named_in_their_order(self, tmp_path: Path) -> None:
        data = load(tmp_path, [1, 0, 1], label_names=["bad", "good", "never seen"])
        assert data.labels.names == ("bad", "good", "never seen")
        assert read(data) == ["good", "bad", "good"]

    def test_a_number_without_a_name_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="the label '2' is not one of --label_names bad good"):
            load(tmp_path, [1, 0, 2], label_names=["bad", "good"])

    def test_other_splits_may_have_class_numbers(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        data = load(tmp_path, ["good", "bad", "good"], test=[0, 1, 1])
        assert read(data, "test") == ["bad", "good", "good"]
        assert "its labels are taken for class numbers: 0 is 'bad', 1 is 'good'" in caplog.text

    def test_a_class_number_too_high_is_unknown(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="labels that training does not know"):
            load(tmp_path, ["good", "bad", "good"], test=[0, 1, 2])

    def test_case_blanks_and_names_of_nothing_are_told(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        labels = ["Good", "good", "good ", "bad", "NA", "bad"]
        load(tmp_path, labels)
        assert "differ only in case are different labels: 'Good' (1 rows), 'good' (2 rows)" in caplog.text
        assert "1 labels have blanks around them, which are left out, such as 'good '" in caplog.text
        assert "'NA' is taken for a label (1 rows); --missing_label_names NA" in caplog.text
        caplog.clear()
        mended = load(tmp_path, labels, lowercase_labels=True, missing_label_names=["NA"], missing_label="drop")
        assert read(mended) == ["good", "good", "good", "bad", "bad"]
        assert "differ only in case" not in caplog.text
