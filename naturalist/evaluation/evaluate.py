"""``python -m naturalist evaluate RUN …``: how good a finished run is, in numbers and pictures."""

from collections.abc import Sequence
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
from naturalist.evaluation.confidence import measure_confidence, say_temperature
from naturalist.evaluation.looks import describe_looks, record_look
from naturalist.evaluation.metrics import (
    calibration,
    classification_metrics,
    confusion_matrix,
    mcnemar,
    most_confused,
    write_predictions_csv,
)
from naturalist.evaluation.results import AS_EVER, Drawing, Grid, write_results
from naturalist.evaluation.split_images import SplitImages, images_of_split
from naturalist.evaluation.variants import WITH, Change, predict_variants, print_variants, prior_of_run
from naturalist.printable import printable
from naturalist.progress import plain_console, print_numbers, print_table, progress_bar
from naturalist.ranks import Rank, in_turn, this_rank
from naturalist.runs.checkpoint import load_checkpoint
from naturalist.runs.tracking import Tracker
from naturalist.runs.weights_and_biases import log_grid_to_finished_run
from naturalist.settings.verbs import Prior, Tta
from naturalist.training.epoch import evaluate
from naturalist.wording import counted, number, percent

PAIRS_SAID = 3
"""Of the classes that are confused most often."""


def evaluate_run(
    run: Path,
    split: str = "test",
    *,
    data: str | None = None,
    device: str = "auto",
    cache_dir: str | None = None,
    batch_size: int = 128,
    tta: Tta = "none",
    prior: Prior = "training",
    drawing: Drawing = AS_EVER,
    quiet: bool = False,
    tracker: Tracker | None = None,
    model: nn.Module | None = None,
    shared: bool = False,
) -> dict[str, Any]:
    """Evaluate a run's best checkpoint on every image of a split.

    Writes ``metrics.json``, tables and pictures to ``evaluation/<split>`` in the run folder; see :func:`write_results`.

    Args:
        run: run folder, or a checkpoint file in one.
        split: ``"test"``, or ``"val"`` for the images held out in training.
        data: data set to use instead of the run's own.
        device: see :func:`naturalist.device.choose_device`.
        cache_dir: folder for decoded images, if not the run's own.
        batch_size: images per batch.
        tta: also average over views of each image, under ``with_flips`` and ``with_flips_and_shifts``.
        prior: ``"uniform"`` also corrects for the class frequencies of training, under ``with_uniform_prior``.
        drawing: how figures look, and how classes are called.
        quiet: print nothing.
        tracker: of a run that is still open; a finished one that is at W&B is continued there for the grid.
        model: the run's network, to be filled with the checkpoint's weights instead of building another.
        shared: all ranks have called this, and measure together; the first writes and prints.

    Returns:
        The metrics; ``missing_classes`` have no image, ``unknown_classes``, with numbers of files, are not the run's,
        and on the test set ``earlier_test_looks`` are other checkpoints tested on the same images.

    Raises:
        UserError: for a run that cannot be read, or data that does not fit it.
    """
    checkpoint = load_checkpoint(run)
    folder, rank = run if run.is_dir() else run.parent, this_rank() if shared else Rank()
    with in_turn(rank):
        images = images_of_split(folder, checkpoint, split, data=data, cache_dir=cache_dir)
    classifier = load_classifier(run, device, checkpoint=checkpoint, model=model)
    names = drawing.names(classifier.class_names)
    learnt = prior_of_run(folder, checkpoint) if prior == "uniform" else None
    predict = partial(_predict, classifier, images, batch_size, split, None if rank.is_alone else Share(rank))
    variants = predict_variants(predict, tta, learnt)
    probabilities = variants.pop("")
    metrics = {**_about(folder, split, images, checkpoint), **_measure(probabilities, images)}
    if rank.is_first:
        output = folder / "evaluation" / split
        grid = _write(output, run, metrics, images, probabilities, variants, drawing)
        _send(grid, metrics, folder, tracker)
        if not quiet:
            _print(metrics, output, names)
    return metrics


