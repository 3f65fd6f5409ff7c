"""Labels as values: names, order, tasks and what the model learns."""

from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, LargeList, List, Value

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.labels import (
    MULTI_LABEL,
    REGRESSION,
    SINGLE_LABEL,
    LabelSet,
    encode_labels,
    encoded_feature,
    infer_problem_type,
    is_missing,
    label_name,
    make_label_set,
    raw_labels,
    refuse_unseen_labels,
    sort_names,
)
from bertcls_hf.errors import DataError


NAMES = ClassLabel(names=["pos", "neg", "none"])


def column(values: list[Any], feature: Any) -> Dataset:
    return Dataset.from_dict({"label": values}, features=Features({"label": feature}))


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (1, "1"), (1.0, "1"), ("1.0", "1"), ("1.00", "1"), (" 1 ", "1"), (-2.0, "-2"), (1.5, "1.5"), ("1.50", "1.50"),
        ("007", "007"), ("v1.0", "v1.0"), ("1.0.0", "1.0.0"), (True, "true"), ("True", "True"), (" pos", "pos"),
        (1e300, "1e+300"),
    ],
)  # fmt: skip
def test_label_name(value: Any, name: str) -> None:
    assert label_name(value) == name


@pytest.mark.parametrize("value", [None, float("nan"), "", " \t", "nan", "NaN"])
def test_missing(value: Any) -> None:
    assert is_missing(value)


@pytest.mark.parametrize("value", [0, 0.0, False, "0", "none", "null", "NA", "None"])
def test_not_missing(value: Any) -> None:
    assert not is_missing(value)


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["10", "2", "1"], ["1", "2", "10"]),
        (["10", "-2", "1.5"], ["-2", "1.5", "10"]),
        (["b", "a", "10", "2"], ["10", "2", "a", "b"]),
        (["b", "a", "a"], ["a", "b"]),
    ],
)
def test_order_of_names(names: list[str], order: list[str]) -> None:
    assert list(sort_names(names)) == order


@pytest.mark.parametrize(
    ("values", "feature", "delimiter", "raw"),
    [
        ([0, 2, -1, None], NAMES, None, ["pos", "none", None, None]),
        ([0, 1], ClassLabel(names=["1.0", "2.0"]), None, ["1.0", "2.0"]),
        ([[0, 1], [], None], List(NAMES), None, [["pos", "neg"], [], None]),
        ([["b", "a"], ["a", None]], List(Value("string")), None, [["b", "a"], ["a"]]),
        ([["b"], []], LargeList(Value("string")), None, [["b"], []]),
        ([[1, 2]], List(Value("int8")), None, [["1", "2"]]),
        ([1, None, 3], Value("int32"), None, ["1", None, "3"]),
        ([1.0, float("nan"), 2.5], Value("float64"), None, ["1", None, "2.5"]),
        ([True, False], Value("bool"), None, ["true", "false"]),
        ([None, None], Value("null"), None, [None, None]),
        (["a", "", " ", "nan", None], Value("string"), None, ["a", None, None, None, None]),
        (["a|b", "b", "", " a | ", None], Value("string"), "|", [["a", "b"], ["b"], [], ["a"], None]),
        ([0, 1], NAMES, "|", ["pos", "neg"]),
    ],
)
def test_raw_labels(values: list, feature: Any, delimiter: str | None, raw: list) -> None:
    assert raw_labels(column(values, feature), DataArguments(label_delimiter=delimiter)) == raw


@pytest.mark.parametrize(
    ("values", "feature", "problem_type"),
    [
        (["a", "b"], Value("string"), SINGLE_LABEL),
        (["1", "2"], Value("string"), SINGLE_LABEL),
        (["1", "2.5"], Value("string"), REGRESSION),
        (["1", "2.5", "x"], Value("string"), SINGLE_LABEL),
        ([1.0, 2.0], Value("float32"), SINGLE_LABEL),
        ([1.0, 0.25], Value("float32"), REGRESSION),
        ([0, 1], ClassLabel(names=["0.5", "1.5"]), SINGLE_LABEL),
        ([["a"], []], List(Value("string")), MULTI_LABEL),
    ],
)
def test_task_that_the_labels_show(values: list, feature: Any, problem_type: str) -> None:
    dataset = column(values, feature)
    assert infer_problem_type(dataset, raw_labels(dataset, DataArguments()), None, "a.csv") == problem_type


def test_whole_numbers_can_be_regression() -> None:
    dataset = column([1, 2, 5], Value("int64"))
    assert infer_problem_type(dataset, raw_labels(dataset, DataArguments()), REGRESSION, "a.csv") == REGRESSION


def test_class_names_keep_their_order_and_the_unused() -> None:
    dataset = column([1, 0, 1], NAMES)
    labels = make_label_set(dataset, raw_labels(dataset, DataArguments()), SINGLE_LABEL, "a")
    assert labels.names == ("pos", "neg", "none")
    assert labels.id2label == {0: "pos", 1: "neg", 2: "none"}
    assert labels.label2id == {"pos": 0, "neg": 1, "none": 2}


@pytest.mark.parametrize(
    ("labels", "values", "encoded"),
    [
        (LabelSet(SINGLE_LABEL, ("b", "a")), ["a", None, "b"], [1, None, 0]),
        (LabelSet(MULTI_LABEL, ("x", "yy")), [["yy"], [], None, "yy"], [[0, 1], [0, 0], None, [0, 1]]),
        (LabelSet(REGRESSION, ("score",)), ["1", "0.5", None], [1.0, 0.5, None]),
    ],
)
def test_encoding(labels: LabelSet, values: list, encoded: list) -> None:
    refuse_unseen_labels(values, labels, "test", "a.csv")
    assert encode_labels(values, labels) == encoded
    assert column(encode_labels(values, labels), encoded_feature(labels))["label"][:] == encoded


@pytest.mark.parametrize(
    ("labels", "values", "said"),
    [
        (LabelSet(SINGLE_LABEL, ("a", "b")), ["a", "c", "c", "d"], r"'c' \(2 ×\), 'd' \(1 ×\); known: a, b"),
        (LabelSet(SINGLE_LABEL, ("a", "b")), [["a"]], r"the list \['a'\]"),
        (LabelSet(MULTI_LABEL, ("a", "b")), ["a|b"], r"'a\|b' \(1 ×\)"),
        (LabelSet(REGRESSION, ("score",)), ["1", "x"], "needs numbers, but a label is 'x'"),
        (LabelSet(REGRESSION, ("score",)), ["inf"], "needs numbers, but a label is 'inf'"),
        (LabelSet(SINGLE_LABEL, ("a", "b")), [str(i) for i in range(40)], "and 30 more"),
    ],
)
def test_labels_that_training_does_not_know(labels: LabelSet, values: list, said: str) -> None:
    with pytest.raises(DataError, match=said):
        refuse_unseen_labels(values, labels, "test", "a.csv")
