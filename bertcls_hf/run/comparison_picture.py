"""The picture of a comparison: the main metric of each system, with its interval."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from bertcls_hf.hub.card.figures.canvas import BLUE, GREY, Picture, open_figure
from bertcls_hf.hub.card.figures.fonts import drawable_names, numbers_note, short_name
from bertcls_hf.metrics.intervals import CONFIDENCE
from bertcls_hf.metrics.metrics import greater_is_better, metric_words
from bertcls_hf.run.comparison import Comparison, System


# The end of the scale of accuracy and F1; errors have none.
HIGHEST_SCORE = 1.0


def draw_comparison(path: Path, comparison: Comparison) -> Picture:
    """Draws the main metric of each system, in the order of the table.

    Args:
        path: of the PNG file.
        comparison: the figures.
    """
    systems, metric = comparison.systems, comparison.main_metric
    names, words = [system.name for system in systems], metric_words(metric)
    ticks = _ticks(names)
    with open_figure(path, height=0.95 + 0.26 * len(systems), names=ticks) as (_, (axes,)):
        for place, system in enumerate(systems):
            _draw_system(axes, place, system, metric)
        reference = next(system for system in systems if system.against_reference is None)
        axes.axvline(reference.metrics[metric], color=GREY, linestyle=":", linewidth=1, zorder=0)
        axes.set_yticks(range(len(systems)), ticks)
        axes.set(xlabel=f"{words}, {comparison.rows:,} {comparison.split} texts", ylim=(len(systems) - 0.4, -0.6))
        if greater_is_better(metric):
            axes.set_xlim(right=min(HIGHEST_SCORE, axes.get_xlim()[1]))
        axes.grid(False, axis="y")
    note = (
        f"Bars: {CONFIDENCE:.0%} intervals of each system by itself. Where they overlap, the paired differences in "
        "the table may still be clear. Dotted: the reference. Grey: lexical baselines."
    )
    return Picture(path, f"{words.capitalize()} by run", _alt(comparison), note + numbers_note(names, "run"))


def _ticks(names: Sequence[str]) -> list[str]:
    """Short names that a font can draw, with their place in front where the short ones are alike."""
    short = [short_name(name) for name in drawable_names(names, "run")]
    return short if len(set(short)) == len(short) else [f"{place}. {name}" for place, name in enumerate(short, 1)]


def _draw_system(axes: Axes, place: int, system: System, metric: str) -> None:
    value = system.metrics[metric]
    low, high = system.intervals.get(metric, (value, value))
    # Wilson's interval of a share near 1 is rounded, and may end a hair below the share.
    ends = [[max(value - low, 0)], [max(high - value, 0)]]
    colour, mark = (GREY, "s") if system.is_baseline else (BLUE, "o")
    axes.errorbar([value], [place], xerr=ends, color=colour, marker=mark, ms=5, capsize=3, clip_on=False)
    # A column of its own at the right, where no line crosses the figures.
    axes.text(1.02, place, f"{value:.3f}", transform=axes.get_yaxis_transform(), va="center", color=colour)


def _alt(comparison: Comparison) -> str:
    metric, words = comparison.main_metric, metric_words(comparison.main_metric)
    figures = ", ".join(f"{system.metrics[metric]:.3f} for {system.name}" for system in comparison.systems)
    return f"{words.capitalize()} is {figures}."
