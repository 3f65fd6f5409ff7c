"""Finds the quickest way to compute a model's labels on this machine, by trying each on some of the texts."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bertcls_hf.errors import ArgumentsError
from bertcls_hf.predict.arguments import Backend, InferenceDtype
from bertcls_hf.predict.engines import GRAPH_DTYPES, has_graphs_alone, is_installed, is_processor
from bertcls_hf.predict.predictor import Predictor


logger = logging.getLogger(__name__)

# The share of the texts whose labels must be those of the first way.
LEAST_AGREEMENT = 0.995
# For how long the first way is tried, the texts that warm a way up, and the least that are tried if there are as many.
SECONDS, FIRST_TEXTS, FEWEST_TEXTS = 1.0, 8, 64
# A way that takes this many times as long as the first on the first texts is not tried further.
HOPELESS = 3.0


class Way(NamedTuple):
    """A way to compute: what computes, and in which number format."""

    backend: Backend
    dtype: InferenceDtype

    def __str__(self) -> str:
        return f"{self.backend} {self.dtype}"


@dataclass(frozen=True)
class Trial:
    """What a way gave on the texts that were tried.

    Args:
        way: the way.
        predictor: the loaded model.
        speed: texts per second, tokenizing included.
        agreement: the share of texts whose labels are those of the first way.
    """

    way: Way
    predictor: Predictor
    speed: float
    agreement: float

    def __str__(self) -> str:
        return f"{self.way}: {self.speed:.1f} texts/s, labels agree on {self.agreement:.2%}"


def ways_of(model: str, device: str | None) -> list[Way]:
    """Lists the ways to try; the first is the one whose labels count.

    Args:
        model: see [`Predictor.from_pretrained`].
        device: the asked device.
    """
    folder = Path(model)
    ways = [] if has_graphs_alone(folder) else [Way("torch", "float32"), Way("torch", "bfloat16")]
    if device is None or is_processor(device):
        ways += [
            Way(backend, dtype)
            for backend in filter(is_installed, GRAPH_DTYPES)
            for dtype, file in GRAPH_DTYPES[backend].items()
            if (folder / file).is_file()
        ]
    # Where there is no way at all, loading says what is missing.
    return ways or [Way("onnx", "float32")]


def quickest(
    load: Callable[[Way], Predictor], ways: Sequence[Way], texts: Sequence[str], pairs: Sequence[str] | None = None
) -> Trial:
    """Tries the ways one after the other, and returns the quickest among those with the labels of the first.

    Args:
        load: loads the model for one way.
        ways: see [`ways_of`].
        texts: texts like those that are to be classified; as many are tried as the first way does in a second.
        pairs: the second text of each row, for a model of sentence pairs.

    Raises:
        ArgumentsError: if the model cannot be loaded for the first way.
    """
    first = load(ways[0])
    if not texts:
        return Trial(ways[0], first, 0.0, 1.0)
    sample = Sample(texts, pairs)
    first_seconds = sample.warm_up(first)
    rows = sample.rows_in(SECONDS, first_seconds)
    labels, seconds = sample.classify(first, rows)
    chosen = Trial(ways[0], first, rows / seconds, 1.0)
    logger.info("%s", chosen)
    for way in ways[1:]:
        try:
            predictor = load(way)
        except ArgumentsError as error:
            logger.info("%s: not tried: %s", way, error)
            continue
        if sample.warm_up(predictor) > HOPELESS * first_seconds:
            logger.info("%s: much slower than %s", way, ways[0])
            continue
        others, seconds = sample.classify(predictor, rows)
        agreement = float(np.equal(others, labels).reshape(rows, -1).all(axis=1).mean())
        trial = Trial(way, predictor, rows / seconds, agreement)
        logger.info("%s", trial)
        # The models of the other ways are not kept.
        if agreement >= LEAST_AGREEMENT and trial.speed > chosen.speed:
            chosen = trial
    logger.info("%s (chosen)", chosen.way)
    return chosen


class Sample:
    """The texts that the ways are tried on; there is one at least."""

    def __init__(self, texts: Sequence[str], pairs: Sequence[str] | None):
        self.texts, self.pairs = texts, pairs

    def warm_up(self, predictor: Predictor) -> float:
        """Classifies the first texts twice, and returns the seconds of the second time."""
        self.classify(predictor, FIRST_TEXTS)
        return self.classify(predictor, FIRST_TEXTS)[1]

    def rows_in(self, seconds: float, first_seconds: float) -> int:
        """Returns how many texts are classified in the given seconds, by the seconds that the first took."""
        return min(max(int(FIRST_TEXTS * seconds / first_seconds), FEWEST_TEXTS), len(self.texts))

    def classify(self, predictor: Predictor, rows: int) -> tuple[np.ndarray, float]:
        """Returns the labels of the first texts, and the seconds that these took."""
        begin = time.perf_counter()
        logits = predictor.logits(self.texts[:rows], None if self.pairs is None else self.pairs[:rows])
        seconds = time.perf_counter() - begin
        return predictor.calibration.predicted_of(logits, predictor.labels), seconds
