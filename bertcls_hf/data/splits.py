"""Defines the interface of a split, holds out parts of train, and draws samples; both are stratified by class."""

from collections.abc import Collection
from typing import Protocol

import numpy as np
from datasets import Dataset

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.labels import SINGLE_LABEL, LabelSet
from bertcls_hf.data.texts import first_rows
from bertcls_hf.errors import DataError


SPLIT_NAMES = {"train": "training", "validation": "validation", "test": "test"}


class Split(Protocol):
    """The interface that all splits share: texts or token ids, loaded (`datasets.Dataset`) or streamed."""

    @property
    def num_rows(self) -> int | None:
        """The number of rows; None for a stream, whose number of rows is unknown."""

    @property
    def column_names(self) -> list[str]:
        """The names of the columns."""


def percentages_to_hold_out(given: Collection[str], args: DataArguments) -> dict[str, float]:
    """Returns the splits to take from train, each with its percentage of train.

    Nothing is taken from a stream, because its number of rows is unknown.

    Args:
        given: the splits that have data of their own.
        args: the data options, which give the percentages.
    """
    if args.streaming or "train" not in given:
        return {}
    asked = {"test": args.test_split_percentage, "validation": args.validation_split_percentage}
    return {split: percentage for split, percentage in asked.items() if split not in given and percentage}


def hold_out(
    splits: dict[str, Dataset], percentages: dict[str, float], args: DataArguments, labels: LabelSet
) -> dict[str, Dataset]:
    """Takes further splits from train, which keeps the remaining rows; returns all splits.

    Args:
        splits: the splits that have data of their own, with encoded labels.
        percentages: the splits to take, from [`percentages_to_hold_out`].
        args: the data options, which give the seed.
        labels: the labels of the task.

    Raises:
        DataError: train has only one distinct text.
    """
    for split, percentage in percentages.items():
        splits = splits | _hold_out_one(splits["train"], split, percentage / 100, args.split_seed, labels)
    return splits


def _hold_out_one(train: Dataset, split: str, share: float, seed: int, labels: LabelSet) -> dict[str, Dataset]:
    """Takes a stratified share of the distinct texts; all rows with the same text go into the same split."""
    first_row = first_rows(train)
    distinct_rows = np.unique(first_row)
    if len(distinct_rows) < 2:
        raise DataError(
            f"no {SPLIT_NAMES[split]} split can be held out from a single text: give --{split}_file, or "
            f"--{split}_split_percentage 0"
        )
    size = min(max(round(share * len(distinct_rows)), 1), len(distinct_rows) - 1)
    drawn = stratified_draw(train.select(distinct_rows), size, labels, seed, keep_one=True)
    is_held_out = np.isin(first_row, distinct_rows[drawn])
    return {split: train.select(np.flatnonzero(is_held_out)), "train": train.select(np.flatnonzero(~is_held_out))}


def sample_splits(splits: dict[str, Dataset], args: DataArguments, labels: LabelSet) -> dict[str, Dataset]:
    """Replaces each split that has a limit in the options by a stratified sample; returns all splits."""
    limits = {"train": args.max_train_samples, "validation": args.max_eval_samples, "test": args.max_predict_samples}
    return {split: _sample(dataset, limits[split], labels, args.split_seed) for split, dataset in splits.items()}


def _sample(dataset: Dataset, size: int | None, labels: LabelSet, seed: int) -> Dataset:
    if size is None or size >= len(dataset):
        return dataset
    return dataset.select(stratified_draw(dataset, size, labels, seed, keep_one=False))


def stratified_draw(dataset: Dataset, size: int, labels: LabelSet, seed: int, keep_one: bool) -> np.ndarray:
    """Draws random rows, in which each class of a single-label task keeps its share, to within one row.

    Args:
        dataset: a split, with encoded labels.
        size: the number of rows to draw.
        labels: the labels of the task; they say whether it is single-label.
        seed: the seed of the draw.
        keep_one: whether to leave at least one row of each class undrawn, unless too few rows could then be drawn.

    Returns:
        (size,) int64, the indices of the drawn rows in ascending order.
    """
    is_stratified = labels.problem_type == SINGLE_LABEL and "label" in dataset.column_names
    strata = np.asarray(dataset["label"][:]) if is_stratified else np.zeros(len(dataset), dtype=int)
    counts = np.bincount(strata)
    limits = counts - 1 if keep_one else counts
    limits = np.maximum(limits, 0) if np.maximum(limits, 0).sum() >= size else counts
    shares = counts * size / len(dataset)
    sizes = np.minimum(shares.astype(int), limits)
    while sizes.sum() < size:
        sizes[np.argmax(np.where(sizes < limits, shares - sizes, -np.inf))] += 1
    generator = np.random.default_rng(seed)
    shuffled = [generator.permutation(np.flatnonzero(strata == stratum)) for stratum in range(len(counts))]
    return np.sort(np.concatenate([rows[:stratum_size] for rows, stratum_size in zip(shuffled, sizes, strict=True)]))
