"""The figures of a sweep, in the style of :mod:`naturalist.plots.style`."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Curve
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from naturalist.plots.fonts import fonts_for
from naturalist.plots.style import BLUE, GREY, INK, ORANGE, VERMILLION, clip, draw_title, new_figure, shown, words
from naturalist.printable import printable
from naturalist.runs.records import Influences, RunRecord, amount, as_numbers, is_number, level_name, numbered
from naturalist.wording import counted

COLOURS = "cividis"
ROWS_SHOWN = 30
LEVEL_SPREAD = 0.6
"""Of the room that a level has on its axis, the share over which the lines of its runs are spread."""
LONGEST_LEVEL = 18
"""Letters of a level's name; a longer one is cut."""
STATE_STYLE = {
    "finished": ("o", BLUE, "finished"),
    "pruned": ("X", VERMILLION, "stopped by hyperband"),
    "failed": ("v", GREY, "failed (no value: at the bottom)"),
}

Numbers = NDArray[np.float64]


def plot_accuracy_by_run(
    runs: list[RunRecord], best: RunRecord, path: Path, metric: str, maximize: bool, left_out: int = 0
) -> None:
    """Draw each run's best epoch in the order of creation, or of a sweep's trials, and the best so far.

    ``best`` is one of the ``runs``, none of which is cut off; a note counts those ``left_out``.
    """
    unit, numbers = numbered(runs)
    heights = np.array([np.nan if run.value is None else run.value for run in runs], dtype=float)
    usable = [run.state in ("finished", "pruned") for run in runs]
    so_far = (np.fmax if maximize else np.fmin).accumulate(np.where(usable, heights, np.nan))
    position = runs.index(best)
    note = counted(len(runs), "run")
    if left_out:
        that, are = ("that was", "is") if left_out == 1 else ("that were", "are")
        note += f"; {left_out:,} {that} stopped by hand, cut off or still running {are} left out"

    with _titled_figure(path, 9, 4.2, f"{metric} by run") as figure:
        ax = figure.subplots()
        ax.step(numbers, so_far, where="post", color=ORANGE, linestyle="--", zorder=1, label="best so far")
        for state, (marker, colour, label) in STATE_STYLE.items():
            chosen = np.array([run.state == state for run in runs])
            shown, lost = chosen & np.isfinite(heights), chosen & ~np.isfinite(heights)
            style: dict[str, Any] = {"color": colour, "markersize": 7}
            if shown.any():
                style |= {"markeredgecolor": "white"}
                ax.plot(np.array(numbers)[shown], heights[shown], marker, label=label.split(" (")[0], **style)
            if lost.any():
                style |= {"markeredgecolor": colour, "transform": ax.get_xaxis_transform()}
                ax.plot(np.array(numbers)[lost], np.full(lost.sum(), 0.02), marker, label=label, **style)
        label = f"best, {unit} {numbers[position]}: {amount(heights[position], metric)}"
        style = {"color": BLUE, "markersize": 15, "markeredgecolor": "white"}
        ax.plot(numbers[position], heights[position], "*", label=label, **style)
        ax.set_xlabel(f"{'trial' if unit == 'trial' else 'run, in the order of creation'} ({note})")
        ax.set_ylabel(f"best {words(metric.removeprefix('best_'))}")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        ax.margins(y=0.1)
        if metric.endswith("accuracy"):
            ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=None, symbol=" %"))
        ax.legend(loc="lower left", bbox_to_anchor=(-0.01, 1), ncols=5, columnspacing=1.2, handletextpad=0.5)


def plot_parallel_coordinates(
    settings: dict[str, list[Any]], runs: list[RunRecord], path: Path, metric: str, maximize: bool
) -> None:
    """Draw every run as a line over an axis for each setting; its colour is the metric, which is the last axis.

    ``settings`` holds one value per run for each setting that differs; every run has a value. Lines that share a level
    are spread a little within its brackets, so that each can be followed, and leave room for its name; stopped runs are
    dashed, and the best run is thick.
    """
    values = np.array([run.value for run in runs], dtype=float)
    low, high = values.min(), values.max()
    columns = [_positions(column, values) for column in settings.values()]
    columns.append((values - low) / (high - low) if high > low else np.full(len(values), 0.5))
    heights = np.column_stack(columns)
    order = np.argsort(values if maximize else -values)  # the best on top
    colours = ScalarMappable(Normalize(low, high), COLOURS)

    shares = (0.5,) if high == low else (0, 0.25, 0.5, 0.75, 1)
    ticks = [[(height, clip(label, LONGEST_LEVEL)) for height, label in _ticks(column)] for column in settings.values()]
    ticks.append([(share, amount(low + share * (high - low), metric)) for share in shares])
    room = 0.2 + 0.08 * max(len(label) for labels in ticks for _, label in labels)  # for the names of levels, in inches
    pitch = max(room + 0.9, 7.5 / len(columns))
    gap = room / pitch
    title = f"Settings and {metric} of {counted(len(runs), 'run')}"
    with _titled_figure(path, pitch * len(columns) + 1.5, 5, title) as figure:
        ax = figure.subplots()
        ax.set(xlim=(-0.1, len(columns) - 1 + gap + 0.1), ylim=(-0.06, 1.04))
        ax.axis("off")
        for run in order:
            line = {"linestyle": "--" if runs[run].state == "pruned" else "-", "linewidth": 1.5, "alpha": 0.85}
            line |= {"linewidth": 3.2, "alpha": 1} if run == order[-1] else {}
            ax.add_patch(
                PathPatch(_curve(heights[run], gap), fill=False, edgecolor=colours.to_rgba(values[run]), **line)
            )
        for position, (name, column) in enumerate(settings.items()):
            brackets = None if _is_continuous(column) else LEVEL_SPREAD / len(ticks[position])
            _draw_axis(ax, position, gap, re.sub(r"\B_\B", "\n", name, count=1), ticks[position], brackets)
        _draw_axis(ax, len(columns) - 1, gap, f"best\n{words(metric.removeprefix('best_'))}", ticks[-1], None)
        percent = PercentFormatter(1, symbol=" %") if metric.endswith("accuracy") else None
        figure.colorbar(colours, ax=ax, fraction=0.02, pad=0.01, format=percent).outline.set_visible(False)
        dashed = "; dashed: stopped by hyperband" if any(run.state == "pruned" for run in runs) else ""
        figure.supxlabel(f"thick: the best run{dashed}", fontsize=9, color=GREY)


