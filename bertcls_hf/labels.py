"""Labels as a value: their names, their order and how a raw label becomes what the model learns."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from datasets import ClassLabel, Dataset, List, Value

from bertcls_hf.errors import DataError


ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
SINGLE_LABEL: ProblemType = "single_label_classification"
MULTI_LABEL: ProblemType = "multi_label_classification"
REGRESSION: ProblemType = "regression"
MOST_LISTED = 10


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


def label_name(value: Any) -> str:
    """The name of one raw class: whole numbers have no decimal point, truth values are lower case."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def is_missing(value: Any) -> bool:
    """Whether a raw label is absent: null, NaN or blank."""
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, str) and not value.strip())
    )


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


def raw_labels(dataset: Dataset, label_delimiter: str | None) -> list[Any]:
    """The label column as Python values: None where missing, else names (str), lists of names, or floats.

    ClassLabel ids become names, so that splits whose ids differ still agree; -1 is missing there, by the Hub's custom.
    """
    feature = dataset.features["label"]
    values = dataset["label"][:]
    if isinstance(feature, List):
        inner = feature.feature
        if isinstance(inner, ClassLabel):
            return [None if row is None else [inner.int2str(item) for item in row] for row in values]
        return [None if row is None else [label_name(item) for item in row] for row in values]
    if isinstance(feature, ClassLabel):
        names = feature.names
        return [None if value is None or value == -1 else names[value] for value in values]
    if label_delimiter is not None:
        return [None if value is None else _split_label(str(value), label_delimiter) for value in values]
    return [None if is_missing(value) else value for value in values]


def _split_label(value: str, delimiter: str) -> list[str]:
    return [part.strip() for part in value.split(delimiter) if part.strip()]


def infer_problem_type(
    dataset: Dataset, values: Sequence[Any], forced: ProblemType | None, source: str
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
    if forced == SINGLE_LABEL and lists:
        raise DataError(f"{source}: the labels are lists, which --problem_type {SINGLE_LABEL} cannot hold")
    if forced == REGRESSION:
        _refuse_text(present, lists, source)
    if forced is not None:
        return forced
    if lists:
        return MULTI_LABEL
    names = getattr(dataset.features["label"], "names", None)
    numbers = names is None and present and all(_is_number(value) for value in present)
    return REGRESSION if numbers and any(not float(value).is_integer() for value in present) else SINGLE_LABEL


def _refuse_text(present: Sequence[Any], lists: bool, source: str) -> None:
    wrong = next((value for value in present if lists or not _is_number(value)), None)
    if wrong is not None:
        raise DataError(f"{source}: --problem_type {REGRESSION} needs numbers, but a label is {wrong!r}")


def make_label_set(dataset: Dataset, values: Sequence[Any], problem_type: ProblemType, source: str) -> LabelSet:
    """The labels of the training data.

    Raises:
        DataError: a classification with fewer than two classes.
    """
    if problem_type == REGRESSION:
        return LabelSet(REGRESSION, ("score",))
    feature = dataset.features["label"]
    inner = feature.feature if isinstance(feature, List) else feature
    present = [value for value in values if value is not None]
    used = {name for value in present for name in _names_of(value)}
    # A column of class names keeps its order, and the classes that this part of the data lacks.
    names = tuple(inner.names) if isinstance(inner, ClassLabel) else sort_names(used)
    if len(used) < (2 if problem_type == SINGLE_LABEL else 1):
        raise DataError(
            f"{source}: every row has the label {', '.join(sorted(used)) or '(none)'}; two classes are needed"
        )
    return LabelSet(problem_type, names)


def _names_of(value: Any) -> list[str]:
    return [label_name(item) for item in value] if isinstance(value, list) else [label_name(value)]


def refuse_unseen_labels(values: Sequence[Any], labels: LabelSet, split: str, source: str) -> None:
    """Refuses labels that the training data (or the model) does not know.

    Raises:
        DataError: lists the labels with their counts.
    """
    if labels.problem_type == REGRESSION:
        _refuse_text([value for value in values if value is not None], False, source)
        return
    known = set(labels.names)
    unseen = Counter(name for value in values if value is not None for name in _names_of(value) if name not in known)
    if unseen:
        listed = ", ".join(f"{name!r} ({count} rows)" for name, count in unseen.most_common(MOST_LISTED))
        raise DataError(
            f"{source}: the {split} split has labels that training does not know: {listed}; known: "
            f"{', '.join(labels.names[:MOST_LISTED])}{' …' if len(labels.names) > MOST_LISTED else ''}"
        )


def encode_labels(values: Sequence[Any], labels: LabelSet) -> list[Any]:
    """What the model learns: positions, lists of 0.0 and 1.0, or floats; None where the label is missing."""
    positions = labels.label2id
    if labels.problem_type == REGRESSION:
        return [None if value is None else float(value) for value in values]
    if labels.problem_type == SINGLE_LABEL:
        return [None if value is None else positions[label_name(value)] for value in values]
    return [None if value is None else _multi_hot(value, positions) for value in values]


def _multi_hot(value: Sequence[Any], positions: dict[str, int]) -> list[float]:
    row = [0.0] * len(positions)
    for name in value:
        row[positions[label_name(name)]] = 1.0
    return row


def encoded_feature(labels: LabelSet) -> Any:
    """The Arrow type of an encoded label column."""
    if labels.problem_type == REGRESSION:
        return Value("float32")
    if labels.problem_type == SINGLE_LABEL:
        return ClassLabel(names=list(labels.names))
    return List(Value("float32"), length=len(labels.names))
