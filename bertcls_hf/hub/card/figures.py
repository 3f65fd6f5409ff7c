"""Pictures of a run: data in, a PNG file and its description out.

They are drawn on matplotlib's own canvas, without pyplot and its global state, at the width of a README's column. The
colours are those of Okabe and Ito (2008), and cividis for a scale: both can be told apart by the colour-blind and in
grey. Lines and bars also differ in their marks.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter
from scipy.stats import sem

from bertcls_hf.metrics.intervals import Interval, wilson_interval
from bertcls_hf.metrics.probabilities import CALIBRATION_BINS


BLUE, VERMILION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#5F5F5F"
SCALE = "cividis"
WIDTH, HEIGHT, DOTS_PER_INCH = 6.5, 2.9, 140
SMALLEST_FONT = 9
FONT = "DejaVu Sans"
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "white",
    "font.size": SMALLEST_FONT,
    "grid.color": "#E3E3E3",
    "legend.fontsize": SMALLEST_FONT,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.85,
    "savefig.facecolor": "white",
    "text.parse_math": False,
}
MOST_CLASSES = 20
CLASSES_OF_MANY = 14
MOST_LABEL_BARS = 25
# Below the limit in tokens.
MOST_LENGTH_BINS = 6
FEWEST_TEXTS = 8
LONGEST_NAME = 18
# Above it, points lie on each other.
MOST_POINTS = 2000
# Above it, the losses of single steps hide their course.
MOST_RAW_POINTS = 60
# Fonts that matplotlib finds but cannot draw at all sizes, or that hold only stand-ins for characters.
UNFIT_FONTS = ("Emoji", "Color", "LastResort", "Last Resort")
MOST_FONTS_OPENED = 100


@dataclass(frozen=True)
class Picture:
    """A picture that was written.

    Args:
        path: the PNG file.
        title: a heading.
        alt: what it shows, for those who do not see it.
        note: how to read it.
    """

    path: Path
    title: str
    alt: str
    note: str


@dataclass(frozen=True)
class Curves:
    """The course of a training.

    Args:
        x_name: what the first number of each point counts.
        train_loss: (x, loss) at each line of the log.
        eval_loss: (x, loss) at each evaluation.
        metrics: by name, (x, value) at each evaluation.
        best: x of the checkpoint that was kept, where one was chosen.
    """

    x_name: str
    train_loss: Sequence[tuple[float, float]]
    eval_loss: Sequence[tuple[float, float]]
    metrics: dict[str, Sequence[tuple[float, float]]]
    best: float | None


@dataclass(frozen=True)
class LengthBin:
    """Texts of like length.

    Args:
        name: its lengths in tokens.
        rows: texts.
        value: their score.
        interval: of the score.
    """

    name: str
    rows: int
    value: float
    interval: Interval


def draw_curves(path: Path, curves: Curves) -> Picture:
    """Losses on the left and metrics of the validation data on the right, where there are any."""
    with _figure(path, columns=2 if curves.metrics else 1) as (_, axes):
        _draw_losses(axes[0], curves)
        if curves.metrics:
            _draw_metrics(axes[1], curves)
    last = curves.train_loss[-1] if curves.train_loss else curves.eval_loss[-1]
    seen = [f"{name} ends at {points[-1][1]:.3f}" for name, points in curves.metrics.items()]
    alt = "; ".join([f"The training loss ends at {last[1]:.3f} at {curves.x_name} {last[0]:g}", *seen])
    note = "" if curves.best is None else "The dotted line marks the checkpoint that was kept."
    return Picture(path, "Loss and metrics during training", f"{alt}.", note)


def _draw_losses(axes: Axes, curves: Curves) -> None:
    if len(curves.train_loss) > MOST_RAW_POINTS:
        axes.plot(*zip(*curves.train_loss, strict=True), color=BLUE, alpha=0.25, linewidth=0.8)
        axes.plot(*_running_mean(curves.train_loss), color=BLUE, label="training (running mean)")
    elif curves.train_loss:
        axes.plot(*zip(*curves.train_loss, strict=True), color=BLUE, marker=".", label="training")
    if curves.eval_loss:
        axes.plot(*zip(*curves.eval_loss, strict=True), color=VERMILION, marker="s", ms=4, ls="--", label="validation")
    axes.set(xlabel=curves.x_name, ylabel="loss")
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
    _mark_best(axes, curves.best)
    _legend_above(axes)


def _running_mean(points: Sequence[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(points, dtype=float).T
    window = max(len(y) // 25, 2)
    means = np.convolve(y, np.ones(window) / window, mode="valid")
    start = window // 2
    return x[start : start + len(means)], means


def _draw_metrics(axes: Axes, curves: Curves) -> None:
    marks = zip((BLUE, VERMILION, GREEN), ("o", "s", "^"), ("-", "--", "-."), strict=True)
    for (name, points), (color, marker, line) in zip(curves.metrics.items(), marks, strict=False):
        axes.plot(*zip(*points, strict=True), color=color, marker=marker, ms=4, ls=line, label=name)
    axes.set(xlabel=curves.x_name, ylabel="on the validation data")
    axes.set_xlim(left=0)
    _mark_best(axes, curves.best)
    _legend_above(axes)


def _legend_above(axes: Axes) -> None:
    """Where it hides no data."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.01), ncols=3, borderaxespad=0, columnspacing=1.2)


