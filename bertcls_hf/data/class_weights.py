"""How many rows each class has, and what the loss makes of it."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from datasets import Dataset

from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL, LabelSet
from bertcls_hf.errors import ArgumentsError


def label_counts(dataset: Dataset, labels: LabelSet) -> Counter[int] | None:
    """Rows of each label of a labelled single-label split; None for others."""
    if labels.problem_type != SINGLE_LABEL or "label" not in dataset.column_names:
        return None
    # Without the texts beside it, the column is read in one piece.
    return Counter(dataset.select_columns("label")["label"][:])


def class_weights(dataset: Dataset, labels: LabelSet, asked: Sequence[str] | None) -> list[float] | None:
    """The loss's weights per label, from `--class_weights`.

    Raises:
        ArgumentsError: not `balanced`, and not one number per label; or regression.
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
