"""The files and pictures of an evaluation."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naturalist.data.dataset import describe_data
from naturalist.evaluation.metrics import choose_grid, confusion_matrix, write_confusion_csv, write_predictions_csv
from naturalist.evaluation.split_images import SplitImages
from naturalist.files import write_atomically
from naturalist.plots.confusion_matrix import plot_confusion_matrix
from naturalist.plots.predictions import plot_contact_sheet, plot_prediction_grid
from naturalist.plots.reliability import plot_reliability
from naturalist.wording import counted, percent

GRID_SEED = 0
"""Which images the grid shows: drawn by chance, the same for every model that is shown the same data."""

SHEET_IMAGES = 16
"""Images on each contact sheet."""


@dataclass(frozen=True)
class Grid:
    """The 10×3 grid of predictions, as a picture and as a table."""

    picture: Path
    columns: list[str]
    rows: list[list[Any]]
    """The first cell of each is an image, uint8 ``[H, W, 3]``."""


def write_results(
    output: Path, metrics: dict[str, Any], probabilities: NDArray[np.float64], images: SplitImages
) -> Grid:
    """Write tables, ``metrics.json`` and pictures.

    Args:
        output: folder that is there.
        metrics: to be written as they are.
        probabilities: ``[N, C]``.
        images: N of them.
    """
    class_names, labels = list(images.cache.class_names), images.labels
    predicted = probabilities.argmax(axis=1)
    write_predictions_csv(images.files, labels, probabilities, class_names, output / "predictions.csv")
    matrix = confusion_matrix(labels, predicted, len(class_names))
    write_confusion_csv(matrix, class_names, output / "confusion_matrix.csv")
    name, split = metrics["run"], metrics["split"]
    title = f"{name}: {percent(metrics['accuracy'])} of {counted(metrics['n'], f'{split} image')} right"
    plot_confusion_matrix(matrix, class_names, output / "confusion_matrix.png", title)
    plot_reliability(
        metrics["bins"],
        metrics["expected_calibration_error"],
        output / "reliability.png",
        f"{name}: can its confidence on {split} be believed?",
    )
    _draw_sheets(output, metrics, probabilities, images)
    grid = _draw_grid(output, title, probabilities, images)
    write_atomically(output / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    return grid


def _draw_sheets(
    output: Path, metrics: dict[str, Any], probabilities: NDArray[np.float64], images: SplitImages
) -> None:
    """The most confident mistakes, and the least certain images."""
    labels, files = images.labels, images.files
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    name, split = metrics["run"], metrics["split"]
    wrong = np.flatnonzero(predicted != labels)
    sheets = {
        "mistakes.png": (
            wrong[np.argsort(-confidence[wrong], kind="stable")],
            f"its most confident mistakes on {split}",
        ),
        "uncertain.png": (np.argsort(confidence, kind="stable"), f"the {split} images it is least certain of"),
    }
    for file_name, (order, words) in sheets.items():
        chosen = order[:SHEET_IMAGES]
        plot_contact_sheet(
            images.cache.read(images.indices[chosen]),
            labels[chosen],
            predicted[chosen],
            confidence[chosen],
            [files[i] for i in chosen],
            list(images.cache.class_names),
            output / file_name,
            f"{name}: {words}",
            describe_data(images.data),
        )


def _draw_grid(output: Path, title: str, probabilities: NDArray[np.float64], images: SplitImages) -> Grid:
    class_names, labels, files = list(images.cache.class_names), images.labels, images.files
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    grid = np.array(choose_grid(labels, per_class=3, seed=GRID_SEED))
    pixels = images.cache.read(images.indices[grid])
    picture = output / "predictions.png"
    plot_prediction_grid(
        pixels,
        labels[grid],
        predicted[grid],
        confidence[grid],
        class_names,
        picture,
        title,
        note=describe_data(images.data),
    )
    rows = [
        [image, files[i], class_names[labels[i]], class_names[predicted[i]], float(confidence[i])]
        for image, i in zip(pixels, grid, strict=True)
    ]
    return Grid(picture, ["image", "file", "truth", "prediction", "confidence"], rows)
