"""From raw splits to checked ones: labels encoded, bad rows refused or dropped, splits and samples drawn."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset, Features
from sklearn.model_selection import train_test_split

from bertcls_hf.arguments import DataArguments
from bertcls_hf.data_sources import Source, load_sources
from bertcls_hf.errors import DataError
from bertcls_hf.labels import (
    MULTI_LABEL,
    REGRESSION,
    SINGLE_LABEL,
    LabelSet,
    encode_labels,
    encoded_feature,
    infer_problem_type,
    make_label_set,
    raw_labels,
    refuse_unseen_labels,
)


logger = logging.getLogger(__name__)

SPLIT_NAMES = {"train": "training", "validation": "validation", "test": "test"}
MOST_ROWS_LISTED = 5


@dataclass(frozen=True)
class ClassificationData:
    """The splits of a run.

    Args:
        labels: names and order of the labels.
        splits: `train`, `validation` and `test`, those that there are; columns `text` and, where known, `text_pair`,
            `label` (encoded: int64, float32 or lists of float32) and `id`.
    """

    labels: LabelSet
    splits: dict[str, Dataset]

    @property
    def is_pair(self) -> bool:
        """Whether each row holds two texts."""
        return any("text_pair" in split.column_names for split in self.splits.values())

    def has_labels(self, split: str) -> bool:
        """Whether a split is there and labelled."""
        return split in self.splits and "label" in self.splits[split].column_names


def load_data(args: DataArguments, known_labels: LabelSet | None, trains: bool, predicts: bool) -> ClassificationData:
    """Loads, checks, splits and samples.

    Args:
        args: the data options.
        known_labels: those of a trained classifier. Its names must be the data's, and give the order.
        trains: whether the run trains; if not, a training file is not read for its rows.
        predicts: whether predictions are written; then the test split keeps its bad rows and needs no labels.

    Raises:
        DataError: anything wrong with the data; see the issue's file, row or label in the message.
    """
    needs_labels = {"train"} if trains else set()
    sources = load_sources(args, frozenset(needs_labels | {"validation"}))
    _refuse_mixed_pairs(sources)
    labels = _resolve_labels(args, sources, known_labels, trains)
    splits = {split: _checked(source, args, labels, predicts) for split, source in sources.items()}
    splits = _with_missing_splits(splits, args, labels)
    splits = _sampled(splits, args, labels)
    _report(splits, labels, args)
    return ClassificationData(labels, splits)


def _refuse_mixed_pairs(sources: dict[str, Source]) -> None:
    pairs = {split: "text_pair" in source.dataset.column_names for split, source in sources.items()}
    if len(set(pairs.values())) > 1:
        single = next(split for split, is_pair in pairs.items() if not is_pair)
        raise DataError(f"{sources[single].name}: one text column where the other splits have two")


def _resolve_labels(
    args: DataArguments, sources: dict[str, Source], known_labels: LabelSet | None, trains: bool
) -> LabelSet:
    if not trains and known_labels is None:
        raise DataError(
            "evaluation without training needs a model that was trained as a classifier: its labels are unknown"
        )
    if not trains:
        assert known_labels is not None
        return known_labels
    train = sources["train"]
    values = raw_labels(train.dataset, args.label_delimiter)
    if all(value is None for value in values):
        raise DataError(f"{train.name}: no row has a label")
    problem_type = infer_problem_type(train.dataset, values, args.problem_type, train.name)
    labels = make_label_set(train.dataset, values, problem_type, train.name)
    return labels if known_labels is None else _aligned(labels, known_labels, train.name)


def _aligned(labels: LabelSet, known: LabelSet, source: str) -> LabelSet:
    """The data's labels in the model's order."""
    if labels.problem_type == known.problem_type and set(labels.names) == set(known.names):
        return known
    generic = all(name == f"LABEL_{position}" for position, name in enumerate(known.names))
    if generic and len(known.names) == len(labels.names):
        logger.warning(
            "the model's labels have no names; %s are taken for them in this order", ", ".join(labels.names)
        )
        return labels
    raise DataError(
        f"{source}: the labels are {list(labels.names)} ({labels.problem_type}), the model's are {list(known.names)} "
        f"({known.problem_type}); rename them, or give the model a new head with --ignore_mismatched_sizes true"
    )


def _checked(source: Source, args: DataArguments, labels: LabelSet, predicts: bool) -> Dataset:
    """A split with encoded labels, and without the rows that the options drop."""
    dataset = source.dataset
    keeps_rows = predicts and source.split == "test"
    _warn_of_repeated_ids(dataset, source.name)
    keep = np.ones(len(dataset), dtype=bool)
    if not keeps_rows:
        empty = _rows_with_empty_text(dataset)
        if args.empty_text != "keep":
            keep &= _handle_rows(empty, args.empty_text, "an empty text", "empty_text", source)
    if "label" in dataset.column_names:
        values = raw_labels(dataset, args.label_delimiter)
        refuse_unseen_labels(values, labels, SPLIT_NAMES[source.split], source.name)
        missing = np.array([value is None for value in values])
        if source.split == "test" and missing.all():
            dataset = dataset.remove_columns("label")
        else:
            if not keeps_rows:
                keep &= _handle_rows(missing, args.missing_label, "no label", "missing_label", source)
            elif missing.any():
                raise DataError(
                    f"{source.name}: {missing.sum()} rows of the test split have no label: label all or none"
                )
            dataset = _with_encoded_labels(dataset, encode_labels(values, labels), labels)
    if not keep.any():
        raise DataError(f"{source.name}: no row is left after empty texts and missing labels are dropped")
    return dataset if keep.all() else dataset.select(np.flatnonzero(keep))


def _warn_of_repeated_ids(dataset: Dataset, name: str) -> None:
    if "id" not in dataset.column_names:
        return
    counts = Counter(dataset["id"][:])
    repeated = [value for value, count in counts.items() if count > 1]
    if repeated:
        logger.warning("%s: %d ids stand in more than one row, such as %r", name, len(repeated), repeated[0])


def _rows_with_empty_text(dataset: Dataset) -> np.ndarray:
    empty = np.zeros(len(dataset), dtype=bool)
    for column in ("text", "text_pair"):
        if column in dataset.column_names:
            empty |= np.fromiter((text is None or not text.strip() for text in dataset[column]), bool, len(dataset))
    return empty


def _handle_rows(bad: np.ndarray, policy: str, what: str, option: str, source: Source) -> np.ndarray:
    """Refuses the bad rows, or drops them with a counted warning; returns the rows to keep."""
    if bad.any() and policy == "error":
        rows = ", ".join(str(row + 1) for row in np.flatnonzero(bad)[:MOST_ROWS_LISTED])
        more = " …" if bad.sum() > MOST_ROWS_LISTED else ""
        raise DataError(
            f"{source.name}: {bad.sum()} rows have {what} (row {rows}{more}): mend them, or pass --{option} drop"
        )
    if bad.any():
        logger.warning("%s: %d rows with %s are dropped", source.name, bad.sum(), what)
    return ~bad


def _with_encoded_labels(dataset: Dataset, encoded: list[Any], labels: LabelSet) -> Dataset:
    features = Features({**dataset.features, "label": encoded_feature(labels)})

    def replace_labels(batch: dict[str, list], indices: list[int], encoded: Sequence[Any]) -> dict[str, list]:
        return {**batch, "label": [encoded[index] for index in indices]}

    return dataset.map(
        replace_labels,
        batched=True,
        with_indices=True,
        fn_kwargs={"encoded": encoded},
        features=features,
        desc="Encoding labels",
    )


def _with_missing_splits(splits: dict[str, Dataset], args: DataArguments, labels: LabelSet) -> dict[str, Dataset]:
    """Holds out validation, and test where that is asked for, from train; never validation from test."""
    for split, percentage in (("test", args.test_split_percentage), ("validation", args.validation_split_percentage)):
        if split not in splits and "train" in splits and percentage > 0:
            rest, held_out = _held_out_indices(splits["train"], percentage / 100, labels, args.split_seed)
            splits = {**splits, split: splits["train"].select(held_out), "train": splits["train"].select(rest)}
    return splits


def _held_out_indices(train: Dataset, share: float, labels: LabelSet, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A stratified split of the distinct texts; every repetition of a text goes where its first row goes."""
    _, first_rows, text_of = np.unique(_text_keys(train), return_index=True, return_inverse=True)
    representative = first_rows[text_of]
    distinct = np.sort(first_rows)
    _, chosen = _stratified_indices(train.select(distinct), share, labels, seed)
    held_out = np.isin(representative, distinct[chosen])
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _sampled(splits: dict[str, Dataset], args: DataArguments, labels: LabelSet) -> dict[str, Dataset]:
    limits = {"train": args.max_train_samples, "validation": args.max_eval_samples, "test": args.max_predict_samples}
    return {split: _sample(dataset, limits[split], labels, args.split_seed) for split, dataset in splits.items()}


