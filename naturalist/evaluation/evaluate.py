"""``python -m naturalist evaluate RUN …``: how good a finished run is, in numbers and pictures."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

from naturalist.data.catalog import scan
from naturalist.data.dataset import cache_of, describe_data, find_data
from naturalist.data.images import ImageCache
from naturalist.data.loader import BatchLoader
from naturalist.data.split import stratified_split
from naturalist.device import Precision
from naturalist.errors import UserError
from naturalist.evaluation.classifier import load_classifier
from naturalist.evaluation.looks import describe_looks, record_look
from naturalist.evaluation.metrics import (
    calibration,
    choose_grid,
    classification_metrics,
    confusion_matrix,
    mcnemar,
    write_confusion_csv,
    write_predictions_csv,
)
from naturalist.plots.confusion_matrix import plot_confusion_matrix
from naturalist.plots.predictions import plot_contact_sheet, plot_prediction_grid
from naturalist.plots.reliability import plot_reliability
from naturalist.progress import progress_bar
from naturalist.runs.checkpoint import load_checkpoint
from naturalist.runs.tracking import Tracker, log_grid_to_finished_run
from naturalist.settings.config import RunSettings
from naturalist.training.engine import evaluate

GRID_SEED = 0
"""Which images the grid shows: drawn by chance, the same for every model that is shown the same data."""

SHEET_IMAGES = 16
"""Images on each contact sheet."""


@dataclass(frozen=True)
class SplitImages:
    """The images of one split, with the run's own sizes and settings."""

    cache: ImageCache
    indices: np.ndarray
    """Which images of the cache, int64 ``[N]``."""
    settings: RunSettings

    @property
    def labels(self) -> np.ndarray:
        """int64 ``[N]``."""
        return self.cache.labels[self.indices]

    @property
    def files(self) -> tuple[str, ...]:
        """Paths relative to the split's folder, ``[N]``."""
        return tuple(self.cache.paths[i] for i in self.indices)


def evaluate_run(
    run: Path,
    split: str = "test",
    *,
    data: str | None = None,
    device: str = "auto",
    cache_dir: str | None = None,
    batch_size: int = 128,
    tta: bool = False,
    quiet: bool = False,
    tracker: Tracker | None = None,
) -> dict:
    """Evaluate a run's best checkpoint on every image of a split.

    Writes to ``evaluation/<split>`` in the run folder: ``metrics.json``, ``predictions.csv`` (every image's
    probabilities), ``confusion_matrix.csv`` and ``.png``, ``predictions.png`` (the 10×3 grid), ``reliability.png``,
    ``mistakes.png`` (the most confident) and ``uncertain.png`` (the least certain images).

    Args:
        run: run folder, or a checkpoint file in one.
        split: ``"test"``, or ``"val"`` for the images held out in training.
        data: data set to use instead of the run's own.
        device: see :func:`naturalist.device.choose_device`.
        cache_dir: folder for decoded images, if not the run's own.
        batch_size: images per batch.
        tta: also average the probabilities of each image and its mirror image (test-time augmentation), reported
            apart under ``with_flips`` and in ``predictions_with_flips.csv``.
        quiet: print nothing.
        tracker: of a run that is still open; a finished one that is at W&B is continued there for the grid.

    Returns:
        The metrics, see :func:`classification_metrics` and :func:`calibration` of :mod:`naturalist.evaluation.metrics`.
        On the test set ``earlier_test_looks`` lists other checkpoints that were tested on the same images.

    Raises:
        UserError: for a run that cannot be read, or data that does not fit it.
    """
    checkpoint = load_checkpoint(run)
    folder = run if run.is_dir() else run.parent
    images = images_of_split(folder, checkpoint, split, data=data, cache_dir=cache_dir)
    classifier = load_classifier(run, device, checkpoint=checkpoint)
    loader = BatchLoader(images.cache, images.indices, batch_size, classifier.device)
    precision = Precision("fp32", classifier.device)  # reported numbers do not depend on the hardware's tricks

    def probabilities_of(mirrored: bool) -> np.ndarray:
        def prepare(pixels):
            return classifier.preprocessing(pixels.flip(-1) if mirrored else pixels)

        label = f"Evaluating on {split}{', mirrored' if mirrored else ''}"
        with progress_bar(label, len(images.indices)) as bar:
            result = evaluate(classifier.model, loader, prepare, precision, images.settings, bar)
        return result.logits.double().softmax(dim=1).numpy()

    probabilities = probabilities_of(mirrored=False)
    metrics = {
        "run": folder.resolve().name,
        "split": split,
        "data": images.settings.data,
        "epoch": checkpoint["epoch"],
        **_measure(probabilities, images),
    }
    output = folder / "evaluation" / split
    try:
        output.mkdir(parents=True, exist_ok=True)
        if split == "test":
            metrics["earlier_test_looks"] = record_look(run, images.files, checkpoint["epoch"], metrics["accuracy"])
        if tta:
            with_flips = (probabilities + probabilities_of(mirrored=True)) / 2
            right = [p.argmax(axis=1) == images.labels for p in (probabilities, with_flips)]
            metrics["with_flips"] = {**_measure(with_flips, images), "compared_without": mcnemar(right[1], right[0])}
            write_predictions_csv(
                images.files, images.labels, with_flips, classifier.class_names, output / "predictions_with_flips.csv"
            )
        grid = _write(output, metrics, probabilities, images)
    except OSError as error:
        raise UserError(f"cannot write the evaluation to {str(output)!r}: {error.strerror or error}.") from None
    if tracker is not None:
        tracker.log_grid(split, *grid)
    else:
        log_grid_to_finished_run(folder, split, *grid, summary={f"{split}_accuracy": metrics["accuracy"]})
    if not quiet:
        _print(metrics, output)
    return metrics


