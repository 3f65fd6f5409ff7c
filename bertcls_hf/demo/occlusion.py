"""Explains a prediction by occlusion: each word is left out in turn, and the rest is classified again.

The method needs only the model's outputs. It shows how the prediction changes if one word is left out and all others
stay. It does not show how words act together: if two words mean the same, neither may seem to matter.
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


# The largest number of texts that are classified for one explanation, and about how many tokens they have together.
MOST_SPANS, MOST_TOKENS = 60, 2**13
# Thai, Lao, Burmese, Khmer, kana and Han are written without spaces, so each character counts as a word.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_MARKS = "".join(chr(code) for code in range(0x0E00, 0x1800) if unicodedata.category(chr(code)).startswith("M"))
_WORD = re.compile(f"[{_UNSPACED}][{_MARKS}]*|[^\\s{_UNSPACED}]+")


@dataclass(frozen=True)
class Occlusion:
    """The changes of a prediction when parts of the text are left out.

    Args:
        label: the explained label: the predicted label, or the most probable label of a multi-label task.
        score: the label's probability, or the number of a regression, for all that the model reads of the text.
        spans: the consecutive parts of all that the model reads of the text.
        scores: (spans,) float64: the score without each span.
        effects: (spans,) float64: the decrease of the label's log-odds, or of the number of a regression, without each
            span; negative for an increase.
    """

    label: str
    score: float
    spans: tuple[str, ...]
    scores: np.ndarray
    effects: np.ndarray

    def strongest(self) -> int | None:
        """Returns the position of the span with the largest absolute effect, or None if no span has an effect."""
        return int(np.abs(self.effects).argmax()) if self.effects.any() else None


def occlude(predictor: Predictor, text: str) -> Occlusion:
    """Leaves out one word at a time, or one span of words if there are many words, and classifies the rest.

    The effects are measured in log-odds, since probabilities hardly change if the model is certain. Besides the text
    itself, at most [`MOST_SPANS`] texts with about [`MOST_TOKENS`] tokens are classified.

    Args:
        predictor: a classifier of single texts, not of pairs.
        text: a text of any length and language; only the part that the model reads is explained.
    """
    part = predictor.read_part(text)
    # Some tokenizers make tokens from white space at the ends of a text.
    read_text = part.text.strip()
    spans = split_spans(read_text, max(min(MOST_SPANS, MOST_TOKENS // max(part.tokens, 1)), 1))
    logits = predictor.logits([read_text, *_without_each(spans)])
    label = _explained_label(predictor, logits[:1])
    log_odds = _log_odds(predictor, logits, label)
    scores = log_odds if predictor.labels.problem_type == REGRESSION else expit(log_odds)
    return Occlusion(predictor.labels.names[label], float(scores[0]), spans, scores[1:], log_odds[0] - log_odds[1:])


def split_spans(text: str, most: int) -> tuple[str, ...]:
    """Splits a text into at most `most` spans of equally many words; spaces belong to the word before them."""
    starts = [word.start() for word in _WORD.finditer(text)]
    if not starts:
        return ()
    words_per_span = -(-len(starts) // most)
    bounds = [0, *starts[words_per_span::words_per_span], len(text)]
    return tuple(text[start:end] for start, end in pairwise(bounds))


def _without_each(spans: tuple[str, ...]) -> Iterator[str]:
    for position in range(len(spans)):
        yield "".join(spans[:position] + spans[position + 1 :]).strip()


def _explained_label(predictor: Predictor, logits: np.ndarray) -> int:
    """Returns the position of the label to explain, given the (1, labels) logits of the text."""
    if predictor.labels.problem_type == REGRESSION:
        return 0
    if predictor.labels.problem_type == MULTI_LABEL:
        return int(logits[0].argmax())
    return int(predictor.calibration.predicted_of(logits, predictor.labels)[0])


def _log_odds(predictor: Predictor, logits: np.ndarray, label: int) -> np.ndarray:
    """Computes the (rows,) float64 log-odds of a label from (rows, labels) logits; for regression, its numbers."""
    column = logits[:, label].astype(np.float64)
    if predictor.labels.problem_type == REGRESSION:
        return column
    temperature = predictor.calibration.temperature
    if predictor.labels.problem_type == MULTI_LABEL:
        return column / temperature
    others = np.delete(logits.astype(np.float64), label, axis=1)
    return column / temperature - logsumexp(others / temperature, axis=1)