def plot_influences(table: Influences, path: Path, metric: str, runs: int, caution: str) -> None:
    """Draw the table of settings: importance and correlation with the metric, a bar for each, over a ``caution``."""
    rows = table.rows[:ROWS_SHOWN]
    labels = [printable(f"{row.label}  ({row.n})" if row.level is not None else row.label) for row in rows]
    title = f"What goes with {words(metric)}, over {counted(runs, 'run')}"
    with _titled_figure(path, 9, 0.3 * len(rows) + 1.9, title) as figure:
        figure.supxlabel(caution, fontsize=9, color=VERMILLION)
        importance, correlation = figure.subplots(1, 2, sharey=True)
        bars = importance.barh(range(len(rows)), [row.importance for row in rows], color=BLUE, height=0.62)
        importance.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
        for position, row in enumerate(rows):
            sign = 1 if row.correlation >= 0 else -1
            colour, hatch = (BLUE, "") if sign > 0 else (VERMILLION, "/////")
            style = {"color": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0, "height": 0.62}
            bar = correlation.barh(position, row.correlation, **style)
            correlation.bar_label(bar, [f"{row.correlation:+.2f}".replace("-", "−")], padding=3, fontsize=8)
        importance.set_yticks(range(len(rows)), labels, fontfamily=fonts_for(*labels))
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


@contextmanager
def _titled_figure(path: Path, width: float, height: float, title: str) -> Iterator[Figure]:
    with new_figure(path, width, height, layout="constrained") as figure:
        draw_title(figure, title)
        yield figure


def _positions(column: list[Any], values: Numbers) -> Numbers:
    """Heights from 0 to 1 on a setting's axis; runs with the same level side by side, the best on top."""
    if _is_continuous(column):
        numbers = as_numbers(column)
        low, high = float(numbers.min()), float(numbers.max())
        return (numbers - low) / (high - low)
    levels = _levels(column)
    centres = np.array([levels.index(level_name(value)) for value in column], dtype=float)
    heights = np.zeros(len(column))
    for level in range(len(levels)):
        chosen = np.flatnonzero(centres == level)
        ranks = np.argsort(np.argsort(values[chosen]))
        spread = LEVEL_SPREAD * (ranks / max(len(chosen) - 1, 1) - 0.5) if len(chosen) > 1 else np.zeros(1)
        heights[chosen] = (level + 0.5 + spread) / len(levels)
    return heights


def _is_continuous(column: list[Any]) -> bool:
    """Whether an axis has numbers at their places, rather than levels at equal distances."""
    return is_number(column) and len(set(column)) > 4


def _levels(column: list[Any]) -> list[str]:
    """The levels of a setting from bottom to top: numbers ascending, words by the alphabet."""
    distinct = {level_name(value): value for value in column}
    return sorted(distinct, key=lambda name: (distinct[name], "")) if is_number(column) else sorted(distinct)


def _ticks(column: list[Any]) -> list[tuple[float, str]]:
    if not _is_continuous(column):
        levels = _levels(column)
        return [((position + 0.5) / len(levels), name) for position, name in enumerate(levels)]
    numbers = as_numbers(column)
    is_log = not np.array_equal(numbers, np.array(column, dtype=float))
    shown = np.linspace(numbers.min(), numbers.max(), 5)
    return [
        (share, f"{10**value if is_log else value:.2g}")
        for share, value in zip(np.linspace(0, 1, 5), shown, strict=True)
    ]


def _curve(heights: Numbers, gap: float) -> Curve:
    """Smooth lines from axis to axis that leave and reach them level; each axis has a gap for the names of levels."""
    points: list[tuple[float, float]] = []
    for position, (left, right) in enumerate(pairwise(heights.tolist())):
        start, end = position + gap, position + 1.0
        reach = 0.6 * (end - start)
        points += [(start, left), (start + reach, left), (end - reach, right), (end, right)]
    return Curve(points, [Curve.MOVETO, *[Curve.CURVE4] * 3] * (len(heights) - 1))


def _draw_axis(
    ax: Axes, position: int, gap: float, name: str, ticks: list[tuple[float, str]], brackets: float | None
) -> None:
    """An axis as two lines, or with ``brackets`` of that height around each level, and the levels' names between."""
    name, middle = shown(name), position + gap / 2
    spans = [(0.0, 1.0)] if brackets is None else [(at - brackets / 2, at + brackets / 2) for at, _ in ticks]
    for low, high in spans:
        for x, inwards in ((position, 0.03), (position + gap, -0.03)):
            corners = [x + inwards, x, x, x + inwards]
            ax.plot(corners, [low, low, high, high], color=INK, linewidth=1, zorder=3, solid_joinstyle="miter")
    style: dict[str, Any] = {"fontsize": 8.5, "fontfamily": fonts_for(name)}
    ax.text(middle, 1.03, name, ha="center", va="bottom", fontweight="bold", **style)
    for height, label in ticks:
        ax.text(middle, height, label, ha="center", va="center", fontsize=8, fontfamily=fonts_for(label))
