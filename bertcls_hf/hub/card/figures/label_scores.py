"""F1 per label of a multi-label task."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bertcls_hf.hub.card.figures.canvas import BLUE, Picture, open_figure
from bertcls_hf.hub.card.figures.fonts import drawable_names, numbers_note, short_name


MOST_LABEL_BARS = 25


def draw_label_scores(path: Path, names: Sequence[str], f1: np.ndarray, rows: np.ndarray) -> Picture:
    """Draws F1 per label of a multi-label task, the most frequent label first.

    Args:
        path: of the PNG file.
        names: of the labels.
        f1: (labels,) float.
        rows: (labels,) number of texts that have the label.
    """
    order = np.argsort(-rows, kind="stable")[:MOST_LABEL_BARS]
    ticks = [short_name(name) for name in drawable_names(names)]
    with open_figure(path, height=1.0 + 0.26 * len(order), names=ticks) as (_, (axes,)):
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
    return Picture(path, "F1 per label", alt, note + numbers_note(names))
