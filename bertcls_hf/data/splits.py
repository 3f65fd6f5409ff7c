"""What all splits have in common; parts of train that are held out, and samples, which keep the shares of classes."""

from collections.abc import Collection
from typing import Protocol

import numpy as np
from datasets import Dataset

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.labels import SINGLE_LABEL, LabelSet
from bertcls_hf.data.texts import text_keys
from bertcls_hf.errors import DataError


SPLIT_NAMES = {"train": "training", "validation": "validation", "test": "test"}


class Split(Protocol):
    """What a run asks of a split, of texts or of token ids, loaded or streamed; a `datasets.Dataset` is one."""

    @property
    def num_rows(self) -> int | None:
        """The number of rows; None for a stream, of which only what was read is known."""

    @property
    def column_names(self) -> list[str]:
        """Names of the columns of a row."""


def percentages_to_hold_out(given: Collection[str], args: DataArguments) -> dict[str, float]:
    """The splits to take from train, with their percentages; validation never comes from test, nor from a stream.

    Args:
        given: the splits that have data of their own.
        args: the percentages that are asked for.
    """
    if args.streaming or "train" not in given:
        return {}
    asked = {"test": args.test_split_percentage, "validation": args.validation_split_percentage}
    return {split: percentage for split, percentage in asked.items() if split not in given and percentage}


def hold_out(
    splits: dict[str, Dataset], percentages: dict[str, float], args: DataArguments, labels: LabelSet
) -> dict[str, Dataset]:
    """The splits, with further ones that are taken from train, which is then the rest.

    Raises:
        DataError: train has too few texts.
    """
    for split, percentage in percentages.items():
        splits = splits | _hold_out_one(splits["train"], split, percentage / 100, args.split_seed, labels)
    return splits


def _hold_out_one(train: Dataset, split: str, share: float, seed: int, labels: LabelSet) -> dict[str, Dataset]:
    """A stratified split of the distinct texts; every repetition of a text goes where its first row goes."""
    _, first_rows, text_of_row = np.unique(text_keys(train), return_index=True, return_inverse=True)
    if len(first_rows) < 2:
        raise DataError(
            f"no {SPLIT_NAMES[split]} split can be held out from a single text: give --{split}_file, or "
            f"--{split}_split_percentage 0"
        )
    # In the order of the rows: that of the keys differs between processes.
    distinct_rows = np.sort(first_rows)
    size = min(max(round(share * len(distinct_rows)), 1), len(distinct_rows) - 1)
    drawn = stratified_draw(train.select(distinct_rows), size, labels, seed, keep_one=True)
    is_held_out = np.isin(first_rows[text_of_row], distinct_rows[drawn])
    return {split: train.select(np.flatnonzero(is_held_out)), "train": train.select(np.flatnonzero(~is_held_out))}


def sample_splits(splits: dict[str, Dataset], args: DataArguments, labels: LabelSet) -> dict[str, Dataset]:
    """The splits, of which those with a limit in the options are stratified samples."""
    limits = {"train": args.max_train_samples, "validation": args.max_eval_samples, "test": args.max_predict_samples}
    return {split: _sample(dataset, limits[split], labels, args.split_seed) for split, dataset in splits.items()}


def _sample(dataset: Dataset, size: int | None, labels: LabelSet, seed: int) -> Dataset:
    if size is None or size >= len(dataset):
        return dataset
    return dataset.select(stratified_draw(dataset, size, labels, seed, keep_one=False))


def stratified_draw(dataset: Dataset, size: int, labels: LabelSet, seed: int, keep_one: bool) -> np.ndarray:
    """Draws a random part in which each class of a single-label task keeps its share within a row.

    Args:
        dataset: a split.
        size: rows of the part.
        labels: names the task.
        seed: of the draw.
        keep_one: whether each class leaves a row to the rest, as far as the rest has room for that.

    Returns:
        (size,) int64, ascending indices of rows.
    """
    is_stratified = labels.problem_type == SINGLE_LABEL and "label" in dataset.column_names
    strata = np.asarray(dataset["label"][:]) if is_stratified else np.zeros(len(dataset), dtype=int)
    counts = np.bincount(strata)
    most = counts - 1 if keep_one else counts
    most = np.maximum(most, 0) if np.maximum(most, 0).sum() >= size else counts
    shares = counts * size / len(dataset)
    sizes = np.minimum(shares.astype(int), most)
    while sizes.sum() < size:
        sizes[np.argmax(np.where(sizes < most, shares - sizes, -np.inf))] += 1
    generator = np.random.default_rng(seed)
    shuffled = [generator.permutation(np.flatnonzero(strata == stratum)) for stratum in range(len(counts))]
    return np.sort(np.concatenate([rows[:drawn] for rows, drawn in zip(shuffled, sizes, strict=True)]))
