"""Brings the rows of all compared runs into one order, since paired figures need the same texts in the same places."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bertcls_hf.errors import DataError
from bertcls_hf.run.compared_runs import ComparedRun
from bertcls_hf.training.saved_outputs import SavedOutputs


# The options that choose the rows of a split.
ROW_OPTIONS = {
    "test": "--test_file, --split_seed and --max_predict_samples",
    "validation": "--validation_file, --split_seed and --max_eval_samples",
}


def aligned(runs: Sequence[ComparedRun], split: str) -> list[ComparedRun]:
    """Brings the rows of all runs into the order of the first run, so that its figures are those of its model card.

    A text that occurs several times is aligned with its occurrences of the same gold label, in their order.

    Args:
        runs: the runs, of one task.
        split: the name of the split.

    Raises:
        DataError: runs were evaluated on different rows, or on the same rows with different gold labels.
    """
    return [runs[0], *(replace(run, outputs=_like(runs[0], run, split)) for run in runs[1:])]


def _like(first: ComparedRun, run: ComparedRun, split: str) -> SavedOutputs:
    """The outputs of a run in the order of the first run's rows."""
    here, there = first.outputs, run.outputs
    _refuse_other_rows(first, run, split)
    gold = _gold_numbers(here, there)
    order = np.empty(len(here.rows), dtype=np.int64)
    # Sorting is stable, so that equal rows keep their order.
    order[_sorted(here.rows, gold[: len(here.rows)])] = _sorted(there.rows, gold[len(here.rows) :])
    different = int((gold[: len(here.rows)] != gold[len(here.rows) :][order]).sum())
    if different:
        raise DataError(
            f"{first.folder} and {run.folder} have different gold labels for {different:,} of their "
            f"{len(here.rows):,} {split} rows: evaluate both on the same data"
        )
    baseline = None if there.baseline_logits is None else there.baseline_logits[order]
    return SavedOutputs(there.labels, there.rows[order], there.gold[order], there.logits[order], baseline)


def _refuse_other_rows(first: ComparedRun, run: ComparedRun, split: str) -> None:
    hashes, number = np.unique(np.concatenate([first.outputs.rows, run.outputs.rows]), return_inverse=True)
    rows = len(first.outputs.rows)
    surplus = np.bincount(number[:rows], minlength=len(hashes)) - np.bincount(number[rows:], minlength=len(hashes))
    if surplus.any():
        raise DataError(
            f"{first.folder} and {run.folder} were evaluated on different {split} rows: "
            f"{surplus.clip(min=0).sum():,} are only in {first.folder}, {(-surplus).clip(min=0).sum():,} only in "
            f"{run.folder}; {ROW_OPTIONS[split]} choose them"
        )


def _gold_numbers(here: SavedOutputs, there: SavedOutputs) -> np.ndarray:
    """A number for each row's gold label, or set of labels, that is the same in both runs."""
    gold = np.concatenate([outputs.gold.reshape(len(outputs.gold), -1) for outputs in (here, there)])
    return np.unique(gold, axis=0, return_inverse=True)[1].reshape(-1)


def _sorted(rows: np.ndarray, gold: np.ndarray) -> np.ndarray:
    return np.lexsort((gold, rows))
