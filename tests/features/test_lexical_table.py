"""Lexical features: the table, its cross-fitted logits, and the model that carries it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer

from bertcls_hf.data import texts
from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL, LabelSet
from bertcls_hf.data.load import ClassificationData
from bertcls_hf.data.tokenization import encode_texts, pad_texts
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.features import lexical_cache
from bertcls_hf.features import lexical_table as module
from bertcls_hf.features.lexical_table import LexicalFeatures, fit_lexical_features
from bertcls_hf.features.token_characters import token_characters
from bertcls_hf.models.modeling import LexicalTable, TextClassifierConfig, ngram_keys
from tests.helpers.families import FAMILIES
from tests.helpers.korean import korean_reviews, write_korean_bert
from tests.helpers.reviews import NEGATIVE, POSITIVE, WORDS


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexical_cache, "CACHE_FOLDER", tmp_path / "lexical")


def tokenizer_of(folder: Path, length: int = 16, side: str = "right") -> Any:
    tokenizer = AutoTokenizer.from_pretrained(folder, truncation_side=side)
    tokenizer.model_max_length = length
    return tokenizer


def reviews(rows: int, seed: int, words: int = 20) -> dict[str, list]:
    """Long texts of filler, with a word that tells the label at a random place; a tenth of the labels is wrong."""
    generator = np.random.default_rng(seed)
    texts, labels = [], []
    for _ in range(rows):
        label = int(generator.integers(2))
        text = list(generator.choice(WORDS[10:], words))
        text[generator.integers(words)] = generator.choice((NEGATIVE, POSITIVE)[label])
        texts.append(" ".join(text))
        labels.append(label if generator.random() < 0.9 else 1 - label)
    return {"text": texts, "label": labels}


def data(labels: LabelSet | None = None, **splits: dict[str, list]) -> ClassificationData:
    made = splits or {"train": reviews(200, 0), "validation": reviews(80, 1), "test": reviews(90, 2)}
    labels = labels or LabelSet(SINGLE_LABEL, ("neg", "pos"))
    return ClassificationData(labels, {name: Dataset.from_dict(split) for name, split in made.items()})


# The longest text in tokens that a table reads.
LENGTH = 2048


def fit(of: ClassificationData, tokenizer: Any, length: int = LENGTH, weights: Any = None) -> LexicalFeatures:
    return fit_lexical_features(of, tokenizer, length, weights, seed=0)


def filled(found: LexicalFeatures, labels: LabelSet) -> LexicalTable:
    """The module of a saved model."""
    config = TextClassifierConfig(
        encoder_config=FAMILIES["bert"], problem_type=labels.problem_type, id2label=labels.id2label,
        label2id=labels.label2id, lexical_features=found.settings._asdict(),
    )  # fmt: skip
    table = LexicalTable(config)
    found.fill(table)
    return table


def logits_of_module(found: LexicalFeatures, of: ClassificationData, tokenizer: Any, split: str) -> np.ndarray:
    tokenizer.model_max_length = LENGTH
    rows = of.splits[split]
    batch = pad_texts(encode_texts(tokenizer, rows["text"][:], rows.to_dict().get("text_pair")), tokenizer)
    with torch.no_grad():
        return filled(found, of.labels)(batch["input_ids"], batch["attention_mask"]).numpy()


TASKS: dict[str, ClassificationData] = {
    "two labels": data(),
    "several labels": data(
        LabelSet(SINGLE_LABEL, ("a", "b", "c")),
        **{
            name: {"text": [f"{'good fine bad'.split()[i % 3]} film {i}" for i in range(60)], "label": [0, 1, 2] * 20}
            for name in ("train", "validation", "test")
        },
    ),
    "multi-label": data(
        LabelSet(MULTI_LABEL, ("good", "bad")),
        **{
            name: {
                "text": [f"{('good', 'bad', 'good bad', 'film')[i % 4]} story {i}" for i in range(80)],
                "label": [[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]][i % 4] for i in range(80)],
            }
            for name in ("train", "validation", "test")
        },
    ),
    "pairs": data(
        **{
            name: {
                "text": [("good", "bad")[i % 2] for i in range(80)],
                "text_pair": [("bad", "good")[i % 2] for i in range(80)],
                "label": [i % 2 for i in range(80)],
            }
            for name in ("train", "validation", "test")
        }
    ),
}


class TestKeys:
    SETTINGS = module.LexicalSettings(0, 3, [0, 2, 3], 3)

    def keys(self, *texts: list[int]) -> list[list[int]]:
        """The keys of the n-grams of each text, shortest n-grams first."""
        width = max(map(len, texts))
        ids = torch.tensor([text + [0] * (width - len(text)) for text in texts])
        keys, present = ngram_keys(ids, (ids != 0).long(), self.SETTINGS)
        return [row[there].tolist() for row, there in zip(keys, present, strict=True)]

    def test_are_of_one_to_three_tokens_without_special_ones(self) -> None:
        (keys,) = self.keys([2, 7, 8, 9, 10, 3])
        assert len(keys) == 4 + 3 + 2
        assert len(set(keys)) == 9
        assert all(0 <= key < 2**31 for key in keys)

    def test_depend_on_the_n_gram_alone(self) -> None:
        first, second = self.keys([2, 7, 8, 9, 3], [2, 5, 7, 8, 9, 6, 7, 3])
        assert set(first) < set(second)

    def test_do_not_span_the_texts_of_a_pair_and_tell_them_apart(self) -> None:
        pair, turned = self.keys([2, 7, 8, 3, 9, 3], [2, 9, 3, 7, 8, 3])
        assert len(pair) == len(turned) == 4
        assert not set(pair) & set(turned)

    def test_empty_texts_have_none(self) -> None:
        assert self.keys([2, 3], [2, 7, 3]) == [[], self.keys([2, 7, 3])[0]]

    def test_seldom_collide(self) -> None:
        """All bigrams of 1,500 tokens: about 2.25 million, of which a random hash would lose 1,200."""
        ids = torch.arange(10, 1510)
        pairs = torch.cartesian_prod(ids, ids)
        keys, _ = ngram_keys(pairs, torch.ones_like(pairs), self.SETTINGS._replace(longest_ngram=2))
        assert len(torch.unique(keys[:, 2])) > len(pairs) - 2500


class TestCharacters:
    """N-grams of the characters of tokens, for scripts whose words say little."""

    def test_their_keys_do_not_depend_on_the_tokens(self, tmp_path: Path) -> None:
        tokenizer = tokenizer_of(write_korean_bert(tmp_path / "bert"), length=64)
        characters = torch.from_numpy(token_characters(tokenizer))
        settings = TestKeys.SETTINGS._replace(
            longest_ngram=5, special_ids=tokenizer.all_special_ids, separator_id=None
        )
        # 영화 is a token, 네요 is none.
        batch = tokenizer(["영화 네요", "네요 영화 영화"], padding=True, return_tensors="pt")
        keys, present = ngram_keys(batch["input_ids"], batch["attention_mask"], settings, characters)
        first, second = (row[there].tolist() for row, there in zip(keys, present, strict=True))
        expected = [
            [text[start:end] for start in range(len(text)) for end in range(start + 1, min(start + 5, len(text)) + 1)]
            for text in ("▁영화▁네요", "▁네요▁영화▁영화")
        ]
        assert [len(first), len(second)] == list(map(len, expected))
        assert len(set(first) | set(second)) == len(set(expected[0]) | set(expected[1]))
        assert len(set(first) & set(second)) == len(set(expected[0]) & set(expected[1]))

    def test_no_n_gram_spans_the_texts_of_a_pair(self, tmp_path: Path) -> None:
        tokenizer = tokenizer_of(write_korean_bert(tmp_path / "bert"), length=64)
        characters = torch.from_numpy(token_characters(tokenizer))
        settings = TestKeys.SETTINGS._replace(
            special_ids=tokenizer.all_special_ids, separator_id=tokenizer.sep_token_id
        )
        batch = tokenizer(["영화"], ["영화"], return_tensors="pt")
        keys, present = ngram_keys(batch["input_ids"], batch["attention_mask"], settings, characters)
        assert len(set(keys[present].tolist())) == present.sum() == 2 * (3 + 2 + 1)

    def test_the_module_computes_the_logits_of_new_texts(self, tmp_path: Path) -> None:
        tokenizer = tokenizer_of(write_korean_bert(tmp_path / "bert"))
        of = data(**{name: korean_reviews(120, seed) for seed, name in enumerate(("train", "validation", "test"))})
        found = fit(of, tokenizer)
        assert found.settings.ngrams == "n-grams of 1 to 5 characters"
        np.testing.assert_allclose(logits_of_module(found, of, tokenizer, "test"), found.logits["test"], atol=1e-5)
        gold = np.asarray(of.splits["test"]["label"][:])
        assert (found.logits["test"].argmax(axis=1) == gold).mean() > 0.95

    def test_tokens_of_bytes_are_counted_themselves(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(module, "token_characters", lambda _: None)
        of = data(**{name: korean_reviews(60, seed) for seed, name in enumerate(("train", "validation"))})
        found = fit(of, tokenizer_of(write_korean_bert(tmp_path / "bert")))
        assert found.settings.ngrams == "n-grams of 1 to 3 tokens"
        assert "are bytes" in caplog.text


@pytest.mark.parametrize("task", TASKS)
def test_the_module_computes_the_logits_of_new_texts(tiny_bert: Path, task: str) -> None:
    of, tokenizer = TASKS[task], tokenizer_of(tiny_bert)
    found = fit(of, tokenizer)
    assert set(found.logits) == {"train", "validation", "test"}
    assert {found.logits[name].shape for name in found.logits} == {
        (len(of.splits[name]), len(of.labels.names)) for name in found.logits
    }
    for split in ("validation", "test"):
        np.testing.assert_allclose(logits_of_module(found, of, tokenizer, split), found.logits[split], atol=2e-5)
    gold = np.asarray(of.splits["test"]["label"][:])
    predicted = found.logits["test"] > 0 if gold.ndim == 2 else found.logits["test"].argmax(axis=1)
    assert (predicted == gold).mean() > 0.8


def test_the_logits_of_the_training_rows_are_those_of_other_rows(tiny_bert: Path) -> None:
    """Labels that nothing tells are learned by heart, which cross-fitted logits must not show."""
    generator = np.random.default_rng(0)
    train = {**reviews(300, 0), "label": generator.integers(0, 2, 300).tolist()}
    of = data(train=train, test=train)
    found = fit(of, tokenizer_of(tiny_bert))
    gold = np.asarray(train["label"])
    assert (found.logits["test"].argmax(axis=1) == gold).mean() > 0.8
    assert 0.3 < (found.logits["train"].argmax(axis=1) == gold).mean() < 0.7


def test_the_folds_do_not_depend_on_the_hashes_of_texts(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cross_fitted(salt: int) -> np.ndarray:
        monkeypatch.setattr(texts, "text_keys", lambda rows: [hash((salt, text)) for text in rows["text"][:]])
        monkeypatch.setattr(module, "read_cached", lambda _: None)
        return fit(data(), tokenizer_of(tiny_bert)).logits["train"]

    assert np.array_equal(cross_fitted(1), cross_fitted(2))


def test_repeated_texts_are_left_out_together(tiny_bert: Path) -> None:
    generator = np.random.default_rng(0)
    once = {**reviews(60, 0), "label": generator.integers(0, 2, 60).tolist()}
    train = {name: values * 5 for name, values in once.items()}
    found = fit(data(train=train), tokenizer_of(tiny_bert))
    assert 0.2 < (found.logits["train"].argmax(axis=1) == np.asarray(train["label"])).mean() < 0.8


class TestLengths:
    def test_words_beyond_the_encoders_length_count(self, tiny_bert: Path) -> None:
        """The word that tells the label stands after the encoder's last token."""
        rows = [(" ".join(["film"] * 30 + [("bad", "good")[i % 2]]), i % 2) for i in range(80)]
        split = {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
        of = data(train=split, test=split)
        found = fit(of, tokenizer_of(tiny_bert))
        assert (found.logits["test"].argmax(axis=1) == np.asarray(split["label"])).all()
        short = fit(of, tokenizer_of(tiny_bert), length=20)
        assert (short.logits["test"].argmax(axis=1) == np.asarray(split["label"])).mean() < 0.8


def test_a_regression_is_refused(tiny_bert: Path) -> None:
    split = {"text": ["a film", "a story"], "label": [1.5, 2.5]}
    with pytest.raises(ArgumentsError, match="--lexical_features is for classification"):
        fit(data(LabelSet(REGRESSION, ("score",)), train=split), tokenizer_of(tiny_bert))


def test_a_table_is_bounded(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of, tokenizer = data(), tokenizer_of(tiny_bert)
    whole = fit(of, tokenizer)
    monkeypatch.setattr(module, "MOST_NGRAMS", 50)
    monkeypatch.setattr(module, "VERSION", -1)
    small = fit(of, tokenizer)
    assert len(small.keys) == small.settings.table_size == 50 < len(whole.keys)
    assert (np.diff(small.keys) > 0).all()
    np.testing.assert_allclose(logits_of_module(small, of, tokenizer, "test"), small.logits["test"], atol=2e-5)
    gold = np.asarray(of.splits["test"]["label"][:])
    assert (small.logits["test"].argmax(axis=1) == gold).mean() > 0.75


def test_a_tables_bytes_are_bounded(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # An n-gram takes 4 bytes, and 2 for each of its weights.
    monkeypatch.setattr(module, "MOST_BYTES", 605)
    for names in (("neg", "pos"), ("neg", "pos", "neutral")):
        labels = LabelSet(SINGLE_LABEL, names)
        found = fit(data(labels, train=reviews(200, 0)), tokenizer_of(tiny_bert))
        assert len(found.keys) == 605 // (4 + 2 * found.weights.shape[1])


def test_rows_beyond_the_bound_get_logits_of_a_table_without_them(
    tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_MARKS", 4000)
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 20)
    of = data(train=reviews(400, 0), validation=reviews(80, 1))
    found = fit(of, tokenizer_of(tiny_bert))
    assert 60 < found.train_rows < 120
    gold = np.asarray(of.splits["train"]["label"][:])
    assert (found.logits["train"].argmax(axis=1) == gold).mean() > 0.6


def test_the_penalty_of_very_many_labels_is_not_searched(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_SEARCHED", 0)
    monkeypatch.setattr(module, "INVERSE_PENALTIES", ())
    assert fit(data(), tokenizer_of(tiny_bert)).penalty == module.DEFAULT_INVERSE_PENALTY


def test_class_weights_weigh_the_rows(tiny_bert: Path) -> None:
    plain, weighted = (fit(data(), tokenizer_of(tiny_bert), weights=weights) for weights in (None, [1.0, 5.0]))
    assert weighted.logits["test"][:, 1].mean() > plain.logits["test"][:, 1].mean() + 0.3


def test_equal_content_is_read_from_the_cache(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fit(data(), tokenizer_of(tiny_bert))
    monkeypatch.setattr(module, "_fit", None)
    again = fit(data(), tokenizer_of(tiny_bert))
    assert again.settings == first.settings
    for name in ("keys", "weights", "bias"):
        assert np.array_equal(getattr(again, name), getattr(first, name))
    assert all(np.array_equal(again.logits[name], logits) for name, logits in first.logits.items())
    with pytest.raises(TypeError):
        fit(data(), tokenizer_of(tiny_bert), length=100)


def test_other_test_rows_are_read_without_a_new_fit(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fit(data(), tokenizer_of(tiny_bert))
    monkeypatch.setattr(module, "_fit", None)
    reversed_test = {name: values[::-1] for name, values in reviews(90, 2).items()}
    other = data(train=reviews(200, 0), validation=reviews(80, 1), test=reversed_test)
    again = fit(other, tokenizer_of(tiny_bert))
    assert np.array_equal(again.logits["test"][::-1], first.logits["test"])
