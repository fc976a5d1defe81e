"""Figures of what a model has learnt; arrays in, a PNG out, in the style of :mod:`naturalist.plots.style`."""

import math
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from naturalist.plots.style import BLUE, GREY, INK, PALE, fit_line, fit_text, new_figure

MOST_CELLS = 64
"""Filters, or feature maps, on one sheet."""

MARGIN, HEADER, FOOTER = 0.3, 0.75, 0.55
"""Inches."""


def plot_filters(filters: np.ndarray, path: str | Path, title: str) -> None:
    """Show filters ``[N, 3, k, k]`` as colours around middle grey, which is 0; each is scaled by itself."""
    scaled = filters / np.abs(filters).max(axis=(1, 2, 3), keepdims=True).clip(min=1e-12)
    cells = (0.5 + scaled / 2).transpose(0, 2, 3, 1)
    note = "each filter scaled by itself; middle grey is 0"
    _plot_cells(
        len(filters),
        lambda ax, i, extent: ax.imshow(cells[i], extent=extent, interpolation="nearest"),
        path,
        title,
        note,
    )


def plot_feature_maps(photo: np.ndarray, maps: np.ndarray, path: str | Path, title: str) -> None:
    """Show feature maps ``[N, H, W]`` of a photograph ``[S, S, 3]`` uint8, in the order of their filters."""
    note = "each map scaled by itself, dark blue its lowest and yellow its highest value; beside the title, the image"
    _plot_cells(
        len(maps), lambda ax, i, extent: ax.imshow(maps[i], extent=extent, cmap="cividis"), path, title, note, photo
    )


def plot_guided_backprop(photo: np.ndarray, units: list[dict], path: str | Path, title: str, note: str = "") -> None:
    """Show units one below the other: what in the photograph drives each.

    Args:
        photo: ``[S, S, 3]`` uint8.
        units: each with ``channel``, ``place`` (row, column), ``value``, ``grid`` (height and width of the
            feature map) and ``gradient``, ``[S, S, 3]``.
        path: PNG to write.
        title: heading.
        note: footer.
    """
    side, gap, caption = 1.7, 0.12, 1.45
    width = 2 * MARGIN + 2 * side + 2 * gap + caption
    height = HEADER + 0.3 + len(units) * (side + gap) + FOOTER
    with new_figure(path, width, height) as figure:
        page = _page(figure, width, height, title)
        for column, heading in enumerate(("the unit's place", "guided gradient")):
            page.text(MARGIN + column * (side + gap), HEADER + 0.1, heading, color=GREY, va="center")
        for row, unit in enumerate(units):
            top = HEADER + 0.3 + row * (side + gap)
            _image(page, photo, MARGIN, top, side)
            _mark_place(page, unit["place"], unit["grid"], MARGIN, top, side)
            _image(page, _signed_picture(unit["gradient"]), MARGIN + side + gap, top, side)
            left = MARGIN + 2 * (side + gap)
            page.text(left, top + 0.05, f"channel {unit['channel']}", fontweight="bold", fontsize=9.5, va="top")
            page.text(
                left,
                top + 0.28,
                f"row {unit['place'][0] + 1}, column {unit['place'][1] + 1}\nactivation {unit['value']:.2f}",
                va="top",
                linespacing=1.4,
            )
        fit_text(page, MARGIN, height - 0.22, note, width - 2 * MARGIN, 2, color=GREY, va="center")


def plot_predictions_explained(rows: list[dict], path: str | Path, title: str, note: str = "") -> None:
    """Show photographs with what spoke for the prediction.

    Args:
        rows: each with ``photo`` ``[S, S, 3]`` uint8, ``caption`` (lines of text, the last the file) and any of
            ``grad_cam`` ``[S, S]`` in [0, 1] and ``occlusion`` ``[S, S]`` in [-1, 1].
        path: PNG to write.
        title: heading.
        note: footer.
    """
    side, gap, caption = 2.2, 0.15, 2.2
    kinds = [kind for kind in ("grad_cam", "occlusion") if kind in rows[0]]
    width = 2 * MARGIN + (1 + len(kinds)) * (side + gap) + caption
    height = HEADER + 0.3 + len(rows) * (side + gap) + FOOTER
    with new_figure(path, width, height) as figure:
        page = _page(figure, width, height, title)
        headings = {"grad_cam": "Grad-CAM", "occlusion": "occlusion"}
        for column, heading in enumerate(["photograph", *(headings[kind] for kind in kinds)]):
            page.text(MARGIN + column * (side + gap), HEADER + 0.1, heading, color=GREY, va="center")
        for row, shown in enumerate(rows):
            top = HEADER + 0.3 + row * (side + gap)
            _image(page, shown["photo"], MARGIN, top, side)
            for column, kind in enumerate(kinds, start=1):
                picture = overlay_heat(shown["photo"], shown[kind], kind)
                _image(page, picture, MARGIN + column * (side + gap), top, side)
            left = MARGIN + (1 + len(kinds)) * (side + gap)
            for line, text in enumerate(shown["caption"]):
                is_file = line == len(shown["caption"]) - 1
                fit_line(
                    page,
                    left,
                    top + 0.05 + 0.24 * line,
                    text,
                    caption,
                    va="top",
                    fontsize=7.5 if is_file else 9.5,
                    fontweight="normal" if line else "bold",
                    color=GREY if is_file else INK,
                )
        fit_text(page, MARGIN, height - 0.22, note, width - 2 * MARGIN, 2, color=GREY, va="center")


