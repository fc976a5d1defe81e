"""``python -m naturalist evaluate RUN …``: how good a finished run is, in numbers and pictures."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor, nn

from naturalist.data.loader import BatchLoader
from naturalist.data.share import Share
from naturalist.device import Compute
from naturalist.errors import UserError, cause_of
from naturalist.evaluation.classifier import Classifier, load_classifier, require_finite
from naturalist.evaluation.looks import describe_looks, record_look
from naturalist.evaluation.metrics import calibration, classification_metrics, mcnemar, write_predictions_csv
from naturalist.evaluation.results import Grid, write_results
from naturalist.evaluation.split_images import SplitImages, images_of_split
from naturalist.printable import printable
from naturalist.progress import plain_console, print_numbers, print_table, progress_bar
from naturalist.ranks import Rank, in_turn, this_rank
from naturalist.runs.checkpoint import load_checkpoint
from naturalist.runs.tracking import Tracker
from naturalist.runs.weights_and_biases import log_grid_to_finished_run
from naturalist.training.epoch import evaluate
from naturalist.wording import number, percent


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
    model: nn.Module | None = None,
    shared: bool = False,
) -> dict[str, Any]:
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
        tta: also average each image and its mirror image (test-time augmentation), reported under ``with_flips``.
        quiet: print nothing.
        tracker: of a run that is still open; a finished one that is at W&B is continued there for the grid.
        model: the run's network, to be filled with the checkpoint's weights instead of building another.
        shared: all ranks have called this, and measure together; the first writes and prints.

    Returns:
        The metrics; ``missing_classes`` have no image, ``unknown_classes`` are those that the run does not know, with
        the number of files, and on the test set ``earlier_test_looks`` are other checkpoints tested on the same images.

    Raises:
        UserError: for a run that cannot be read, or data that does not fit it.
    """
    checkpoint = load_checkpoint(run)
    folder, rank = run if run.is_dir() else run.parent, this_rank() if shared else Rank()
    with in_turn(rank):
        images = images_of_split(folder, checkpoint, split, data=data, cache_dir=cache_dir)
    classifier = load_classifier(run, device, checkpoint=checkpoint, model=model)
    predict = partial(_predict, classifier, images, batch_size, share=None if rank.is_alone else Share(rank))
    probabilities = predict(f"Evaluating on {split}")
    mirrored = predict(f"Evaluating on {split}, mirrored", mirrored=True) if tta else None
    metrics = {**_about(folder, split, images, checkpoint), **_measure(probabilities, images)}
    if not rank.is_first:
        return metrics
    output = folder / "evaluation" / split
    try:
        grid = _write(output, run, metrics, images, probabilities, mirrored)
    except OSError as error:
        raise UserError(f"cannot write the evaluation to {str(output)!r}: {cause_of(error)}.") from None
    _send(grid, metrics, folder, tracker)
    if not quiet:
        _print(metrics, output)
    return metrics


def _write(
    output: Path,
    run: Path,
    metrics: dict[str, Any],
    images: SplitImages,
    probabilities: NDArray[np.float64],
    mirrored: NDArray[np.float64] | None,
) -> Grid:
    """Add to the metrics what is to be said of looks and flips, and write everything."""
    output.mkdir(parents=True, exist_ok=True)
    if metrics["split"] == "test":
        metrics["earlier_test_looks"] = record_look(run, images.files, metrics["epoch"], metrics["accuracy"])
    if mirrored is not None:
        metrics["with_flips"] = _with_flips(probabilities, mirrored, images, output)
    return write_results(output, metrics, probabilities, images)


def _send(grid: Grid, metrics: dict[str, Any], folder: Path, tracker: Tracker | None) -> None:
    """Show the grid at W&B, where the run is there."""
    split = metrics["split"]
    if tracker is not None:
        tracker.log_grid(split, grid.picture, grid.columns, grid.rows)
    else:
        summary = {f"{split}_accuracy": metrics["accuracy"]}
        log_grid_to_finished_run(folder, split, grid.picture, grid.columns, grid.rows, summary=summary)


def _predict(
    classifier: Classifier,
    images: SplitImages,
    batch_size: int,
    label: str,
    *,
    share: Share | None,
    mirrored: bool = False,
) -> NDArray[np.float64]:
    """Probabilities of every image, ``[N, C]``."""

    def prepare(pixels: Tensor) -> Tensor:
        return classifier.preprocessing(pixels.flip(-1) if mirrored else pixels)

    loader = BatchLoader(images.cache, images.indices, batch_size, classifier.device, share=share)
    compute = Compute(classifier.device, "fp32")  # reported numbers do not depend on the hardware's tricks
    with progress_bar(label, len(images.indices)) as bar:
        result = evaluate(classifier.model, loader, prepare, compute, bar)
    require_finite(result.logits)
    probabilities: NDArray[np.float64] = result.logits.double().softmax(dim=1).numpy()
    return probabilities


def _about(folder: Path, split: str, images: SplitImages, checkpoint: dict[str, Any]) -> dict[str, Any]:
    return {
        "run": folder.resolve().name,
        "split": split,
        "data": images.data,
        "epoch": checkpoint["epoch"],
        "fingerprint": images.fingerprint,
        "missing_classes": list(images.missing),
        "unknown_classes": images.unknown,
    }


def _measure(probabilities: NDArray[np.float64], images: SplitImages) -> dict[str, Any]:
    return {
        **classification_metrics(probabilities, images.labels, images.cache.class_names),
        **calibration(probabilities, images.labels),
    }


def _with_flips(
    plain: NDArray[np.float64], mirrored: NDArray[np.float64], images: SplitImages, output: Path
) -> dict[str, Any]:
    """What the average over each image and its mirror image says, and whether that is better by more than chance."""
    both = (plain + mirrored) / 2
    names = images.cache.class_names
    write_predictions_csv(images.files, images.labels, both, names, output / "predictions_with_flips.csv")
    without, with_flips = (values.argmax(axis=1) == images.labels for values in (plain, both))
    return {**_measure(both, images), "compared_without": mcnemar(with_flips, without)}


def _print(metrics: dict[str, Any], output: Path) -> None:
    console = plain_console()
    table = Table("class", title=f"{metrics['split']}: {metrics['n']:,} images", title_justify="left")
    for heading in ("precision", "recall", "F1", "images"):
        table.add_column(heading, justify="right")
    for name, scores in metrics["per_class"].items():
        table.add_row(
            printable(name),
            *("–" if scores[key] is None else percent(scores[key]) for key in ("precision", "recall", "f1")),
            f"{scores['support']:,}",
        )
    print_table(table)
    print_numbers(_sentence("Accuracy", metrics))
    if "with_flips" in metrics:
        print_numbers(_sentence("With flips: accuracy", metrics["with_flips"]))
    looks = describe_looks(metrics.get("earlier_test_looks", []))
    if looks:
        console.print(printable(looks), soft_wrap=True)
    console.print(
        f"In {printable(output)}: {', '.join(sorted(path.name for path in output.iterdir()))}", soft_wrap=True
    )


def _sentence(beginning: str, metrics: dict[str, Any]) -> str:
    low, high = metrics["accuracy_95_interval"]
    return (
        f"{beginning} {percent(metrics['accuracy'])} (95 % interval {number(100 * low)} to {percent(high)}), balanced "
        f"{percent(metrics['balanced_accuracy'])}, top-3 {percent(metrics['top3_accuracy'])}, loss "
        f"{metrics['loss']:.4f}, calibration error {percent(metrics['expected_calibration_error'])}"
    )
