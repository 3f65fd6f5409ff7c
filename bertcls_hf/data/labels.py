"""The labels of a task: their names and order, how they are read, and how they are encoded for the model."""

import ast
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from datasets import ClassLabel, Dataset, LargeList, List, Value

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.errors import DataError


ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
SINGLE_LABEL: ProblemType = "single_label_classification"
MULTI_LABEL: ProblemType = "multi_label_classification"
REGRESSION: ProblemType = "regression"
RawLabel = str | list[str] | None
MOST_LISTED = 10
_WHOLE_NUMBER = re.compile(r"-?\d{1,15}\.0+")
_BRACKETS = ("[]", "()", "{}")
_NUMPY_NUMBERS = re.compile(r"\s*-?\d+\.?\d*(?:\s+-?\d+\.?\d*)+\s*")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_NUMPY_TEXTS = re.compile(rf"\s*(?:{_QUOTED.pattern})(?:\s+(?:{_QUOTED.pattern}))+\s*")


@dataclass(frozen=True)
class LabelSet:
    """The names and the order of a task's labels, which the model, the metrics and the predictions share.

    Args:
        problem_type: the task, as a value of `PreTrainedConfig.problem_type`.
        names: label names in the order of the model's outputs; one name for regression.
    """

    problem_type: ProblemType
    names: tuple[str, ...]

    @property
    def id2label(self) -> dict[int, str]:
        """Maps the position of a model output to its label name."""
        return dict(enumerate(self.names))

    @property
    def label2id(self) -> dict[str, int]:
        """Maps a label name to the position of its model output."""
        return {name: position for position, name in enumerate(self.names)}

    def readable(self, value: Any) -> str | list[str] | float:
        """Decodes an encoded label: the name for single-label, the names for multi-label, the number for regression.

        Args:
            value: a position, a sequence of (labels,) zeros and ones, or a number.
        """
        if self.problem_type == SINGLE_LABEL:
            return self.names[int(value)]
        if self.problem_type == MULTI_LABEL:
            return [name for name, is_set in zip(self.names, value, strict=True) if is_set]
        return float(value)


def label_name(value: Any) -> str:
    """Converts one raw label to its name. 1, 1.0 and the text `1.0` have the name `1`; booleans are lower case."""
    name = str(value).strip()
    if isinstance(value, bool):
        return name.lower()
    # pandas writes a column of whole numbers as 1.0, 2.0 … if a value is missing.
    return str(int(float(name))) if _WHOLE_NUMBER.fullmatch(name) else name


def is_missing(value: Any) -> bool:
    """Says whether a raw label is missing: whether it is None, NaN, the text `nan`, or a blank text."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and value.strip().lower() in {"", "nan"})


def sort_names(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the distinct names, in numeric order if all of them are numbers, else in alphabetical order."""
    unique = set(names)
    if all(_is_number(name) for name in unique):
        return tuple(sorted(unique, key=lambda name: (float(name), name)))
    return tuple(sorted(unique))


def _is_number(text: Any) -> bool:
    try:
        return math.isfinite(float(text))
    except (TypeError, ValueError):
        return False


