"""``python -m naturalist evaluate RUN``: how good a finished run is, in numbers and pictures."""

import json
from pathlib import Path

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

from naturalist.checkpoint import load_checkpoint, restore_model
from naturalist.config import RunSettings
from naturalist.data.cache import ImageCache
from naturalist.data.catalog import scan
from naturalist.data.dataset import cache_of, describe_data, find_data
from naturalist.data.loader import BatchLoader
from naturalist.data.split import stratified_split
from naturalist.device import Precision, choose_device
from naturalist.engine import evaluate
from naturalist.errors import UserError
from naturalist.metrics import choose_grid, classification_metrics, confusion_matrix, write_confusion_csv
from naturalist.plots import plot_confusion_matrix, plot_prediction_grid
from naturalist.progress import progress_bar

GRID_SEED = 0
"""Which images the grid shows: drawn by chance, the same for every model that is shown the same data."""


def evaluate_run(run: Path, split: str = "test", *, data: str | None = None, device: str = "auto",
                 cache_dir: str | None = None, batch_size: int = 128, quiet: bool = False) -> dict:
    """Evaluate a run's best checkpoint on every image of a split.

    Writes ``metrics.json``, ``confusion_matrix.csv``, ``confusion_matrix.png`` and ``predictions.png`` (the 10×3
    grid) to ``evaluation/<split>`` in the run folder.

    Args:
        run: run folder, or a checkpoint file in one.
        split: ``"test"``, or ``"val"`` for the images held out in training.
        data: data set to use instead of the run's own.
        device: see :func:`naturalist.device.choose_device`.
        cache_dir: folder for decoded images, if not the run's own.
        batch_size: images per batch.
        quiet: print nothing.

    Returns:
        The metrics, see :func:`naturalist.metrics.classification_metrics`.

    Raises:
        UserError: for a run that cannot be read, or data that does not fit it.
    """
    checkpoint = load_checkpoint(run)
    model, preprocessing = restore_model(checkpoint)
    folder = run if run.is_dir() else run.parent
    settings = _settings_of(folder, checkpoint, data, cache_dir)
    cache, indices = _images_of(split, settings, tuple(checkpoint["class_names"]))
    chosen_device = choose_device(device)
    loader = BatchLoader(cache, indices, batch_size, chosen_device)
    precision = Precision("fp32", chosen_device)  # numbers that are reported do not depend on the hardware's tricks
    with progress_bar(f"Evaluating on {split}", len(indices)) as bar:
        result = evaluate(model.to(chosen_device), loader, preprocessing, precision, settings, bar)
    probabilities = result.logits.double().softmax(dim=1).numpy()
    labels = result.labels.numpy()
    metrics = {"run": folder.name, "split": split, "data": settings.data, "epoch": checkpoint["epoch"],
               **classification_metrics(probabilities, labels, cache.class_names)}
    output = folder / "evaluation" / split
    _write(output, metrics, probabilities, labels, cache, indices, describe_data(settings.data))
    if not quiet:
        _print(metrics, output)
    return metrics


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


def _images_of(split: str, settings: RunSettings, class_names: tuple[str, ...]) -> tuple[ImageCache, np.ndarray]:
    folders = find_data(settings.data, settings.datasets_dir)
    if split == "test":
        if folders.test is None:
            raise UserError(f"{settings.data!r} has no test/ (or val/) folder; evaluate on the images held out in "
                            "training with --split val, or pass --data with a folder that has one.")
        folder = folders.test
    else:
        folder = folders.val or folders.train
    images = scan(folder)
    if images.class_names != class_names:
        raise UserError(f"the classes of {str(folder)!r} ({', '.join(images.class_names)}) are not those that the run "
                        f"was trained on ({', '.join(class_names)}).")
    cache = cache_of(images, settings)
    if split == "val" and folders.val is None:
        return cache, stratified_split(cache.labels, class_names, settings.val_fraction, settings.seed)[1]
    return cache, np.arange(len(cache))


def _write(output: Path, metrics: dict, probabilities: np.ndarray, labels: np.ndarray, cache: ImageCache,
           indices: np.ndarray, data: str) -> None:
    output.mkdir(parents=True, exist_ok=True)
    class_names = cache.class_names
    predicted = probabilities.argmax(axis=1)
    matrix = confusion_matrix(labels, predicted, len(class_names))
    write_confusion_csv(matrix, class_names, output / "confusion_matrix.csv")
    title = f"{metrics['run']}: {metrics['accuracy']:.1%} of {metrics['n']:,} {metrics['split']} images right"
    plot_confusion_matrix(matrix, class_names, output / "confusion_matrix.png", title)
    grid = np.array(choose_grid(labels, per_class=3, seed=GRID_SEED))
    plot_prediction_grid(cache.read(indices[grid]), labels[grid], predicted[grid],
                         probabilities[grid, predicted[grid]], class_names, output / "predictions.png", title,
                         note=data)
    (output / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")


def _print(metrics: dict, output: Path) -> None:
    low, high = metrics["accuracy_95_interval"]
    console = Console(highlight=False)
    table = Table("class", title=f"{metrics['split']}: {metrics['n']:,} images", title_justify="left")
    for heading in ("precision", "recall", "F1", "images"):
        table.add_column(heading, justify="right")
    for name, scores in metrics["per_class"].items():
        table.add_row(name, *("–" if scores[key] is None else f"{scores[key]:.1%}"
                              for key in ("precision", "recall", "f1")), f"{scores['support']:,}")
    console.print(table)
    console.print(f"Accuracy {metrics['accuracy']:.2%} (95 % interval {low:.2%} to {high:.2%}), balanced "
                  f"{metrics['balanced_accuracy']:.2%}, top-3 {metrics['top3_accuracy']:.2%}, "
                  f"loss {metrics['loss']:.4f}", soft_wrap=True)
    console.print(f"In {output}: metrics.json, confusion_matrix.csv, confusion_matrix.png, predictions.png",
                  soft_wrap=True)
