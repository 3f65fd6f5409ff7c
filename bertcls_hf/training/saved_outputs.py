"""The outputs of a run for each row of an evaluated split, in files from which runs can be compared later."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import xxhash
from datasets import Dataset

from bertcls_hf.atomic_files import write_atomically
from bertcls_hf.data.labels import LabelSet, ProblemType
from bertcls_hf.data.texts import rows_of_texts
from bertcls_hf.training.results import Evaluation


logger = logging.getLogger(__name__)

SUFFIX = "_outputs.npz"
# Rows times labels. More outputs than these, 10 MB, are not kept: files of ten thousand labels would fill a disk.
MOST_NUMBERS = 2_500_000


@dataclass(frozen=True)
class SavedOutputs:
    """What a run gave for each row of a split.

    Args:
        labels: the labels of the task.
        rows: (rows,) uint64, a hash of each row's texts.
        gold: the gold labels; see [`Evaluation`].
        logits: (rows, labels) float32.
        baseline_logits: the same of the lexical baseline, or None where the run has none.
    """

    labels: LabelSet
    rows: np.ndarray
    gold: np.ndarray
    logits: np.ndarray
    baseline_logits: np.ndarray | None


def write_outputs(folder: Path, evaluation: Evaluation, split: Dataset, labels: LabelSet) -> None:
    """Writes `eval_outputs.npz` or `test_outputs.npz`, unless it would be too large.

    Args:
        folder: output_dir.
        evaluation: the evaluation of the split.
        split: the rows, with their texts.
        labels: the labels of the task.
    """
    path = folder / f"{evaluation.prefix}{SUFFIX}"
    if evaluation.logits.size > MOST_NUMBERS:
        logger.info("%s is not written: %d rows of %d labels are too large", path, *evaluation.logits.shape)
        path.unlink(missing_ok=True)
        return
    hashes = [xxhash.xxh3_64_intdigest(json.dumps(texts).encode()) for texts in rows_of_texts(split)]
    arrays = {
        "rows": np.array(hashes, dtype=np.uint64),
        "gold": np.asarray(evaluation.gold),
        "logits": np.asarray(evaluation.logits, dtype=np.float32),
    }
    if evaluation.baseline is not None:
        arrays["baseline_logits"] = evaluation.baseline.logits
    description = json.dumps({"problem_type": labels.problem_type, "labels": labels.names})

    def fill(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, description=description, **cast(Any, arrays))

    write_atomically(path, fill)


def read_outputs(path: Path) -> SavedOutputs:
    """Reads a file of [`write_outputs`].

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no file of outputs.
        KeyError: it lacks a part.
    """
    with np.load(path) as stored:
        description = json.loads(str(stored["description"]))
        labels = LabelSet(cast(ProblemType, description["problem_type"]), tuple(description["labels"]))
        baseline = stored["baseline_logits"] if "baseline_logits" in stored.files else None
        return SavedOutputs(labels, stored["rows"], stored["gold"], stored["logits"], baseline)
