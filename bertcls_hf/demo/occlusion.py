"""What a prediction hangs on, by occlusion: each word is left out in turn, and the rest is classified again.

The method needs nothing but the model's answers, and it shows what it says: how the answer changes without a word, the
other words staying. It does not show how words work together: of two that say the same, neither may seem to matter.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.special import expit, logsumexp

from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION
from bertcls_hf.predict.predictor import Predictor


# Texts that are classified for one explanation, and about how many tokens they have together.
MOST_SPANS, MOST_TOKENS = 60, 2**13
# Thai to Burmese, Khmer, kana and Han are written without spaces: their characters stand for words.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_MARKS = "".join(chr(code) for code in range(0x0E00, 0x1800) if unicodedata.category(chr(code)).startswith("M"))
_WORD = re.compile(f"[{_UNSPACED}][{_MARKS}]*|[^\\s{_UNSPACED}]+")


@dataclass(frozen=True)
class Occlusion:
    """How a model's answer changes when a part of the text is left out.

    Args:
        label: what is explained: the predicted label, or the most probable one of a multi-label task.
        score: the label's probability, or the number of a regression, for all of it.
        spans: consecutive parts of what the model reads, which together are all of it.
        scores: (spans,) float64, the score without each.
        effects: (spans,) float64, how much lower the log-odds of the label are without each, or the number of a
            regression; below 0 where they are higher.
    """

    label: str
    score: float
    spans: tuple[str, ...]
    scores: np.ndarray
    effects: np.ndarray

    def strongest(self) -> int | None:
        """The position of the span whose absence changes most; None where nothing changes anything."""
        return int(np.abs(self.effects).argmax()) if self.effects.any() else None


def occlude(predictor: Predictor, text: str) -> Occlusion:
    """Leaves out one word at a time, or one span of words where there are many, and classifies the rest.

    Log-odds are compared rather than probabilities, which hardly move where the model is sure. The whole costs at most
    [`MOST_SPANS`] texts more than the classification itself, and about [`MOST_TOKENS`] tokens.

    Args:
        predictor: the classifier, of single texts.
        text: of any length and language; only what the model reads of it is looked at.
    """
    part = predictor.read_part(text)
    # Some tokenizers make tokens of white space at the ends.
    read = part.text.strip()
    spans = split_spans(read, max(min(MOST_SPANS, MOST_TOKENS // max(part.tokens, 1)), 1))
    logits = predictor.logits([read, *_without_each(spans)])
    label = _explained(predictor, logits[:1])
    odds = _log_odds(predictor, logits, label)
    scores = odds if predictor.labels.problem_type == REGRESSION else expit(odds)
    return Occlusion(predictor.labels.names[label], float(scores[0]), spans, scores[1:], odds[0] - odds[1:])


def split_spans(text: str, most: int) -> tuple[str, ...]:
    """The text in consecutive spans of as many words each, at most `most`; spaces go with the word before them."""
    starts = [word.start() for word in _WORD.finditer(text)]
    if not starts:
        return ()
    words_per_span = -(-len(starts) // most)
    bounds = [0, *starts[words_per_span::words_per_span], len(text)]
    return tuple(text[start:end] for start, end in pairwise(bounds))


def _without_each(spans: tuple[str, ...]) -> Iterator[str]:
    for position in range(len(spans)):
        yield "".join(spans[:position] + spans[position + 1 :]).strip()


def _explained(predictor: Predictor, logits: np.ndarray) -> int:
    """The position of the label that is explained, by the (1, labels) logits of the text."""
    if predictor.labels.problem_type == REGRESSION:
        return 0
    if predictor.labels.problem_type == MULTI_LABEL:
        return int(logits[0].argmax())
    scores = predictor.calibration.probabilities(logits, predictor.labels)
    return int(predictor.calibration.predicted(scores, predictor.labels)[0])


def _log_odds(predictor: Predictor, logits: np.ndarray, label: int) -> np.ndarray:
    """(rows,) float64: of one label, or the numbers of a regression, by (rows, labels) logits."""
    column = logits[:, label].astype(np.float64)
    if predictor.labels.problem_type == REGRESSION:
        return column
    temperature = predictor.calibration.temperature
    if predictor.labels.problem_type == MULTI_LABEL:
        return column / temperature
    others = np.delete(logits.astype(np.float64), label, axis=1)
    return column / temperature - logsumexp(others / temperature, axis=1)
