"""The labels of a task: their names and order, how they are read, and how they are encoded for the model."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from datasets import ClassLabel, Dataset, LargeList, List, Value

from bertcls_hf.errors import DataError


ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
SINGLE_LABEL: ProblemType = "single_label_classification"
MULTI_LABEL: ProblemType = "multi_label_classification"
REGRESSION: ProblemType = "regression"
RawLabel = str | list[str] | None
MOST_LISTED = 10
_WHOLE_NUMBER = re.compile(r"-?\d{1,15}\.0+")


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


def raw_labels(dataset: Dataset, label_delimiter: str | None) -> list[RawLabel]:
    """Converts the label column to names, with one item per row; see [`raw_label`]."""
    feature = dataset.features["label"]
    return [raw_label(value, feature, label_delimiter) for value in dataset["label"][:]]


def raw_label(value: Any, feature: Any, label_delimiter: str | None) -> RawLabel:
    """Converts the label of one row to a name, a list of names, or None if it is missing.

    ClassLabel ids are converted to names, so that splits with different ids for a name agree. An id of -1 means
    missing, as in the data sets of the Hub.

    Args:
        value: the label as the source holds it.
        feature: the type of the label column; None if it is unknown.
        label_delimiter: separates several labels in one text; None if each text is one label.
    """
    if isinstance(value, list) or isinstance(feature, (List, LargeList)):
        return None if value is None else _names(value, getattr(feature, "feature", None))
    if label_delimiter is not None and not isinstance(feature, ClassLabel):
        # A blank cell is an empty list of labels, and not a missing label.
        return None if value is None else _names(str(value).split(label_delimiter), None)
    return next(iter(_names([value], feature)), None)


def _names(values: Iterable[Any], feature: Any) -> list[str]:
    """Returns the names of those values that are not missing."""
    if isinstance(feature, ClassLabel):
        return [feature.names[value] for value in values if value is not None and value != -1]
    return [label_name(value) for value in values if not is_missing(value)]


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
        DataError: the labels do not fit the given task.
    """
    present = [value for value in values if value is not None]
    lists = any(isinstance(value, list) for value in present)
    if forced == MULTI_LABEL and not lists:
        raise DataError(
            f"{source}: --problem_type {MULTI_LABEL} needs lists of labels; for text files see --label_delimiter"
        )
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
            raise DataError(f"{source}: a label is the list {value}, which {problem_type} cannot hold")
        if problem_type == REGRESSION and value is not None and not _is_number(value):
            raise DataError(f"{source}: {REGRESSION} needs numbers, but a label is {value!r}; see --problem_type")


def make_label_set(dataset: Dataset, values: Sequence[RawLabel], problem_type: ProblemType, source: str) -> LabelSet:
    """Collects the label names of the training data.

    Args:
        dataset: the training split, with raw labels.
        values: its labels as names, from [`raw_labels`].
        problem_type: the task.
        source: the source's name in messages.

    Raises:
        DataError: a single-label task has fewer than two classes, or every row of a multi-label task has an empty
            list.
    """
    if problem_type == REGRESSION:
        return LabelSet(REGRESSION, ("score",))
    feature = dataset.features["label"]
    inner = feature.feature if isinstance(feature, (List, LargeList)) else feature
    used = {name for value in values for name in _as_list(value)}
    # A ClassLabel column defines the order, and also names classes that no row of this split has.
    names = tuple(inner.names) if isinstance(inner, ClassLabel) else sort_names(used)
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