@dataclass(frozen=True)
class LabelFormat:
    """How a source writes its labels.

    Args:
        feature: the type of the label column; None if it is unknown.
        args: the data options.
        is_multi_hot: whether each label is a list of 0 and 1, with one place per label.
    """

    feature: Any
    args: DataArguments
    is_multi_hot: bool = False

    def read(self, value: Any) -> RawLabel:
        """Converts the label of one row to a name, a list of names, or None if it is missing.

        ClassLabel ids are converted to names, so that splits with different ids for a name agree. An id of -1 means
        missing, as in the data sets of the Hub. With `--problem_type` for one label per row, a list of one label is
        that label.

        Args:
            value: the label as the source holds it.
        """
        names = self._names_of(value)
        if isinstance(names, list) and len(names) <= 1 and self.args.problem_type in (SINGLE_LABEL, REGRESSION):
            return next(iter(names), None)
        return names

    def _names_of(self, value: Any) -> RawLabel:
        is_class_label = isinstance(self.feature, ClassLabel)
        if isinstance(value, str) and not is_class_label:
            value = list_in_text(value)
        if isinstance(value, list) or isinstance(self.feature, (List, LargeList)):
            if value is None:
                return None
            return self._marked(value) if self.is_multi_hot else self._names(value, _inner(self.feature))
        if self.args.label_delimiter is not None and not is_class_label:
            # A blank cell is an empty list of labels, and not a missing label.
            return None if value is None else self._names(str(value).split(self.args.label_delimiter), None)
        return next(iter(self._names([value], self.feature)), None)

    def _marked(self, marks: Sequence[Any]) -> list[str]:
        names = self.args.label_names or [str(position) for position in range(len(marks))]
        return [name for name, mark in zip(names, marks, strict=True) if mark]

    def _names(self, values: Iterable[Any], feature: Any) -> list[str]:
        """Returns the names of those values that are not missing."""
        if isinstance(feature, ClassLabel):
            return [feature.names[value] for value in values if value is not None and value != -1]
        names = [label_name(value) for value in values if not is_missing(value)]
        names = [name for name in names if name not in (self.args.missing_label_names or ())]
        if self.args.lowercase_labels:
            names = [name.lower() for name in names]
        return [self._named(name) for name in names] if self.args.label_names else names

    def _named(self, name: str) -> str:
        """Returns the name that `--label_names` gives to a label that is a number."""
        given = self.args.label_names or []
        is_position = name not in given and name.isdecimal() and int(name) < len(given)
        return given[int(name)] if is_position else name


def label_format(values: Sequence[Any], feature: Any, args: DataArguments, source: str) -> LabelFormat:
    """Finds out how a source writes its labels.

    Args:
        values: the labels of all rows, or of the first rows of a stream.
        feature: the type of the label column; None if it is unknown.
        args: the data options.
        source: the source's name in messages.

    Raises:
        DataError: labels are lists of numbers other than 0 and 1 where these are expected, or the lists have another
            length than `--label_names`.
    """
    read = [list_in_text(value) if isinstance(value, str) else value for value in values]
    lists = [value for value in read if isinstance(value, list)]
    if isinstance(_inner(feature), ClassLabel):
        return LabelFormat(feature, args)
    fraction = next((item for row in lists for item in row if isinstance(item, float) and not item.is_integer()), None)
    if fraction is not None:
        raise DataError(
            f"{source}: a list of labels holds the number {fraction}: write label names, whole numbers, or one 0 or 1 "
            "per label"
        )
    widths = {len(row) for row in lists}
    is_multi_hot = (
        len(widths) == 1
        and widths != {0}
        and widths != {1}
        and all(not isinstance(item, str) and item in (0, 1) for row in lists for item in row)
    )
    if is_multi_hot and args.label_names and widths != {len(args.label_names)}:
        raise DataError(
            f"{source}: each label is a list of {widths.pop()} zeros and ones, but --label_names gives "
            f"{len(args.label_names)} names"
        )
    return LabelFormat(feature, args, is_multi_hot)


def _inner(feature: Any) -> Any:
    return feature.feature if isinstance(feature, (List, LargeList)) else feature


