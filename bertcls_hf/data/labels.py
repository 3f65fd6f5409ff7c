"""Labels as a value: their names, their order and how a raw label becomes what the model learns."""

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
    """The labels of a task, made once from the training data and passed to model, metrics and predictions.

    Args:
        problem_type: the task, in the words of `PreTrainedConfig.problem_type`.
        names: label names in the order of the model's outputs; one name for regression.
    """

    problem_type: ProblemType
    names: tuple[str, ...]

    @property
    def id2label(self) -> dict[int, str]:
        """From output position to name."""
        return dict(enumerate(self.names))

    @property
    def label2id(self) -> dict[str, int]:
        """From name to output position."""
        return {name: position for position, name in enumerate(self.names)}

    def readable(self, value: Any) -> str | list[str] | float:
        """The name, names or number that an encoded label stands for."""
        if self.problem_type == SINGLE_LABEL:
            return self.names[int(value)]
        if self.problem_type == MULTI_LABEL:
            return [name for name, on in zip(self.names, value, strict=True) if on]
        return float(value)


def label_name(value: Any) -> str:
    """The name of one raw class: 1, 1.0 and the text 1.0 are one class, truth values are lower case."""
    name = str(value).strip()
    if isinstance(value, bool):
        return name.lower()
    # A column of whole numbers with a gap is written as 1.0, 2.0 … by pandas.
    return str(int(float(name))) if _WHOLE_NUMBER.fullmatch(name) else name


def is_missing(value: Any) -> bool:
    """Whether a raw label is absent: null, NaN (also where it is written out) or blank."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and value.strip().lower() in {"", "nan"})


def sort_names(names: Iterable[str]) -> tuple[str, ...]:
    """Numbers in the order of numbers, other names in that of strings."""
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
    """The label column as names; see [`raw_label`]."""
    feature = dataset.features["label"]
    return [raw_label(value, feature, label_delimiter) for value in dataset["label"][:]]


def raw_label(value: Any, feature: Any, label_delimiter: str | None) -> RawLabel:
    """One label as a name, or a list of names; None where it is missing.

    ClassLabel ids become names, so that splits whose ids differ still agree; -1 is missing there, by the Hub's custom.

    Args:
        value: as read.
        feature: type of its column, where that is known.
        label_delimiter: splits texts into several labels.
    """
    if isinstance(value, list) or isinstance(feature, (List, LargeList)):
        return None if value is None else _names(value, getattr(feature, "feature", None))
    if label_delimiter is not None and not isinstance(feature, ClassLabel):
        # A blank cell has no label of several, as an empty list has.
        return None if value is None else _names(str(value).split(label_delimiter), None)
    return next(iter(_names([value], feature)), None)


def _names(values: Iterable[Any], feature: Any) -> list[str]:
    """The names of the values that are not missing."""
    if isinstance(feature, ClassLabel):
        return [feature.names[value] for value in values if value is not None and value != -1]
    return [label_name(value) for value in values if not is_missing(value)]


def infer_problem_type(
    dataset: Dataset, values: Sequence[RawLabel], forced: ProblemType | None, source: str
) -> ProblemType:
    """The task that the training labels show, or the one that is asked for where they allow it.

    Raises:
        DataError: the labels cannot be those of the task that was asked for.
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
    """Refuses lists where one label is learned, and texts where numbers are."""
    for value in values:
        if isinstance(value, list) and problem_type != MULTI_LABEL:
            raise DataError(f"{source}: a label is the list {value}, which {problem_type} cannot hold")
        if problem_type == REGRESSION and value is not None and not _is_number(value):
            raise DataError(f"{source}: {REGRESSION} needs numbers, but a label is {value!r}; see --problem_type")


def make_label_set(dataset: Dataset, values: Sequence[RawLabel], problem_type: ProblemType, source: str) -> LabelSet:
    """The labels of the training data.

    Raises:
        DataError: a classification with fewer than two classes, or several labels but none of them in use.
    """
    if problem_type == REGRESSION:
        return LabelSet(REGRESSION, ("score",))
    feature = dataset.features["label"]
    inner = feature.feature if isinstance(feature, (List, LargeList)) else feature
    used = {name for value in values for name in _listed(value)}
    # A column of class names keeps its order, and the classes that this part of the data lacks.
    names = tuple(inner.names) if isinstance(inner, ClassLabel) else sort_names(used)
    if problem_type == SINGLE_LABEL and len(used) < 2:
        raise DataError(f"{source}: every row has the label {', '.join(used)}; two classes are needed")
    if not used:
        raise DataError(f"{source}: every row has an empty list of labels")
    return LabelSet(problem_type, names)


def _listed(value: RawLabel) -> list[str]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def refuse_unseen_labels(values: Sequence[RawLabel], labels: LabelSet, split: str, source: str) -> None:
    """Refuses labels that the training data (or the model) does not know.

    Raises:
        DataError: lists the labels with their counts; or labels are of another task.
    """
    _refuse_other_shape(values, labels.problem_type, source)
    if labels.problem_type == REGRESSION:
        return
    known = set(labels.names)
    unseen = Counter(name for value in values for name in _listed(value) if name not in known)
    if unseen:
        listed = ", ".join(f"{name!r} ({count} ×)" for name, count in unseen.most_common(MOST_LISTED))
        more = f" and {len(unseen) - MOST_LISTED} more" if len(unseen) > MOST_LISTED else ""
        raise DataError(
            f"{source}: the {split} split has labels that training does not know: {listed}{more}; known: "
            f"{', '.join(labels.names[:MOST_LISTED])}{' …' if len(labels.names) > MOST_LISTED else ''}"
        )


def encode_labels(values: Sequence[RawLabel], labels: LabelSet) -> list[Any]:
    """What the model learns: positions, lists of 0.0 and 1.0, or floats; None where the label is missing."""
    if labels.problem_type == REGRESSION:
        return [None if value is None else float(str(value)) for value in values]
    positions = labels.label2id
    if labels.problem_type == SINGLE_LABEL:
        return [None if value is None else positions[str(value)] for value in values]
    return [None if value is None else _multi_hot(_listed(value), positions) for value in values]


def _multi_hot(names: Iterable[str], positions: dict[str, int]) -> list[float]:
    row = [0.0] * len(positions)
    for name in names:
        row[positions[name]] = 1.0
    return row


def encoded_feature(labels: LabelSet) -> Any:
    """The Arrow type of an encoded label column."""
    if labels.problem_type == REGRESSION:
        return Value("float32")
    if labels.problem_type == SINGLE_LABEL:
        return ClassLabel(names=list(labels.names))
    return List(Value("float32"), length=len(labels.names))
