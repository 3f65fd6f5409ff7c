"""Determines the task of a run and the labels that it learns, from its data."""

import logging

from datasets import ClassLabel, LargeList, List

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.doubtful_labels import refuse_doubtful_labels, warn_of_doubtful_labels
from bertcls_hf.data.labels import (
    MOST_LISTED,
    MULTI_LABEL,
    REGRESSION,
    SINGLE_LABEL,
    LabelSet,
    infer_problem_type,
    make_label_set,
    raw_labels,
)
from bertcls_hf.data.sources import Source
from bertcls_hf.errors import ArgumentsError, DataError


logger = logging.getLogger(__name__)


def labels_of_split(args: DataArguments, source: Source, known_labels: LabelSet | None) -> LabelSet:
    """Finds the labels of a split.

    Args:
        args: the data options, which can name the task.
        source: the split, with raw labels.
        known_labels: the labels of a trained classifier, or None. The split must have the same label names, which are
            then put into the classifier's order.

    Raises:
        DataError: no row has a label, the labels do not fit the task, or they are not those of the classifier.
    """
    values = raw_labels(source.dataset, args, source.name)
    if all(value is None for value in values):
        raise DataError(f"{source.name}: no row has a label")
    problem_type = infer_problem_type(source.dataset, values, args.problem_type, source.name)
    is_inferred = args.problem_type is None and not args.label_names
    if problem_type == SINGLE_LABEL and is_inferred and not isinstance(source.dataset.features["label"], ClassLabel):
        refuse_doubtful_labels(source, values, args)
    label_names = source.columns.labels if len(source.columns.labels) > 1 else args.label_names
    labels = make_label_set(source.dataset, values, problem_type, source.name, label_names)
    warn_of_doubtful_labels(source, values, args)
    return labels if known_labels is None else _aligned(labels, known_labels, source.name)


def labels_of_names(args: DataArguments, known_labels: LabelSet | None) -> LabelSet:
    """Returns the labels that the options name, where no row has one; see [`labels_of_split`].

    Raises:
        ArgumentsError: there are fewer than two names, or the task has no names.
        DataError: they are not those of the classifier.
    """
    names, problem_type = args.label_names or [], args.problem_type or SINGLE_LABEL
    if len(names) < 2 or problem_type != SINGLE_LABEL:
        raise ArgumentsError(
            "without labelled rows, each text gets one of two labels or more: name them with --label_names, and leave "
            "out --problem_type"
        )
    labels = LabelSet(problem_type, tuple(names))
    return labels if known_labels is None else _aligned(labels, known_labels, "--label_names")


def labels_of_stream(
    args: DataArguments, train: Source, validation: Source | None, known_labels: LabelSet | None
) -> LabelSet:
    """Finds the labels of a stream: from its class names, else from the validation data, else from the model.

    Args:
        args: the data options, which can name the task.
        train: the stream.
        validation: the validation data, or None.
        known_labels: the labels of a trained classifier, or None, as in [`labels_of_split`].

    Raises:
        DataError: the labels do not fit the task, or are not those of the classifier.
        ArgumentsError: there are no class names, no labelled validation data and no trained classifier.
    """
    feature = train.dataset.label_feature
    is_list = isinstance(feature, (List, LargeList))
    inner = feature.feature if is_list else feature
    if isinstance(inner, ClassLabel):
        labels = LabelSet(MULTI_LABEL if is_list else SINGLE_LABEL, tuple(inner.names))
        if args.problem_type not in (None, labels.problem_type):
            raise DataError(f"{train.name}: --problem_type {args.problem_type}, but the labels are class names")
    elif validation is not None and "label" in validation.dataset.column_names:
        labels = labels_of_split(args, validation, None)
    elif known_labels is not None:
        return known_labels
    else:
        raise ArgumentsError(
            "--streaming: the labels are those of the validation data, and there is none: give --validation_file"
        )
    return labels if known_labels is None else _aligned(labels, known_labels, train.name)


def _aligned(labels: LabelSet, known: LabelSet, source: str) -> LabelSet:
    """Puts the data's labels into the model's order.

    If the model's labels have only the default names LABEL_0, LABEL_1 …, the data's labels replace them.

    Raises:
        DataError: the task or the label names differ.
    """
    has_same_shape = labels.problem_type == known.problem_type and len(labels.names) == len(known.names)
    if has_same_shape and set(labels.names) == set(known.names):
        return known
    if has_same_shape and all(name == f"LABEL_{position}" for position, name in enumerate(known.names)):
        if labels.problem_type != REGRESSION:
            logger.warning(
                "the model's labels have no names; %s are taken for them in this order", ", ".join(labels.names)
            )
        return labels
    raise DataError(
        f"{source}: the labels are {_listed(labels)} ({labels.problem_type}), the model's are {_listed(known)} "
        f"({known.problem_type}); rename them, or give the model a new head with --ignore_mismatched_sizes true"
    )


def _listed(labels: LabelSet) -> str:
    more = f" and {len(labels.names) - MOST_LISTED:,} more" if len(labels.names) > MOST_LISTED else ""
    return f"{list(labels.names[:MOST_LISTED])}{more}"