def list_in_text(text: str) -> Any:
    """Returns the list that a text spells, as Python, JSON or NumPy write lists; another text is returned unchanged.

    Python's tuples and sets count as lists, too.

    >>> list_in_text("['a', 'b']"), list_in_text("[0 1 0]"), list_in_text("[a, b]"), list_in_text("a")
    (['a', 'b'], [0, 1, 0], ['a', 'b'], 'a')
    """
    stripped = text.strip()
    if stripped[:1] + stripped[-1:] not in _BRACKETS:
        return text
    content = stripped[1:-1]
    is_list = stripped[0] == "["
    if is_list and _NUMPY_NUMBERS.fullmatch(content):
        return [int(float(number)) if float(number).is_integer() else float(number) for number in content.split()]
    if is_list and _NUMPY_TEXTS.fullmatch(content):
        return [item[1:-1] for item in _QUOTED.findall(content)]
    for parse in (ast.literal_eval, json.loads):
        try:
            value = parse(stripped)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if not isinstance(value, list | tuple | set):
            return text
        items = sorted(value, key=str) if isinstance(value, set) else list(value)
        return items if all(isinstance(item, str | int | float | None) for item in items) else text
    return [item.strip() for item in content.split(",")] if is_list and "," in content else text


def raw_labels(dataset: Dataset, args: DataArguments, source: str = "the data") -> list[RawLabel]:
    """Converts the label column to names, with one item per row; see [`LabelFormat.read`]."""
    feature, values = dataset.features["label"], dataset["label"][:]
    read = label_format(values, feature, args, source).read
    return [read(value) for value in values]


def infer_problem_type(
    dataset: Dataset, values: Sequence[RawLabel], forced: ProblemType | None, source: str
) -> ProblemType:
    """Determines the task from the training labels, or checks that they fit the task that the user gave.

    Args:
        dataset: the training split, with raw labels.
        values: its labels as names, from [`raw_labels`].
        forced: `--problem_type`; None infers the task.
        source: the source's name in messages.

    Raises:
        DataError: the labels do not fit the given task, or some are lists and others are not.
    """
    present = [value for value in values if value is not None]
    lists = [value for value in present if isinstance(value, list)]
    if forced == MULTI_LABEL and not lists:
        raise DataError(
            f"{source}: --problem_type {MULTI_LABEL} needs lists of labels; for text files see --label_delimiter"
        )
    if lists and len(lists) < len(present) and forced != REGRESSION:
        single = next(value for value in present if not isinstance(value, list))
        raise DataError(f"{source}: a label is {single!r}, and another is the list {lists[0]}: write all as lists")
    if forced is not None:
        _refuse_other_shape(present, forced, source)
        return forced
    if lists:
        return MULTI_LABEL
    if isinstance(dataset.features["label"], ClassLabel) or not all(_is_number(value) for value in present):
        return SINGLE_LABEL
    return SINGLE_LABEL if all(float(str(value)).is_integer() for value in present) else REGRESSION


def _refuse_other_shape(values: Iterable[RawLabel], problem_type: ProblemType, source: str) -> None:
    """Refuses lists of labels for a task with one label per row, and labels other than numbers for regression."""
    for value in values:
        if isinstance(value, list) and problem_type != MULTI_LABEL:
            raise DataError(
                f"{source}: a label is the list {value}, which {problem_type} cannot hold; see --problem_type"
            )
        if problem_type == REGRESSION and value is not None and not _is_number(value):
            raise DataError(f"{source}: {REGRESSION} needs numbers, but a label is {value!r}; see --problem_type")


def make_label_set(
    dataset: Dataset,
    values: Sequence[RawLabel],
    problem_type: ProblemType,
    source: str,
    label_names: Sequence[str] | None = None,
) -> LabelSet:
    """Collects the label names of the training data.

    Args:
        dataset: the training split, with raw labels.
        values: its labels as names, from [`raw_labels`].
        problem_type: the task.
        source: the source's name in messages.
        label_names: all names in their order; None takes them from the data.

    Raises:
        DataError: a label is not one of `label_names`.
        DataError: a single-label task has fewer than two classes, or every row of a multi-label task has an empty
            list.
    """
    if problem_type == REGRESSION:
        return LabelSet(REGRESSION, ("score",))
    feature = dataset.features["label"]
    inner = _inner(feature)
    used = {name for value in values for name in _as_list(value)}
    # A ClassLabel column defines the order, and also names classes that no row of this split has.
    names = tuple(inner.names) if isinstance(inner, ClassLabel) else sort_names(used)
    if label_names:
        if unknown := sorted(used - set(label_names)):
            raise DataError(f"{source}: the label {unknown[0]!r} is not one of --label_names {' '.join(label_names)}")
        names = tuple(label_names)
    if problem_type == SINGLE_LABEL and len(used) < 2:
        raise DataError(f"{source}: every row has the label {', '.join(used)}; two classes are needed")
    if not used:
        raise DataError(f"{source}: every row has an empty list of labels")
    return LabelSet(problem_type, names)