def _sample(dataset: Dataset, rows: int | None, labels: LabelSet, seed: int) -> Dataset:
    if rows is None or rows >= len(dataset):
        return dataset
    _, chosen = _stratified_indices(dataset, rows, labels, seed)
    return dataset.select(chosen)


def _stratified_indices(dataset: Dataset, size: float, labels: LabelSet, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the rest and of a random part, both ascending; stratified by label for single-label tasks.

    Args:
        dataset: a split.
        size: a share of the rows if a float below 1, else a number of rows.
        labels: names the task.
        seed: of the draw.
    """
    indices = np.arange(len(dataset))
    strata = None
    if labels.problem_type == SINGLE_LABEL and "label" in dataset.column_names:
        strata = np.asarray(dataset["label"][:])
    rows = round(size * len(dataset)) if size < 1 else int(size)
    rows = min(max(rows, 1), len(dataset) - 1)
    classes = 0 if strata is None else len(np.unique(strata))
    if strata is not None and (np.bincount(strata).max() < 2 or min(rows, len(dataset) - rows) < classes):
        strata = None
    if strata is None:
        rest, chosen = train_test_split(indices, test_size=rows, random_state=seed)
    else:
        rest, chosen = _stratified_draw(indices, strata, rows, seed)
    return np.sort(rest), np.sort(chosen)


def _stratified_draw(indices: np.ndarray, strata: np.ndarray, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Like a stratified `train_test_split`, which refuses classes of one row: they stay in the rest."""
    single = np.isin(strata, np.flatnonzero(np.bincount(strata) == 1))
    rest, chosen = train_test_split(indices[~single], test_size=rows, stratify=strata[~single], random_state=seed)
    return np.concatenate([rest, indices[single]]), chosen


def _report(splits: dict[str, Dataset], labels: LabelSet, args: DataArguments) -> None:
    for split, dataset in splits.items():
        logger.info("%s: %s rows%s", split, f"{len(dataset):,}", _distribution(dataset, labels))
    _warn_of_absent_classes(splits, labels)
    _warn_of_leaks(splits, args)


def _distribution(dataset: Dataset, labels: LabelSet) -> str:
    if labels.problem_type != SINGLE_LABEL or "label" not in dataset.column_names:
        return ""
    counts = Counter(dataset["label"][:])
    return " (" + ", ".join(f"{labels.names[label]} {count:,}" for label, count in sorted(counts.items())) + ")"


def _warn_of_absent_classes(splits: dict[str, Dataset], labels: LabelSet) -> None:
    if labels.problem_type != SINGLE_LABEL:
        return
    for split in ("train", "validation"):
        if split in splits and "label" in splits[split].column_names:
            absent = [labels.names[i] for i in sorted(set(range(len(labels.names))) - set(splits[split]["label"][:]))]
            if absent:
                logger.warning("the %s split has no row of %s", SPLIT_NAMES[split], ", ".join(absent))


def _warn_of_leaks(splits: dict[str, Dataset], args: DataArguments) -> None:
    """Texts of validation or test that are also trained on make a score too good."""
    if "train" not in splits:
        return
    trained = set(_text_keys(splits["train"]))
    for split in ("validation", "test"):
        if split not in splits:
            continue
        repeated = sum(key in trained for key in _text_keys(splits[split]))
        message = f"{repeated} of {len(splits[split])} texts of the {SPLIT_NAMES[split]} split are also in train"
        if repeated and args.duplicated_text == "error":
            raise DataError(f"{message}: remove them, or pass --duplicated_text warn")
        if repeated:
            logger.warning(message)


def _text_keys(dataset: Dataset) -> list[int]:
    columns = [dataset[column] for column in ("text", "text_pair") if column in dataset.column_names]
    return [hash(texts) for texts in zip(*columns, strict=True)]


def class_weights(dataset: Dataset, labels: LabelSet, asked: Sequence[str] | None) -> list[float] | None:
    """The loss's weights per label, from `--class_weights`.

    Raises:
        DataError: not `balanced`, and not one number per label; or regression.
    """
    if asked is None:
        return None
    if labels.problem_type == REGRESSION:
        raise DataError("--class_weights: regression has no classes")
    if list(asked) == ["balanced"]:
        return _balanced_weights(dataset, labels)
    try:
        weights = [float(weight) for weight in asked]
    except ValueError as error:
        raise DataError(f"--class_weights {' '.join(asked)}: expected balanced or numbers") from error
    if len(weights) != len(labels.names) or min(weights) < 0:
        raise DataError(
            f"--class_weights: expected {len(labels.names)} numbers of 0 or more, for {', '.join(labels.names)}"
        )
    return weights


def _balanced_weights(dataset: Dataset, labels: LabelSet) -> list[float]:
    encoded = np.asarray(dataset["label"][:])
    if labels.problem_type == MULTI_LABEL:
        positives = encoded.sum(axis=0)
        return [float((len(encoded) - count) / max(count, 1)) for count in positives]
    counts = np.bincount(encoded, minlength=len(labels.names))
    return [float(len(encoded) / (len(labels.names) * max(count, 1))) for count in counts]
