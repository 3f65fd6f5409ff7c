"""Counts of word or character n-grams, which are all that a bag of words knows of a text."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
from datasets import Dataset
from scipy import sparse
from sklearn.feature_extraction import FeatureHasher
from sklearn.feature_extraction.text import HashingVectorizer

from bertcls_hf.data.texts import rows_of_texts


# N-grams are counted in 2^22 buckets, which few of them share, and of which only those that occur twice are kept.
BUCKETS = 2**22
ROWS_AT_ONCE = 5000
# The texts, and the characters of each, that show the script.
SAMPLE_TEXTS, SAMPLE_CHARACTERS = 2000, 300
# Scripts that put no spaces between words (Thai, Lao, Tibetan, Burmese, Khmer, kana, Han), and Hangul, whose
# space-separated units carry particles and endings.
_SCRIPTS_OF_CHARACTERS = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3040-\u30ff\u3130-\u318f\u3400-\u4dbf"
    "\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"
)
# The share of such letters from which n-grams are of characters.
CHARACTERS_FROM = 0.3


@dataclass(frozen=True)
class NgramKind:
    """What an n-gram is made of.

    Args:
        unit: `word`, where punctuation counts as words too, or `char`.
        longest: the greatest number of units in an n-gram; shorter ones are counted, too.
    """

    unit: Literal["word", "char"]
    longest: int

    @property
    def words(self) -> str:
        """The kind as a noun in the plural, for logs and cards."""
        unit = {"word": "words", "char": "characters"}[self.unit]
        return f"n-grams of 1 to {self.longest} {unit}"


WORDS, CHARACTERS = NgramKind("word", 2), NgramKind("char", 5)


def ngram_kind(texts: Iterable[str]) -> NgramKind:
    """Chooses words or characters by the script of the first texts.

    >>> ngram_kind(["a good film"]).unit, ngram_kind(["좋은 영화 DVD"]).unit
    ('word', 'char')
    """
    sample = "".join(text[:SAMPLE_CHARACTERS] for text in islice(texts, SAMPLE_TEXTS))
    letters = sum(map(str.isalpha, sample))
    return CHARACTERS if len(_SCRIPTS_OF_CHARACTERS.findall(sample)) > CHARACTERS_FROM * letters else WORDS


def ngram_kind_of(split: Dataset) -> NgramKind:
    """Chooses words or characters by the script of the first texts of a split."""
    return ngram_kind(text or "" for texts in rows_of_texts(split) for text in texts)


class NgramCounter:
    """Marks the n-grams that occur in texts.

    The n-grams of the two texts of a pair are counted apart. N-grams that fewer than two training texts hold are left
    out.

    Args:
        kind: the kind of n-grams.
    """

    def __init__(self, kind: NgramKind):
        self.kind = kind
        self.vectorizer = HashingVectorizer(
            analyzer=kind.unit,
            ngram_range=(1, kind.longest),
            token_pattern=r"\w+|[^\w\s]" if kind.unit == "word" else None,
            n_features=BUCKETS,
            binary=True,
            norm=None,
            alternate_sign=False,
            dtype=np.float32,
        )
        self._kept: np.ndarray | None = None

    def fit_transform(self, train: Dataset) -> sparse.csr_array:
        """Chooses the n-grams of the training texts, and marks them; see [`transform`]."""
        counts = sparse.vstack(list(self._chunks(train)), format="csr")
        texts_with = np.bincount(counts.indices, minlength=counts.shape[1])
        self._kept = np.flatnonzero(texts_with >= 2)
        return counts[:, self._kept]

    def transform(self, split: Dataset) -> Iterator[sparse.csr_array]:
        """Yields, for a few thousand rows at a time, (rows, n-grams) float32: 1 for each n-gram of a row."""
        assert self._kept is not None, "fit_transform comes first"
        for counts in self._chunks(split):
            yield counts[:, self._kept]

    def name(self, column: int, texts: Sequence[str | None]) -> str:
        """Returns the n-gram that a column marks, as a row spells it; the longest of several in one bucket.

        Args:
            column: the column of the marks.
            texts: the text or text pair of a row that the column marks.
        """
        assert self._kept is not None, "fit_transform comes first"
        side, bucket = divmod(int(self._kept[column]), BUCKETS)
        ngrams = sorted(set(self.vectorizer.build_analyzer()(texts[side] or "")), key=len, reverse=True)
        hasher = FeatureHasher(BUCKETS, input_type="string", alternate_sign=False)
        buckets = hasher.transform([ngram] for ngram in ngrams).indices
        return ngrams[int(np.flatnonzero(buckets == bucket)[0])]

    def _chunks(self, split: Dataset) -> Iterator[sparse.csr_array]:
        rows = rows_of_texts(split)
        while chunk := list(islice(rows, ROWS_AT_ONCE)):
            sides = [self._count(texts) for texts in zip(*chunk, strict=True)]
            yield sides[0] if len(sides) == 1 else sparse.hstack(sides, format="csr")

    def _count(self, texts: Sequence[str | None]) -> sparse.csr_array:
        return sparse.csr_array(self.vectorizer.transform([text or "" for text in texts]))
