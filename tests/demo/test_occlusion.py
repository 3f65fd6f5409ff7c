"""Occlusion: the word that decides weighs most, in every language, task and length."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import logit

from bertcls_hf.demo import occlusion as attribution
from bertcls_hf.demo.occlusion import MOST_SPANS, MOST_TOKENS, occlude, split_spans
from bertcls_hf.metrics.calibration import Calibration
from bertcls_hf.predict.predictor import Predictor
from tests.helpers.classifiers import save_classifier, train_classifier


@pytest.fixture(scope="module")
def trained(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    model = train_classifier(tmp_path_factory.mktemp("trained"), tiny_bert)
    return Predictor.from_pretrained(str(model), device="cpu")


def load(tiny_bert: Path, folder: Path, kind: str, **calibration: object) -> Predictor:
    return Predictor.from_pretrained(str(save_classifier(folder, tiny_bert, kind, **calibration)), device="cpu")


@pytest.mark.parametrize(
    ("text", "label", "word"),
    [
        ("that was a great story", "pos", "great "),
        ("that was a dreadful story", "neg", "dreadful "),
        ("영화 정말 great 재미있다", "pos", "great "),
        ("这部电影 lovely 两个", "pos", "lovely "),
    ],
)
def test_the_word_that_decides_weighs_most(trained: Predictor, text: str, label: str, word: str) -> None:
    found = occlude(trained, text)
    assert found.label == label
    assert "".join(found.spans) == text
    assert found.spans[found.strongest()] == word
    assert found.effects.max() == found.effects[found.spans.index(word)] > 0


def test_effects_are_differences_of_log_odds(trained: Predictor) -> None:
    found = occlude(trained, "a lovely film")
    (whole,), without = trained.predict(["a lovely film"]), trained.predict(["lovely film", "a film", "a lovely"])
    assert found.score == pytest.approx(whole.probabilities[found.label], abs=1e-6)
    scores = [one.probabilities[found.label] for one in without]
    np.testing.assert_allclose(found.scores, scores, atol=1e-6)
    np.testing.assert_allclose(found.effects, logit(found.score) - logit(np.array(scores)), atol=1e-4)


@pytest.mark.parametrize("kind", ["stock", "custom", "two_labels", "multi_label", "regression", "distilbert"])
def test_every_task(tiny_bert: Path, tmp_path: Path, kind: str) -> None:
    predictor = load(tiny_bert, tmp_path, kind)
    found = occlude(predictor, "good film and bad plot")
    (prediction,) = predictor.predict(["good film and bad plot"])
    if kind == "regression":
        expected = ("score", prediction.label)
    else:
        expected = max(prediction.probabilities.items(), key=lambda item: item[1])
    assert (found.label, found.score) == (expected[0], pytest.approx(expected[1], abs=1e-6))
    assert len(found.spans) == len(found.scores) == len(found.effects) == 5
    assert np.isfinite(found.effects).all()
    assert np.abs(found.effects).max() > 1e-3


def test_calibration_counts(tiny_bert: Path, tmp_path: Path) -> None:
    plain = load(tiny_bert, tmp_path / "plain", "two_labels")
    text = "good film and bad plot"
    probability = plain.predict([text])[0].probabilities["yes"]
    # With this threshold the less probable label is predicted.
    threshold = probability / 2 if probability < 0.5 else (1 + probability) / 2
    other = load(tiny_bert, tmp_path / "other", "two_labels")
    other.calibration = Calibration(thresholds=threshold)
    assert occlude(other, text).label == other.predict([text])[0].label != occlude(plain, text).label
    halved = load(tiny_bert, tmp_path / "halved", "two_labels", temperature=2.0)
    np.testing.assert_allclose(occlude(halved, text).effects, occlude(plain, text).effects / 2, atol=1e-5)


@pytest.mark.parametrize("text", ["", "  \n "])
def test_a_text_without_words(trained: Predictor, text: str) -> None:
    found = occlude(trained, text)
    assert found.spans == ()
    assert found.strongest() is None


def test_one_word(trained: Predictor) -> None:
    found = occlude(trained, " great\n")
    assert found.spans == ("great",)
    assert found.scores[0] == pytest.approx(trained.predict([""])[0].probabilities["pos"], abs=1e-6)


def test_a_long_text_costs_a_bounded_number_of_texts(trained: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    classified: list[int] = []
    logits = trained.logits
    monkeypatch.setattr(trained, "logits", lambda texts: classified.append(len(texts)) or logits(texts))
    found = occlude(trained, "good bad " * 10_000)
    part = trained.read_part("good bad " * 10_000)
    assert part.tokens == trained.max_seq_length < part.all_tokens == 20_002
    assert "".join(found.spans) == part.text == ("good bad " * 31).strip()
    assert classified == [1 + len(found.spans)]
    assert len(found.spans) <= min(MOST_SPANS, MOST_TOKENS // part.tokens)
    monkeypatch.setattr(attribution, "MOST_TOKENS", 5 * part.tokens)
    assert len(occlude(trained, "good bad " * 10_000).spans) == 5


def test_the_end_is_read_where_the_start_is_cut(tiny_bert: Path, tmp_path: Path) -> None:
    predictor = load(tiny_bert, tmp_path, "stock")
    predictor.tokenizer.truncation_side = "left"
    text = "good " * 100 + "bad film"
    found = occlude(predictor, text)
    assert "".join(found.spans) == predictor.read_part(text).text == "good " * 60 + "bad film"
    assert found.score == pytest.approx(predictor.predict([text])[0].probabilities[found.label], abs=1e-6)


class TestSplitSpans:
    @pytest.mark.parametrize(
        ("text", "spans"),
        [
            ("one, two  three\n", ("one, ", "two  ", "three\n")),
            (" before", (" before",)),
            ("这部电影 很好。", ("这", "部", "电", "影 ", "很", "好", "。")),
            ("안녕 세상", ("안녕 ", "세상")),
            ("映画は good です", ("映", "画", "は ", "good ", "で", "す")),
            ("ดีที่สุด", ("ดี", "ที่", "สุ", "ด")),
            ("", ()),
            (" \t", ()),
        ],
    )
    def test_words_and_characters(self, text: str, spans: tuple[str, ...]) -> None:
        assert split_spans(text, 100) == spans

    @pytest.mark.parametrize("words", [1, 59, 60, 61, 119, 120, 121, 1000])
    def test_no_more_than_asked_and_nothing_lost(self, words: int) -> None:
        text = "".join(f"w{number} " for number in range(words))
        spans = split_spans(text, 60)
        assert "".join(spans) == text
        assert len(spans) <= 60
        assert {len(span.split()) for span in spans[:-1]} <= {-(-words // 60)}
