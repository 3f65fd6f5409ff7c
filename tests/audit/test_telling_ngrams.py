"""N-grams that tell a label alone."""

from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from bertcls_hf.audit.telling_ngrams import TellingNgram, telling_ngrams
from bertcls_hf.data.labels import MULTI_LABEL, SINGLE_LABEL, LabelSet
from bertcls_hf.features.ngrams import CHARACTERS, WORDS, NgramCounter, NgramKind


NAMES = ("neg", "pos")


def found_in(
    texts: list[str],
    gold: np.ndarray,
    task: Any = SINGLE_LABEL,
    kind: NgramKind = WORDS,
    pairs: list[str] | None = None,
) -> list[TellingNgram]:
    train = Dataset.from_dict({"text": texts} | ({"text_pair": pairs} if pairs else {}))
    counter = NgramCounter(kind)
    return telling_ngrams(train, counter, counter.fit_transform(train), gold, LabelSet(task, NAMES))


def texts_with(leak: str, rows: int = 400) -> tuple[list[str], np.ndarray]:
    """Every other text is positive, and half of the positive ones hold what leaked."""
    gold = np.arange(rows) % 2
    fillers = [f"a word{number % 7} and a thing{number % 5}" for number in range(rows)]
    return [f"{filler} {leak}" if number % 4 == 1 else filler for number, filler in enumerate(fillers)], gold


def test_a_leak_is_found_with_its_figures() -> None:
    texts, gold = texts_with("label: pos")
    (found,) = found_in(texts, gold)
    assert found.ngram == "label :"
    assert (found.label, found.rows, found.precision, found.base_rate, found.coverage) == ("pos", 100, 1.0, 0.5, 0.5)
    assert 0.95 < found.lowest_precision < 1
    assert found.example == 1


def test_nothing_is_found_where_nothing_leaked() -> None:
    texts, gold = texts_with("")
    assert found_in(texts, gold) == []


def test_few_rows_prove_nothing() -> None:
    texts, gold = texts_with("10/10", rows=200)
    assert found_in(texts, gold) == []


def test_exceptions_are_weighed_by_how_rare_they_are() -> None:
    """Where 97 % of all rows have a label, a word of which 96 % have it tells nothing."""
    gold = np.ones(3000, dtype=int)
    gold[:90] = 0
    texts = [f"a word{number % 7}" for number in range(3000)]
    assert found_in(texts, gold) == []


def test_a_leak_in_the_second_text_of_a_pair() -> None:
    pairs, gold = texts_with("5stars")
    (found,) = found_in(["the same"] * len(pairs), gold, pairs=pairs)
    assert found.ngram.endswith("5stars")


def test_a_leak_in_characters() -> None:
    texts, gold = texts_with("좋아요!")
    found = found_in(texts, gold, kind=CHARACTERS)
    assert any("좋아요" in ngram.ngram for ngram in found)


def test_several_labels() -> None:
    texts, gold = texts_with("leaked")
    several = np.column_stack([np.ones_like(gold), gold]).astype(np.float32)
    several[::3, 0] = 0
    (found,) = found_in(texts, several, MULTI_LABEL)
    assert (found.label, found.coverage) == ("pos", pytest.approx(0.5))
