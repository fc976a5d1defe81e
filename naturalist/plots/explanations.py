"""Figures of what a model has learnt and looks at; a page a picture."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from naturalist.plots.style import BLUE, GREY, INK, PALE, fit_line, fit_text, new_figure, new_page

MOST_CELLS = 64
"""Filters, or feature maps, on one sheet."""

MARGIN, HEADER, FOOTER = 0.3, 0.75, 0.55
"""Inches, as all lengths and places below."""

Extent = tuple[float, float, float, float]
"""Left, right, bottom and top of a picture."""

Heat = Literal["grad_cam", "occlusion"]
HEADINGS: dict[Heat, str] = {"grad_cam": "Grad-CAM", "occlusion": "occlusion"}
SCALES: dict[Heat, tuple[str, str]] = {"grad_cam": ("none", "most evidence"), "occlusion": ("covering helps", "hurts")}
"""What the ends of a colour bar say."""

OPACITY = 0.6
"""Of the most heat."""

CONTOURS = {-0.5: 0.9, 0.25: 0.5, 0.5: 0.9, 0.75: 1.4}
"""Heat at which lines are drawn, and how wide, in points."""

MOST_LINES = 16
"""Cells in a row up to which they are drawn."""

UNITS_IN_A_ROW = 5


@dataclass(frozen=True)
class DrivenUnit:
    """A unit, and what in the photograph drives it."""

    channel: int
    place: tuple[int, int]
    """Row and column on the feature map."""
    grid: tuple[int, int]
    """Height and width of the feature map."""
    value: float
    photo: NDArray[np.uint8]
    """That drives it, ``[D, D, 3]``."""
    name: str
    """The photograph's file."""
    gradient: NDArray[np.float32]
    """``[S, S, 3]``."""


@dataclass(frozen=True)
class ExplainedPhoto:
    """A photograph, and what in it spoke for the prediction."""

    photo: NDArray[np.uint8]
    """``[D, D, 3]``."""
    caption: Sequence[tuple[str, str]]
    """Lines of text, the last the file: a word or none, and a name."""
    heats: dict[Heat, NDArray[np.float32]]
    """``[S, S]``: Grad-CAM in [0, 1], occlusion in [-1, 1]."""


@dataclass(frozen=True)
class ExcitedChannel:
    """A channel, and the images that excite it most, strongest first."""

    channel: int
    photos: NDArray[np.uint8]
    """``[N, S, S, 3]``."""
    values: Sequence[float]
    places: Sequence[tuple[int, int]]
    """Rows and columns on the feature map."""
    grid: tuple[int, int]
    """Height and width of the feature map."""


def plot_filters(filters: NDArray[np.float32], path: str | Path, title: str) -> None:
    """Show filters ``[N, 3, k, k]`` as colours around middle grey, which is 0; each is scaled by itself."""
    scaled = filters / np.abs(filters).max(axis=(1, 2, 3), keepdims=True).clip(min=1e-12)
    cells = (0.5 + scaled / 2).transpose(0, 2, 3, 1)

    def draw(page: Axes, i: int, extent: Extent) -> None:
        page.imshow(cells[i], extent=extent, interpolation="nearest")

    _plot_cells(len(filters), draw, path, title, "each filter scaled by itself; middle grey is 0")


def plot_feature_maps(photo: NDArray[np.uint8], maps: NDArray[np.float32], path: str | Path, title: str) -> None:
    """Show feature maps ``[N, H, W]`` of a photograph ``[S, S, 3]`` uint8, in the order of their filters."""

    def draw(page: Axes, i: int, extent: Extent) -> None:
        page.imshow(maps[i], extent=extent, cmap="cividis")

    note = "each map scaled by itself, dark blue its lowest and yellow its highest value; beside the title, the image"
    _plot_cells(len(maps), draw, path, title, note, photo)


def plot_guided_backprop(units: Sequence[DrivenUnit], path: str | Path, title: str, note: str = "") -> None:
    """Show units, five in a row: the photograph with the unit's place, and below it what in it drives the unit."""
    side, gap, caption = 1.75, 0.2, 0.62
    columns, row_height = min(UNITS_IN_A_ROW, len(units)), 2 * side + caption + 0.35
    width = max(2 * MARGIN + columns * (side + gap) - gap, 4)
    height = HEADER + math.ceil(len(units) / columns) * row_height + FOOTER
    with _sheet(path, width, height, title, note) as page:
        for i, unit in enumerate(units):
            row, column = divmod(i, columns)
            left, top = MARGIN + column * (side + gap), HEADER + row * row_height
            page.text(left, top, f"channel {unit.channel}", fontweight="bold", fontsize=9.5, va="top")
            place = f"row {unit.place[0] + 1}, column {unit.place[1] + 1}; activation {unit.value:.2f}"
            fit_line(page, left, top + 0.2, place, side, fontsize=8, va="top")
            fit_line(page, left, top + 0.38, unit.name, side, fontsize=7.5, color=GREY, va="top")
            top += caption
            _draw_image(page, unit.photo, left, top, side)
            _mark_place(page, unit.place, unit.grid, left, top, side)
            _draw_image(page, _signed_picture(unit.gradient), left, top + side + 0.06, side)


