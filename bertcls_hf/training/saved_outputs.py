"""The outputs of a run for each row of an evaluated split, in files from which runs can be compared later."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import xxhash
from datasets import Dataset

from bertcls_hf.data.labels import LabelSet, ProblemType
from bertcls_hf.data.texts import rows_of_texts
from bertcls_hf.training.results import Evaluation


SUFFIX = "_outputs.npz"


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


def write_outputs(folder: Path, prefix: str, evaluation: Evaluation, split: Dataset, labels: LabelSet) -> None:
    """Writes `<prefix>_outputs.npz`.

    Args:
        folder: output_dir.
        prefix: `eval` or `test`.
        evaluation: the evaluation of the split.
        split: the rows, with their texts.
        labels: the labels of the task.
    """
    hashes = [xxhash.xxh3_64_intdigest(json.dumps(texts).encode()) for texts in rows_of_texts(split)]
    arrays = {
        "rows": np.array(hashes, dtype=np.uint64),
        "gold": np.asarray(evaluation.gold),
        "logits": np.asarray(evaluation.logits, dtype=np.float32),
    }
    if evaluation.baseline is not None:
        arrays["baseline_logits"] = evaluation.baseline.logits
    description = json.dumps({"problem_type": labels.problem_type, "labels": labels.names})
    np.savez(folder / f"{prefix}{SUFFIX}", description=description, **cast(Any, arrays))


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
