"""Accuracy over the number of training images."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from naturalist.plots.style import BLUE, ORANGE, draw_title, legend_above, new_figure, percent_ticks


def plot_more_images(
    images: Sequence[float],
    accuracy: Sequence[float],
    error: Callable[[float], float] | None,
    furthest: float,
    path: Path,
    title: str,
) -> None:
    """Draw a mark for each run, and the fitted law as far as it is believed.

    Args:
        images: training images of a class, for each run.
        accuracy: 0 to 1, for each run.
        error: 1 - accuracy by images of a class; None for no law.
        furthest: images of a class up to which the law is drawn.
        path: PNG to write.
        title: of the figure.
    """
    with new_figure(path, 9, 4.2, layout="constrained") as figure:
        draw_title(figure, title)
        ax = figure.subplots()
        if error is not None:
            sizes = np.geomspace(min(images), furthest, 100)
            ax.plot(sizes, [1 - error(size) for size in sizes], color=ORANGE, linestyle="--", label="power law")
        ax.plot(images, accuracy, "o", color=BLUE, markeredgecolor="white", markersize=7, label="runs")
        ax.set_xscale("log")
        ax.set_xticks(sorted(set(images)), [f"{size:.0f}" for size in sorted(set(images))])
        ax.minorticks_off()
        ax.set_xlabel("training images a class")
        ax.set_ylabel("accuracy")
        ax.yaxis.set_major_formatter(percent_ticks())
        legend_above(ax)
