"""Checks the rows of the splits: refuses or drops those without a text or a label, and warns of repeated ones."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from datasets import Dataset
from datasets.fingerprint import Hasher

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.labels import (
    MOST_LISTED,
    LabelSet,
    RawLabel,
    encode_labels,
    encoded_feature,
    raw_labels,
    refuse_unseen_labels,
    with_class_names,
)
from bertcls_hf.data.sources import Source
from bertcls_hf.data.splits import SPLIT_NAMES
from bertcls_hf.data.texts import rows_of_texts, text_keys
from bertcls_hf.errors import DataError


logger = logging.getLogger(__name__)

MOST_ROWS_LISTED = 5


def checked_split(source: Source, args: DataArguments, labels: LabelSet, predicts: bool) -> Dataset:
    """Returns a split with encoded labels, and without the rows that the options drop.

    Args:
        source: a split under standard column names.
        args: the data options, which say what to do with empty texts and missing labels.
        labels: the labels that the model learns.
        predicts: whether the run writes predictions. If so, the test split keeps all rows.

    Raises:
        DataError: a row has an empty text or no label and the options refuse it, a label is unknown, no row is left,
            or the run writes predictions and only some rows of the test split have a label.
    """
    dataset = source.dataset
    keeps_all_rows = predicts and source.split == "test"
    _warn_of_repeated_ids(dataset, source.name)
    is_kept = np.ones(len(dataset), dtype=bool)
    if not keeps_all_rows and args.empty_text != "keep":
        is_empty = _has_empty_text(dataset)
        is_kept &= _refuse_or_drop(is_empty, args.empty_text, "an empty text", "empty_text", source)
    if "label" in dataset.column_names:
        values = raw_labels(dataset, args, source.name)
        values = _with_class_names(values, labels, source)
        refuse_unseen_labels(values, labels, SPLIT_NAMES[source.split], source.name)
        is_missing = np.array([value is None for value in values])
        if source.split == "test" and is_missing.all():
            dataset = dataset.remove_columns("label")
        else:
            if not keeps_all_rows:
                is_kept &= _refuse_or_drop(is_missing, args.missing_label, "no label", "missing_label", source)
            elif is_missing.any():
                unlabelled = _describe_rows("no label", is_missing)
                raise DataError(f"{source.name}: {unlabelled} of the test split: label all or none")
            dataset = _with_encoded_labels(dataset, values, labels)
    if not is_kept.any():
        raise DataError(f"{source.name}: no row is left after empty texts and missing labels are dropped")
    return dataset if is_kept.all() else dataset.select(np.flatnonzero(is_kept))


def _with_class_names(values: list[RawLabel], labels: LabelSet, source: Source) -> list[RawLabel]:
    named = with_class_names(values, labels)
    if named is None:
        return values
    meanings = [f"{position} is {name!r}" for position, name in enumerate(labels.names[:MOST_LISTED])]
    more = " …" if len(labels.names) > MOST_LISTED else ""
    logger.warning("%s: its labels are taken for class numbers: %s%s", source.name, ", ".join(meanings), more)
    return named


def _warn_of_repeated_ids(dataset: Dataset, name: str) -> None:
    if "id" not in dataset.column_names:
        return
    counts = Counter(dataset["id"][:])
    repeated = [value for value, count in counts.items() if value is not None and count > 1]
    if repeated:
        logger.warning("%s: %d ids stand in more than one row, such as %r", name, len(repeated), repeated[0])


def _has_empty_text(dataset: Dataset) -> np.ndarray:
    """Returns (rows,) bool, true where the text, or a text of the pair, is missing, empty or blank."""
    return np.fromiter(
        (any(text is None or not text.strip() for text in row) for row in rows_of_texts(dataset)), bool, len(dataset)
    )


def _refuse_or_drop(is_bad: np.ndarray, policy: str, problem: str, option: str, source: Source) -> np.ndarray:
    """Raises an error for bad rows, or warns that they are dropped; returns (rows,) bool, true for rows to keep."""
    if is_bad.any() and policy == "error":
        raise DataError(f"{source.name}: {_describe_rows(problem, is_bad)}: mend them, or pass --{option} drop")
    if is_bad.any():
        logger.warning("%s: %s, which are dropped", source.name, _describe_rows(problem, is_bad))
    return ~is_bad


def _describe_rows(problem: str, is_bad: np.ndarray) -> str:
    rows = ", ".join(str(row + 1) for row in np.flatnonzero(is_bad)[:MOST_ROWS_LISTED])
    more = " …" if is_bad.sum() > MOST_ROWS_LISTED else ""
    return f"{problem} in {is_bad.sum()} of {len(is_bad)} rows (row {rows}{more})"


def _with_encoded_labels(dataset: Dataset, values: Sequence[RawLabel], labels: LabelSet) -> Dataset:
    # Adding a column in memory leaves the texts where they are on disk; the encoded labels are small.
    return dataset.remove_columns("label").add_column(
        "label",
        encode_labels(values, labels),
        feature=encoded_feature(labels),
        # Hashing the encoded column, as datasets would do, takes seconds if there are many labels.
        new_fingerprint=Hasher.hash(repr((dataset._fingerprint, labels, values))),
    )


def warn_of_leaks(splits: Mapping[str, Dataset], args: DataArguments) -> None:
    """Warns of texts in validation or test that are also in train, because they make the scores too high.

    Raises:
        DataError: there are such texts, and the options refuse them.
    """
    if "train" not in splits:
        return
    trained_keys = set(text_keys(splits["train"]))
    for split in ("validation", "test"):
        if split not in splits:
            continue
        repeated_count = sum(key in trained_keys for key in text_keys(splits[split]))
        message = f"{repeated_count} of {len(splits[split])} texts of the {SPLIT_NAMES[split]} split are also in train"
        if repeated_count and args.duplicated_text == "error":
            raise DataError(f"{message}: remove them, or pass --duplicated_text warn")
        if repeated_count:
            logger.warning(message)
