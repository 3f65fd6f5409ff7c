"""The lexical baseline: its n-grams, what it learns in each task, its bounds and its cache."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression, Ridge

from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL, LabelSet
from bertcls_hf.data.load import ClassificationData
from bertcls_hf.features import lexical_baseline as module
from bertcls_hf.features import lexical_cache
from bertcls_hf.features.lexical_baseline import LexicalBaseline, lexical_baseline
from bertcls_hf.features.linear_models import ridge_fitter
from bertcls_hf.features.ngrams import CHARACTERS, WORDS, NgramCounter, ngram_kind
from bertcls_hf.metrics.metrics import compute_metrics


FILLER = "the film was in this and of a story plot".split()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of cached baselines."""
    monkeypatch.setattr(lexical_cache, "CACHE_FOLDER", tmp_path / "lexical")
    return tmp_path / "lexical"


def texts(seed: int, words: list[str]) -> list[str]:
    """One text per word, which stands between fillers."""
    generator = np.random.default_rng(seed)
    return [" ".join([*generator.choice(FILLER, 5), word, *generator.choice(FILLER, 5)]) for word in words]


def data(labels: LabelSet, train: dict[str, list], **splits: dict[str, list]) -> ClassificationData:
    return ClassificationData(labels, {name: Dataset.from_dict(s) for name, s in {"train": train, **splits}.items()})


