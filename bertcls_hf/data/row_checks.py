"""Rows that are refused, dropped or warned of: without a text, without a label, or repeated."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from datasets import Dataset
from datasets.fingerprint import Hasher

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.labels import LabelSet, RawLabel, encode_labels, encoded_feature, raw_labels, refuse_unseen_labels
from bertcls_hf.data.sources import Source
from bertcls_hf.data.splits import SPLIT_NAMES
from bertcls_hf.data.texts import rows_of_texts, text_keys
from bertcls_hf.errors import DataError


logger = logging.getLogger(__name__)

MOST_ROWS_LISTED = 5


def checked_split(source: Source, args: DataArguments, labels: LabelSet, predicts: bool) -> Dataset:
    """A split with encoded labels, and without the rows that the options drop.

    Args:
        source: a split under standard column names.
        args: what to do with empty texts and missing labels.
        labels: those that the model learns.
        predicts: whether predictions are written; then the test split keeps all rows.

    Raises:
        DataError: rows that the options refuse, or a label that is unknown.
    """
    dataset = source.dataset
    keeps_rows = predicts and source.split == "test"
    _warn_of_repeated_ids(dataset, source.name)
    keep = np.ones(len(dataset), dtype=bool)
    if not keeps_rows and args.empty_text != "keep":
        is_empty = _has_empty_text(dataset)
        keep &= _refuse_or_drop(is_empty, args.empty_text, "an empty text", "empty_text", source)
    if "label" in dataset.column_names:
        values = raw_labels(dataset, args.label_delimiter)
        refuse_unseen_labels(values, labels, SPLIT_NAMES[source.split], source.name)
        is_missing = np.array([value is None for value in values])
        if source.split == "test" and is_missing.all():
            dataset = dataset.remove_columns("label")
        else:
            if not keeps_rows:
                keep &= _refuse_or_drop(is_missing, args.missing_label, "no label", "missing_label", source)
            elif is_missing.any():
                what = _in_rows("no label", is_missing)
                raise DataError(f"{source.name}: {what} of the test split: label all or none")
            dataset = _with_encoded_labels(dataset, values, labels)
    if not keep.any():
        raise DataError(f"{source.name}: no row is left after empty texts and missing labels are dropped")
    return dataset if keep.all() else dataset.select(np.flatnonzero(keep))


def _warn_of_repeated_ids(dataset: Dataset, name: str) -> None:
    if "id" not in dataset.column_names:
        return
    counts = Counter(dataset["id"][:])
    repeated = [value for value, count in counts.items() if value is not None and count > 1]
    if repeated:
        logger.warning("%s: %d ids stand in more than one row, such as %r", name, len(repeated), repeated[0])


def _has_empty_text(dataset: Dataset) -> np.ndarray:
    """(rows,) bool: whether the text, or one of a pair, is missing, empty or blank."""
    return np.fromiter(
        (any(text is None or not text.strip() for text in row) for row in rows_of_texts(dataset)), bool, len(dataset)
    )


def _refuse_or_drop(is_bad: np.ndarray, policy: str, what: str, option: str, source: Source) -> np.ndarray:
    """Refuses the bad rows, or drops them with a counted warning; returns the rows to keep."""
    if is_bad.any() and policy == "error":
        raise DataError(f"{source.name}: {_in_rows(what, is_bad)}: mend them, or pass --{option} drop")
    if is_bad.any():
        logger.warning("%s: %s, which are dropped", source.name, _in_rows(what, is_bad))
    return ~is_bad


def _in_rows(what: str, is_bad: np.ndarray) -> str:
    rows = ", ".join(str(row + 1) for row in np.flatnonzero(is_bad)[:MOST_ROWS_LISTED])
    more = " …" if is_bad.sum() > MOST_ROWS_LISTED else ""
    return f"{what} in {is_bad.sum()} of {len(is_bad)} rows (row {rows}{more})"


def _with_encoded_labels(dataset: Dataset, values: Sequence[RawLabel], labels: LabelSet) -> Dataset:
    """The labels are few bytes and stay in memory; the texts stay where they are on disk."""
    return dataset.remove_columns("label").add_column(
        "label",
        encode_labels(values, labels),
        feature=encoded_feature(labels),
        # The automatic hash of the encoded column takes seconds where there are many labels.
        new_fingerprint=Hasher.hash(repr((dataset._fingerprint, labels, values))),
    )


def warn_of_leaks(splits: Mapping[str, Dataset], args: DataArguments) -> None:
    """Warns of texts of validation or test that are also trained on, which make a score too good.

    Raises:
        DataError: there are some, and the options refuse them.
    """
    if "train" not in splits:
        return
    trained_keys = set(text_keys(splits["train"]))
    for split in ("validation", "test"):
        if split not in splits:
            continue
        repeated = sum(key in trained_keys for key in text_keys(splits[split]))
        message = f"{repeated} of {len(splits[split])} texts of the {SPLIT_NAMES[split]} split are also in train"
        if repeated and args.duplicated_text == "error":
            raise DataError(f"{message}: remove them, or pass --duplicated_text warn")
        if repeated:
            logger.warning(message)
