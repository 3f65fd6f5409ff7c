"""A score by length of text."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import sem

from bertcls_hf.hub.card.figures.canvas import BLUE, GREY, Picture, legend_above, open_figure
from bertcls_hf.metrics.intervals import Interval, wilson_interval


# Texts that reach the limit in tokens have a bin of their own.
MOST_LENGTH_BINS = 6
FEWEST_TEXTS = 8


@dataclass(frozen=True)
class LengthBin:
    """Texts of similar length.

    Args:
        name: the lengths in tokens, such as `12–20`.
        rows: number of texts.
        value: the mean of their scores.
        interval: 95 % interval of the mean.
    """

    name: str
    rows: int
    value: float
    interval: Interval


def length_bins(lengths: np.ndarray, values: np.ndarray, longest: int, is_share: bool) -> list[LengthBin]:
    """Sorts texts into bins of about equal size by their length.

    Texts that reach the limit, and may have been cut there, are the last bin.

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
    """Draws a score by length of text.

    Args:
        path: of the PNG file.
        bins: at least one.
        overall: the score of all texts.
        score: its name.
        is_share: whether the score lies between 0 and 1.
    """
    values = np.array([part.value for part in bins])
    ends = np.array([part.interval for part in bins])
    with open_figure(path) as (_, (axes,)):
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
        legend_above(axes)
    worst = bins[int(values.argmin() if is_share else values.argmax())]
    alt = f"{score.capitalize()} is {overall:.3f} overall, and {worst.value:.3f} at worst, for {worst.name} tokens."
    interval = "Wilson" if is_share else "normal approximation"
    return Picture(path, f"{score.capitalize()} by text length", alt, f"Bars: 95% intervals ({interval}).")