def two_labels(rows: int = 60, **splits: dict[str, list]) -> ClassificationData:
    """Texts whose bigram tells the label: "not good" and "not bad"."""
    words = ["not good and bad", "not bad and good"] * (rows // 2)
    labels = LabelSet(SINGLE_LABEL, ("neg", "pos"))
    made = {
        name: {"text": texts(seed, words), "label": [0, 1] * (rows // 2)}
        for seed, name in enumerate(("train", "validation", "test"))
    }
    return data(labels, **{**made, **splits})


def fitted(of: ClassificationData, class_weights: list[float] | None = None) -> LexicalBaseline:
    found = lexical_baseline(of, class_weights, seed=0)
    assert found is not None
    return found


def metrics(baseline: LexicalBaseline, of: ClassificationData, split: str = "test") -> dict[str, float]:
    gold = np.asarray(of.splits[split]["label"][:])
    return compute_metrics(baseline.logits[split], gold, of.labels.problem_type)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("a good film", WORDS),
        ("прекрасный фильм", WORDS),
        ("ein schöner Film", WORDS),
        ("فيلم جيد", WORDS),
        ("정말 재미있는 영화", CHARACTERS),
        ("とても良い映画", CHARACTERS),
        ("很好的电影", CHARACTERS),
        ("หนังดีมาก", CHARACTERS),
        ("ភាពយន្តល្អ", CHARACTERS),
        ("BBC 뉴스", CHARACTERS),
        ("a film by 봉준호 with English reviews all around it", WORDS),
        ("", WORDS),
        ("12 345 !?", WORDS),
    ],
)
def test_the_script_chooses_words_or_characters(text: str, kind: Any) -> None:
    assert ngram_kind([text]) == kind


def test_n_grams_are_those_of_scikit_learns_counter() -> None:
    split = Dataset.from_dict({"text": ["a good film !", "a good plot", "bad film !", None]})
    marks = NgramCounter(WORDS).fit_transform(split)
    reference = CountVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", binary=True, min_df=2)
    expected = reference.fit_transform(["a good film !", "a good plot", "bad film !", ""]).toarray()
    assert sorted(map(tuple, marks.toarray().T)) == sorted(map(tuple, expected.T))


class TestTasks:
    def test_two_labels_that_only_a_bigram_tells(self) -> None:
        of = two_labels()
        baseline = fitted(of)
        assert {name: logits.shape for name, logits in baseline.logits.items()} == {
            "validation": (60, 2), "test": (60, 2)
        }  # fmt: skip
        assert metrics(baseline, of)["accuracy"] == 1.0
        assert baseline.train_rows == 60

    def test_several_labels(self) -> None:
        names = ("art", "money", "sport", "war")
        words = [f"about {name}" for name in names] * 15
        made = {
            name: {"text": texts(seed, words), "label": [0, 1, 2, 3] * 15}
            for seed, name in enumerate(("train", "validation", "test"))
        }
        of = data(LabelSet(SINGLE_LABEL, names), **made)
        baseline = fitted(of)
        assert metrics(baseline, of)["accuracy"] == 1.0
        # The probabilities of the yes-or-no models are scaled to a sum of one, and are sure of the right label.
        assert metrics(baseline, of)["log_loss"] < 0.7

    def test_multi_label_with_a_label_that_no_row_has(self) -> None:
        words, gold = ["art", "money", "art and money", "nothing"] * 15, [[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]]
        made = {
            name: {"text": texts(seed, words), "label": [list(map(float, row)) for row in gold * 15]}
            for seed, name in enumerate(("train", "validation", "test"))
        }
        of = data(LabelSet(MULTI_LABEL, ("art", "money", "never")), **made)
        baseline = fitted(of)
        assert baseline.logits["test"].shape == (60, 3)
        assert metrics(baseline, of)["subset_accuracy"] == 1.0
        assert (baseline.logits["test"][:, 2] < -3).all()

    def test_regression(self) -> None:
        words, gold = ["awful", "poor", "fine", "great"] * 25, [1.0, 2.0, 3.5, 5.0] * 25
        made = {
            name: {"text": texts(seed, words), "label": gold}
            for seed, name in enumerate(("train", "validation", "test"))
        }
        of = data(LabelSet(REGRESSION, ("score",)), **made)
        baseline = fitted(of)
        assert baseline.logits["test"].shape == (100, 1)
        assert metrics(baseline, of)["pearson"] > 0.95

    def test_pairs_whose_sides_differ(self) -> None:
        pair = [("good", "bad"), ("bad", "good")] * 30
        made = {
            name: {
                "text": texts(seed, [first for first, _ in pair]),
                "text_pair": texts(seed + 9, [second for _, second in pair]),
                "label": [0, 1] * 30,
            }
            for seed, name in enumerate(("train", "validation", "test"))
        }
        of = data(LabelSet(SINGLE_LABEL, ("no", "yes")), **made)
        assert metrics(fitted(of), of)["accuracy"] == 1.0

    def test_it_is_as_good_as_l_bfgs_on_scikit_learns_counts(self) -> None:
        """Labels that are noisy, so that the penalty matters."""
        generator = np.random.default_rng(5)
        made: dict[str, dict[str, list]] = {}
        for seed, name in enumerate(("train", "validation", "test")):
            gold = generator.integers(0, 2, 600)
            hints = np.where(generator.random(600) < 0.85, gold, 1 - gold)
            made[name] = {"text": texts(seed, [("bad", "good")[hint] for hint in hints]), "label": gold.tolist()}
        of = data(LabelSet(SINGLE_LABEL, ("neg", "pos")), **made)
        counter = CountVectorizer(ngram_range=(1, 2), binary=True, min_df=2)
        marks = counter.fit_transform(made["train"]["text"])
        reference = LogisticRegression(C=0.1).fit(marks, made["train"]["label"])
        expected = reference.score(counter.transform(made["test"]["text"]), made["test"]["label"])
        assert metrics(fitted(of), of)["accuracy"] == pytest.approx(expected, abs=0.02)


def test_class_weights_weigh_the_rows() -> None:
    split = {"text": texts(0, ["plain"] * 100), "label": [0] * 90 + [1] * 10}
    of = data(LabelSet(SINGLE_LABEL, ("often", "rare")), split, test=split)
    plain, weighted = fitted(of), fitted(of, [1.0, 20.0])
    assert weighted.logits["test"][:, 1].mean() > plain.logits["test"][:, 1].mean() + 1


def test_splits_without_labels_and_without_validation_data() -> None:
    of = two_labels(test={"text": ["a text"]})
    assert set(fitted(of).logits) == {"validation"}
    of = data(of.labels, of.splits["train"].to_dict(), test=of.splits["test"].to_dict())
    assert fitted(of).penalty == module.DEFAULT_INVERSE_PENALTY


def test_missing_texts_count_as_empty() -> None:
    of = two_labels(test={"text": [None, "not good and bad"], "label": [0, 0]})
    assert np.isfinite(fitted(of).logits["test"]).all()


def test_one_label_alone_gives_no_baseline(caplog: pytest.LogCaptureFixture) -> None:
    of = two_labels(train={"text": ["a", "b"], "label": [1, 1]})
    assert lexical_baseline(of, None, 0) is None
    assert "all 2 rows that it would learn from have one label" in caplog.text


def test_texts_without_a_common_word_give_no_baseline(caplog: pytest.LogCaptureFixture) -> None:
    assert lexical_baseline(two_labels(train={"text": ["a", "b"], "label": [0, 1]}), None, 0) is None
    assert "no two training texts share a word" in caplog.text


class TestBounds:
    def test_characters(self, monkeypatch: pytest.MonkeyPatch) -> None:
        of = two_labels(400)
        monkeypatch.setattr(module, "MOST_CHARACTERS", {"word": 10_000, "char": 1})
        baseline = fitted(of)
        assert 100 < baseline.train_rows < 200
        assert metrics(baseline, of)["accuracy"] > 0.95

    def test_n_grams_times_labels(self, monkeypatch: pytest.MonkeyPatch) -> None:
        of = two_labels(400)
        monkeypatch.setattr(module, "MOST_MARKS", 4000)
        assert 100 <= fitted(of).train_rows < 300


class TestCache:
    @pytest.fixture(autouse=True)
    def _everything_is_worth_a_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "CACHED_SECONDS", 0)

    def test_equal_content_is_fitted_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        first = fitted(two_labels())
        monkeypatch.setattr(module, "NgramCounter", None)
        again = fitted(two_labels())
        assert again.description() == first.description()
        assert all(np.array_equal(again.logits[name], logits) for name, logits in first.logits.items())

    def test_other_content_is_fitted_anew(self, folder: Path) -> None:
        of = two_labels()
        fitted(of)
        other_text = {**of.splits["test"].to_dict(), "text": ["another text", *of.splits["test"]["text"][1:]]}
        other_label = {**of.splits["train"].to_dict(), "label": [1, 1, *of.splits["train"]["label"][2:]]}
        fitted(two_labels(test=other_text))
        fitted(two_labels(train=other_label))
        fitted(of, [1.0, 2.0])
        assert len(list(folder.iterdir())) == 4

    def test_rows_count_and_not_where_they_lie(self) -> None:
        texts = two_labels().splits["train"]["text"][:]
        digest = lexical_cache.content_digests(Dataset.from_dict({"text": texts}))
        longer = Dataset.from_dict({"text": ["x", *texts]})
        assert lexical_cache.content_digests(longer.select(range(1, len(longer)))) == digest
        assert lexical_cache.content_digests(Dataset.from_dict({"text": texts[::-1]})) != digest

    def test_a_damaged_file_is_replaced(self, folder: Path) -> None:
        first = fitted(two_labels())
        (path,) = folder.iterdir()
        path.write_bytes(path.read_bytes()[:100])
        assert np.array_equal(fitted(two_labels()).logits["test"], first.logits["test"])
        assert path.stat().st_size > 100

    def test_a_folder_that_cannot_be_written_is_no_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setattr(lexical_cache, "CACHE_FOLDER", tmp_path / "file" / "lexical")
        assert fitted(two_labels()).logits
        assert "what was learned from n-grams is not cached" in caplog.text


def test_a_regression_is_a_ridge_on_tf_idf() -> None:
    generator = np.random.default_rng(0)
    marks = sparse.csr_array((generator.random((40, 12)) < 0.4).astype(np.float32))
    gold = generator.normal(size=40)
    model = ridge_fitter(marks, gold)(0.3)
    weighed = TfidfTransformer().fit_transform(marks)
    expected = Ridge(alpha=0.3).fit(weighed, gold).predict(weighed)
    found = model.logits([marks], LabelSet(REGRESSION, ("score",)))[:, 0]
    np.testing.assert_allclose(found, expected, atol=2e-2)