def _as_list(value: RawLabel) -> list[str]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def refuse_unseen_labels(values: Sequence[RawLabel], labels: LabelSet, split: str, source: str) -> None:
    """Refuses labels that are not in the label set.

    Args:
        values: labels as names, from [`raw_labels`].
        labels: the known labels.
        split: the split's name in messages.
        source: the source's name in messages.

    Raises:
        DataError: labels are unknown, or belong to another task; the message lists the unknown ones with their counts.
    """
    _refuse_other_shape(values, labels.problem_type, source)
    if labels.problem_type == REGRESSION:
        return
    known = set(labels.names)
    unseen = Counter(name for value in values for name in _as_list(value) if name not in known)
    if unseen:
        listed = ", ".join(f"{name!r} ({count} ×)" for name, count in unseen.most_common(MOST_LISTED))
        more = f" and {len(unseen) - MOST_LISTED} more" if len(unseen) > MOST_LISTED else ""
        raise DataError(
            f"{source}: the {split} split has labels that training does not know: {listed}{more}; known: "
            f"{', '.join(labels.names[:MOST_LISTED])}{' …' if len(labels.names) > MOST_LISTED else ''}"
        )


def with_class_names(values: Sequence[RawLabel], labels: LabelSet) -> list[RawLabel] | None:
    """Returns the names of labels that are class numbers; None if the labels are names already.

    Labels are class numbers if all of them are whole numbers from 0 on, below the number of labels, and no label has a
    number as its name. Number i is the i-th label of the label set.
    """
    used = {name for value in values for name in _as_list(value)}
    are_numbers = used and all(name.isdecimal() and int(name) < len(labels.names) for name in used)
    if labels.problem_type == REGRESSION or not are_numbers or any(_is_number(name) for name in labels.names):
        return None

    def named(value: RawLabel) -> RawLabel:
        if isinstance(value, list):
            return [labels.names[int(name)] for name in value]
        return None if value is None else labels.names[int(value)]

    return [named(value) for value in values]


def encode_labels(values: Sequence[RawLabel], labels: LabelSet) -> list[Any]:
    """Encodes labels as the model's targets.

    Args:
        values: labels as names, from [`raw_labels`].
        labels: the label set.

    Returns:
        One item per row: a position for single-label, a list of (labels,) 0.0 and 1.0 for multi-label, a float for
        regression, and None for a missing label.
    """
    if labels.problem_type == REGRESSION:
        return [None if value is None else float(str(value)) for value in values]
    positions = labels.label2id
    if labels.problem_type == SINGLE_LABEL:
        return [None if value is None else positions[str(value)] for value in values]
    return [None if value is None else _multi_hot(_as_list(value), positions) for value in values]


def _multi_hot(names: Iterable[str], positions: dict[str, int]) -> list[float]:
    row = [0.0] * len(positions)
    for name in names:
        row[positions[name]] = 1.0
    return row


def encoded_feature(labels: LabelSet) -> Any:
    """Returns the Arrow type of an encoded label column."""
    if labels.problem_type == REGRESSION:
        return Value("float32")
    if labels.problem_type == SINGLE_LABEL:
        return ClassLabel(names=list(labels.names))
    return List(Value("float32"), length=len(labels.names))
