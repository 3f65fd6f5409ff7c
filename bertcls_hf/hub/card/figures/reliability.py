"""The reliability of the probabilities: how often predictions of a confidence are right."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from bertcls_hf.hub.card.figures.canvas import BLUE, GREY, VERMILION, Picture, legend_above, open_figure
from bertcls_hf.metrics.intervals import wilson_interval
from bertcls_hf.metrics.probabilities import CALIBRATION_BINS


def draw_reliability(path: Path, confidence: np.ndarray, is_right: np.ndarray, ece: float | None) -> Picture:
    """Draws how often predictions of each confidence are right, and how many predictions there are.

    Args:
        path: of the PNG file.
        confidence: (predictions,) probabilities.
        is_right: (predictions,) truth values.
        ece: the expected calibration error; None leaves it out of the texts.
    """
    bin_of = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    rows = np.bincount(bin_of, minlength=CALIBRATION_BINS)
    hits = np.bincount(bin_of, weights=is_right, minlength=CALIBRATION_BINS).astype(int)
    sums = np.bincount(bin_of, weights=confidence, minlength=CALIBRATION_BINS)
    filled = np.flatnonzero(rows)
    accuracy, mean = hits[filled] / rows[filled], sums[filled] / rows[filled]
    ends = np.array([wilson_interval(hits[i], rows[i]) for i in filled])
    with open_figure(path, columns=2) as (_, axes):
        axes[0].plot([0, 1], [0, 1], color=GREY, linestyle="--", label="calibrated")
        bars = np.abs(ends.T - accuracy)
        axes[0].errorbar(mean, accuracy, bars, color=BLUE, marker="o", ls="none", ms=4, capsize=2, label="this model")
        axes[0].set(xlabel="probability", ylabel="share that is right", aspect="equal")
        axes[0].set(xlim=(0, 1), ylim=(0, 1.02))
        legend_above(axes[0])
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
    legend_above(axes)
