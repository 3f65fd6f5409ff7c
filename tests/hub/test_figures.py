"""The pictures: files of a sensible size, descriptions that are right, names that no font has."""

import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import image
from scipy import sparse

from bertcls_hf.hub.card.figures import confusion, fonts
from bertcls_hf.hub.card.figures.by_length import draw_by_length, length_bins
from bertcls_hf.hub.card.figures.canvas import Picture
from bertcls_hf.hub.card.figures.confusion import draw_confusion
from bertcls_hf.hub.card.figures.curves import Curves, draw_curves
from bertcls_hf.hub.card.figures.fonts import drawable_names, short_name
from bertcls_hf.hub.card.figures.label_scores import draw_label_scores
from bertcls_hf.hub.card.figures.predicted_vs_gold import draw_predicted_vs_gold
from bertcls_hf.hub.card.figures.reliability import draw_reliability


@pytest.fixture(autouse=True)
def _no_warning_reaches_the_log() -> None:
    warnings.simplefilter("error")


def assert_legible(picture: Picture, least_colours: int = 50) -> None:
    """At most as wide as a README's column at twice its resolution, and not blank."""
    pixels = image.imread(picture.path)
    height, width = pixels.shape[:2]
    assert 400 < width <= 1000
    assert 200 < height <= 1300
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > least_colours
    assert 5_000 < picture.path.stat().st_size < 300_000
    assert picture.alt.endswith(".")


def test_curves(tmp_path: Path) -> None:
    points = [(float(epoch), 1 / epoch) for epoch in range(1, 6)]
    curves = Curves("epoch", points, points, {"accuracy": points}, best=3.0)
    picture = draw_curves(tmp_path / "curves.png", curves)
    assert_legible(picture)
    assert picture.alt == "The training loss ends at 0.200 at epoch 5; accuracy ends at 0.200."
    assert "dotted line" in picture.note


@pytest.mark.parametrize(
    "curves",
    [
        Curves("epoch", [(1.0, 0.5)], [], {}, None),
        Curves("epoch", [], [(1.0, 0.5)], {"accuracy": [(1.0, 0.5)]}, 1.0),
        Curves("step", [(step, 0.0) for step in range(500)], [], {}, None),
    ],
    ids=["one point", "no training loss", "many points without loss"],
)
def test_short_and_long_histories(curves: Curves, tmp_path: Path) -> None:
    assert_legible(draw_curves(tmp_path / "curves.png", curves), least_colours=20)


@pytest.mark.parametrize("labels", [2, 5, 12, 20])
def test_confusion_matrix_of_all_labels(labels: int, tmp_path: Path) -> None:
    matrix = 50 * np.eye(labels, dtype=int)
    matrix[0, 1] = 7
    picture = draw_confusion(tmp_path / "confusion.png", matrix, [f"label {i}" for i in range(labels)])
    assert_legible(picture)
    assert picture.alt == (
        f"{50 * labels:,} of {50 * labels + 7:,} texts got their gold label; the most frequent error is label 1 for "
        "label 0, 7 texts."
    )
    assert "left out" not in picture.note


def test_confusion_matrix_of_many_labels_shows_those_with_most_errors() -> None:
    matrix = 10 * np.eye(60, dtype=int)
    for label in range(40, 54):
        matrix[label, label - 40] = 3
        matrix[label, label + 1] = 1
    counts, names, note = confusion._most_confused(sparse.csr_array(matrix), [f"l{i}" for i in range(60)])
    assert counts.shape == (15, 15)
    assert counts.sum() == matrix.sum()
    assert names[-1] == "46 others"
    assert set(names[:-1]) == {f"l{i}" for i in range(40, 54)}
    assert "The 14 labels with most errors are shown; the 46 others are one row and column" in note


def test_a_perfect_and_an_empty_row(tmp_path: Path) -> None:
    picture = draw_confusion(tmp_path / "confusion.png", np.diag([5, 0]), ["a", "b"])
    assert picture.alt == "5 of 5 texts got their gold label."


def test_reliability(tmp_path: Path) -> None:
    confidence = np.linspace(0.5, 1, 200)
    picture = draw_reliability(tmp_path / "reliability.png", confidence, np.arange(200) % 2 == 0, 0.25)
    assert_legible(picture)
    assert picture.alt == ("Probabilities are 25.0% too high on average. The expected calibration error is 0.250.")


@pytest.mark.parametrize("is_right", [True, False])
def test_reliability_where_all_is_right_or_wrong(is_right: bool, tmp_path: Path) -> None:
    picture = draw_reliability(tmp_path / "reliability.png", np.full(9, 1.0), np.full(9, is_right), None)
    assert_legible(picture)


