"""The pictures of a comparison: accuracy over time and over trainable parameters, learning curves together."""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator

from naturalist.plots.fonts import fonts_for
from naturalist.plots.style import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    draw_title,
    new_figure,
    percent_ticks,
    words,
)
from naturalist.printable import printable
from naturalist.runs.records import Group, Run

COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, INK)
LINES = ("-", "--", "-.", ":")
MARKERS = "os^Dv*PX<>"


def plot_accuracy_over_time(groups: Sequence[Group], path: Path) -> None:
    """Validation accuracy over seconds since the start, computing features included; a line for each run."""
    with new_figure(path, 9, 4.6, layout="constrained") as figure:
        draw_title(figure, "Accuracy over time")
        ax = figure.subplots()
        for number, group in enumerate(groups):
            for position, run in enumerate(group.runs):
                label = printable(group.label) if position == 0 else None
                ax.plot(_seconds(run), [epoch["val_accuracy"] for epoch in run.history], **_line(number), label=label)
        _log_ticks(ax)
        _label(ax, "seconds since the start of training", "validation accuracy")
        _legend_beside(ax)


def plot_accuracy_over_parameters(groups: Sequence[Group], path: Path) -> None:
    """Test accuracy, or where it is missing validation accuracy, over the number of trainable parameters."""
    tested = all(group.average("test_accuracy") is not None for group in groups)
    column, name = ("test_accuracy", "test accuracy") if tested else ("val_accuracy", "validation accuracy")
    with new_figure(path, 9, 4.6, layout="constrained") as figure:
        draw_title(figure, "Accuracy over trainable parameters")
        ax = figure.subplots()
        for number, group in enumerate(groups):
            # Full and gradual train the same parameters; their marks and bars may overlap, so all are see-through.
            ax.errorbar(
                _or_nan(group.average("trainable_parameters")),
                _or_nan(group.average(column)),
                yerr=group.deviation(column),
                color=COLOURS[number % len(COLOURS)],
                marker=MARKERS[number % len(MARKERS)],
                markersize=8,
                capsize=4,
                linestyle="",
                alpha=0.8,
                label=printable(group.label),
            )
        _log_ticks(ax)
        _label(ax, "trainable parameters", f"{name} (bar: standard deviation)")
        _legend_beside(ax)


def plot_learning_curves(groups: Sequence[Group], path: Path) -> None:
    """Training and validation accuracy over the epochs, averaged over the runs of a group."""
    with new_figure(path, 12, 4.6, layout="constrained") as figure:
        draw_title(figure, "Learning curves, averaged over the runs")
        train, val = figure.subplots(1, 2, sharey=True)
        for ax, quantity in ((train, "train_accuracy"), (val, "val_accuracy")):
            for number, group in enumerate(groups):
                epochs = min(len(run.history) for run in group.runs)
                values = np.mean([[epoch[quantity] for epoch in run.history[:epochs]] for run in group.runs], axis=0)
                ax.plot(range(1, epochs + 1), values, **_line(number), label=printable(group.label))
            ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            _label(ax, "epoch", words(quantity).replace("val", "validation"))
        _legend_beside(val)


def _seconds(run: Run) -> list[float]:
    return list(accumulate((epoch["epoch_seconds"] for epoch in run.history), initial=run.feature_seconds))[1:]


def _or_nan(value: float | None) -> float:
    """What matplotlib leaves out, for a value that is missing."""
    return np.nan if value is None else value


def _line(number: int) -> dict[str, Any]:
    """Matplotlib's settings for the line of a group, which differ from those of its neighbours without colour too."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": LINES[number // len(COLOURS) % len(LINES)],
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 4.5,
        "linewidth": 1.4,
    }


def _log_ticks(ax: Axes) -> None:
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(EngFormatter(sep=" "))
    ax.xaxis.set_minor_locator(NullLocator())


def _label(ax: Axes, x_label: str, y_label: str) -> None:
    ax.set_xlabel(x_label)
    ax.set_ylabel(y_label)
    ax.yaxis.set_major_formatter(percent_ticks(0))


def _legend_beside(ax: Axes) -> None:
    family = fonts_for(*ax.get_legend_handles_labels()[1])
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), prop={"family": family})
