"""Figures of what a model has learnt and looks at; a page a picture."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from naturalist.plots.style import BLUE, GREY, INK, PALE, fit_line, fit_text, new_figure, new_page

MOST_CELLS = 64
"""Filters, or feature maps, on one sheet."""

MARGIN, HEADER, FOOTER = 0.3, 0.75, 0.55
"""Inches, as all lengths and places below."""

Extent = tuple[float, float, float, float]
"""Left, right, bottom and top of a picture."""

Heat = Literal["grad_cam", "occlusion"]
HEADINGS: dict[Heat, str] = {"grad_cam": "Grad-CAM", "occlusion": "occlusion"}


@dataclass(frozen=True)
class DrivenUnit:
    """A unit, and what in the photograph drives it."""

    channel: int
    place: tuple[int, int]
    """Row and column on the feature map."""
    grid: tuple[int, int]
    """Height and width of the feature map."""
    value: float
    gradient: NDArray[np.float32]
    """``[S, S, 3]``."""


@dataclass(frozen=True)
class ExplainedPhoto:
    """A photograph, and what in it spoke for the prediction."""

    photo: NDArray[np.uint8]
    """``[S, S, 3]``."""
    caption: Sequence[str]
    """Lines of text, the last the file."""
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


def plot_guided_backprop(
    photo: NDArray[np.uint8], units: Sequence[DrivenUnit], path: str | Path, title: str, note: str = ""
) -> None:
    """Show units one below the other: what in the photograph ``[S, S, 3]`` drives each."""
    side, gap, caption = 1.7, 0.12, 1.45
    width = 2 * MARGIN + 2 * side + 2 * gap + caption
    height = HEADER + 0.3 + len(units) * (side + gap) + FOOTER
    with _sheet(path, width, height, title, note) as page:
        for column, heading in enumerate(("the unit's place", "guided gradient")):
            page.text(MARGIN + column * (side + gap), HEADER + 0.1, heading, color=GREY, va="center")
        for row, unit in enumerate(units):
            top = HEADER + 0.3 + row * (side + gap)
            _draw_image(page, photo, MARGIN, top, side)
            _mark_place(page, unit.place, unit.grid, MARGIN, top, side)
            _draw_image(page, _signed_picture(unit.gradient), MARGIN + side + gap, top, side)
            left = MARGIN + 2 * (side + gap)
            page.text(left, top + 0.05, f"channel {unit.channel}", fontweight="bold", fontsize=9.5, va="top")
            place = f"row {unit.place[0] + 1}, column {unit.place[1] + 1}"
            page.text(left, top + 0.28, f"{place}\nactivation {unit.value:.2f}", va="top", linespacing=1.4)


def plot_predictions_explained(rows: Sequence[ExplainedPhoto], path: str | Path, title: str, note: str = "") -> None:
    """Show photographs, at least one, with what spoke for the prediction; all have the same kinds of heat."""
    side, gap, caption_width = 2.2, 0.15, 2.2
    kinds = [kind for kind in HEADINGS if kind in rows[0].heats]
    width = 2 * MARGIN + (1 + len(kinds)) * (side + gap) + caption_width
    height = HEADER + 0.3 + len(rows) * (side + gap) + FOOTER
    with _sheet(path, width, height, title, note) as page:
        for column, heading in enumerate(["photograph", *(HEADINGS[kind] for kind in kinds)]):
            page.text(MARGIN + column * (side + gap), HEADER + 0.1, heading, color=GREY, va="center")
        for row, shown in enumerate(rows):
            top = HEADER + 0.3 + row * (side + gap)
            _draw_image(page, shown.photo, MARGIN, top, side)
            for column, kind in enumerate(kinds, start=1):
                picture = overlay_heat(shown.photo, shown.heats[kind], kind)
                _draw_image(page, picture, MARGIN + column * (side + gap), top, side)
            _write_caption(page, shown.caption, MARGIN + (1 + len(kinds)) * (side + gap), top, caption_width)


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
    """Lay heat ``[S, S]`` on a photograph ``[S, S, 3]`` uint8, made grey so that colour means heat alone.

    ``grad_cam``: from dark to yellow as evidence grows. ``occlusion``: orange where covering hurts the prediction,
    violet where it helps.
    """
    grey = np.repeat((photo @ np.array([0.299, 0.587, 0.114]) / 255)[..., None], 3, axis=2)
    if kind == "grad_cam":
        colour, weight = matplotlib.colormaps["inferno"](heat)[..., :3], 0.25 + 0.45 * heat[..., None]
    else:
        colour, weight = matplotlib.colormaps["PuOr_r"](0.5 + heat / 2)[..., :3], 0.85 * np.abs(heat)[..., None] ** 0.7
    blended: NDArray[np.uint8] = np.rint((grey * (1 - weight) + colour * weight) * 255).astype(np.uint8)
    return blended


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


def _write_caption(page: Axes, caption: Sequence[str], left: float, top: float, width: float) -> None:
    """Lines below each other, the first bold, the last small: it is the file's name."""
    for i, text in enumerate(caption):
        is_file = i == len(caption) - 1
        fit_line(
            page,
            left,
            top + 0.05 + 0.24 * i,
            text,
            width,
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