class TestLengthBins:
    def test_every_text_is_in_one_bin_and_cut_ones_come_last(self) -> None:
        lengths = np.random.default_rng(0).integers(3, 80, 500).clip(max=64)
        values = (lengths < 30).astype(float)
        bins = length_bins(lengths, values, 64, is_share=True)
        assert sum(part.rows for part in bins) == 500
        assert bins[-1].name == "≥ 64"
        assert bins[-1].rows == (lengths == 64).sum()
        assert len(bins) == 7
        assert bins[0].name.startswith("3–")
        assert bins[0].value == 1.0
        assert all(part.interval[0] <= part.value <= part.interval[1] for part in bins)

    @pytest.mark.parametrize(
        ("lengths", "names"),
        [([5] * 40, ["5"]), ([64] * 9, ["≥ 64"]), ([5, 64], ["5", "≥ 64"]), ([7] * 40 + [9] * 40, ["7", "9"])],
    )
    def test_equal_lengths(self, lengths: list[int], names: list[str]) -> None:
        bins = length_bins(np.array(lengths), np.ones(len(lengths)), 64, is_share=True)
        assert [part.name for part in bins] == names

    @pytest.mark.parametrize("is_share", [True, False])
    def test_picture(self, is_share: bool, tmp_path: Path) -> None:
        lengths = np.arange(3, 63).repeat(5)
        values = (lengths % 2).astype(float)
        bins = length_bins(lengths, values, 64, is_share)
        score = "accuracy" if is_share else "absolute error"
        picture = draw_by_length(tmp_path / "by_length.png", bins, values.mean(), score, is_share)
        assert_legible(picture)
        assert picture.title == f"{score.capitalize()} by text length"


def test_label_scores_of_many_labels(tmp_path: Path) -> None:
    rows = np.arange(40)
    picture = draw_label_scores(tmp_path / "labels.png", [f"l{i}" for i in range(40)], rows / 40, rows)
    assert_legible(picture)
    assert picture.note == "The 25 most frequent labels are shown; 15 others are left out."
    assert picture.alt == "F1 per label, from 0.975 down to 0.375 for l15."


@pytest.mark.parametrize("rows", [1, 50, 5000])
def test_predicted_and_gold_numbers(rows: int, tmp_path: Path) -> None:
    gold = np.random.default_rng(0).normal(0, 1, rows)
    picture = draw_predicted_vs_gold(tmp_path / "values.png", gold + 0.5, gold)
    assert_legible(picture, least_colours=20)
    assert picture.alt == "Predictions miss the gold values by 0.5 on average, +0.5 with sign."


class TestNames:
    def test_markup_and_long_names_are_drawn_as_they_are(self, tmp_path: Path) -> None:
        names = ["$x_1$", "a very long name of a label, version 2", "naïve & <b>", "two\nlines"]
        assert drawable_names(names)[:3] == names[:3]
        assert short_name(names[1]) == "a very long…sion 2"
        assert_legible(draw_confusion(tmp_path / "confusion.png", np.eye(4, dtype=int), names))

    def test_letters_that_no_font_has_become_numbers(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        only_default = [entry for entry in fonts.font_manager.fontManager.ttflist if entry.name == fonts.FONT]
        monkeypatch.setattr(fonts.font_manager.fontManager, "ttflist", only_default)
        fonts._fonts_for.cache_clear()
        names = ["부정", "neutral", "긍정"]
        assert drawable_names(names) == ["label 0", "neutral", "label 2"]
        picture = draw_confusion(tmp_path / "confusion.png", np.eye(3, dtype=int), names)
        assert_legible(picture)
        assert "stand by their number" in picture.note
        fonts._fonts_for.cache_clear()

    def test_a_font_that_has_the_letters_is_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With letters that DejaVu Sans lacks and a font beside it has, as Korean ones on most desktops."""
        others = {
            letter: entry.name
            for entry in fonts.font_manager.fontManager.ttflist
            if "STIX" in entry.name
            for letter in fonts._characters(entry.fname)
        }
        letter = next(iter(sorted(set(others) - fonts._characters(fonts.font_manager.findfont(fonts.FONT)))))
        fonts._fonts_for.cache_clear()
        families, missing = fonts._fonts_for(frozenset([letter]))
        assert len(families) == 2
        assert not missing


def test_settings_of_the_user_are_left_alone_and_unused(tmp_path: Path) -> None:
    with mpl.rc_context({"font.size": 30, "text.usetex": True}):
        picture = draw_confusion(tmp_path / "confusion.png", np.eye(2, dtype=int), ["a", "b"])
        assert mpl.rcParams["font.size"] == 30
    assert_legible(picture)
