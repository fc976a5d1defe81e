"""The figures of a sweep, in the style of :mod:`naturalist.plots.style`."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Curve
from matplotlib.ticker import MaxNLocator, PercentFormatter

from naturalist.plots.style import BLUE, GREY, INK, ORANGE, PALE, VERMILLION, new_figure
from naturalist.runs.records import Influences, as_numbers, is_number, level_name

COLOURS = "cividis"
ROWS_SHOWN = 30
STATE_STYLE = {
    "finished": ("o", BLUE, "finished"),
    "pruned": ("X", VERMILLION, "stopped by hyperband"),
    "failed": ("v", GREY, "failed (no value: at the bottom)"),
}


def plot_accuracy_by_run(
    values: list[float | None],
    states: list[str],
    path: str | Path,
    metric: str,
    maximize: bool,
    title: str,
    note: str = "",
) -> None:
    """Draw each run's best epoch in the order of creation, and the best so far.

    ``values`` are one per run, None where a run has none; ``states`` are finished, pruned or failed.
    """
    numbers = np.arange(1, len(values) + 1)
    heights = np.array([np.nan if value is None else value for value in values], dtype=float)
    usable = np.array([state in ("finished", "pruned") for state in states]) & np.isfinite(heights)
    so_far = np.where(usable, heights, -np.inf if maximize else np.inf)
    so_far = (np.maximum if maximize else np.minimum).accumulate(so_far)
    so_far[~np.isfinite(so_far)] = np.nan
    best = int((np.nanargmax if maximize else np.nanargmin)(np.where(usable, heights, np.nan)))

    with new_figure(path, 9, 4.2, layout="constrained") as figure:
        figure.suptitle(title, x=0.012, ha="left", fontsize=11, fontweight="bold")
        ax = figure.subplots()
        ax.step(numbers, so_far, where="post", color=ORANGE, linestyle="--", zorder=1, label="best so far")
        for state, (marker, colour, label) in STATE_STYLE.items():
            chosen = np.array([other == state for other in states])
            shown = chosen & np.isfinite(heights)
            if shown.any():
                ax.plot(
                    numbers[shown],
                    heights[shown],
                    linestyle="",
                    marker=marker,
                    markersize=7,
                    color=colour,
                    markeredgecolor="white",
                    label=label.split(" (")[0],
                )
            lost = chosen & ~np.isfinite(heights)
            if lost.any():
                ax.plot(
                    numbers[lost],
                    np.full(lost.sum(), 0.02),
                    linestyle="",
                    marker=marker,
                    markersize=7,
                    color=colour,
                    transform=ax.get_xaxis_transform(),
                    label=label,
                )
        ax.plot(
            numbers[best],
            heights[best],
            linestyle="",
            marker="*",
            markersize=15,
            color=BLUE,
            markeredgecolor="white",
            label=f"best, run {numbers[best]}: {_amount(heights[best], metric)}",
        )
        ax.set_xlabel(f"run, in the order of creation ({note})" if note else "run, in the order of creation")
        ax.set_ylabel(f"best {metric.removeprefix('best_').replace('_', ' ')}")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        ax.margins(y=0.1)
        if metric.endswith("accuracy"):
            ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=None, symbol=" %"))
        ax.legend(loc="lower left", bbox_to_anchor=(-0.01, 1), ncols=5, columnspacing=1.2, handletextpad=0.5)


def plot_parallel_coordinates(
    settings: dict[str, list],
    values: list[float],
    states: list[str],
    path: str | Path,
    metric: str,
    maximize: bool,
    title: str,
) -> None:
    """Draw every run as a line over an axis for each setting; its colour is the metric, which is the last axis.

    ``settings`` holds one value per run for each setting that differs. Lines that share a level are spread a little, so
    that each can be followed; stopped runs are dashed, and the best run is thick.
    """
    values = np.array(values, dtype=float)
    order = np.argsort(values if maximize else -values)  # the best on top
    norm = Normalize(values.min(), values.max())
    colours = matplotlib.colormaps[COLOURS]
    columns = [_positions(column, values) for column in settings.values()]
    low, high = values.min(), values.max()
    columns.append((values - low) / (high - low) if high > low else np.full(len(values), 0.5))
    heights = np.column_stack(columns)

    width = max(9.0, 1.15 * len(columns) + 1.5)
    with new_figure(path, width, 5, layout="constrained") as figure:
        figure.suptitle(title, x=0.012, ha="left", fontsize=11, fontweight="bold")
        ax = figure.subplots()
        ax.set(xlim=(-0.35, len(columns) - 0.35), ylim=(-0.06, 1.04))
        ax.axis("off")
        for run in order:
            is_best = run == order[-1]
            ax.add_patch(
                PathPatch(
                    _curve(heights[run]),
                    fill=False,
                    edgecolor=colours(norm(values[run])),
                    linewidth=3.2 if is_best else 1.5,
                    alpha=1 if is_best else 0.85,
                    linestyle="--" if states[run] == "pruned" else "-",
                )
            )
        for position, (name, column) in enumerate(settings.items()):
            _draw_axis(ax, position, name.replace("_", "\n", 1), _ticks(column))
        shares = (0.5,) if high == low else (0, 0.25, 0.5, 0.75, 1)
        _draw_axis(
            ax,
            len(columns) - 1,
            f"best\n{metric.removeprefix('best_')}".replace("_", " "),
            [(share, _amount(low + share * (high - low), metric)) for share in shares],
        )
        bar = figure.colorbar(
            matplotlib.cm.ScalarMappable(norm, COLOURS),
            ax=ax,
            fraction=0.02,
            pad=0.01,
            format=PercentFormatter(1, symbol=" %") if metric.endswith("accuracy") else None,
        )
        bar.outline.set_visible(False)
        has_pruned = "pruned" in states
        figure.supxlabel(
            f"thick: the best run{'; dashed: stopped by hyperband' if has_pruned else ''}", fontsize=9, color=GREY
        )


def plot_influences(table: Influences, path: str | Path, metric: str, runs: int) -> None:
    """Draw the table of settings: importance and correlation with the metric, a bar for each."""
    rows = table.rows[:ROWS_SHOWN]
    labels = [f"{row.label}  ({row.n})" if row.level is not None else row.label for row in rows]
    positions = np.arange(len(rows))
    title = f"What goes with {metric.replace('_', ' ')}, over {runs} runs"
    with new_figure(path, 9, 0.3 * len(rows) + 1.7, layout="constrained") as figure:
        figure.suptitle(title, x=0.012, ha="left", fontsize=11, fontweight="bold")
        importance, correlation = figure.subplots(1, 2, sharey=True)
        importance.barh(positions, [row.importance for row in rows], color=BLUE, height=0.62)
        signs = [row.correlation >= 0 for row in rows]
        bars = correlation.barh(
            positions,
            [row.correlation for row in rows],
            height=0.62,
            color=[BLUE if sign else VERMILLION for sign in signs],
        )
        for bar, sign in zip(bars, signs, strict=True):
            bar.set(hatch="" if sign else "/////", edgecolor="white", linewidth=0)
        for position, row in zip(positions, rows, strict=True):
            importance.text(row.importance + 0.01, position, f"{row.importance:.2f}", va="center", fontsize=8)
            right = row.correlation >= 0
            correlation.text(
                row.correlation + (0.03 if right else -0.03),
                position,
                f"{row.correlation:+.2f}".replace("-", "−"),
                va="center",
                ha="left" if right else "right",
                fontsize=8,
            )
        importance.set_yticks(positions, labels)
        importance.invert_yaxis()
        importance.set_xlim(0, 1.15 * max(row.importance for row in rows))
        explained = ""
        if table.explained is not None:
            explained = f"\nthe forest explains {100 * max(table.explained, 0):.0f} % of unseen runs' variance"
        importance.set_xlabel(f"importance in a random forest{explained}")
        correlation.set_xlim(-1.25, 1.25)
        correlation.set_xticks([-1, -0.5, 0, 0.5, 1])
        correlation.axvline(0, color=GREY, linewidth=0.8)
        correlation.set_xlabel("correlation; hatched: negative\nin brackets: runs with that level")
        for ax in (importance, correlation):
            ax.grid(axis="y", visible=False)
            ax.tick_params(axis="y", length=0)


def _positions(column: list, values: np.ndarray) -> np.ndarray:
    """Heights from 0 to 1 on a setting's axis; runs with the same level side by side, the best on top."""
    if is_number(column) and len(set(column)) > 4:
        numbers = as_numbers(column)
        return (numbers - numbers.min()) / np.ptp(numbers)
    levels = _levels(column)
    centres = np.array([levels.index(level_name(value)) for value in column], dtype=float)
    heights = np.zeros(len(column))
    for level in range(len(levels)):
        chosen = np.flatnonzero(centres == level)
        ranks = np.argsort(np.argsort(values[chosen]))
        spread = 0.5 * (ranks / max(len(chosen) - 1, 1) - 0.5) if len(chosen) > 1 else np.zeros(1)
        heights[chosen] = (level + 0.5 + spread) / len(levels)
    return heights


