"""The course of a training: losses and metrics over epochs or steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from bertcls_hf.hub.card.figures.canvas import BLUE, GREEN, GREY, VERMILION, Picture, legend_above, open_figure


# With more points, the losses of single steps hide the trend: their running mean is drawn too.
MOST_RAW_POINTS = 60


@dataclass(frozen=True)
class Curves:
    """The course of a training.

    Args:
        x_name: what x counts, `epoch` or `step`.
        train_loss: (x, loss) at each line of the log.
        eval_loss: (x, loss) at each evaluation.
        metrics: by name, (x, value) at each evaluation.
        best: x of the best checkpoint, which was kept; None where the last one was.
    """

    x_name: str
    train_loss: Sequence[tuple[float, float]]
    eval_loss: Sequence[tuple[float, float]]
    metrics: dict[str, Sequence[tuple[float, float]]]
    best: float | None


def draw_curves(path: Path, curves: Curves) -> Picture:
    """Draws the losses on the left and, where there are any, the metrics of the validation data on the right."""
    with open_figure(path, columns=2 if curves.metrics else 1) as (_, axes):
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
    legend_above(axes)


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
    legend_above(axes)


def _mark_best(axes: Axes, best: float | None) -> None:
    if best is not None:
        axes.axvline(best, color=GREY, linestyle=":")
