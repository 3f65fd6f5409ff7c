"""Counts the rows of each class, and computes the class weights of the loss."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from datasets import Dataset

from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION, LabelSet
from bertcls_hf.errors import ArgumentsError


def label_counts(dataset: Dataset, labels: LabelSet) -> Counter[int] | None:
    """Counts the rows per label position; returns None for regression, or if there are no labels."""
    if labels.problem_type == REGRESSION or "label" not in dataset.column_names:
        return None
    if labels.problem_type == MULTI_LABEL:
        marks = dataset.select_columns("label").with_format("numpy")["label"][:]
        return Counter({label: int(rows) for label, rows in enumerate(marks.sum(axis=0)) if rows})
    # Slicing a data set of this one column reads only the labels, and not the texts.
    return Counter(dataset.select_columns("label")["label"][:])


def class_weights(dataset: Dataset, labels: LabelSet, asked: Sequence[str] | None) -> list[float] | None:
    """Computes the class weights of the loss from `--class_weights`.

    Args:
        dataset: the training split, with encoded labels.
        labels: the labels of the task.
        asked: the values of `--class_weights`: `["balanced"]`, one number per label, or None for no weights.

    Returns:
        One weight per label, in the order of `labels.names`; None if no weights are asked for.

    Raises:
        ArgumentsError: the values are neither `balanced` nor one number per label, or the task is regression.
    """
    if asked is None:
        return None
    if labels.problem_type == REGRESSION:
        raise ArgumentsError("--class_weights: regression has no classes")
    if list(asked) == ["balanced"]:
        return _balanced_weights(dataset, labels)
    try:
        weights = [float(weight) for weight in asked]
    except ValueError as error:
        raise ArgumentsError(f"--class_weights {' '.join(asked)}: expected balanced or numbers") from error
    if len(weights) != len(labels.names) or not all(0 <= weight < np.inf for weight in weights):
        raise ArgumentsError(
            f"--class_weights {' '.join(asked)}: expected {len(labels.names)} numbers of 0 or more, for "
            f"{', '.join(labels.names)}"
        )
    return weights


def _balanced_weights(dataset: Dataset, labels: LabelSet) -> list[float]:
    encoded = np.asarray(dataset["label"][:])
    if labels.problem_type == MULTI_LABEL:
        positives = encoded.sum(axis=0)
        return [float((len(encoded) - count) / max(count, 1)) for count in positives]
    counts = np.bincount(encoded, minlength=len(labels.names))
    return [float(len(encoded) / (len(labels.names) * max(count, 1))) for count in counts]
