"""Finds n-grams that tell a label alone, as what leaked from it does: an id, a rating, `label: pos`.

An n-gram tells a label if its rows nearly all have it: even at the lower end of Wilson's interval (Wilson 1927), no
more than a twentieth of them have another label, and no more than a tenth of the share that other labels have of all
rows. So no n-gram of fewer than 73 rows tells a label. A word of the label's subject may well do so: what leaked, a
person sees.
"""

from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from scipy import sparse

from bertcls_hf.data.labels import SINGLE_LABEL, LabelSet
from bertcls_hf.data.texts import rows_of_texts
from bertcls_hf.features.ngrams import NgramCounter
from bertcls_hf.metrics.intervals import wilson_interval


MOST_EXCEPTIONS, MOST_RELATIVE_EXCEPTIONS = 0.05, 0.1
# Wilson's bound of fewer rows without an exception is too low.
FEWEST_ROWS = 73
# So many n-grams are named, of those with the most rows.
MOST_NAMED = 500


@dataclass(frozen=True)
class TellingNgram:
    """An n-gram that tells a label.

    Args:
        ngram: the n-gram, its words with blanks between them.
        label: the name of the label.
        rows: the training rows that hold it.
        precision: the share of them that have the label.
        lowest_precision: the lower end of the 95 % interval of that share.
        base_rate: the share of all training rows that have the label.
        coverage: the share of the label's rows that hold the n-gram.
        example: the number of a row that holds it.
    """

    ngram: str
    label: str
    rows: int
    precision: float
    lowest_precision: float
    base_rate: float
    coverage: float
    example: int


def telling_ngrams(
    train: Dataset, counter: NgramCounter, marks: sparse.csr_array, gold: np.ndarray, labels: LabelSet
) -> list[TellingNgram]:
    """Returns the n-grams that tell a label, those of the most rows first.

    Of n-grams that stand in the same rows, such as the parts of a longer one, the longest stands for all.

    Args:
        train: the training rows.
        counter: what counted their n-grams.
        marks: (rows, n-grams) 0 and 1.
        gold: (rows,) positions, or (rows, labels) of 0 and 1.
        labels: the labels of the task.
    """
    has_label = label_indicator(gold, labels)
    with_label, with_ngram = has_label.sum(axis=0), np.bincount(marks.indices, minlength=marks.shape[1])
    base_rates = with_label / len(gold)
    found = []
    for group in _distinct(_candidates(marks, has_label, with_ngram, base_rates), marks)[:MOST_NAMED]:
        rows = int(with_ngram[group.ngrams[0]])
        (texts,) = rows_of_texts(train.select([group.example]))
        name = max((counter.name(ngram, texts) for ngram in group.ngrams), key=len)
        lowest, _ = wilson_interval(group.common, rows)
        found.append(
            TellingNgram(
                name, labels.names[group.label], rows, group.common / rows, lowest, float(base_rates[group.label]),
                float(group.common / with_label[group.label]), group.example,
            )
        )  # fmt: skip
    return found


def label_indicator(gold: np.ndarray, labels: LabelSet) -> sparse.csr_array:
    """Returns (rows, labels) float32, 1 where a row has a label.

    Args:
        gold: (rows,) positions, or (rows, labels) of 0 and 1.
        labels: the labels of the task.
    """
    if labels.problem_type != SINGLE_LABEL:
        return sparse.csr_array(gold.astype(np.float32))
    rows = len(gold)
    return sparse.csr_array((np.ones(rows, np.float32), gold, np.arange(rows + 1)), (rows, len(labels.names)))


def _candidates(
    marks: sparse.csr_array, has_label: sparse.csr_array, with_ngram: np.ndarray, base_rates: np.ndarray
) -> list[tuple[int, int, int]]:
    """Returns n-grams that tell a label, the label, and the rows that have both; those of the most rows first."""
    common = sparse.coo_array(marks.T @ has_label)
    ngrams, labels = common.coords
    exceptions = np.minimum(MOST_EXCEPTIONS, MOST_RELATIVE_EXCEPTIONS * (1 - base_rates))
    # Wilson's bound, which is slower, lies below the share itself.
    possible = np.flatnonzero(
        (with_ngram[ngrams] >= FEWEST_ROWS) & (common.data >= (1 - exceptions[labels]) * with_ngram[ngrams])
    )
    possible = possible[np.lexsort((ngrams[possible], -with_ngram[ngrams[possible]]))]
    triples = zip(ngrams[possible].tolist(), labels[possible].tolist(), common.data[possible].tolist(), strict=True)
    return [
        (ngram, label, int(count))
        for ngram, label, count in triples
        if wilson_interval(int(count), int(with_ngram[ngram]))[0] >= 1 - exceptions[label]
    ]


@dataclass(frozen=True)
class _SameRows:
    """N-grams that stand in the same rows, the label that they tell, the rows that have both, and one that does."""

    ngrams: list[int]
    label: int
    common: int
    example: int


def _distinct(candidates: list[tuple[int, int, int]], marks: sparse.csr_array) -> list[_SameRows]:
    columns = sparse.csc_array(marks[:, [ngram for ngram, *_ in candidates]])
    groups: dict[tuple[bytes, int], _SameRows] = {}
    for (ngram, label, common), start, stop in zip(candidates, columns.indptr, columns.indptr[1:], strict=False):
        rows = np.sort(columns.indices[start:stop])
        groups.setdefault((rows.tobytes(), label), _SameRows([], label, common, int(rows[0]))).ngrams.append(ngram)
    return list(groups.values())