def plot_exciting_images(units: list[dict], path: str | Path, title: str, note: str = "") -> None:
    """Show, unit by unit, the images that excite it most, strongest first.

    Args:
        units: each with ``channel``, ``photos`` ``[N, S, S, 3]`` uint8, ``values`` ``[N]``, ``places`` (rows and
            columns) and ``grid`` (height and width of the feature map).
        path: PNG to write.
        title: heading.
        note: footer.
    """
    side, gap, name_width = 1.35, 0.1, 0.95
    columns = max(len(unit["photos"]) for unit in units)
    row_height = side + 0.3
    width = max(2 * MARGIN + name_width + columns * (side + gap) - gap, 4)
    height = HEADER + len(units) * row_height + FOOTER
    with new_figure(path, width, height) as figure:
        page = _page(figure, width, height, title)
        for row, unit in enumerate(units):
            top = HEADER + row * row_height
            page.text(
                MARGIN, top + side / 2, f"channel\n{unit['channel']}", fontweight="bold", va="center", fontsize=9.5
            )
            for column, photo in enumerate(unit["photos"]):
                left = MARGIN + name_width + column * (side + gap)
                _image(page, photo, left, top, side)
                _mark_place(page, unit["places"][column], unit["grid"], left, top, side)
                value = f"{unit['values'][column]:.2f}"
                page.text(left, top + side + 0.04, value, va="top", fontsize=7.5, color=GREY)
        fit_text(page, MARGIN, height - 0.22, note, width - 2 * MARGIN, 2, color=GREY, va="center")


def overlay_heat(photo: np.ndarray, heat: np.ndarray, kind: str) -> np.ndarray:
    """Lay heat ``[S, S]`` on a photograph ``[S, S, 3]`` uint8, made grey so that colour means heat alone.

    ``grad_cam``: from dark to yellow as evidence grows. ``occlusion``: orange where covering hurts the prediction,
    violet where it helps.
    """
    grey = np.repeat((photo @ np.array([0.299, 0.587, 0.114]) / 255)[..., None], 3, axis=2)
    if kind == "grad_cam":
        colour, weight = matplotlib.colormaps["inferno"](heat)[..., :3], 0.25 + 0.45 * heat[..., None]
    else:
        colour, weight = matplotlib.colormaps["PuOr_r"](0.5 + heat / 2)[..., :3], 0.85 * np.abs(heat)[..., None] ** 0.7
    return ((grey * (1 - weight) + colour * weight) * 255).round().astype(np.uint8)


def _signed_picture(gradient: np.ndarray) -> np.ndarray:
    """A gradient ``[S, S, 3]`` as colours around middle grey; its strongest hundredth may saturate."""
    scale = np.quantile(np.abs(gradient), 0.995)
    return (0.5 + gradient / (2 * scale if scale > 0 else 1)).clip(0, 1)


def _plot_cells(
    count: int,
    draw: Callable[[Axes, int, tuple], object],
    path: str | Path,
    title: str,
    note: str,
    photo: np.ndarray | None = None,
) -> None:
    """Lay out cells in rows of eight, fewer when there are few."""
    columns = 8 if count > 25 else math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    side, gap = 0.85, 0.1
    header = HEADER if photo is None else 1.7
    width = max(2 * MARGIN + columns * (side + gap) - gap, 5.2)
    height = header + rows * (side + gap + 0.14) + FOOTER
    with new_figure(path, width, height) as figure:
        page = _page(figure, width, height, title, width - 2 * MARGIN - (0 if photo is None else 1.4))
        if photo is not None:
            _image(page, photo, width - MARGIN - 1.2, 0.25, 1.2)
        for i in range(count):
            row, column = divmod(i, columns)
            left, top = MARGIN + column * (side + gap), header + row * (side + gap + 0.14)
            draw(page, i, (left, left + side, top + side, top))
            page.text(left, top + side + 0.03, str(i), fontsize=6.5, color=GREY, va="top")
        page.set(xlim=(0, width), ylim=(height, 0))
        fit_text(page, MARGIN, height - 0.22, note, width - 2 * MARGIN, 2, color=GREY, va="center")


def _page(figure, width: float, height: float, title: str, title_width: float | None = None) -> Axes:
    page = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    page.axis("off")
    fit_text(page, MARGIN, 0.22, title, title_width or width - 2 * MARGIN, 3, fontsize=12, fontweight="bold", va="top")
    return page


def _image(page: Axes, image: np.ndarray, left: float, top: float, side: float) -> None:
    page.imshow(image, extent=(left, left + side, top + side, top), aspect="auto")
    page.add_patch(Rectangle((left, top), side, side, fill=False, edgecolor=PALE, linewidth=0.8))


def _mark_place(
    page: Axes, place: tuple[int, int], grid: tuple[int, int], left: float, top: float, side: float
) -> None:
    """Frame the part of the image that lies below a unit's place on its feature map."""
    height, width = side / grid[0], side / grid[1]
    corner = left + place[1] * width, top + place[0] * height
    for colour, linewidth in (("white", 3.2), (BLUE, 1.6)):
        page.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=colour, linewidth=linewidth))
