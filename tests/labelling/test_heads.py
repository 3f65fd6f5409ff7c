"""Heads on few labelled rows."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from bertcls_hf.data.labels import MULTI_LABEL, SINGLE_LABEL, LabelSet
from bertcls_hf.features.scaling import Scaling, Vectors
from bertcls_hf.labelling.heads import INVERSE_PENALTY, fit_head, out_of_fold_probabilities


LABELS = LabelSet(SINGLE_LABEL, ("a", "b", "c"))
TAGS = LabelSet(MULTI_LABEL, ("a", "b", "c"))


@pytest.fixture
def features() -> np.ndarray:
    return np.random.default_rng(0).normal(2, 3, size=(60, 5)).astype(np.float32)


@pytest.fixture
def scaling(features: np.ndarray) -> Scaling:
    return Scaling.fit(Vectors(features))


def test_it_is_the_regression_on_scaled_features(features: np.ndarray, scaling: Scaling) -> None:
    gold = (features[:, 0] > 2).astype(int) + (features[:, 1] > 2)
    head = fit_head(features, gold, LABELS, scaling)
    regression = LogisticRegression(C=INVERSE_PENALTY, max_iter=200).fit(scaling.transform(features), gold)
    expected = regression.predict_proba(scaling.transform(features))
    assert head.probabilities(features) == pytest.approx(expected, abs=1e-4)


def test_a_label_that_no_row_has_is_never_predicted(features: np.ndarray, scaling: Scaling) -> None:
    outputs = fit_head(features, 2 * (features[:, 0] > 2).astype(int), LABELS, scaling).probabilities(features)
    assert outputs[:, 1].max() < 1e-6
    assert set(outputs.argmax(axis=1)) == {0, 2}


def test_rows_of_one_label_predict_it(features: np.ndarray, scaling: Scaling) -> None:
    outputs = fit_head(features, np.full(60, 1), LABELS, scaling).probabilities(features)
    assert outputs[:, 1].min() > 0.999


def test_several_labels_have_a_regression_each(features: np.ndarray, scaling: Scaling) -> None:
    gold = np.column_stack([features[:, 0] > 2, np.zeros(60), features[:, 1] > 2]).astype(np.float32)
    outputs = fit_head(features, gold, TAGS, scaling).probabilities(features)
    assert ((outputs > 0.5) == gold).mean() > 0.9
    # Half a row of 61 has the label that no row has.
    assert outputs[:, 1] == pytest.approx(0.5 / 61)


def test_nobody_classifies_a_text_it_has_seen(features: np.ndarray, scaling: Scaling) -> None:
    # Each text stands twice, with random labels: only who has seen it knows its label.
    twice, texts = np.concatenate([features, features]), np.tile(np.arange(60), 2)
    gold = np.tile(np.random.default_rng(1).integers(0, 3, 60), 2)
    outputs = out_of_fold_probabilities(twice, gold, texts, LABELS, scaling, seed=0)
    assert (outputs[:60] == outputs[60:]).all()
    assert outputs.sum(axis=1) == pytest.approx(1)
    seen = fit_head(twice, gold, LABELS, scaling).probabilities(twice)
    own = np.arange(120), gold
    assert outputs[own].mean() < seen[own].mean()


@pytest.mark.parametrize("gold", [[], [0], [0, 1, 2]])
def test_too_few_rows_to_hold_any_out(features: np.ndarray, scaling: Scaling, gold: list[int]) -> None:
    rows = len(gold)
    held = out_of_fold_probabilities(
        features[:rows], np.array(gold, dtype=int), np.arange(rows), LABELS, scaling, seed=0
    )
    assert held is None


def test_texts_with_several_labels_are_held_out_too(features: np.ndarray, scaling: Scaling) -> None:
    gold = (features[:, :3] > 2).astype(np.float32)
    outputs = out_of_fold_probabilities(features, gold, np.arange(60), TAGS, scaling, seed=0)
    assert ((outputs > 0.5) == gold).mean() > 0.8
