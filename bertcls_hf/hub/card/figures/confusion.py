"""The confusion matrix of a single-label task."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from scipy import sparse

from bertcls_hf.hub.card.figures.canvas import SCALE, WIDTH, Picture, open_figure
from bertcls_hf.hub.card.figures.fonts import drawable_names, numbers_note, short_name


MOST_CLASSES = 20
# Of more classes, so many are shown.
CLASSES_OF_MANY = 14


def draw_confusion(path: Path, matrix: sparse.csr_array | np.ndarray, names: Sequence[str]) -> Picture:
    """Draws a confusion matrix whose rows sum to 100%; of many classes, it shows those with most errors.

    Args:
        path: of the PNG file.
        matrix: (labels, labels) counts; row: gold, column: predicted.
        names: of the labels.
    """
    matrix = sparse.csr_array(matrix)
    counts, ticks, note = _most_confused(matrix, [short_name(name) for name in drawable_names(names)])
    size = len(ticks)
    side = min(2.2 + 0.42 * size, WIDTH)
    with open_figure(path, width=min(side + 0.9, WIDTH), height=side, names=ticks) as (figure, (axes,)):
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
    alt = _confusion_alt(matrix, names)
    return Picture(path, "Confusion matrix", alt, note + numbers_note(names))


def _most_confused(matrix: sparse.csr_array, names: Sequence[str]) -> tuple[np.ndarray, list[str], str]:
    """Keeps all classes; of many, it keeps those with most errors and sums the others up as one."""
    note = "Each row shows how the texts of one gold label were predicted; rows sum to 100%."
    if len(names) <= MOST_CLASSES:
        return matrix.toarray(), list(names), note
    errors = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal()
    chosen = np.sort(np.argsort(-errors, kind="stable")[:CLASSES_OF_MANY])
    others = np.setdiff1d(np.arange(len(names)), chosen)
    group_of = np.full(len(names), len(chosen))
    group_of[chosen] = np.arange(len(chosen))
    is_in_group = sparse.csr_array((np.ones(len(names), dtype=np.int64), (np.arange(len(names)), group_of)))
    counts = (is_in_group.T @ matrix @ is_in_group).toarray()
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


def _confusion_alt(matrix: sparse.csr_array, names: Sequence[str]) -> str:
    rows = matrix.sum()
    alt = f"{matrix.diagonal().sum():,} of {rows:,} texts got their gold label"
    cells = matrix.tocoo()
    wrong = np.where(cells.row != cells.col, cells.data, 0)
    if wrong.any():
        worst = wrong.argmax()
        gold, predicted = names[cells.row[worst]], names[cells.col[worst]]
        alt += f"; the most frequent error is {predicted} for {gold}, {wrong[worst]:,} texts"
    return f"{alt}."
