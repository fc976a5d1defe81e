"""The reliability diagram: whether a model's confidence can be believed."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
from matplotlib.ticker import MaxNLocator

from naturalist.plots.style import (
    GREY,
    INK,
    SKY,
    VERMILLION,
    draw_title,
    legend_above,
    new_figure,
    percent_ticks,
)
from naturalist.wording import percent


class Bin(TypedDict):
    """Images whose predictions are made with a confidence from ``low`` to ``high``."""

    low: float
    high: float
    images: int
    confidence: float | None
    """Mean over the images; None without any, as are the accuracy and its interval."""
    accuracy: float | None
    accuracy_95_interval: Sequence[float] | None
    """Low and high."""


def plot_reliability(bins: Sequence[Bin], expected_calibration_error: float, path: str | Path, title: str) -> None:
    """Draw accuracy, with its interval, against confidence, the gap between them, and the images in each bin."""
    filled = [b for b in bins if b["images"]]
    center = np.array([(b["low"] + b["high"]) / 2 for b in filled])
    width = bins[0]["high"] - bins[0]["low"]
    confidence = np.array([b["confidence"] for b in filled], dtype=float)
    accuracy = np.array([b["accuracy"] for b in filled], dtype=float)
    interval = np.array([b["accuracy_95_interval"] for b in filled], dtype=float)

    with new_figure(path, 5.6, 6.2, layout="constrained") as figure:
        draw_title(figure, title)
        ax, counts = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
        ax.bar(center, accuracy, width, color=SKY, edgecolor="white", label="accuracy")
        ax.bar(
            center,
            confidence - accuracy,
            width,
            accuracy,
            facecolor="none",
            edgecolor=VERMILLION,
            hatch="////",
            linewidth=0.8,
            label="gap to confidence",
        )
        ax.errorbar(
            center,
            accuracy,
            np.abs(interval.T - accuracy),
            linestyle="",
            color=INK,
            capsize=3,
            linewidth=1.2,
            label="95 % interval",
        )
        ax.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1.2, label="perfectly calibrated")
        ax.set(ylabel="share that is right", ylim=(0, 1), xlim=(0, 1))
        legend_above(ax, columns=2)
        ax.text(
            0.03,
            0.95,
            f"expected calibration error {percent(expected_calibration_error)}",
            va="top",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 2},
        )
        counts.bar(center, [b["images"] for b in filled], width, color=GREY, edgecolor="white")
        counts.set(xlabel="confidence", ylabel="images")
        counts.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        for axis in (ax.xaxis, ax.yaxis, counts.xaxis):
            axis.set_major_formatter(percent_ticks(0))