def plot_predictions_explained(
    rows: Sequence[ExplainedPhoto], path: str | Path, title: str, note: str = "", cells: tuple[int, int] = (0, 0)
) -> None:
    """Show photographs, at least one, with what spoke for the prediction; all have the same kinds of heat.

    ``cells`` are the height and width of the map behind Grad-CAM, whose cells are drawn where they are few.
    """
    side, gap, caption_width, bar = 2.2, 0.15, 2.2, 0.62
    kinds = [kind for kind in HEADINGS if kind in rows[0].heats]
    width = 2 * MARGIN + (1 + len(kinds)) * (side + gap) + caption_width
    height = HEADER + 0.3 + len(rows) * (side + gap) + bar + FOOTER
    with _sheet(path, width, height, title, note) as page:
        headings = {**HEADINGS, "grad_cam": f"Grad-CAM, {cells[0]} × {cells[1]} cells"}
        for column, heading in enumerate(["photograph", *(headings[kind] for kind in kinds)]):
            page.text(MARGIN + column * (side + gap), HEADER + 0.1, heading, color=GREY, va="center")
        for row, shown in enumerate(rows):
            top = HEADER + 0.3 + row * (side + gap)
            _draw_image(page, shown.photo, MARGIN, top, side)
            for column, kind in enumerate(kinds, start=1):
                left = MARGIN + column * (side + gap)
                _draw_image(page, overlay_heat(shown.photo, shown.heats[kind], kind), left, top, side)
                if kind == "grad_cam" and max(cells) <= MOST_LINES:
                    _draw_cells(page, cells, left, top, side)
                _draw_contours(page, shown.heats[kind], left, top, side)
            _write_caption(page, shown.caption, MARGIN + (1 + len(kinds)) * (side + gap), top, caption_width)
        for column, kind in enumerate(kinds, start=1):
            _draw_scale(page, kind, MARGIN + column * (side + gap), HEADER + 0.3 + len(rows) * (side + gap), side)


def plot_exciting_images(channels: Sequence[ExcitedChannel], path: str | Path, title: str, note: str = "") -> None:
    """Show, channel by channel, the images that excite it most, strongest first."""
    side, gap, name_width = 1.35, 0.1, 0.95
    columns = max(len(channel.photos) for channel in channels)
    row_height = side + 0.3
    width = max(2 * MARGIN + name_width + columns * (side + gap) - gap, 4)
    height = HEADER + len(channels) * row_height + FOOTER
    with _sheet(path, width, height, title, note) as page:
        for row, channel in enumerate(channels):
            top = HEADER + row * row_height
            name = f"channel\n{channel.channel}"
            page.text(MARGIN, top + side / 2, name, fontweight="bold", va="center", fontsize=9.5)
            shown = zip(channel.photos, channel.places, channel.values, strict=True)
            for column, (photo, place, value) in enumerate(shown):
                left = MARGIN + name_width + column * (side + gap)
                _draw_image(page, photo, left, top, side)
                _mark_place(page, place, channel.grid, left, top, side)
                page.text(left, top + side + 0.04, f"{value:.2f}", va="top", fontsize=7.5, color=GREY)


def overlay_heat(photo: NDArray[np.uint8], heat: NDArray[np.float32], kind: Heat) -> NDArray[np.uint8]:
    """Lay heat ``[S, S]`` on a photograph ``[D, D, 3]`` uint8, whose own colours show through, the less heat the more.

    ``grad_cam``: from violet to yellow as evidence grows. ``occlusion``: orange where covering hurts the prediction,
    violet where it helps.
    """
    if heat.shape != photo.shape[:2]:
        sides = photo.shape[1], photo.shape[0]
        heat = np.asarray(Image.fromarray(heat.astype(np.float32)).resize(sides, Image.Resampling.BILINEAR))
    colours, weight = (part[..., :3] for part in _colours(heat, kind))
    blended: NDArray[np.uint8] = np.rint(photo * (1 - weight) + 255 * colours * weight).astype(np.uint8)
    return blended


