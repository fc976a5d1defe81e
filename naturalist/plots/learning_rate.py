"""The loss over a rising learning rate."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from naturalist.plots.style import BLUE, GREY, VERMILLION, draw_title, legend_above, new_figure

Array = NDArray[np.float64]


def plot_learning_rate(rates: Array, losses: Array, smoothed: Array, chosen: int, path: str | Path, title: str) -> None:
    """Draw a range test: the loss of every step, the smoothed one, and the rate that is proposed.

    Args:
        rates: rising, one a step.
        losses: finite, of the same steps.
        smoothed: of the same steps.
        chosen: the step whose rate is proposed.
        path: a PNG.
        title: what was trained.
    """
    with new_figure(path, 7, 4.2, layout="constrained") as figure:
        draw_title(figure, f"{title}: loss over learning rate")
        ax = figure.subplots()
        ax.plot(rates, losses, color=GREY, linestyle="", marker="o", markersize=2.5, label="of each step")
        ax.plot(rates, smoothed, color=BLUE, label="smoothed")
        ax.axvline(rates[chosen], color=GREY, linestyle=":", linewidth=1, zorder=1)
        ax.plot(
            rates[chosen],
            smoothed[chosen],
            color=VERMILLION,
            linestyle="",
            marker="*",
            markersize=13,
            markeredgecolor="white",
            label=f"falls fastest at {rates[chosen]:.2g}",
        )
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")
        room = 0.1 * (smoothed[0] - smoothed.min()) + 0.01 * smoothed[0]
        ax.set_ylim(smoothed.min() - 3 * room, smoothed[0] + 6 * room)  # where it diverges tells nothing more
        ax.set_xlabel("learning rate")
        ax.set_ylabel("training loss")
        legend_above(ax)
