"""Contact sheets of what an audit found: single photographs, or pairs side by side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from naturalist.plots.style import GREY, PALE, fit_line, fit_text, new_figure, new_page, words

# In inches.
MARGIN, HEADER, FOOTER = 0.3, 0.75, 0.5
SIDE, GAP, LINE = 1.7, 0.25, 0.19
ROW = 8
"""Photographs side by side."""


@dataclass(frozen=True)
class Shown:
    """One photograph of a sheet."""

    pixels: NDArray[np.uint8]
    """``[S, S, 3]``, RGB."""
    class_name: str
    name: str
    """Its path, of which the last part and the split are shown."""


def plot_findings(
    cells: Sequence[Sequence[Shown]],
    notes: Sequence[str],
    path: Path,
    title: str,
    note: str = "",
    suggested: Sequence[str] = (),
) -> None:
    """Show photographs, or pairs of them side by side, with their classes and names, in the order given.

    Args:
        cells: of one photograph each, or all of as many more.
        notes: what is said below each cell.
        path: of the picture.
        title: above them.
        note: below them.
        suggested: classes that stand behind the notes.
    """
    side_by_side = len(cells[0]) if cells else 1
    columns = ROW // side_by_side
    cell_width, cell_height = side_by_side * SIDE, SIDE + 3 * LINE + GAP
    width = 2 * MARGIN + columns * (cell_width + GAP) - GAP
    height = HEADER + max(1, math.ceil(len(cells) / columns)) * cell_height + FOOTER
    with new_figure(path, width, height) as figure:
        page = new_page(figure)
        fit_text(page, MARGIN, 0.38, title, width - 2 * MARGIN, 2, fontsize=14, fontweight="bold", va="center")
        if not cells:
            page.text(MARGIN, HEADER + 0.3, "There are none.", fontsize=11)
        for i, (cell, said) in enumerate(zip(cells, notes, strict=True)):
            row, column = divmod(i, columns)
            left, top = MARGIN + column * (cell_width + GAP), HEADER + row * cell_height
            for number, shown in enumerate(cell):
                x, below = left + number * SIDE, top + SIDE + 0.08
                page.imshow(shown.pixels, extent=(x, x + SIDE - 0.06, top + SIDE, top), aspect="auto")
                fit_line(page, x, below, words(shown.class_name), SIDE - 0.06, fontsize=9, fontweight="bold", va="top")
                split, _, name = shown.name.rpartition("/")
                short = f"{split.partition('/')[0]}/…/{name}" if split else name
                fit_line(page, x, below + LINE, short, SIDE - 0.06, fontsize=7.5, color=GREY, va="top")
            last, before = (words(suggested[i]), said) if suggested else (said, "")
            fit_line(page, left, top + SIDE + 0.08 + 2 * LINE, last, cell_width, before, fontsize=8.5, va="top")
            page.plot([left, left + cell_width], [top + cell_height - 0.12] * 2, color=PALE, linewidth=0.8)
        fit_text(page, MARGIN, height - 0.2, note, width - 2 * MARGIN, color=GREY)