def _write(
    output: Path,
    run: Path,
    metrics: dict[str, Any],
    images: SplitImages,
    probabilities: NDArray[np.float64],
    variants: dict[str, NDArray[np.float64]],
    drawing: Drawing,
) -> Grid:
    """Add to the metrics what is to be said of confidence, looks and variants, and write all; raises UserError."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        metrics |= measure_confidence(output.parent, metrics["split"], metrics["epoch"], probabilities, images.labels)
        if metrics["split"] == "test":
            metrics["earlier_test_looks"] = record_look(run, images.files, metrics["epoch"], metrics["accuracy"])
        names, plain_is_right = images.cache.class_names, probabilities.argmax(axis=1) == images.labels
        for name, variant in variants.items():
            write_predictions_csv(images.files, images.labels, variant, names, output / f"predictions_{WITH}{name}.csv")
            compared = mcnemar(variant.argmax(axis=1) == images.labels, plain_is_right)
            metrics[WITH + name] = {**_measure(variant, images), "compared_without": compared}
        return write_results(output, metrics, probabilities, images, drawing)
    except OSError as error:
        raise UserError(f"cannot write the evaluation to {str(output)!r}: {cause_of(error)}.") from None


def _send(grid: Grid, metrics: dict[str, Any], folder: Path, tracker: Tracker | None) -> None:
    """Show the grid at W&B, where the run is there and the picture is of a kind that it shows."""
    if grid.picture.suffix != ".png":
        if (folder / "wandb.json").is_file():
            print("W&B shows PNG alone, so the grid is not sent; evaluate again without --format to send it.")
        return
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
    split: str,
    share: Share | None,
    how: str,
    change: Change,
) -> NDArray[np.float64]:
    """Probabilities of every image, changed, ``[N, C]``."""

    def prepare(pixels: Tensor) -> Tensor:
        return classifier.preprocessing(change(pixels))

    loader = BatchLoader(images.cache, images.indices, batch_size, classifier.device, share=share)
    compute = Compute(classifier.device, "fp32")  # reported numbers do not depend on the hardware's tricks
    with progress_bar(", ".join(filter(None, [f"Evaluating on {split}", how])), len(images.indices)) as bar:
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
    names, labels = images.cache.class_names, images.labels
    matrix = confusion_matrix(labels, probabilities.argmax(axis=1), len(names))
    return {
        **classification_metrics(probabilities, labels, names),
        **calibration(probabilities, labels),
        "most_confused": most_confused(matrix, names),
    }


def _print(metrics: dict[str, Any], output: Path, class_names: Sequence[str]) -> None:
    names = dict(zip(metrics["per_class"], class_names, strict=True))
    console = plain_console()
    table = Table("class", title=f"{metrics['split']}: {counted(metrics['n'], 'image')}", title_justify="left")
    for heading in ("precision", "recall", "F1", "images"):
        table.add_column(heading, justify="right")
    for name, scores in metrics["per_class"].items():
        table.add_row(
            printable(names[name]),
            *("–" if scores[key] is None else percent(scores[key]) for key in ("precision", "recall", "f1")),
            f"{scores['support']:,}",
        )
    print_table(table)
    print_numbers(_sentence(metrics))
    print_variants(metrics)
    print_numbers(say_temperature(metrics["temperature"]))
    if metrics["most_confused"]:
        pairs = [_confusion(pair, names) for pair in metrics["most_confused"][:PAIRS_SAID]]
        print_numbers(f"Most often confused: {'; '.join(pairs)}")
    looks = describe_looks(metrics.get("earlier_test_looks", []))
    if looks:
        console.print(printable(looks), soft_wrap=True)
    console.print(
        f"In {printable(output)}: {', '.join(sorted(path.name for path in output.iterdir()))}", soft_wrap=True
    )


def _confusion(pair: dict[str, Any], names: dict[str, str]) -> str:
    true, predicted = (printable(names[pair[key]]) for key in ("truth", "prediction"))
    return f"{true} taken for {predicted} ({counted(pair['images'], 'image')}, {percent(pair['share'], 0)} of its own)"


def _sentence(metrics: dict[str, Any]) -> str:
    low, high = metrics["accuracy_95_interval"]
    return (
        f"Accuracy {percent(metrics['accuracy'])} (95 % interval {number(100 * low)} to {percent(high)}), balanced "
        f"{percent(metrics['balanced_accuracy'])}, top-3 {percent(metrics['top3_accuracy'])}, loss "
        f"{metrics['loss']:.4f}, calibration error {percent(metrics['expected_calibration_error'])}"
    )
