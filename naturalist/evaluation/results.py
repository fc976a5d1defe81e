"""The files and pictures of an evaluation."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naturalist.data.dataset import describe_data
from naturalist.data.photographs import describe_missing
from naturalist.evaluation.confidence import write_coverage_csv
from naturalist.evaluation.metrics import (
    choose_grid,
    confusion_matrix,
    similarity_order,
    write_confusion_csv,
    write_predictions_csv,
)
from naturalist.evaluation.split_images import SplitImages
from naturalist.files import write_atomically
from naturalist.plots.confusion_matrix import plot_confusion_matrix
from naturalist.plots.coverage import plot_coverage
from naturalist.plots.predictions import plot_contact_sheet, plot_prediction_grid
from naturalist.plots.reliability import plot_reliability
from naturalist.settings.display_names import read_display_names
from naturalist.wording import counted, percent

GRID_SEED = 0
"""Which images the grid shows: drawn by chance, the same for every model that is shown the same data."""

SHEET_IMAGES = 16
"""Images on each contact sheet."""


@dataclass(frozen=True)
class Drawing:
    """How the figures of an evaluation look."""

    order: str = "class"
    """Of the classes in the confusion matrix, or ``"similarity"``; see :func:`similarity_order`."""
    format: str = "png"
    """Or ``"svg"`` or ``"pdf"``."""
    display_names: Path | None = None
    """How classes are called in figures; see :func:`naturalist.settings.display_names.read_display_names`."""

    def names(self, class_names: Sequence[str]) -> list[str]:
        """What the classes are called."""
        return list(read_display_names(self.display_names, class_names))


AS_EVER = Drawing()


@dataclass(frozen=True)
class Grid:
    """The 10×3 grid of predictions, as a picture and as a table."""

    picture: Path
    columns: list[str]
    rows: list[list[Any]]
    """The first cell of each is an image, uint8 ``[H, W, 3]``."""


def write_results(
    output: Path, metrics: dict[str, Any], probabilities: NDArray[np.float64], images: SplitImages, drawing: Drawing
) -> Grid:
    """Write tables, ``metrics.json`` and pictures.

    ``predictions.csv`` (every image's prediction and probabilities), ``confusion_matrix.csv``, ``coverage.csv``
    (accuracy of the surest images), pictures of the latter two, ``reliability``, ``predictions`` (the 10×3 grid),
    ``mistakes`` (the most confident) and ``uncertain`` (the least certain images).

    Args:
        output: folder that is there.
        metrics: to be written as they are.
        probabilities: ``[N, C]``.
        images: N of them.
        drawing: how figures look.
    """
    class_names, labels = list(images.cache.class_names), images.labels
    predicted = probabilities.argmax(axis=1)
    write_predictions_csv(images.files, labels, probabilities, class_names, output / "predictions.csv")
    matrix = confusion_matrix(labels, predicted, len(class_names))
    write_confusion_csv(matrix, class_names, output / "confusion_matrix.csv")
    name, split = metrics["run"], metrics["split"]
    title = f"{name}: {percent(metrics['accuracy'])} of {counted(metrics['n'], f'{split} image')} right"
    _draw_matrix(matrix, class_names, drawing, output, title)
    plot_reliability(
        metrics["bins"],
        metrics["expected_calibration_error"],
        output / f"reliability.{drawing.format}",
        f"{name}: can its confidence on {split} be believed?",
    )
    write_coverage_csv(metrics["coverage"], output / "coverage.csv")
    what = f"{name}: how right is it about the {split} images that it is surest of?"
    plot_coverage(metrics["coverage"], output / f"coverage.{drawing.format}", what)
    _draw_sheets(output, metrics, probabilities, images, drawing)
    grid = _draw_grid(output, title, probabilities, images, drawing)
    write_atomically(output / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    return grid


def _draw_matrix(
    matrix: NDArray[np.int64], class_names: Sequence[str], drawing: Drawing, output: Path, title: str
) -> None:
    places = similarity_order(matrix) if drawing.order == "similarity" else list(range(len(class_names)))
    names, path = drawing.names(class_names), output / f"confusion_matrix.{drawing.format}"
    plot_confusion_matrix(matrix[np.ix_(places, places)], [names[i] for i in places], path, title)


def _draw_sheets(
    output: Path, metrics: dict[str, Any], probabilities: NDArray[np.float64], images: SplitImages, drawing: Drawing
) -> None:
    """The most confident mistakes, and the least certain images."""
    labels, files = images.labels, images.files
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    name, split = metrics["run"], metrics["split"]
    wrong = np.flatnonzero(predicted != labels)
    sheets = {
        "mistakes": (
            wrong[np.argsort(-confidence[wrong], kind="stable")],
            f"its most confident mistakes on {split}",
        ),
        "uncertain": (np.argsort(confidence, kind="stable"), f"the {split} images it is least certain of"),
    }
    for file_name, (order, words) in sheets.items():
        chosen = order[:SHEET_IMAGES]
        pictures, missing = images.photographs(chosen)
        plot_contact_sheet(
            pictures,
            labels[chosen],
            predicted[chosen],
            confidence[chosen],
            [files[i] for i in chosen],
            drawing.names(images.cache.class_names),
            output / f"{file_name}.{drawing.format}",
            f"{name}: {words}",
            _note(images, missing),
        )


def _draw_grid(
    output: Path, title: str, probabilities: NDArray[np.float64], images: SplitImages, drawing: Drawing
) -> Grid:
    class_names, labels, files = drawing.names(images.cache.class_names), images.labels, images.files
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    grid = np.array(choose_grid(labels, per_class=3, seed=GRID_SEED))
    pictures, missing = images.photographs(grid)
    picture = output / f"predictions.{drawing.format}"
    plot_prediction_grid(
        pictures,
        labels[grid],
        predicted[grid],
        confidence[grid],
        class_names,
        picture,
        title,
        note=_note(images, missing),
    )
    rows = [
        [image, files[i], class_names[labels[i]], class_names[predicted[i]], float(confidence[i])]
        for image, i in zip(pictures, grid, strict=True)
    ]
    return Grid(picture, ["image", "file", "truth", "prediction", "confidence"], rows)


def _note(images: SplitImages, missing: int) -> str:
    """Whose photographs they are, and whether all of them are."""
    return "; ".join(filter(None, (describe_data(images.data), describe_missing(missing))))
