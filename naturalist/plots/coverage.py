"""Accuracy against coverage: how right a model is about the images that it is surest of."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from naturalist.plots.style import BLUE, GREY, SKY, draw_title, legend_above, new_figure, percent_ticks

FEWEST_NAMED = 0.06
"""Of coverage, between two thresholds that are written beside the line."""


def plot_coverage(rows: Sequence[Mapping[str, Any]], path: str | Path, title: str) -> None:
    """Draw accuracy over coverage, with its interval, from all images on the right to the surest on the left.

    ``rows`` are those of :func:`naturalist.evaluation.confidence.coverage`, by rising threshold.
    """
    filled = [row for row in rows if row["images"]]
    shares, accuracy = (np.array([row[key] for row in filled]) for key in ("coverage", "accuracy"))
    low, high = np.array([row["accuracy_95_interval"] for row in filled]).T

    with new_figure(path, 6.4, 4.6, layout="constrained") as figure:
        draw_title(figure, title)
        ax = figure.subplots()
        ax.fill_between(shares, low, high, color=SKY, alpha=0.35, linewidth=0, label="95 % interval")
        ax.plot(shares, accuracy, color=BLUE, marker="o", markersize=4, label="accuracy of the images answered")
        ax.axhline(accuracy[0], color=GREY, linestyle=":", linewidth=1, label="of all images")
        written = np.inf
        for row, share, height in zip(filled, shares, accuracy, strict=True):
            if written - share >= FEWEST_NAMED:
                place, written = (share, height), share
                ax.annotate(
                    f"≥ {row['threshold']:.2f}", place, (0, 7), textcoords="offset points", ha="center", fontsize=7.5
                )
        ax.set(xlabel="coverage: share of images with that confidence or more", ylabel="accuracy")
        ax.set(xlim=(0, 1.04), ylim=(0, 1.04))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(percent_ticks(0))
        legend_above(ax)
