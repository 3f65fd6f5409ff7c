"""One person's work: what is proposed, written and measured after each answer."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from transformers import BertConfig

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.labels import SINGLE_LABEL, LabelSet
from bertcls_hf.errors import DataError
from bertcls_hf.features.dataset import FeatureDataset
from bertcls_hf.labelling.labelled_file import LabelledFile
from bertcls_hf.labelling.proposer import Proposer
from bertcls_hf.labelling.session import LabelledRows, LabellingSession
from bertcls_hf.models.modeling import TextClassifierConfig


ROWS, WIDTH = 40, 3
LABELS = LabelSet(SINGLE_LABEL, ("neg", "pos"))
NOTHING = LabelledRows(np.zeros((0, WIDTH), np.float32), np.zeros(0, int), np.zeros(0, int))
Start = Callable[..., LabellingSession]


@pytest.fixture
def features() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)


@pytest.fixture
def start(tmp_path: Path, features: np.ndarray) -> Start:
    config = TextClassifierConfig(encoder_config=BertConfig(hidden_size=WIDTH), pooling="mean")

    def build(labelled: LabelledRows = NOTHING, validation: LabelledRows = NOTHING) -> LabellingSession:
        pool = FeatureDataset([[features]], np.arange(ROWS), None, config)
        texts = Dataset.from_dict({"text": [f"text {row}" for row in range(ROWS)]})
        file = LabelledFile(tmp_path / "labelled.csv", DataArguments(train_file="labelled.csv"))
        return LabellingSession(Proposer(pool, np.ones(ROWS, bool), LABELS, 0), texts, labelled, file, validation, 0)

    return build


def gold(features: np.ndarray) -> np.ndarray:
    return (features[:, 0] > 0).astype(int)


def answer(session: LabellingSession, features: np.ndarray) -> int:
    row = session.row
    session.answer(row, int(gold(features)[row]))
    return row


def test_every_text_is_asked_for_once_and_written(start: Start, features: np.ndarray, tmp_path: Path) -> None:
    session, asked = start(), []
    while session.row is not None:
        assert session.text == (f"text {session.row}",)
        asked.append(answer(session, features))
        lines = (tmp_path / "labelled.csv").read_text().splitlines()
        assert lines[-1] == f"text {asked[-1]},{LABELS.names[gold(features)[asked[-1]]]}"
    assert sorted(asked) == list(range(ROWS))
    assert len(lines) == ROWS + 1
    assert session.text is None
    assert session.labelled_count == ROWS
    assert session.open_count == 0


def test_it_asks_for_what_the_head_is_unsure_of(start: Start, features: np.ndarray) -> None:
    session = start()
    for _ in range(12):
        answer(session, features)
    head = session.proposer.head(features, gold(features))
    distance = np.abs(head.probabilities(features)[:, 1] - 0.5)
    asked = [answer(session, features) for _ in range(8)]
    left = np.flatnonzero(session.proposer.is_open)
    assert distance[asked].mean() < distance[left].mean()


def test_the_curve_grows_with_its_interval(start: Start, features: np.ndarray) -> None:
    session = start()
    assert session.curve == []
    for _ in range(20):
        answer(session, features)
    counts = [point.labelled for point in session.curve]
    assert counts == sorted(set(counts))
    assert 18 <= counts[-1] <= 20
    assert all(point.low <= point.accuracy <= point.high for point in session.curve)
    assert not session.is_validated


def test_validation_rows_measure_the_head(start: Start, features: np.ndarray) -> None:
    other = np.random.default_rng(1).normal(size=(200, WIDTH)).astype(np.float32)
    session = start(validation=LabelledRows(other, gold(other), np.arange(200)))
    for _ in range(25):
        answer(session, features)
    assert session.is_validated
    assert session.curve[-1].accuracy > 0.85
    assert session.curve[-1].accuracy * 200 == pytest.approx(round(session.curve[-1].accuracy * 200))


def test_rows_that_were_labelled_before_count(start: Start, features: np.ndarray) -> None:
    other = np.random.default_rng(1).normal(size=(30, WIDTH)).astype(np.float32)
    session = start(labelled=LabelledRows(other, gold(other), np.arange(30)))
    assert session.labelled_count == 30
    assert [point.labelled for point in session.curve] == [30]
    answer(session, features)
    assert session.labelled_count == 31


def test_a_late_answer_is_for_the_text_that_was_shown(start: Start, tmp_path: Path) -> None:
    session = start()
    first = session.row
    session.answer(first, 0)
    second = session.row
    session.answer(first, 1)
    session.skip(first)
    assert session.row == second
    assert (tmp_path / "labelled.csv").read_text() == f"text,label\ntext {first},neg\n"


def test_undo_shows_the_text_again(start: Start, features: np.ndarray, tmp_path: Path) -> None:
    session = start()
    asked = [answer(session, features) for _ in range(6)]
    written, curve = (tmp_path / "labelled.csv").read_text(), list(session.curve)
    seventh = answer(session, features)
    skipped = session.row
    session.skip(skipped)
    assert session.row not in (skipped, seventh)
    session.undo()
    assert session.row == skipped
    session.undo()
    assert session.row == seventh
    assert (tmp_path / "labelled.csv").read_text() == written
    assert session.curve == curve
    for row in reversed(asked):
        session.undo()
        assert session.row == row
    assert not (tmp_path / "labelled.csv").exists()
    session.undo()
    assert session.row == asked[0]
    assert session.open_count == ROWS


def test_an_answer_that_cannot_be_written_is_not_taken(start: Start, tmp_path: Path) -> None:
    session = start()
    (tmp_path / "labelled.csv").write_text("text,label\ntheirs,pos\n")
    row = session.row
    with pytest.raises(DataError, match="changed by another program"):
        session.answer(row, 1)
    assert session.row == row
    assert session.labelled_count == 0