def _levels(column: list) -> list[str]:
    """The levels of a setting from bottom to top: numbers ascending, words by the alphabet."""
    distinct = {level_name(value): value for value in column}
    return sorted(distinct, key=lambda name: (distinct[name], "")) if is_number(column) else sorted(distinct)


def _ticks(column: list) -> list[tuple[float, str]]:
    if not (is_number(column) and len(set(column)) > 4):
        levels = _levels(column)
        return [((position + 0.5) / len(levels), name) for position, name in enumerate(levels)]
    numbers = as_numbers(column)
    is_log = not np.array_equal(numbers, np.array(column, dtype=float))
    shown = np.linspace(numbers.min(), numbers.max(), 5)
    return [
        (share, f"{10**value if is_log else value:.2g}")
        for share, value in zip(np.linspace(0, 1, 5), shown, strict=True)
    ]


def _curve(heights: np.ndarray) -> Curve:
    """A smooth line that leaves and reaches every axis level."""
    points, codes = [(0.0, heights[0])], [Curve.MOVETO]
    for position in range(1, len(heights)):
        points += [
            (position - 0.6, heights[position - 1]),
            (position - 0.4, heights[position]),
            (float(position), heights[position]),
        ]
        codes += [Curve.CURVE4] * 3
    return Curve(points, codes)


def _draw_axis(ax: Axes, position: int, name: str, ticks: list[tuple[float, str]]) -> None:
    ax.plot([position, position], [0, 1], color=INK, linewidth=1, zorder=3)
    ax.text(position, 1.03, name, ha="center", va="bottom", fontweight="bold", fontsize=8.5)
    for height, label in ticks:
        ax.text(
            position + 0.05,
            height,
            label,
            va="center",
            fontsize=8,
            zorder=4,
            bbox={"facecolor": "white", "edgecolor": PALE, "alpha": 0.85, "pad": 1.2, "linewidth": 0.5},
        )


def _amount(value: float, metric: str) -> str:
    return f"{100 * value:.1f} %" if metric.endswith("accuracy") else f"{value:.4g}"