def _colours(heat: NDArray[np.float32], kind: Heat) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Colours ``[H, W, 4]`` of heat, and how much of them covers what is below, ``[H, W, 1]`` in [0, 1]."""
    if kind == "grad_cam":
        return matplotlib.colormaps["plasma"](0.2 + 0.75 * heat), OPACITY * heat[..., None]
    return matplotlib.colormaps["PuOr_r"](0.5 + heat / 2), OPACITY * np.abs(heat)[..., None]


def _signed_picture(gradient: NDArray[np.float32]) -> NDArray[np.floating]:
    """A gradient ``[S, S, 3]`` as colours around middle grey; its strongest hundredth may saturate."""
    scale = np.quantile(np.abs(gradient), 0.995)
    return np.clip(0.5 + gradient / (2 * scale if scale > 0 else 1), 0, 1)


def _plot_cells(
    count: int,
    draw: Callable[[Axes, int, Extent], None],
    path: str | Path,
    title: str,
    note: str,
    photo: NDArray[np.uint8] | None = None,
) -> None:
    """Lay out cells in rows of eight, fewer when there are few; the photograph is in the upper right corner."""
    columns = 8 if count > 25 else math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    side, gap = 0.85, 0.1
    header, room = (HEADER, 0.0) if photo is None else (1.7, 1.4)
    width = max(2 * MARGIN + columns * (side + gap) - gap, 5.2)
    height = header + rows * (side + gap + 0.14) + FOOTER
    with _sheet(path, width, height, title, note, title_width=width - 2 * MARGIN - room) as page:
        if photo is not None:
            _draw_image(page, photo, width - MARGIN - 1.2, 0.25, 1.2)
        for i in range(count):
            row, column = divmod(i, columns)
            left, top = MARGIN + column * (side + gap), header + row * (side + gap + 0.14)
            draw(page, i, (left, left + side, top + side, top))
            page.text(left, top + side + 0.03, str(i), fontsize=6.5, color=GREY, va="top")
        page.set(xlim=(0, width), ylim=(height, 0))


@contextmanager
def _sheet(
    path: str | Path, width: float, height: float, title: str, note: str, title_width: float | None = None
) -> Iterator[Axes]:
    """A page to draw on, with its title; the note is set below when all is drawn."""
    with new_figure(path, width, height) as figure:
        page = new_page(figure)
        whole = width - 2 * MARGIN
        fit_text(page, MARGIN, 0.22, title, title_width or whole, 3, fontsize=12, fontweight="bold", va="top")
        yield page
        fit_text(page, MARGIN, height - 0.22, note, whole, 2, color=GREY, va="center")


def _draw_image(page: Axes, image: NDArray[np.uint8 | np.floating], left: float, top: float, side: float) -> None:
    page.imshow(image, extent=(left, left + side, top + side, top), aspect="auto")
    page.add_patch(Rectangle((left, top), side, side, fill=False, edgecolor=PALE, linewidth=0.8))


def _draw_cells(page: Axes, cells: tuple[int, int], left: float, top: float, side: float) -> None:
    """Thin lines between the cells of the map that was enlarged."""
    style: dict[str, Any] = {"color": "white", "linewidth": 0.5, "alpha": 0.5}
    for i in range(1, cells[0]):
        page.plot([left, left + side], [top + side * i / cells[0]] * 2, **style)
    for i in range(1, cells[1]):
        page.plot([left + side * i / cells[1]] * 2, [top, top + side], **style)


def _draw_contours(page: Axes, heat: NDArray[np.float32], left: float, top: float, side: float) -> None:
    """Lines of equal heat, which tell it without colour too: thicker where there is more, dashed below zero."""
    levels = [level for level in CONTOURS if heat.min() < level < heat.max()]
    lines = ["dashed" if level < 0 else "solid" for level in levels]
    x = left + side * (np.arange(heat.shape[1]) + 0.5) / heat.shape[1]
    y = top + side * (np.arange(heat.shape[0]) + 0.5) / heat.shape[0]
    for colour, more in (("black", 1.0), ("white", 0.0)) if levels else ():
        widths = [more + CONTOURS[level] for level in levels]
        page.contour(x, y, heat, levels, colors=colour, linewidths=widths, linestyles=lines)


def _draw_scale(page: Axes, kind: Heat, left: float, top: float, side: float) -> None:
    """A colour bar below a column of heat, over the grey that stands for a photograph."""
    low = 0.0 if kind == "grad_cam" else -1.0
    values = np.linspace(low, 1, 200, dtype=np.float32)[None]
    grey = np.full((1, 200, 3), 140, np.uint8)
    page.imshow(overlay_heat(grey, values, kind), extent=(left, left + side, top + 0.16, top), aspect="auto")
    for level in (level for level in CONTOURS if level > low):
        x = left + side * (level - low) / (1 - low)
        page.plot([x, x], [top, top + 0.16], color="white", linewidth=CONTOURS[level])
    for x, text, align in ((left, SCALES[kind][0], "left"), (left + side, SCALES[kind][1], "right")):
        page.text(x, top + 0.2, text, ha=align, va="top", fontsize=7.5)


def _write_caption(page: Axes, caption: Sequence[tuple[str, str]], left: float, top: float, width: float) -> None:
    """Lines below each other, the first bold, the last small: it is the file's name."""
    for i, (before, text) in enumerate(caption):
        is_file = i == len(caption) - 1
        fit_line(
            page,
            left,
            top + 0.05 + 0.24 * i,
            text,
            width,
            before,
            va="top",
            fontsize=7.5 if is_file else 9.5,
            fontweight="normal" if i else "bold",
            color=GREY if is_file else INK,
        )


def _mark_place(
    page: Axes, place: tuple[int, int], grid: tuple[int, int], left: float, top: float, side: float
) -> None:
    """Frame the part of the image that lies below a unit's place on its feature map."""
    height, width = side / grid[0], side / grid[1]
    corner = left + place[1] * width, top + place[0] * height
    for colour, linewidth in (("white", 3.2), (BLUE, 1.6)):
        page.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=colour, linewidth=linewidth))