def images_of_split(
    folder: Path, checkpoint: dict, split: str, *, data: str | None = None, cache_dir: str | None = None
) -> SplitImages:
    """The images that a run is to be shown.

    Args:
        folder: run folder.
        checkpoint: of the run; its classes must be those of the data.
        split: ``"test"``, or ``"val"`` for the images held out in training.
        data: data set to use instead of the run's own.
        cache_dir: folder for decoded images, if not the run's own.

    Raises:
        UserError: when the data is not there or does not fit.
    """
    settings = _settings_of(folder, checkpoint, data, cache_dir)
    class_names = tuple(checkpoint["class_names"])
    folders = find_data(settings.data, settings.datasets_dir)
    if split == "test":
        if folders.test is None:
            raise UserError(
                f"{settings.data!r} has no test/ (or val/) folder; evaluate on the images held out in "
                "training with --split val, or pass --data with a folder that has one."
            )
        source = folders.test
    else:
        source = folders.val or folders.train
    images = scan(source)
    if images.class_names != class_names:
        raise UserError(
            f"the classes of {str(source)!r} ({', '.join(images.class_names)}) are not those that the run "
            f"was trained on ({', '.join(class_names)})."
        )
    cache = cache_of(images, settings)
    if split == "val" and folders.val is None:
        indices = stratified_split(cache.labels, class_names, settings.val_fraction, settings.seed)[1]
    else:
        indices = np.arange(len(cache))
    return SplitImages(cache, indices, settings)


def _settings_of(folder: Path, checkpoint: dict, data: str | None, cache_dir: str | None) -> RunSettings:
    """The run's settings as far as reading images goes."""
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        raise UserError(f"{str(folder)!r} is no run folder: it has no readable config.yaml.") from None
    known = {name: config[name] for name in RunSettings.__dataclass_fields__ if name in config}
    settings = RunSettings(**known)
    settings.data = data or checkpoint["data"]
    settings.cache_dir = cache_dir or settings.cache_dir
    return settings


def _measure(probabilities: np.ndarray, images: SplitImages) -> dict:
    return {
        **classification_metrics(probabilities, images.labels, images.cache.class_names),
        **calibration(probabilities, images.labels),
    }


