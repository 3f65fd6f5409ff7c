"""Rows and lengths of labels."""

import numpy as np
import pytest

from bertcls_hf.audit.balance import label_balance
from bertcls_hf.audit.telling_ngrams import label_indicator
from bertcls_hf.data.labels import SINGLE_LABEL, LabelSet


LABELS = LabelSet(SINGLE_LABEL, ("long", "short", "rare", "absent"))


def test_rows_lengths_and_warnings() -> None:
    gold = np.array([0] * 100 + [1] * 100 + [2] * 5)
    lengths = np.concatenate([np.arange(100, 200), np.arange(100), [120] * 5])
    long, short, rare, absent = label_balance(lengths, label_indicator(gold, LABELS), LABELS.names)
    assert (long.rows, long.lengths) == (100, [100, 125, 150, 174, 199])
    assert (long.length_auc, short.length_auc) == (pytest.approx(0.99, abs=0.02), pytest.approx(0.0, abs=0.02))
    assert [label.is_told_by_length for label in (long, short, rare, absent)] == [True, True, False, False]
    assert [label.is_rare for label in (long, short, rare, absent)] == [False, False, True, True]
    assert (rare.length_auc, absent.lengths, absent.share) == (None, [], 0)


def test_like_lengths_tell_nothing() -> None:
    gold, lengths = np.arange(200) % 2, np.arange(200)
    balance = label_balance(lengths, label_indicator(gold, LABELS), LABELS.names)
    assert not any(label.is_told_by_length for label in balance)
