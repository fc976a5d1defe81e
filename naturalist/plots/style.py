"""Every figure: arrays in, a PNG out, all in one style.

Colours are those of Okabe and Ito, "Color Universal Design" (2008), which stay apart for the colour-blind.
What they tell is told by a line style, a hatch or a sign as well.
"""

import math
import os
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator, PercentFormatter

BLUE, VERMILLION, ORANGE, GREEN, SKY = "#0072B2", "#D55E00", "#E69F00", "#009E73", "#56B4E9"
INK, GREY, PALE = "#222222", "#666666", "#E6E6E6"

# Lightness falls evenly, 100 to 14 in CIELAB, so that equal steps look equal, in print too.
SHARES = LinearSegmentedColormap.from_list("shares", [(0, "white"), (0.63, BLUE), (1, "#00263D")])

STYLE = {
    "figure.dpi": 150,
    "savefig.dpi": 150,
    "font.family": "DejaVu Sans",
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


SMALLEST_LINE = 0.7
"""How much smaller than asked for a line may become before it is cut."""


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

    ``history`` holds one dict per epoch, at least one, with ``epoch`` and any of ``train_loss``, ``val_loss``,
    ``train_accuracy``, ``val_accuracy`` (0 to 1) and ``learning_rate``. A value that is missing, None or not
    finite leaves a gap. The best epoch is the first with the highest validation accuracy.
    """
    epochs = np.array([entry["epoch"] for entry in history])
    best = _series(history, "val_accuracy")
    best = None if np.isnan(best).all() else int(np.nanargmax(best))

    with new_figure(path, 9, 4.2, layout="constrained") as figure:
        _draw_title(figure, title)
        axes = figure.subplot_mosaic([["loss", "accuracy"], ["learning_rate", "accuracy"]], height_ratios=[3, 1])
        _draw_train_and_val(axes["loss"], epochs, history, "loss", best, "{:.3f}".format)
        _draw_train_and_val(axes["accuracy"], epochs, history, "accuracy", best, partial(_percent, decimals=1))
        axes["accuracy"].yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        rate = axes["learning_rate"]
        rate.plot(epochs, _series(history, "learning_rate"), color=GREEN, marker="o", markersize=3)
        rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        rate.sharex(axes["loss"])
        axes["loss"].tick_params(labelbottom=False)
        for name, ax in axes.items():
            ax.set_ylabel(name.replace("_", " "))
            ax.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
            if name != "loss":
                ax.set_xlabel("epoch")


def plot_confusion_matrix(matrix: np.ndarray, class_names: list[str], path: str | Path, title: str) -> None:
    """Draw a ``[C, C]`` matrix of counts, rows true and columns predicted, each row shaded by its shares.

    The recall of each class stands at the end of its row, "–" for a class without images. From 16 classes on
    the counts are left out.
    """
    size = len(class_names)
    with_counts = size <= 15
    cell, fontsize = (0.55, 9) if with_counts else (0.24, 7)
    totals = matrix.sum(axis=1)
    shares = np.divide(matrix, totals[:, None], out=np.zeros(matrix.shape), where=totals[:, None] > 0)
    names = [_clip(name, 28) for name in class_names]

    with new_figure(path, size * cell + 3.6, size * cell + 2.4, layout="compressed") as figure:
        _draw_title(figure, title)
        ax = figure.subplots()
        mesh = ax.pcolormesh(
            range(size),
            range(size),
            shares,
            cmap=SHARES,
            vmin=0,
            vmax=1,
            shading="nearest",
            edgecolors=PALE,
            linewidth=0.5 if with_counts else 0.2,
        )
        ax.set(aspect="equal", xlabel="predicted class", ylabel="true class")
        ax.invert_yaxis()
        ax.grid(False)
        ax.tick_params(length=0)
        ax.set_xticks(range(size), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=fontsize)
        ax.set_yticks(range(size), names, fontsize=fontsize)
        margin = ax.secondary_yaxis("right")
        margin.set_yticks(
            range(size), [_percent(shares[i, i]) if totals[i] else "–" for i in range(size)], fontsize=fontsize
        )
        margin.set_ylabel("recall")
        margin.tick_params(length=0)
        figure.colorbar(
            mesh, ax=ax, label="share of the true class", format=PercentFormatter(1, symbol=" %"), aspect=40
        )
        if with_counts:
            for row, column in np.ndindex(matrix.shape):
                ax.text(
                    column,
                    row,
                    matrix[row, column],
                    ha="center",
                    va="center",
                    fontsize=fontsize,
                    color="white" if shares[row, column] > 0.5 else INK,
                )


def plot_prediction_grid(
    images: np.ndarray,
    true: np.ndarray,
    predicted: np.ndarray,
    confidence: np.ndarray,
    class_names: list[str],
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
    true, predicted = np.asarray(true), np.asarray(predicted)
    names = [name.replace("_", " ") for name in class_names]
    columns = max(3, int(np.bincount(true).max()))
    image_width, image_height = _image_size(*images.shape[1:3])
    name_width, caption_width, gap = 1.15, 1.3, 0.14
    cell_width = image_width + caption_width + 2 * gap
    row_height = max(image_height, 1.25) + gap
    margin, header, footer = 0.3, 0.75, 0.9 if note else 0.5
    width = 2 * margin + name_width + columns * cell_width - gap
    height = header + len(names) * row_height + footer

    with new_figure(path, width, height) as figure:
        page = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        page.axis("off")
        fit_text(page, margin, 0.38, title, width - 2 * margin, 2, fontsize=14, fontweight="bold", va="center")
        for row, name in enumerate(names):
            top = header + row * row_height
            page.plot([margin, width - margin], [top - gap / 2] * 2, color=PALE, linewidth=0.8)
            fit_text(
                page,
                margin,
                top + (row_height - gap) / 2,
                name,
                name_width - gap,
                3,
                fontsize=10.5,
                fontweight="bold",
                va="center",
            )
            for column, i in enumerate(np.flatnonzero(true == row)):
                left = margin + name_width + column * cell_width
                middle = top + (row_height - gap) / 2
                right = predicted[i] == row
                _draw_image(page, images[i], left, middle, image_width, image_height, right)
                _draw_caption(
                    page,
                    left + image_width + gap,
                    middle,
                    caption_width,
                    name,
                    names[predicted[i]],
                    float(confidence[i]),
                    right,
                )
        _draw_footer(page, margin, height - footer, width, int((true == predicted).sum()), len(true), note)


def plot_contact_sheet(
    images: np.ndarray,
    true: np.ndarray,
    predicted: np.ndarray,
    confidence: np.ndarray,
    files: list[str],
    class_names: list[str],
    path: str | Path,
    title: str,
    note: str = "",
) -> None:
    """Show images with their file names, four in a row, in the order given.

    Arrays are those of :func:`plot_prediction_grid`; ``files`` are ``[N]`` paths, whose last part is shown. Without
    images the sheet says so.
    """
    names = [name.replace("_", " ") for name in class_names]
    columns, margin, header, footer, gap = 4, 0.3, 0.75, 0.5, 0.2
    image_width, image_height = (side * 1.5 for side in _image_size(*images.shape[1:3]))
    row_height = image_height + 0.85
    rows = max(1, math.ceil(len(images) / columns))
    width = 2 * margin + columns * (image_width + gap) - gap
    height = header + rows * row_height + footer

    with new_figure(path, width, height) as figure:
        page = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        page.axis("off")
        fit_text(page, margin, 0.38, title, width - 2 * margin, 2, fontsize=14, fontweight="bold", va="center")
        if not len(images):
            page.text(margin, header + 0.3, "There are none.", fontsize=11)
        for i, image in enumerate(images):
            row, column = divmod(i, columns)
            left, top = margin + column * (image_width + gap), header + row * row_height
            right = predicted[i] == true[i]
            _draw_image(page, image, left, top + image_height / 2, image_width, image_height, right)
            below = top + image_height + 0.1
            said = f"{_percent(confidence[i])} {names[predicted[i]]}"
            fit_line(page, left, below, said, image_width, fontsize=9.5, fontweight="bold", va="top")
            if not right:
                fit_line(page, left, below + 0.19, f"is {names[true[i]]}", image_width, fontsize=9.5, va="top")
            fit_line(
                page,
                left,
                below + (0.19 if right else 0.38),
                Path(files[i]).name,
                image_width,
                fontsize=7.5,
                color=GREY,
                va="top",
            )
        fit_text(page, margin, height - 0.2, note, width - 2 * margin, color=GREY)


def plot_reliability(bins: list[dict], expected_calibration_error: float, path: str | Path, title: str) -> None:
    """Draw accuracy against confidence, with the gap between them, and how many images each bin holds.

    ``bins`` are those of :func:`naturalist.evaluation.metrics.calibration`.
    """
    filled = [b for b in bins if b["images"]]
    center = np.array([(b["low"] + b["high"]) / 2 for b in filled])
    width = bins[0]["high"] - bins[0]["low"]
    confidence, accuracy = (np.array([b[key] for b in filled]) for key in ("confidence", "accuracy"))

    with new_figure(path, 5.6, 6.2, layout="constrained") as figure:
        figure.suptitle(title, x=0.012, ha="left", fontsize=11, fontweight="bold")
        ax, counts = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
        ax.bar(center, accuracy, width, color=SKY, edgecolor="white", label="accuracy")
        ax.bar(
            center,
            confidence - accuracy,
            width,
            accuracy,
            facecolor="none",
            edgecolor=VERMILLION,
            hatch="////",
            linewidth=0.8,
            label="gap to confidence",
        )
        ax.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1.2, label="perfectly calibrated")
        ax.set(ylabel="share that is right", ylim=(0, 1), xlim=(0, 1))
        ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=3, columnspacing=1.2, handletextpad=0.5)
        ax.text(
            0.03,
            0.95,
            f"expected calibration error {_percent(expected_calibration_error, 1)}",
            va="top",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 2},
        )
        counts.bar(center, [b["images"] for b in filled], width, color=GREY, edgecolor="white")
        counts.set(xlabel="confidence", ylabel="images")
        counts.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        for axis in (ax.xaxis, ax.yaxis, counts.xaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))


def _series(history: list[dict], key: str) -> np.ndarray:
    """Give one value per epoch, NaN where there is none."""
    values = np.array([np.nan if entry.get(key) is None else entry[key] for entry in history], dtype=float)
    return np.where(np.isfinite(values), values, np.nan)


def _draw_train_and_val(
    ax: Axes, epochs: np.ndarray, history: list[dict], quantity: str, best: int | None, write: Callable[[float], str]
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
    ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=3, columnspacing=1.2, handletextpad=0.5)


def _draw_title(figure: Figure, title: str) -> None:
    letters_per_inch = 9
    figure.suptitle(
        textwrap.fill(title, int(letters_per_inch * figure.get_figwidth())),
        x=0.012,
        ha="left",
        fontsize=11,
        fontweight="bold",
    )


def _percent(share: float, decimals: int = 0) -> str:
    return f"{100 * share:.{decimals}f} %"


def _clip(name: str, length: int) -> str:
    name = name.replace("_", " ")
    return name if len(name) <= length else name[: length - 1] + "…"


def _image_size(height: int, width: int) -> tuple[float, float]:
    """Give width and height in inches of a picture with this shape: always the same area."""
    side = 1.5
    return side * math.sqrt(width / height), side * math.sqrt(height / width)


def _draw_image(
    page: Axes, image: np.ndarray, left: float, middle: float, width: float, height: float, right: bool
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
    page: Axes, left: float, middle: float, width: float, true: str, predicted: str, confidence: float, right: bool
) -> None:
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
    page.text(left + width, top + height / 2, _percent(confidence), ha="right", va="center_baseline")


def _draw_footer(page: Axes, left: float, top: float, width: float, num_right: int, total: int, note: str) -> None:
    for x, right, meaning in ((left, True, "right"), (left + 1.1, False, "wrong")):
        _draw_frame(page, x, top + 0.06, 0.26, 0.26, right)
        _draw_mark(page, x, top + 0.06, right)
        page.text(x + 0.36, top + 0.2, meaning, va="center_baseline")
    page.text(left + 2.2, top + 0.2, "bar: confidence in the prediction", va="center_baseline")
    page.text(
        width - left,
        top + 0.2,
        f"{num_right} of the {total} shown are right",
        ha="right",
        va="center_baseline",
        fontsize=10.5,
        fontweight="bold",
    )
    fit_text(page, left, top + 0.45, note, width - 2 * left, 2, color=GREY, va="top")


def _colour(right: bool) -> str:
    return BLUE if right else VERMILLION


def fit_text(page: Axes, x: float, y: float, text: str, width: float, max_lines: int = 1, **options) -> None:
    """Write ``text`` wrapped, and if need be made smaller, to stay within ``width`` inches."""
    if not text.strip():
        return
    artist = page.text(x, y, text, **options)
    fit = max(2, int(width / _width(artist) * len(text)))
    # Better smaller letters than a broken word, within reason.
    limit = max(fit, min(max(map(len, text.split())), int(1.4 * fit)))
    artist.set_text("\n".join(textwrap.wrap(text, limit, max_lines=max_lines, placeholder=" …")))
    artist.set_fontsize(artist.get_fontsize() * min(1, width / _width(artist)))


def fit_line(page: Axes, x: float, y: float, text: str, width: float, **options) -> None:
    """Write ``text`` on one line, made smaller or, where that is not enough, cut to stay within ``width`` inches."""
    artist = page.text(x, y, text, **options)
    share = width / _width(artist)
    if share < SMALLEST_LINE:
        artist.set_text(text[: int(share / SMALLEST_LINE * len(text)) - 2] + "…")
        share = max(SMALLEST_LINE, width / _width(artist))
    artist.set_fontsize(artist.get_fontsize() * min(1, share))


def _width(artist: Text) -> float:
    return artist.get_window_extent().width / artist.figure.dpi
