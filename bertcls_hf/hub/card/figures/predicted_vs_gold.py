"""The predictions and the errors of a regression."""

from pathlib import Path

import numpy as np
from matplotlib.ticker import StrMethodFormatter

from bertcls_hf.hub.card.figures.canvas import BLUE, GREY, SCALE, SMALLEST_FONT, Picture, legend_above, open_figure


# With more points, they would lie on each other: a density is drawn instead.
MOST_POINTS = 2000


def draw_predicted_vs_gold(path: Path, predicted: np.ndarray, gold: np.ndarray) -> Picture:
    """Draws predicted numbers over gold ones, and the distribution of the errors.

    Args:
        path: of the PNG file.
        predicted: (rows,) numbers.
        gold: (rows,) numbers.
    """
    low, high = float(min(predicted.min(), gold.min())), float(max(predicted.max(), gold.max()))
    margin = 0.04 * (high - low) or 0.5
    limits = (low - margin, high + margin)
    error = predicted - gold
    with open_figure(path, columns=2) as (figure, axes):
        axes[0].plot(limits, limits, color=GREY, linestyle="--", label="perfect")
        if len(gold) > MOST_POINTS:
            cells = axes[0].hexbin(gold, predicted, gridsize=35, cmap=SCALE, mincnt=1, bins="log")
            bar = figure.colorbar(cells, ax=axes[0], shrink=0.8, format=StrMethodFormatter("{x:,.0f}"))
            bar.ax.set_title("texts", fontsize=SMALLEST_FONT)
        else:
            axes[0].scatter(gold, predicted, s=12, color=BLUE, alpha=0.5, linewidth=0)
        axes[0].set(xlabel="gold", ylabel="predicted", xlim=limits, ylim=limits, aspect="equal")
        legend_above(axes[0])
        axes[1].hist(error, bins=_error_bins(error), color=BLUE)
        axes[1].axvline(0, color="black", linestyle="--")
        axes[1].set(xlabel="predicted minus gold", ylabel="texts")
    alt = f"Predictions miss the gold values by {np.abs(error).mean():.3g} on average, {error.mean():+.3g} with sign."
    return Picture(path, "Predicted and gold values", alt, "Points on the dashed line are exact.")


def _error_bins(error: np.ndarray) -> list[float]:
    """The edges of 30 bins. They are far enough apart even where all errors are equal but for rounding."""
    low, high = float(error.min()), float(error.max())
    margin = 0.5 if high - low < 1e-6 * max(abs(low), abs(high), 1e-6) else 0.0
    return np.linspace(low - margin, high + margin, 31).tolist()
