"""The pictures of a comparison: accuracy over time and over trainable parameters, learning curves together."""

from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from naturalist.plots.style import BLUE, GREEN, GREY, INK, ORANGE, VERMILLION, new_figure

if TYPE_CHECKING:
    from naturalist.runs.records import Group, Run

COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, "#CC79A7", "#56B4E9", INK)
LINES = ("-", "--", "-.", ":")
MARKERS = "os^Dv*PX<>"


def plot_accuracy_over_time(groups: list["Group"], path: Path) -> None:
    """Validation accuracy over seconds since the start, computing features included; a line for each run."""
    with new_figure(path, 9, 4.6, layout="constrained") as figure:
        _title(figure, "Accuracy over time")
        axes = figure.subplots()
        for number, group in enumerate(groups):
            for position, run in enumerate(group.runs):
                axes.plot(
                    _seconds(run),
                    [epoch["val_accuracy"] for epoch in run.history],
                    **_style(number, position, group.label),
                )
        _log_ticks(axes)
        _finish(axes, "seconds since the start of training", "validation accuracy")


def plot_accuracy_over_parameters(groups: list["Group"], path: Path) -> None:
    """Test accuracy, or where it is missing validation accuracy, over the number of trainable parameters."""
    tested = all(group.average("test_accuracy") is not None for group in groups)
    column = "test_accuracy" if tested else "val_accuracy"
    with new_figure(path, 9, 4.6, layout="constrained") as figure:
        _title(figure, "Accuracy over trainable parameters")
        axes = figure.subplots()
        for number, group in enumerate(groups):
            style = _style(number, 0, group.label)
            # Full and gradual train the same parameters; their marks and bars may overlap, so all are see-through.
            axes.errorbar(
                group.average("trainable_parameters"),
                group.average(column),
                yerr=group.deviation(column),
                color=style["color"],
                marker=style["marker"],
                markersize=8,
                capsize=4,
                linestyle="",
                alpha=0.8,
                label=group.label,
            )
        _log_ticks(axes)
        _finish(
            axes,
            "trainable parameters",
            f"{column.split('_')[0].replace('val', 'validation')} accuracy (bar: standard deviation)",
        )


def plot_learning_curves(groups: list["Group"], path: Path) -> None:
    """Training and validation accuracy over the epochs, averaged over the runs of a group."""
    with new_figure(path, 12, 4.6, layout="constrained") as figure:
        _title(figure, "Learning curves, averaged over the runs")
        for axes, quantity in zip(figure.subplots(1, 2, sharey=True), ("train_accuracy", "val_accuracy"), strict=True):
            for number, group in enumerate(groups):
                epochs = min(len(run.history) for run in group.runs)
                values = np.mean([[epoch[quantity] for epoch in run.history[:epochs]] for run in group.runs], axis=0)
                axes.plot(range(1, epochs + 1), values, **_style(number, 0, group.label))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            _finish(
                axes,
                "epoch",
                quantity.replace("val", "validation").replace("_", " "),
                legend=quantity == "val_accuracy",
            )


def _seconds(run: "Run") -> list[float]:
    return list(accumulate((epoch["epoch_seconds"] for epoch in run.history), initial=run.feature_seconds))[1:]


def _style(number: int, position: int, label: str) -> dict:
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": LINES[number // len(COLOURS) % len(LINES)],
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 4.5,
        "linewidth": 1.4,
        "label": label if position == 0 else None,
    }


def _title(figure: Figure, title: str) -> None:
    figure.suptitle(title, x=0.012, ha="left", fontsize=11, fontweight="bold")


def _log_ticks(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.xaxis.set_minor_locator(NullLocator())


def _finish(axes: Axes, x_label: str, y_label: str, legend: bool = True) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.tick_params(colors=GREY, labelcolor=INK)
    if legend:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
