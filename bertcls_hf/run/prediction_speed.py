"""How many texts a second the model of a run classifies, from text to logits."""

import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from transformers.utils.logging import disable_progress_bar

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.errors import DataError
from bertcls_hf.predict.input import Row, open_sources, read_rows
from bertcls_hf.predict.predictor import Predictor


MOST_TEXTS, WARM_UP_TEXTS, REPETITIONS = 256, 32, 3


def read_texts(name: str) -> list[Row]:
    """Reads the first texts of a file, so many as are measured.

    Args:
        name: a path, or `-` for standard input.

    Raises:
        DataError: the file cannot be read, or holds no texts.
        ArgumentsError: see [`open_sources`].
    """
    sources = open_sources([name], DataArguments(), "lines", sys.stdin.buffer)
    texts = list(islice(read_rows(sources), MOST_TEXTS))
    if not texts:
        raise DataError(f"--texts {name}: it holds no texts")
    return texts


def texts_per_second(folder: Path, rows: Sequence[Row]) -> float:
    """Measures a model: the best of several repetitions, after a batch that warms it up.

    Args:
        folder: output_dir of the run.
        rows: the texts, or pairs of texts.

    Raises:
        ArgumentsError: the folder holds no model that can be loaded.
    """
    disable_progress_bar()
    predictor = Predictor.from_pretrained(str(folder), cascade=False)
    _seconds(predictor, rows[:WARM_UP_TEXTS])
    return len(rows) / min(_seconds(predictor, rows) for _ in range(REPETITIONS))


def _seconds(predictor: Predictor, rows: Sequence[Row]) -> float:
    texts = [row["text"] or "" for row in rows]
    pairs = [row["text_pair"] or "" for row in rows] if "text_pair" in rows[0] else None
    start = time.perf_counter()
    predictor.logits(texts, pairs)
    return time.perf_counter() - start
