"""Columns of a tokenized split with the logits of another model: of the lexical features, or of teachers."""

import hashlib

import numpy as np
from datasets import Dataset, List, Value
from datasets.fingerprint import Hasher


LEXICAL_COLUMN, TEACHER_COLUMN = "lexical_logits", "teacher_logits"


def add_logits(split: Dataset, column: str, logits: np.ndarray) -> Dataset:
    """Returns the split with a column of (rows, labels) float32 logits."""
    # Otherwise, datasets would pickle every list.
    fingerprint = Hasher.hash((split._fingerprint, hashlib.sha256(logits.tobytes()).hexdigest()))
    return split.add_column(column, logits.tolist(), new_fingerprint=fingerprint, feature=List(Value("float32")))