def _write(output: Path, metrics: dict, probabilities: np.ndarray, images: SplitImages) -> tuple[Path, list, list]:
    """Write every file; returns the grid as a picture, and as columns and rows of a table."""
    class_names, labels, files = images.cache.class_names, images.labels, images.files
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    note = describe_data(images.settings.data)
    write_predictions_csv(files, labels, probabilities, class_names, output / "predictions.csv")
    matrix = confusion_matrix(labels, predicted, len(class_names))
    write_confusion_csv(matrix, class_names, output / "confusion_matrix.csv")
    name, split = metrics["run"], metrics["split"]
    title = f"{name}: {metrics['accuracy']:.1%} of {metrics['n']:,} {split} images right"
    plot_confusion_matrix(matrix, class_names, output / "confusion_matrix.png", title)
    plot_reliability(
        metrics["bins"],
        metrics["expected_calibration_error"],
        output / "reliability.png",
        f"{name}: can its confidence on {split} be believed?",
    )

    def draw_sheet(chosen: np.ndarray, file_name: str, title: str) -> None:
        plot_contact_sheet(
            images.cache.read(images.indices[chosen]),
            labels[chosen],
            predicted[chosen],
            confidence[chosen],
            [files[i] for i in chosen],
            class_names,
            output / file_name,
            title,
            note,
        )

    wrong = np.flatnonzero(predicted != labels)
    draw_sheet(
        wrong[np.argsort(-confidence[wrong], kind="stable")[:SHEET_IMAGES]],
        "mistakes.png",
        f"{name}: its most confident mistakes on {split}",
    )
    draw_sheet(
        np.argsort(confidence, kind="stable")[:SHEET_IMAGES],
        "uncertain.png",
        f"{name}: the {split} images it is least certain of",
    )

    grid = np.array(choose_grid(labels, per_class=3, seed=GRID_SEED))
    pixels = images.cache.read(images.indices[grid])
    plot_prediction_grid(
        pixels,
        labels[grid],
        predicted[grid],
        confidence[grid],
        class_names,
        output / "predictions.png",
        title,
        note=note,
    )
    (output / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    rows = [
        [image, files[i], class_names[labels[i]], class_names[predicted[i]], float(confidence[i])]
        for image, i in zip(pixels, grid, strict=True)
    ]
    return output / "predictions.png", ["image", "file", "truth", "prediction", "confidence"], rows


def _print(metrics: dict, output: Path) -> None:
    console = Console(highlight=False)
    table = Table("class", title=f"{metrics['split']}: {metrics['n']:,} images", title_justify="left")
    for heading in ("precision", "recall", "F1", "images"):
        table.add_column(heading, justify="right")
    for name, scores in metrics["per_class"].items():
        table.add_row(
            name,
            *("–" if scores[key] is None else f"{scores[key]:.1%}" for key in ("precision", "recall", "f1")),
            f"{scores['support']:,}",
        )
    console.print(table)
    console.print(_sentence("Accuracy", metrics), soft_wrap=True)
    if "with_flips" in metrics:
        console.print(_sentence("With flips: accuracy", metrics["with_flips"]), soft_wrap=True)
    looks = describe_looks(metrics.get("earlier_test_looks", []))
    if looks:
        console.print(looks, soft_wrap=True)
    console.print(f"In {output}: {', '.join(sorted(path.name for path in output.iterdir()))}", soft_wrap=True)


def _sentence(beginning: str, metrics: dict) -> str:
    low, high = metrics["accuracy_95_interval"]
    return (
        f"{beginning} {metrics['accuracy']:.2%} (95 % interval {low:.2%} to {high:.2%}), balanced "
        f"{metrics['balanced_accuracy']:.2%}, top-3 {metrics['top3_accuracy']:.2%}, loss {metrics['loss']:.4f}, "
        f"calibration error {metrics['expected_calibration_error']:.2%}"
    )
