"""Photographs with what a model says of them: a grid by class, and contact sheets."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from naturalist.plots.style import (
    BLUE,
    GREY,
    PALE,
    VERMILLION,
    fit_line,
    fit_text,
    new_figure,
    new_page,
    words,
)
from naturalist.wording import percent

# In inches, as all lengths and places below.
MARGIN, HEADER = 0.3, 0.75
IMAGE_SIDE = 1.5
"""Of a square image in the grid; any other has the same area."""
NAME_WIDTH, CAPTION_WIDTH, GRID_GAP = 1.15, 1.3, 0.14
SHEET_GAP, SHEET_COLUMNS = 0.2, 4


def plot_prediction_grid(
    images: NDArray[np.uint8],
    true: NDArray[np.int64],
    predicted: NDArray[np.int64],
    confidence: NDArray[np.float64],
    class_names: Sequence[str],
    path: str | Path,
    title: str,
    note: str = "",
) -> None:
    """Show images with their predictions: a row per class, its three images (or more) side by side.

    ``images`` are ``[N, H, W, 3]`` uint8 RGB, ``true`` and ``predicted`` ``[N]`` class indices and
    ``confidence`` the ``[N]`` probabilities, 0 to 1, of the predicted classes. A right prediction has a solid
    blue frame and ✓, a wrong one a dashed vermillion frame and ✗. Cells without an image stay blank. The footer
    counts the right ones and ends with ``note``.
    """
    names = [words(name) for name in class_names]
    columns = max(3, int(np.bincount(true).max()))
    image_width, image_height = _image_size(images)
    cell_width = image_width + CAPTION_WIDTH + 2 * GRID_GAP
    row_height = max(image_height, 1.25) + GRID_GAP
    footer = 0.9 if note else 0.5
    width = 2 * MARGIN + NAME_WIDTH + columns * cell_width - GRID_GAP
    height = HEADER + len(names) * row_height + footer

    with new_figure(path, width, height) as figure:
        page = _titled_page(figure, title)
        for row, name in enumerate(names):
            top = HEADER + row * row_height
            middle = top + (row_height - GRID_GAP) / 2
            page.plot([MARGIN, width - MARGIN], [top - GRID_GAP / 2] * 2, color=PALE, linewidth=0.8)
            name_width = NAME_WIDTH - GRID_GAP
            fit_text(page, MARGIN, middle, name, name_width, 3, fontsize=10.5, fontweight="bold", va="center")
            for column, i in enumerate(np.flatnonzero(true == row)):
                left = MARGIN + NAME_WIDTH + column * cell_width
                right = bool(predicted[i] == row)
                _draw_image(page, images[i], left, middle, image_width, image_height, right)
                left += image_width + GRID_GAP
                _draw_caption(page, left, middle, name, names[predicted[i]], float(confidence[i]), right)
        _draw_footer(page, height - footer, width, int((true == predicted).sum()), len(true), note)


def plot_contact_sheet(
    images: NDArray[np.uint8],
    true: NDArray[np.int64],
    predicted: NDArray[np.int64],
    confidence: NDArray[np.float64],
    files: Sequence[str],
    class_names: Sequence[str],
    path: str | Path,
    title: str,
    note: str = "",
) -> None:
    """Show images with their file names, four in a row, in the order given.

    Arrays are those of :func:`plot_prediction_grid`; ``files`` are ``[N]`` paths, whose last part is shown. Without
    images the sheet says so.
    """
    names = [words(name) for name in class_names]
    image_width, image_height = (side * 1.5 for side in _image_size(images))
    row_height = image_height + 0.85
    rows = max(1, math.ceil(len(images) / SHEET_COLUMNS))
    width = 2 * MARGIN + SHEET_COLUMNS * (image_width + SHEET_GAP) - SHEET_GAP
    height = HEADER + rows * row_height + 0.5

    with new_figure(path, width, height) as figure:
        page = _titled_page(figure, title)
        if not len(images):
            page.text(MARGIN, HEADER + 0.3, "There are none.", fontsize=11)
        for i, image in enumerate(images):
            row, column = divmod(i, SHEET_COLUMNS)
            left, top = MARGIN + column * (image_width + SHEET_GAP), HEADER + row * row_height
            right = bool(predicted[i] == true[i])
            _draw_image(page, image, left, top + image_height / 2, image_width, image_height, right)
            below = top + image_height + 0.1
            style: dict[str, Any] = {"fontsize": 9.5, "va": "top"}
            says, sure = names[predicted[i]], percent(confidence[i], 0)
            fit_line(page, left, below, says, image_width, before=sure, fontweight="bold", **style)
            if not right:
                fit_line(page, left, below + 0.19, names[true[i]], image_width, before="is", **style)
            below += 0.19 if right else 0.38
            fit_line(page, left, below, Path(files[i]).name, image_width, fontsize=7.5, color=GREY, va="top")
        fit_text(page, MARGIN, height - 0.2, note, width - 2 * MARGIN, color=GREY)


def _titled_page(figure: Figure, title: str) -> Axes:
    page = new_page(figure)
    title_width = figure.get_figwidth() - 2 * MARGIN
    fit_text(page, MARGIN, 0.38, title, title_width, 2, fontsize=14, fontweight="bold", va="center")
    return page


def _image_size(images: NDArray[np.uint8]) -> tuple[float, float]:
    """Give width and height of pictures with this shape: always the same area."""
    height, width = images.shape[1:3]
    return IMAGE_SIDE * math.sqrt(width / height), IMAGE_SIDE * math.sqrt(height / width)


def _draw_image(
    page: Axes, image: NDArray[np.uint8], left: float, middle: float, width: float, height: float, right: bool
) -> None:
    top = middle - height / 2
    page.imshow(image, extent=(left, left + width, top + height, top), aspect="auto")
    _draw_frame(page, left, top, width, height, right)
    _draw_mark(page, left, top, right)


def _draw_frame(page: Axes, left: float, top: float, width: float, height: float, right: bool) -> None:
    # White below the dashes keeps them visible on a photograph of any colour.
    page.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor="white", linewidth=3))
    page.add_patch(
        Rectangle(
            (left, top),
            width,
            height,
            fill=False,
            linewidth=3,
            edgecolor=_colour(right),
            linestyle="-" if right else (0, (2.5, 1.2)),
        )
    )


def _draw_mark(page: Axes, left: float, top: float, right: bool) -> None:
    page.add_patch(Rectangle((left, top), 0.26, 0.26, color=_colour(right), linewidth=0))
    page.text(
        left + 0.13, top + 0.13, "✓" if right else "✗", color="white", fontsize=12, ha="center", va="center_baseline"
    )


def _draw_caption(
    page: Axes, left: float, middle: float, true: str, predicted: str, confidence: float, right: bool
) -> None:
    width = CAPTION_WIDTH
    for y, label, name, weight in (
        (middle - 0.62, "predicted", predicted, "bold"),
        (middle - 0.10, "true", true, "normal"),
    ):
        page.text(left, y + 0.1, label, fontsize=8, color=GREY)
        fit_text(page, left, y + 0.13, name, width, 2, fontsize=9.5, fontweight=weight, va="top", linespacing=1.05)
    top, bar, height = middle + 0.48, width - 0.5, 0.13
    page.add_patch(Rectangle((left, top), bar, height, color=PALE, linewidth=0))
    page.add_patch(
        Rectangle(
            (left, top),
            bar * confidence,
            height,
            facecolor=_colour(right),
            edgecolor="white",
            linewidth=0,
            hatch="" if right else "/////",
        )
    )
    page.text(left + width, top + height / 2, percent(confidence, 0), ha="right", va="center_baseline")


def _draw_footer(page: Axes, top: float, width: float, num_right: int, total: int, note: str) -> None:
    for x, right, meaning in ((MARGIN, True, "right"), (MARGIN + 1.1, False, "wrong")):
        _draw_frame(page, x, top + 0.06, 0.26, 0.26, right)
        _draw_mark(page, x, top + 0.06, right)
        page.text(x + 0.36, top + 0.2, meaning, va="center_baseline")
    page.text(MARGIN + 2.2, top + 0.2, "bar: confidence in the prediction", va="center_baseline")
    page.text(
        width - MARGIN,
        top + 0.2,
        f"{num_right} of the {total} shown are right",
        ha="right",
        va="center_baseline",
        fontsize=10.5,
        fontweight="bold",
    )
    fit_text(page, MARGIN, top + 0.45, note, width - 2 * MARGIN, 2, color=GREY, va="top")


def _colour(right: bool) -> str:
    return BLUE if right else VERMILLION
