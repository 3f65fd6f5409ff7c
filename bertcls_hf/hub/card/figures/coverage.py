"""The risk of letting confident answers through: how many errors pass, by how many answers do."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from bertcls_hf.hub.card.figures.canvas import BLUE, GREY, VERMILION, Picture, legend_above, open_figure


@dataclass(frozen=True)
class RiskCurve:
    """One of the picture's curves.

    Args:
        coverage_name: what share of the texts the x axis shows.
        risk_name: what share the y axis shows.
        points: (coverage, risk) of thresholds, as shares.
        chosen: coverage and risk of the chosen threshold; None if none was chosen.
        limit: what the risk must stay below; None if none was asked for.
    """

    coverage_name: str
    risk_name: str
    points: Sequence[tuple[float, float]]
    chosen: tuple[float, float] | None
    limit: float | None


def draw_coverage(path: Path, curves: Sequence[RiskCurve], alt: str) -> Picture:
    """Draws each curve with its limit and its chosen threshold.

    Args:
        path: of the PNG file.
        curves: one or two.
        alt: a sentence about the thresholds that were chosen.
    """
    with open_figure(path, columns=len(curves)) as (_, axes):
        for ax, curve in zip(axes, curves, strict=True):
            _draw(ax, curve)
    note = "The limit holds for the upper bound of the risk, so that the chosen point lies below it."
    return Picture(path, "Risk by coverage", alt, note)


def _draw(axes: Axes, curve: RiskCurve) -> None:
    coverage, risk = np.array(curve.points).T
    axes.plot(coverage, risk, color=BLUE, label="validation")
    if curve.limit is not None:
        axes.axhline(curve.limit, color=GREY, linestyle="--", label="limit")
    if curve.chosen is not None:
        axes.plot(*curve.chosen, color=VERMILION, marker="o", ls="none", label="chosen")
    axes.set(xlabel=curve.coverage_name, ylabel=curve.risk_name, xlim=(0, 1))
    axes.set_ylim(bottom=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=None))
    legend_above(axes)