def _mark_best(axes: Axes, best: float | None) -> None:
    if best is not None:
        axes.axvline(best, color=GREY, linestyle=":")


def draw_confusion(path: Path, matrix: np.ndarray, names: Sequence[str]) -> Picture:
    """A confusion matrix whose rows sum to 100%; of many classes, those with most errors.

    Args:
        path: of the PNG file.
        matrix: (labels, labels) counts; row: gold, column: predicted.
        names: of the labels.
    """
    counts, ticks, note = _most_confused(np.asarray(matrix), [_short(name) for name in drawable_names(names)])
    size = len(ticks)
    side = min(2.2 + 0.42 * size, WIDTH)
    with _figure(path, width=min(side + 0.9, WIDTH), height=side, names=ticks) as (figure, (axes,)):
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        image = axes.imshow(shares, cmap=SCALE, vmin=0, vmax=1)
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.set_xticks(range(size), ticks)
        for label in axes.get_xticklabels() if size > 3 else ():
            label.set(rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(size), ticks)
        axes.set(xlabel="predicted", ylabel="gold")
        _write_cells(axes, counts, shares)
        bar = figure.colorbar(image, ax=axes, shrink=0.7, fraction=0.05, pad=0.02, ticks=[0, 0.5, 1])
        bar.ax.set_yticklabels(["0%", "50%", "100%"])
        bar.set_label("share of the gold label's texts")
    alt = _confusion_alt(np.asarray(matrix), names)
    return Picture(path, "Confusion matrix", alt, note + _numbers_note(names))


def _most_confused(matrix: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, list[str], str]:
    """All classes, or those with most errors and the others as one."""
    note = "Each row shows how the texts of one gold label were predicted; rows sum to 100%."
    if len(names) <= MOST_CLASSES:
        return matrix, list(names), note
    errors = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal()
    chosen = np.sort(np.argsort(-errors, kind="stable")[:CLASSES_OF_MANY])
    others = np.setdiff1d(np.arange(len(names)), chosen)
    group = [*chosen[:, None], others]
    counts = np.array([[matrix[np.ix_(rows, columns)].sum() for columns in group] for rows in group])
    more = (
        f" The {len(chosen)} labels with most errors are shown; the {len(others)} others are one row and column, in "
        "which errors among them do not show."
    )
    return counts, [*(names[label] for label in chosen), f"{len(others)} others"], note + more


def _write_cells(axes: Axes, counts: np.ndarray, shares: np.ndarray) -> None:
    size = len(counts)
    for row, column in np.argwhere(counts > 0):
        share = shares[row, column]
        text = f"{share:.1%}\n{counts[row, column]:,}" if size <= 6 else f"{100 * share:.0f}"
        if size > 6 and share < 0.005:
            text = "<1" if size <= 12 else ""
        # cividis is dark below its middle.
        axes.text(column, row, text, ha="center", va="center", color="black" if share > 0.55 else "white")


