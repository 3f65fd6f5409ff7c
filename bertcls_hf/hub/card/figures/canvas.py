"""The canvas of all pictures: their size, colours and style, and the description of a written picture.

Pictures are drawn on matplotlib's own canvas, without pyplot and its global state, at the width of a README's column.
The colours are those of Okabe and Ito (2008), and cividis for a scale: they can be told apart by the colour-blind and
in grey. Lines and bars also differ in their marks.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bertcls_hf.atomic_files import write_atomically
from bertcls_hf.hub.card.figures.fonts import font_families


BLUE, VERMILION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#5F5F5F"
SCALE = "cividis"
WIDTH, HEIGHT, DOTS_PER_INCH = 6.5, 2.9, 140
SMALLEST_FONT = 9
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


@dataclass(frozen=True)
class Picture:
    """A picture that was written.

    Args:
        path: the PNG file.
        title: its heading in the card.
        alt: a sentence about its content, for readers who cannot see it.
        note: a sentence on how to read it, or an empty text.
    """

    path: Path
    title: str
    alt: str
    note: str


@contextlib.contextmanager
def open_figure(
    path: Path, columns: int = 1, width: float = WIDTH, height: float = HEIGHT, names: Sequence[str] = ()
) -> Iterator[tuple[Figure, list[Axes]]]:
    """Opens a figure with its axes side by side; it is written when the block ends.

    Args:
        path: of the PNG file.
        columns: number of axes.
        width: in inches.
        height: in inches.
        names: texts in the figure, whose letters need a font.
    """
    # A user's own matplotlibrc must not change pictures that are published.
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({**STYLE, "font.family": font_families(names)})
        figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
        yield figure, list(figure.subplots(1, columns, squeeze=False)[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(
            path, lambda temporary: figure.savefig(temporary, format="png", bbox_inches="tight", pad_inches=0.06)
        )


def legend_above(axes: Axes) -> None:
    """Places the legend above the axes, where it hides no data."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.01), ncols=3, borderaxespad=0, columnspacing=1.2)
