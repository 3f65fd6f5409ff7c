"""Finds texts that are nearly the same, without comparing each with each.

A text is the set of its overlapping runs of characters, its shingles, and two texts are as similar as their sets: the
shingles that both have, of all that one of them has (Jaccard's similarity). Every shingle gets a place on a circle by
its hash. From each of 128 fixed points, a text's sketch holds the next of its own shingles, so that two texts have the
same entry there with a probability that is their similarity: minwise hashing (Broder 1997) in one pass over the text
(Shrivastava & Li 2014, arXiv 1406.4784). Texts that share a band of entries are compared by their sketches, and what
then looks similar is compared by all shingles.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bertcls_hf.audit.labelled_rows import LabelledRows, normalised
from bertcls_hf.features.ngrams import NgramKind


SHINGLES = {"word": 5, "char": 3}
# Jaccard's similarity from which on two texts are nearly the same.
SIMILAR = 0.6
# With 32 bands of 4, texts of the similarity above share a band with a probability of 0.99.
BANDS, BAND_ENTRIES = 32, 4
# Pairs whose sketches have less in common are not compared further. Sketches of short texts err much.
LEAST_OF_SKETCH = 0.3
# The texts of a band that each is compared with, in a random order: pairs grow with the texts, not with their square.
COMPARED_WITH = 8
# Longer texts are compared by their first characters.
MOST_CHARACTERS = 100_000
PAIRS_AT_ONCE = 5_000
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def shingle_length(kind: NgramKind) -> int:
    """Returns the characters of a shingle: fewer for scripts whose words are few characters."""
    return SHINGLES[kind.unit]


@dataclass(frozen=True)
class SimilarTexts:
    """Pairs of different texts that are nearly the same.

    Args:
        pairs: (pairs, 2) int64, the numbers of the first rows with these texts.
        similarities: (pairs,) float64, at least [`SIMILAR`].
    """

    pairs: np.ndarray
    similarities: np.ndarray


def similar_texts(rows: LabelledRows, shingle: int) -> SimilarTexts:
    """Finds pairs of texts that are nearly the same; those that are the same after normalisation count as one.

    Args:
        rows: all rows.
        shingle: the characters of a shingle.
    """
    texts = np.unique(rows.text_of)
    sketches = _sketches(rows, texts, shingle)
    candidates = _candidates(sketches)
    likely = candidates[_sketch_similarities(sketches, candidates) >= LEAST_OF_SKETCH]
    similarities = _similarities(rows, texts[likely], shingle)
    is_similar = similarities >= SIMILAR
    return SimilarTexts(texts[likely[is_similar]], similarities[is_similar])


def shingles(text: str, size: int) -> np.ndarray:
    """Returns the distinct hashes of a normalised text's runs of characters, uint64, ascending.

    A text of fewer characters than a run is one run. No text is without one.
    """
    codes = np.frombuffer(text[:MOST_CHARACTERS].encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    codes = np.pad(codes, (0, max(size - len(codes), 0)))
    count = len(codes) - size + 1
    hashes = np.zeros(count, dtype=np.uint64)
    for place in range(size):
        hashes = hashes * _MULTIPLIER + codes[place : place + count]
    return np.unique(_mixed(hashes))


def _mixed(values: np.ndarray) -> np.ndarray:
    """Spreads hashes evenly over 64 bits (the finalizer of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _sketches(rows: LabelledRows, texts: np.ndarray, size: int) -> np.ndarray:
    """Returns (texts, entries) uint64: from each point on the circle, the next shingle of the text."""
    points = _mixed(np.arange(1, BANDS * BAND_ENTRIES + 1, dtype=np.uint64))
    sketches = np.empty((len(texts), len(points)), dtype=np.uint64)
    for number, row in enumerate(rows.texts(texts)):
        found = shingles(normalised(row), size)
        sketches[number] = found[np.searchsorted(found, points) % len(found)]
    return sketches


def _candidates(sketches: np.ndarray) -> np.ndarray:
    """Returns the (pairs, 2) int64 numbers of texts that share a band, each pair once."""
    found = [np.empty((0, 2), dtype=np.int64)]
    shuffled = np.random.default_rng(0).permutation(len(sketches))
    for band in np.split(sketches[shuffled], BANDS, axis=1):
        keys = _mixed(band * np.arange(1, 2 * BAND_ENTRIES, 2, dtype=np.uint64)).sum(axis=1, dtype=np.uint64)
        order = np.argsort(keys, kind="stable")
        for step in range(1, COMPARED_WITH + 1):
            is_shared = keys[order[step:]] == keys[order[:-step]]
            found.append(shuffled[np.column_stack([order[:-step][is_shared], order[step:][is_shared]])])
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def _sketch_similarities(sketches: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Returns the (pairs,) shares of entries that two sketches have in common."""
    parts = [(sketches[some[:, 0]] == sketches[some[:, 1]]).mean(axis=1) for some in _chunks(pairs)]
    return np.concatenate([np.empty(0), *parts])


def _similarities(rows: LabelledRows, pairs: np.ndarray, size: int) -> np.ndarray:
    """Returns the (pairs,) similarities of all shingles."""
    similarities = []
    for some in _chunks(pairs):
        texts = np.unique(some)
        sets = {text: shingles(normalised(row), size) for text, row in zip(texts, rows.texts(texts), strict=True)}
        for one, other in some:
            both = len(np.intersect1d(sets[one], sets[other], assume_unique=True))
            similarities.append(both / (len(sets[one]) + len(sets[other]) - both))
    return np.array(similarities)


def _chunks(pairs: np.ndarray) -> Iterator[np.ndarray]:
    yield from (pairs[start : start + PAIRS_AT_ONCE] for start in range(0, len(pairs), PAIRS_AT_ONCE))


@dataclass(frozen=True)
class SimilarRows:
    """Two rows whose texts are the same or nearly so.

    Args:
        row: the number of the one row.
        other: that of the other.
        similarity: Jaccard's; 1 for texts that differ in white space and case at most.
    """

    row: int
    other: int
    similarity: float


def repeated_in_training(rows: LabelledRows, similar: SimilarTexts) -> list[SimilarRows]:
    """Returns for each row outside the training data the training row that is most like it, if one is similar.

    The most similar come first. Of several training rows with the same text, the first stands for all.
    """
    nearest: dict[int, tuple[float, int]] = {}
    for text, other, similarity in _both_ways(similar):
        if other < rows.train_rows:
            nearest[text] = min(nearest.get(text, (0.0, 0)), (-similarity, other))
    # Training rows come first, so that a text that is in the training data has the number of a training row.
    nearest |= {text: (-1.0, text) for text in rows.text_of[: rows.train_rows].tolist()}
    outside = enumerate(rows.text_of[rows.train_rows :].tolist(), start=rows.train_rows)
    found = [SimilarRows(row, nearest[text][1], -nearest[text][0]) for row, text in outside if text in nearest]
    return sorted(found, key=lambda pair: (-pair.similarity, pair.row))


def contradicting_pairs(rows: LabelledRows, similar: SimilarTexts) -> list[SimilarRows]:
    """Returns training rows whose texts are nearly the same, and whose labels differ, the most similar first.

    Of several rows with the same text, the first stands for all.
    """
    in_training = similar.pairs.max(axis=1, initial=0) < rows.train_rows
    differ = rows.label_of[similar.pairs[:, 0]] != rows.label_of[similar.pairs[:, 1]]
    chosen = in_training & differ
    found = zip(similar.pairs[chosen].tolist(), similar.similarities[chosen].tolist(), strict=True)
    pairs = [SimilarRows(row, other, similarity) for (row, other), similarity in found]
    return sorted(pairs, key=lambda pair: (-pair.similarity, pair.row, pair.other))


def _both_ways(similar: SimilarTexts) -> Iterator[tuple[int, int, float]]:
    for (one, other), similarity in zip(similar.pairs.tolist(), similar.similarities.tolist(), strict=True):
        yield one, other, similarity
        yield other, one, similarity