def _confusion_alt(matrix: np.ndarray, names: Sequence[str]) -> str:
    rows = matrix.sum()
    alt = f"{matrix.diagonal().sum():,} of {rows:,} texts got their gold label"
    wrong = matrix - np.diag(matrix.diagonal())
    if wrong.any():
        gold, predicted = map(int, np.unravel_index(wrong.argmax(), wrong.shape))
        alt += f"; the most frequent error is {names[predicted]} for {names[gold]}, {wrong.max():,} texts"
    return f"{alt}."


def draw_reliability(path: Path, confidence: np.ndarray, is_right: np.ndarray, ece: float | None) -> Picture:
    """How often predictions of a confidence are right, and how many there are of each.

    Args:
        path: of the PNG file.
        confidence: (predictions,) probabilities.
        is_right: (predictions,) truth values.
        ece: the expected calibration error, where it is known.
    """
    bin_of = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    rows = np.bincount(bin_of, minlength=CALIBRATION_BINS)
    hits = np.bincount(bin_of, weights=is_right, minlength=CALIBRATION_BINS).astype(int)
    sums = np.bincount(bin_of, weights=confidence, minlength=CALIBRATION_BINS)
    filled = np.flatnonzero(rows)
    accuracy, mean = hits[filled] / rows[filled], sums[filled] / rows[filled]
    ends = np.array([wilson_interval(hits[i], rows[i]) for i in filled])
    with _figure(path, columns=2) as (_, axes):
        axes[0].plot([0, 1], [0, 1], color=GREY, linestyle="--", label="calibrated")
        bars = np.abs(ends.T - accuracy)
        axes[0].errorbar(mean, accuracy, bars, color=BLUE, marker="o", ls="none", ms=4, capsize=2, label="this model")
        axes[0].set(xlabel="probability", ylabel="share that is right", aspect="equal")
        axes[0].set(xlim=(0, 1), ylim=(0, 1.02))
        _legend_above(axes[0])
        _draw_confidence(axes[1], confidence, is_right)
    gap = "" if ece is None else f" The expected calibration error is {ece:.3f}."
    over = float(np.mean(confidence) - np.mean(is_right))
    alt = f"Probabilities are {abs(over):.1%} too {'high' if over > 0 else 'low'} on average."
    note = "Points on the dashed line mean what they say. Bars: 95% intervals (Wilson)."
    return Picture(path, "Reliability of the probabilities", alt + gap, note + gap)


def _draw_confidence(axes: Axes, confidence: np.ndarray, is_right: np.ndarray) -> None:
    bins = np.linspace(0, 1, CALIBRATION_BINS + 1).tolist()
    axes.hist(confidence[is_right], bins=bins, color=BLUE, alpha=0.75, label="right")
    axes.hist(
        confidence[~is_right], bins=bins, color=VERMILION, histtype="step", hatch="////", linewidth=1.5, label="wrong"
    )
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="probability", ylabel="predictions, log scale", xlim=(0, 1))
    _legend_above(axes)


