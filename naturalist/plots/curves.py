"""The curves of one training: loss, accuracy and learning rate over the epochs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from naturalist.plots.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    draw_title,
    legend_above,
    new_figure,
    percent_ticks,
    words,
)
from naturalist.runs.records import best_of
from naturalist.settings.groups import SelectBy
from naturalist.wording import percent

History = Sequence[Mapping[str, float | None]]


def plot_curves(history: History, path: str | Path, title: str, select_by: SelectBy = "val_accuracy") -> None:
    """Draw loss, accuracy and learning rate over the epochs, the best epoch marked.

    ``history`` holds one dict per epoch, at least one, with ``epoch`` and any of ``train_loss``, ``val_loss``,
    ``train_accuracy``, ``val_accuracy`` (0 to 1) and ``learning_rate``. A value that is missing, None or not
    finite leaves a gap. The best epoch is the one that ``best.pt`` is chosen as by ``select_by``.
    """
    epochs = np.array([entry["epoch"] for entry in history])
    best = None if np.isnan(_series(history, select_by)).all() else best_of(history, select_by)

    with new_figure(path, 9, 4.2, layout="constrained") as figure:
        draw_title(figure, title)
        axes = figure.subplot_mosaic([["loss", "accuracy"], ["learning_rate", "accuracy"]], height_ratios=[3, 1])
        _draw_train_and_val(axes["loss"], epochs, history, "loss", best, "{:.3f}".format)
        _draw_train_and_val(axes["accuracy"], epochs, history, "accuracy", best, percent)
        axes["accuracy"].yaxis.set_major_formatter(percent_ticks())
        rate = axes["learning_rate"]
        rate.plot(epochs, _series(history, "learning_rate"), color=GREEN, marker="o", markersize=3)
        rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        rate.sharex(axes["loss"])
        axes["loss"].tick_params(labelbottom=False)
        for name, ax in axes.items():
            ax.set_ylabel(words(name))
            ax.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
            if name != "loss":
                ax.set_xlabel("epoch")


def _series(history: History, key: str) -> NDArray[np.float64]:
    """Give one value per epoch, NaN where there is none."""
    values = np.array([np.nan if (value := entry.get(key)) is None else value for entry in history], dtype=float)
    return np.where(np.isfinite(values), values, np.nan)


def _draw_train_and_val(
    ax: Axes,
    epochs: NDArray[np.int64],
    history: History,
    quantity: str,
    best: int | None,
    write: Callable[[float], str],
) -> None:
    train, val = _series(history, f"train_{quantity}"), _series(history, f"val_{quantity}")
    ax.plot(epochs, train, color=ORANGE, linestyle="--", marker="o", markersize=3, label="train")
    ax.plot(epochs, val, color=BLUE, marker="o", markersize=3, label="validation")
    if best is not None and np.isfinite(val[best]):
        ax.axvline(epochs[best], color=GREY, linestyle=":", linewidth=1, zorder=1)
        ax.plot(
            epochs[best],
            val[best],
            color=BLUE,
            linestyle="",
            marker="*",
            markersize=13,
            markeredgecolor="white",
            label=f"best epoch, {epochs[best]}: {write(val[best])}",
        )
    legend_above(ax)
