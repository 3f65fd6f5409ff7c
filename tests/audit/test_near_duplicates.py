"""Texts that are nearly the same, found without comparing all, against all compared."""

import itertools
import random

import numpy as np
import pytest
from datasets import Dataset

from bertcls_hf.audit.contradictions import contradicting_groups
from bertcls_hf.audit.labelled_rows import LabelledRows
from bertcls_hf.audit.near_duplicates import (
    SIMILAR,
    contradicting_pairs,
    repeated_in_training,
    shingles,
    similar_texts,
)
from bertcls_hf.data.labels import MULTI_LABEL, SINGLE_LABEL, LabelSet


NAMES = ("neg", "pos")
WORDS = [a + b for a in ("ba", "ke", "li", "mo", "nu", "ri") for b in ("dog", "fern", "lamp", "nest", "tide", "yarn")]


def rows_of(labels: LabelSet | None = None, **splits: list[tuple[str, object]]) -> LabelledRows:
    """Rows of texts with labels; a split of which no row has a label has none."""
    tables = {}
    for name, pairs in splits.items():
        columns = {"row": list(range(1, len(pairs) + 1)), "text": [text for text, _ in pairs]}
        if any(label is not None for _, label in pairs):
            columns["label"] = [label for _, label in pairs]
        tables[name] = Dataset.from_dict(columns)
    return LabelledRows.of(tables, labels or LabelSet(SINGLE_LABEL, NAMES))


def sentence(generator: random.Random, words: int = 20) -> str:
    return " ".join(generator.choices(WORDS, k=words))


def with_one_word_changed(text: str) -> str:
    return " ".join(["other", *text.split()[1:]])


def test_all_similar_pairs_are_found() -> None:
    generator = random.Random(0)
    texts = [sentence(generator) for _ in range(150)]
    texts += [with_one_word_changed(text) for text in texts[:40]]
    rows = rows_of(train=[(text, 0) for text in texts])
    found = similar_texts(rows, 8)
    sets = [shingles(text, 8) for text in texts]
    expected = {}
    for one, other in itertools.combinations(range(len(texts)), 2):
        both = len(np.intersect1d(sets[one], sets[other]))
        if (similarity := both / (len(sets[one]) + len(sets[other]) - both)) >= SIMILAR:
            expected[one, other] = similarity
    assert len(expected) == 40
    pairs = [tuple(pair) for pair in found.pairs.tolist()]
    assert dict(zip(pairs, found.similarities.tolist(), strict=True)) == pytest.approx(expected)


def test_many_texts_of_one_template_make_few_pairs() -> None:
    texts = [f"this message was sent by the automatic system of the firm as number {number}" for number in range(400)]
    found = similar_texts(rows_of(train=[(text, 0) for text in texts]), 8)
    assert len(found.pairs) < 400 * 399 / 4
    assert len(np.unique(found.pairs)) == 400


@pytest.mark.parametrize("text", ["", "ab", "좋은 영화", "x" * 200_000])
def test_any_text_has_shingles(text: str) -> None:
    assert len(shingles(text, 8)) >= 1


def test_repeated_in_training() -> None:
    generator = random.Random(1)
    texts = [sentence(generator) for _ in range(20)]
    test = [(with_one_word_changed(texts[3]), 0), (sentence(generator), 1), (f"  {texts[5].upper()}", 1)]
    rows = rows_of(train=[(text, 0) for text in texts], test=test, validation=[(texts[3], 0)])
    found = repeated_in_training(rows, similar_texts(rows, 8))
    places = [(rows.description(pair.row)["split"], rows.description(pair.row)["row"], pair.other) for pair in found]
    assert places == [("test", 3, 5), ("validation", 1, 3), ("test", 1, 3)]
    assert [pair.similarity == 1 for pair in found] == [True, True, False]


def test_similar_texts_with_different_labels() -> None:
    generator = random.Random(2)
    text, other = sentence(generator), sentence(generator)
    changed = [(with_one_word_changed(text), 1), (with_one_word_changed(other), 0)]
    rows = rows_of(train=[(text, 0), (other, 0), *changed])
    (pair,) = contradicting_pairs(rows, similar_texts(rows, 8))
    assert (pair.row, pair.other) == (0, 2)


def test_contradictions_are_groups_in_the_order_of_the_data() -> None:
    train = [("A  film", 0), ("a plot", 1), ("same", 1), ("a film ", 1), ("Same", 1)]
    rows = rows_of(train=train, validation=[("A PLOT", 0)], test=[("a plot", None)])
    assert [group.tolist() for group in contradicting_groups(rows)] == [[0, 3], [1, 5]]
    assert rows.description(5) == {"split": "validation", "row": 1, "text": "A PLOT", "label": "neg"}
    assert rows.description(6) == {"split": "test", "row": 1, "text": "a plot"}


def test_sets_of_labels_contradict_each_other() -> None:
    train = [("a", [1.0, 0.0]), ("A", [1.0, 1.0]), ("b", [0.0, 0.0]), ("b", [0.0, 0.0])]
    rows = rows_of(LabelSet(MULTI_LABEL, NAMES), train=train)
    assert [group.tolist() for group in contradicting_groups(rows)] == [[0, 1]]