def length_bins(lengths: np.ndarray, values: np.ndarray, longest: int, is_share: bool) -> list[LengthBin]:
    """Equally many texts per bin; those that reach the limit, and may be cut there, come last.

    Args:
        lengths: (rows,) tokens.
        values: (rows,) score of each text.
        longest: the limit in tokens.
        is_share: whether the values are 0 and 1.
    """
    whole = lengths[lengths < longest]
    smallest = max(FEWEST_TEXTS, len(lengths) // 20)
    parts = max(min(MOST_LENGTH_BINS, len(whole) // smallest), 1)
    starts = [longest]
    if len(whole):
        edges = np.quantile(whole, np.linspace(0, 1, parts + 1)[:-1])
        starts = [*np.unique(edges.round().astype(int)).tolist(), longest]
    bins = []
    for start, stop in zip(starts, [*starts[1:], None], strict=True):
        chosen = (lengths >= start) & ((lengths < stop) if stop is not None else True)
        if chosen.any():
            bins.append(_length_bin(lengths[chosen], values[chosen], start, stop, is_share))
    return bins


def _length_bin(lengths: np.ndarray, values: np.ndarray, start: int, stop: int | None, is_share: bool) -> LengthBin:
    name = f"≥ {start}" if stop is None else f"{start}" if start == lengths.max() else f"{start}–{lengths.max()}"
    mean = float(values.mean())
    if is_share:
        interval = wilson_interval(int(values.sum()), len(values))
    else:
        half = 1.96 * float(sem(values)) if len(values) > 1 else 0.0
        interval = (mean - half, mean + half)
    return LengthBin(name, len(values), mean, interval)


def draw_by_length(path: Path, bins: Sequence[LengthBin], overall: float, score: str, is_share: bool) -> Picture:
    """A score by length of text.

    Args:
        path: of the PNG file.
        bins: at least one.
        overall: the score of all texts.
        score: its name.
        is_share: whether the score lies between 0 and 1.
    """
    values = np.array([part.value for part in bins])
    ends = np.array([part.interval for part in bins])
    with _figure(path) as (_, (axes,)):
        axes.axhline(overall, color=GREY, linestyle="--", label=f"all texts: {overall:.3f}")
        axes.errorbar(
            range(len(bins)), values, np.abs(ends.T - values), color=BLUE, marker="o", ls="none", ms=6, capsize=4
        )
        axes.set_xticks(range(len(bins)), [f"{part.name}\n{part.rows:,} texts" for part in bins])
        axes.set(xlabel="length in tokens", ylabel=score, xlim=(-0.5, len(bins) - 0.5))
        if is_share:
            axes.set_ylim(top=min(1.02, axes.get_ylim()[1]))
        else:
            axes.set_ylim(bottom=0)
        _legend_above(axes)
    worst = bins[int(values.argmin() if is_share else values.argmax())]
    alt = f"{score.capitalize()} is {overall:.3f} overall, and {worst.value:.3f} at worst, for {worst.name} tokens."
    interval = "Wilson" if is_share else "normal approximation"
    return Picture(path, f"{score.capitalize()} by text length", alt, f"Bars: 95% intervals ({interval}).")


def draw_label_scores(path: Path, names: Sequence[str], f1: np.ndarray, rows: np.ndarray) -> Picture:
    """F1 per label of a multi-label task, the most frequent label first.

    Args:
        path: of the PNG file.
        names: of the labels.
        f1: (labels,) scores.
        rows: (labels,) texts that have the label.
    """
    order = np.argsort(-rows, kind="stable")[:MOST_LABEL_BARS]
    ticks = [_short(name) for name in drawable_names(names)]
    with _figure(path, height=1.0 + 0.26 * len(order), names=ticks) as (_, (axes,)):
        axes.barh(range(len(order)), f1[order], color=BLUE, height=0.7)
        axes.set_yticks(range(len(order)), [ticks[label] for label in order])
        for place, label in enumerate(order):
            text = f"{f1[label]:.3f}  ({int(rows[label]):,} texts)"
            axes.annotate(text, (f1[label], place), (4, 0), textcoords="offset points", va="center")
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        axes.set(xlabel="F1", xlim=(0, 1.3), xticks=np.linspace(0, 1, 6))
    worst = order[f1[order].argmin()]
    alt = f"F1 per label, from {f1[order].max():.3f} down to {f1[worst]:.3f} for {names[worst]}."
    left_out = len(names) - len(order)
    note = f"The {len(order)} most frequent labels are shown; {left_out} others are left out." if left_out else ""
    return Picture(path, "F1 per label", alt, note + _numbers_note(names))


def draw_predicted_vs_gold(path: Path, predicted: np.ndarray, gold: np.ndarray) -> Picture:
    """Predicted numbers over gold ones, and the distribution of the errors.

    Args:
        path: of the PNG file.
        predicted: (rows,) numbers.
        gold: (rows,) numbers.
    """
    low, high = float(min(predicted.min(), gold.min())), float(max(predicted.max(), gold.max()))
    margin = 0.04 * (high - low) or 0.5
    limits = (low - margin, high + margin)
    error = predicted - gold
    with _figure(path, columns=2) as (figure, axes):
        axes[0].plot(limits, limits, color=GREY, linestyle="--", label="perfect")
        if len(gold) > MOST_POINTS:
            cells = axes[0].hexbin(gold, predicted, gridsize=35, cmap=SCALE, mincnt=1, bins="log")
            bar = figure.colorbar(cells, ax=axes[0], shrink=0.8, format=StrMethodFormatter("{x:,.0f}"))
            bar.ax.set_title("texts", fontsize=SMALLEST_FONT)
        else:
            axes[0].scatter(gold, predicted, s=12, color=BLUE, alpha=0.5, linewidth=0)
        axes[0].set(xlabel="gold", ylabel="predicted", xlim=limits, ylim=limits, aspect="equal")
        _legend_above(axes[0])
        axes[1].hist(error, bins=_error_bins(error), color=BLUE)
        axes[1].axvline(0, color="black", linestyle="--")
        axes[1].set(xlabel="predicted minus gold", ylabel="texts")
    alt = f"Predictions miss the gold values by {np.abs(error).mean():.3g} on average, {error.mean():+.3g} with sign."
    return Picture(path, "Predicted and gold values", alt, "Points on the dashed line are exact.")


def _error_bins(error: np.ndarray) -> list[float]:
    """Edges of 30 bins, also where all errors are equal but for their last digit."""
    low, high = float(error.min()), float(error.max())
    margin = 0.5 if high - low < 1e-6 * max(abs(low), abs(high), 1e-6) else 0.0
    return np.linspace(low - margin, high + margin, 31).tolist()


@contextlib.contextmanager
def _figure(
    path: Path, columns: int = 1, width: float = WIDTH, height: float = HEIGHT, names: Sequence[str] = ()
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure with its axes side by side, which is written when its block ends."""
    # A user's own matplotlibrc must not change what is committed to a repository.
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({**STYLE, "font.family": _fonts_for(_letters(names))[0]})
        figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
        yield figure, list(figure.subplots(1, columns, squeeze=False)[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", bbox_inches="tight", pad_inches=0.06)


def drawable_names(names: Sequence[str]) -> list[str]:
    """Names as they are where some font can draw them; else `label 3`, by their place."""
    _, undrawable = _fonts_for(_letters(names))
    return [
        f"label {place}" if undrawable & _letters([name]) else " ".join(name.split())
        for place, name in enumerate(names)
    ]


def _numbers_note(names: Sequence[str]) -> str:
    """Explains the numbers of [`drawable_names`] where there are some."""
    is_drawn = not _fonts_for(_letters(names))[1]
    return "" if is_drawn else " No font of the machine has all letters: labels without a name stand by their number."


def _letters(names: Sequence[str]) -> frozenset[int]:
    return frozenset(ord(letter) for name in names for letter in name if not letter.isspace())


@functools.cache
def _fonts_for(letters: frozenset[int]) -> tuple[list[str], frozenset[int]]:
    """Fonts that draw the characters together, and those characters that none of this machine's fonts has."""
    missing = letters - _characters(font_manager.findfont(FONT))
    families, opened = [FONT], 0
    for entry in sorted(font_manager.fontManager.ttflist, key=_font_preference):
        if not missing or opened == MOST_FONTS_OPENED:
            break
        if entry.name in families or any(word in entry.name for word in UNFIT_FONTS):
            continue
        opened += 1
        found = missing & _characters(entry.fname)
        if found:
            families.append(entry.name)
            missing -= found
    return families, missing


def _font_preference(entry: Any) -> tuple[bool, bool, str]:
    """Upright fonts of ordinary weight first, and among them those that are known to hold many scripts."""
    is_plain = entry.style == "normal" and str(entry.weight) in {"400", "normal", "regular", "book"}
    return not is_plain, not any(word in entry.name for word in ("CJK", "Noto", "Nanum", "Gothic", "Uni")), entry.name


def _characters(file: str) -> set[int]:
    try:
        return set(font_manager.get_font(file).get_charmap())
    except (OSError, RuntimeError):
        # matplotlib's list of fonts may be older than the fonts.
        return set()


def _short(name: str) -> str:
    """A name without its middle, since names that start alike often differ at their end."""
    head, tail = LONGEST_NAME - LONGEST_NAME // 3 - 1, LONGEST_NAME // 3
    return name if len(name) <= LONGEST_NAME else f"{name[:head].rstrip()}…{name[-tail:].lstrip()}"
