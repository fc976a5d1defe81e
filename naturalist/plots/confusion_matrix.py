"""The confusion matrix: which class is taken for which."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import NDArray

from naturalist.plots.fonts import fonts_for
from naturalist.plots.style import BLUE, DIM, INK, PALE, clip, draw_title, new_figure, percent_ticks, slant_labels
from naturalist.wording import percent

MOST_COUNTED = 15
"""Classes up to which the counts are written into the cells."""

# Lightness falls evenly, 100 to 14 in CIELAB, so that equal steps look equal, in print too.
SHARES = LinearSegmentedColormap.from_list("shares", [(0, "white"), (0.63, BLUE), (1, "#00263D")])


def plot_confusion_matrix(matrix: NDArray[np.int64], class_names: Sequence[str], path: str | Path, title: str) -> None:
    """Draw a ``[C, C]`` matrix of counts, rows true and columns predicted, each row shaded by its shares, zeros dimmed.

    The recall of each class stands at the end of its row, "–" for a class without images. From 16 classes on
    the counts are left out.
    """
    size = len(class_names)
    with_counts = size <= MOST_COUNTED
    cell, fontsize = (0.55, 9) if with_counts else (0.24, 7)
    totals = matrix.sum(axis=1)
    shares = np.divide(matrix, totals[:, None], out=np.zeros(matrix.shape), where=totals[:, None] > 0)
    recalls = [percent(shares[i, i], 0) if totals[i] else "–" for i in range(size)]
    names = [clip(name, 28) for name in class_names]

    with new_figure(path, size * cell + 3.6, size * cell + 2.4, layout="compressed") as figure:
        draw_title(figure, title)
        ax = figure.subplots()
        mesh = ax.pcolormesh(
            range(size),
            range(size),
            shares,
            cmap=SHARES,
            vmin=0,
            vmax=1,
            shading="nearest",
            edgecolors=PALE,
            linewidth=0.5 if with_counts else 0.2,
        )
        ax.set(aspect="equal", xlabel="predicted class", ylabel="true class")
        ax.invert_yaxis()
        ax.grid(False)
        ax.tick_params(length=0)
        style: dict[str, Any] = {"fontsize": fontsize, "fontfamily": fonts_for(*names)}
        ax.set_xticks(range(size), names, rotation=45, ha="right", rotation_mode="anchor", **style)
        ax.set_yticks(range(size), names, **style)
        slant_labels(ax.get_xticklabels(), names)
        slant_labels(ax.get_yticklabels(), names)
        margin = ax.secondary_yaxis("right")
        margin.set_yticks(range(size), recalls, fontsize=fontsize)
        margin.set_ylabel("recall")
        margin.tick_params(length=0)
        figure.colorbar(mesh, ax=ax, label="share of the true class", format=percent_ticks(), aspect=40)
        if with_counts:
            _write_counts(ax, matrix, shares, fontsize)


def _write_counts(ax: Axes, matrix: NDArray[np.int64], shares: NDArray[np.float64], fontsize: int) -> None:
    for row, column in np.ndindex(matrix.shape):
        colour = "white" if shares[row, column] > 0.5 else INK if matrix[row, column] else DIM
        ax.text(column, row, matrix[row, column], ha="center", va="center", fontsize=fontsize, color=colour)
