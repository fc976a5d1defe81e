"""What all figures have in common: colours, type, the file they end in, and text that fits its place.

Colours are those of Okabe and Ito, "Color Universal Design" (2008), which stay apart for the colour-blind.
What they tell is told by a line style, a hatch or a sign as well.
"""

import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import PercentFormatter

from naturalist.files import appearing_whole
from naturalist.plots.fonts import BASE, fonts_for, missing_letters_told
from naturalist.printable import printable
from naturalist.settings.display_names import Given, Italic

BLUE, VERMILLION, ORANGE, GREEN, SKY, PURPLE = "#0072B2", "#D55E00", "#E69F00", "#009E73", "#56B4E9", "#CC79A7"
INK, GREY, DIM, PALE = "#222222", "#666666", "#B3B3B3", "#E6E6E6"

STYLE = {
    "figure.dpi": 150,
    "savefig.dpi": 150,
    "svg.fonttype": "none",
    "svg.hashsalt": "naturalist",
    "pdf.fonttype": 42,
    "font.family": BASE,
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a class name may hold a dollar sign
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "hatch.linewidth": 1.0,
    "figure.constrained_layout.w_pad": 0.1,
    "figure.constrained_layout.h_pad": 0.08,
}

SAVING: dict[str, dict[str, Any]] = {
    "png": {"pil_kwargs": {"compress_level": 1}},  # photographs: a third of the time, a seventh larger
    "svg": {"metadata": {"Date": None}},
    "pdf": {"metadata": {"CreationDate": None}},
}
"""What is special about writing a format."""

LETTERS_PER_INCH = 9
"""Of a title."""

SMALLEST_LINE = 0.7
"""How much smaller than asked for a line may become before it is cut."""


@contextmanager
def new_figure(path: str | Path, width: float, height: float, **options: Any) -> Iterator[Figure]:
    """Give a figure of ``width`` × ``height`` inches to draw on, then write it to ``path`` as its suffix says.

    That is ``.png``, or for papers ``.svg`` or ``.pdf``, whose text stays text. The same figure gives the same file.
    The file appears whole or not at all. ``options`` go to :class:`matplotlib.figure.Figure`.
    """
    format = Path(path).suffix.removeprefix(".")
    with matplotlib.style.context(["default", STYLE]), missing_letters_told():
        figure = Figure(figsize=(width, height), **options)
        FigureCanvasAgg(figure)
        yield figure
        with appearing_whole(Path(path)) as unfinished:
            figure.savefig(unfinished, format=format, **SAVING.get(format, {}))


def new_page(figure: Figure) -> Axes:
    """Axes without lines over the whole figure, in inches from its upper left corner."""
    width, height = figure.get_size_inches()
    page = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    page.axis("off")
    return page


def draw_title(figure: Figure, title: str) -> None:
    """Write the title of a figure of axes, wrapped, above them on the left."""
    lines = textwrap.fill(shown(title), int(LETTERS_PER_INCH * figure.get_figwidth()))
    figure.suptitle(lines, x=0.012, ha="left", fontsize=11, fontweight="bold", fontfamily=fonts_for(lines))


def legend_above(ax: Axes, columns: int = 3) -> None:
    """Put the legend in rows above the axes, where it hides nothing."""
    ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=columns, columnspacing=1.2, handletextpad=0.5)


def percent_ticks(decimals: int | None = None) -> PercentFormatter:
    """Ticks of an axis of shares, 0 to 1; without ``decimals`` as many as the axis needs."""
    return PercentFormatter(1, decimals=decimals, symbol=" %")


def words(name: str) -> str:
    """A class, or a measure, as a reader would write it: an underscore between two letters or digits is a space.

    A name that was :class:`Given` stays as it is.
    """
    if isinstance(name, Given):
        return type(name)(printable(name))
    return re.sub(r"(?<=[^\W_])_(?=[^\W_])", " ", printable(name))


def clip(name: str, length: int) -> str:
    """The name in words, cut to ``length`` letters."""
    name = words(name)
    return name if len(name) <= length else type(name)(name[: length - 1] + "…")


def slant(name: str) -> Literal["normal", "italic"]:
    """Matplotlib's font style of a name."""
    return "italic" if isinstance(name, Italic) else "normal"


def slant_labels(labels: Sequence[Text], names: Sequence[str]) -> None:
    """Set those labels of an axis in italics whose names are."""
    for label, name in zip(labels, names, strict=True):
        label.set_fontstyle(slant(name))


def fit_text(page: Axes, x: float, y: float, text: str, width: float, max_lines: int = 1, **options: Any) -> None:
    """Write ``text`` wrapped, and if need be made smaller, to stay within ``width`` inches.

    ``options`` go to :meth:`matplotlib.axes.Axes.text`.
    """
    if not text.strip():
        return
    options["fontstyle"] = slant(text)
    text = shown(text)
    artist = page.text(x, y, text, fontfamily=fonts_for(text), **options)
    fit = max(2, int(width / _width(artist) * len(text)))
    # Better smaller letters than a broken word, within reason.
    limit = max(fit, min(max(map(len, text.split())), int(1.4 * fit)))
    artist.set_text("\n".join(textwrap.wrap(text, limit, max_lines=max_lines, placeholder=" …")))
    _shrink(artist, width / _width(artist))


def fit_line(page: Axes, x: float, y: float, text: str, width: float, before: str = "", **options: Any) -> None:
    """Write ``text`` on one line, made smaller or, where that is not enough, cut to stay within ``width`` inches.

    ``before`` is a word that stands before it, upright where the text is an :class:`Italic`. ``options`` go to
    :meth:`matplotlib.axes.Axes.text`.
    """
    if before and isinstance(text, Italic):
        used = _width(page.text(x, y, before, **options)) + 0.05
        x, width = x + used, width - used
    elif before:
        text = f"{before} {text}"
    options["fontstyle"] = slant(text)
    text = shown(text)
    artist = page.text(x, y, text, fontfamily=fonts_for(text), **options)
    share = width / _width(artist)
    if share < SMALLEST_LINE:
        artist.set_text(text[: int(share / SMALLEST_LINE * len(text)) - 2] + "…")
        share = max(SMALLEST_LINE, width / _width(artist))
    _shrink(artist, share)


def shown(text: str) -> str:
    """The lines of a text of others, each of what can be drawn."""
    return "\n".join(map(printable, text.split("\n")))


def _width(artist: Text) -> float:
    return artist.get_window_extent().width / artist.figure.dpi


def _shrink(artist: Text, share: float) -> None:
    artist.set_fontsize(artist.get_fontproperties().get_size_in_points() * min(1, share))
