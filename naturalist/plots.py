"""Every figure: arrays in, a PNG out, all in one style.

Colours are those of Okabe and Ito, "Color Universal Design" (2008), which stay apart for the colour-blind; what
they tell is told by a line style, a hatch or a sign as well.
"""

import math
import os
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator, PercentFormatter

BLUE, VERMILLION, ORANGE, GREEN = "#0072B2", "#D55E00", "#E69F00", "#009E73"
INK, GREY, PALE = "#222222", "#666666", "#E6E6E6"

STYLE = {
    "figure.dpi": 150, "savefig.dpi": 150,
    "font.family": "DejaVu Sans", "font.size": 9, "text.color": INK,
    "text.parse_math": False,  # a class name may hold a dollar sign
    "axes.titlesize": 9, "axes.labelsize": 9, "axes.labelcolor": INK, "axes.edgecolor": GREY,
    "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": PALE,
    "xtick.color": GREY, "ytick.color": GREY, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "legend.frameon": False, "lines.linewidth": 1.8, "hatch.linewidth": 1.0,
}


@contextmanager
def new_figure(path: str | Path, width: float, height: float, **options) -> Iterator[Figure]:
    """Give a figure of ``width`` × ``height`` inches to draw on, then write it to ``path`` as a PNG.

    The file appears whole or not at all. ``options`` go to :class:`matplotlib.figure.Figure`.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(width, height), **options)
        FigureCanvasAgg(figure)
        yield figure
        try:
            figure.savefig(temporary, format="png")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def plot_curves(history: list[dict], path: str | Path, title: str) -> None:
    """Draw loss, accuracy and learning rate over the epochs, the best epoch marked.

    ``history`` holds one dict per epoch with ``epoch`` and any of ``train_loss``, ``val_loss``,
    ``train_accuracy``, ``val_accuracy`` (0 to 1) and ``learning_rate``. A value that is missing, None or not
    finite leaves a gap. The best epoch is the first with the highest validation accuracy.
    """
    epochs = np.array([entry["epoch"] for entry in history])
    best = _series(history, "val_accuracy")
    best = None if np.isnan(best).all() else int(np.nanargmax(best))

    with new_figure(path, 9, 4.2, layout="constrained") as figure:
        figure.suptitle(title, x=0.012, ha="left", fontsize=11, fontweight="bold")
        axes = figure.subplot_mosaic([["loss", "accuracy"], ["learning_rate", "accuracy"]], height_ratios=[3, 1])
        for quantity in ("loss", "accuracy"):
            _draw_train_and_val(axes[quantity], epochs, history, quantity, best)
        axes["accuracy"].yaxis.set_major_formatter(PercentFormatter(1, decimals=None, symbol=" %"))
        axes["learning_rate"].plot(epochs, _series(history, "learning_rate"), color=GREEN, marker="o", markersize=3)
        axes["learning_rate"].ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        axes["learning_rate"].sharex(axes["loss"])
        axes["loss"].tick_params(labelbottom=False)
        for name, ax in axes.items():
            ax.set_ylabel(name.replace("_", " "))
            ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            if name != "loss":
                ax.set_xlabel("epoch")


def plot_confusion_matrix(matrix: np.ndarray, class_names: list[str], path: str | Path, title: str) -> None:
    """Draw a ``[C, C]`` matrix of counts, rows true and columns predicted, each row shaded by its shares.

    The recall of each class stands at the end of its row, "–" for a class without images. From 16 classes on
    the counts are left out.
    """
    matrix = np.asarray(matrix)
    size = len(class_names)
    with_counts = size <= 15
    cell = 0.55 if with_counts else 0.24
    fontsize = 9 if with_counts else 7
    totals = matrix.sum(axis=1)
    shares = np.divide(matrix, totals[:, None], out=np.zeros(matrix.shape), where=totals[:, None] > 0)
    names = [_clip(name, 28) for name in class_names]

    with new_figure(path, size * cell + 3.6, size * cell + 2.4, layout="constrained") as figure:
        figure.suptitle(title, x=0.012, ha="left", fontsize=11, fontweight="bold")
        ax = figure.subplots()
        ax.grid(False)
        image = ax.imshow(shares, cmap="cividis", vmin=0, vmax=1)
        ax.set_xticks(range(size), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=fontsize)
        ax.set_yticks(range(size), names, fontsize=fontsize)
        ax.set_xlabel("predicted class")
        ax.set_ylabel("true class")
        margin = ax.secondary_yaxis("right")
        margin.set_yticks(range(size), [f"{shares[i, i]:.0%}" if totals[i] else "–" for i in range(size)],
                          fontsize=fontsize)
        margin.set_ylabel("recall")
        figure.colorbar(image, ax=ax, label="share of the row", format=PercentFormatter(1))
        if with_counts:
            for row, column in np.ndindex(matrix.shape):
                ax.text(column, row, matrix[row, column], ha="center", va="center", fontsize=fontsize,
                        color="white" if shares[row, column] < 0.5 else "black")


def plot_prediction_grid(images: np.ndarray, true: np.ndarray, predicted: np.ndarray, confidence: np.ndarray,
                         class_names: list[str], path: str | Path, title: str, note: str = "") -> None:
    """Show images with their predictions: a row per class, its images side by side.

    ``images`` are ``[N, H, W, 3]`` uint8 RGB, ``true`` and ``predicted`` ``[N]`` class indices and ``confidence``
    the ``[N]`` probabilities, 0 to 1, of the predicted classes. A right prediction has a solid blue frame and ✓,
    a wrong one a dashed vermillion frame and ✗. Cells for which there is no image stay blank. ``note`` ends up
    in the footer, where the right ones are counted.
    """
    true, predicted = np.asarray(true), np.asarray(predicted)
    names = [name.replace("_", " ") for name in class_names]
    columns = int(np.bincount(true).max())
    image_width, image_height = _image_size(*images.shape[1:3])
    name_width, caption_width, gap = 1.15, 1.3, 0.14
    cell_width = image_width + caption_width + 2 * gap
    row_height = max(image_height, 1.25) + gap
    margin, header, footer = 0.3, 0.75, 0.75
    width = 2 * margin + name_width + columns * cell_width - gap
    height = header + len(names) * row_height + footer

    with new_figure(path, width, height) as figure:
        page = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        page.axis("off")
        _text(page, margin, 0.42, title, width - 2 * margin, fontsize=14, fontweight="bold")
        for row, name in enumerate(names):
            top = header + row * row_height
            page.plot([margin, width - margin], [top - gap / 2] * 2, color=PALE, linewidth=0.8)
            _text(page, margin, top + (row_height - gap) / 2, name, name_width - gap, 3, fontsize=10.5,
                  fontweight="bold", va="center")
            for column, i in enumerate(np.flatnonzero(true == row)):
                left = margin + name_width + column * cell_width
                middle = top + (row_height - gap) / 2
                right = predicted[i] == row
                _draw_image(page, images[i], left, middle, image_width, image_height, right)
                _draw_caption(page, left + image_width + gap, middle, caption_width, name,
                              names[predicted[i]], float(confidence[i]), right)
        _draw_footer(page, margin, height - footer, width, int((true == predicted).sum()), len(true), note)


def _series(history: list[dict], key: str) -> np.ndarray:
    """Give one value per epoch, NaN where there is none."""
    values = np.array([np.nan if entry.get(key) is None else entry[key] for entry in history], dtype=float)
    return np.where(np.isfinite(values), values, np.nan)


def _draw_train_and_val(ax: Axes, epochs: np.ndarray, history: list[dict], quantity: str, best: int | None) -> None:
    val = _series(history, f"val_{quantity}")
    ax.plot(epochs, _series(history, f"train_{quantity}"), color=ORANGE, linestyle="--", marker="o", markersize=3,
            label="train")
    ax.plot(epochs, val, color=BLUE, marker="o", markersize=3, label="validation")
    if best is not None:
        ax.axvline(epochs[best], color=GREY, linestyle=":", linewidth=1, zorder=1)
        value = f"{val[best]:.1%}".replace("%", " %") if quantity == "accuracy" else f"{val[best]:.3f}"
        ax.plot(epochs[best], val[best], color=BLUE, linestyle="", marker="*", markersize=13,
                markeredgecolor="white", label=f"best epoch, {epochs[best]}: {value}")
    ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=3, columnspacing=1.2, handletextpad=0.5)


def _clip(name: str, length: int) -> str:
    name = name.replace("_", " ")
    return name if len(name) <= length else name[:length - 1] + "…"


def _image_size(height: int, width: int) -> tuple[float, float]:
    """Give width and height in inches of a picture with this shape: always the same area."""
    side = 1.4
    return side * math.sqrt(width / height), side * math.sqrt(height / width)


def _draw_image(page: Axes, image: np.ndarray, left: float, middle: float, width: float, height: float,
                right: bool) -> None:
    top = middle - height / 2
    page.imshow(image, extent=(left, left + width, top + height, top), aspect="auto")
    _draw_frame(page, left, top, width, height, right)
    _draw_mark(page, left, top, right)


def _draw_frame(page: Axes, left: float, top: float, width: float, height: float, right: bool) -> None:
    # White below the dashes keeps them visible on a photograph of any colour.
    page.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor="white", linewidth=3))
    page.add_patch(Rectangle((left, top), width, height, fill=False, linewidth=3, edgecolor=_colour(right),
                             linestyle="-" if right else (0, (2.5, 1.2))))


def _draw_mark(page: Axes, left: float, top: float, right: bool) -> None:
    page.add_patch(Rectangle((left, top), 0.26, 0.26, color=_colour(right), linewidth=0))
    page.text(left + 0.13, top + 0.13, "✓" if right else "✗", color="white", fontsize=12, ha="center",
              va="center_baseline")


def _draw_caption(page: Axes, left: float, middle: float, width: float, true: str, predicted: str,
                  confidence: float, right: bool) -> None:
    top = middle - 0.62
    for y, label, name, weight in ((top, "predicted", predicted, "bold"), (top + 0.5, "true", true, "normal")):
        page.text(left, y, label, fontsize=7.5, color=GREY, va="top")
        _text(page, left, y + 0.13, name, width, 2, fontsize=9.5, fontweight=weight, va="top", linespacing=1.05)
    bar = width - 0.45
    page.add_patch(Rectangle((left, top + 1.08), bar, 0.12, color=PALE, linewidth=0))
    page.add_patch(Rectangle((left, top + 1.08), bar * confidence, 0.12, facecolor=_colour(right), edgecolor="white",
                             linewidth=0, hatch="" if right else "/////"))
    page.text(left + width, top + 1.14, f"{confidence:.0%}".replace("%", " %"), ha="right", va="center_baseline")


def _draw_footer(page: Axes, left: float, top: float, width: float, num_right: int, total: int, note: str) -> None:
    for x, right, meaning in ((left, True, "right"), (left + 1.1, False, "wrong")):
        _draw_frame(page, x, top + 0.06, 0.26, 0.26, right)
        _draw_mark(page, x, top + 0.06, right)
        page.text(x + 0.36, top + 0.2, meaning, va="center_baseline")
    page.text(left + 2.2, top + 0.2, "bar: confidence in the prediction", va="center_baseline")
    page.text(width - left, top + 0.2, f"{num_right} of the {total} shown are right", ha="right",
              va="center_baseline", fontsize=10.5, fontweight="bold")
    _text(page, left, top + 0.55, note, width - 2 * left, color=GREY)


def _colour(right: bool) -> str:
    return BLUE if right else VERMILLION


def _text(page: Axes, x: float, y: float, text: str, width: float, max_lines: int = 1, **options) -> None:
    """Write ``text`` wrapped, and if need be made smaller, to stay within ``width`` inches."""
    if not text:
        return
    artist = page.text(x, y, text, **options)
    fit = max(2, int(width / _width(artist) * len(text)))
    # Better smaller letters than a broken word, within reason.
    limit = max(fit, min(max(map(len, text.split())), int(1.4 * fit)))
    artist.set_text("\n".join(textwrap.wrap(text, limit, max_lines=max_lines, placeholder=" …")))
    artist.set_fontsize(artist.get_fontsize() * min(1, width / _width(artist)))


def _width(artist: Text) -> float:
    return artist.get_window_extent().width / artist.figure.dpi
