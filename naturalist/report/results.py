"""What a report says of one run: how it learnt, how it was tested, and what it looks at."""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np

from naturalist.evaluation.metrics import confusion_matrix, most_confused, read_predictions_csv
from naturalist.plots.curves import plot_curves
from naturalist.report.blocks import Block, Command, Heading, Missing, Picture, Sentences, Table, rate
from naturalist.report.found import Finished
from naturalist.runs.environment import shell_path
from naturalist.settings.display_names import Called
from naturalist.settings.verbs import PictureFormat
from naturalist.wording import counted, percent

PAIRS_SHOWN = 8
CLASSES_NAMED = 3
CONFUSION = "Confusion matrix: rows are true classes, columns predicted ones, each cell the number of test images."
ON_THE_GRID = "Test images of each class with their prediction and its confidence."
GRID = "Three test images of each class, drawn by chance, so that they cannot flatter."
MEASURED = {
    "confusion_matrix.png": (CONFUSION, "Confusion matrix."),
    "reliability.png": ("Accuracy over confidence: whether the confidence can be believed.", "Reliability."),
}
EXPLANATIONS = {
    "predictions.png": "Grad-CAM and occlusion: which parts of four photographs the prediction rests on.",
    "filters.png": "The filters of the first convolution, as small coloured squares.",
    "feature_maps.png": "What the first convolution makes of a photograph, a grey picture for each filter.",
    "guided_backprop.png": "Guided backpropagation: the pixels that excite the strongest channels of the last block.",
    "exciting.png": "For the same channels, the photographs that excite them most.",
}


def about_training(found: Finished, scratch: Path) -> Iterator[Block]:
    """Its settings in a command, and its curves.

    Args:
        found: the run.
        scratch: folder for pictures that are not there yet.
    """
    run, script = found.run, "partB/finetune.py" if found.is_adapted else "partA/train.py"
    config = shell_path(found.folder / "config.yaml")
    yield Command("Trains it again", f"python {script} --config {config} --name {run.name}-again")
    curves = found.folder / "curves.png"
    if not curves.is_file():
        curves = scratch / f"curves-{run.name}.png"
        plot_curves(run.history, curves, run.name, found.part("select_by") or "val_accuracy")
    best = percent(found.validation)
    yield Picture(
        curves,
        f"Loss, accuracy and learning rate of {run.name} over {counted(len(run.history), 'epoch')}, for training and "
        f"validation; the best epoch has a validation accuracy of {best}.",
        f"Curves of {run.name}.",
    )


def about_test(found: Finished, called: Called) -> Iterator[Block]:
    """Its test accuracy with its interval, classes, confusions and pictures; or the command for them."""
    folder, tested = found.folder / "evaluation" / "test", found.tested
    if tested is None:
        yield Missing(f"{found.run.name} was not tested.", f"python -m naturalist evaluate {shell_path(found.folder)}")
        return
    yield Sentences(list(_sentences(found, called)))
    if tested.per_class:
        yield Table(
            f"Test images of {found.run.name} by class.",
            ["class", "images", "precision", "recall", "F1"],
            [
                [called(name), f"{score.support:,}", rate(score.precision), rate(score.recall), rate(score.f1)]
                for name, score in tested.per_class.items()
            ],
        )
    yield from _confused(folder / "predictions.csv", called)
    command = f"python -m naturalist evaluate {shell_path(found.folder)}"
    yield from _pictures(folder, {**MEASURED, "predictions.png": (ON_THE_GRID, GRID)}, command)


def about_explanations(found: Finished) -> Iterator[Block]:
    """What it has learnt, in pictures; or the command for them."""
    yield Heading("What it looks at")
    command = f"python -m naturalist explain {shell_path(found.folder)}"
    pictures = {name: (words, words) for name, words in EXPLANATIONS.items()}
    shown = list(_pictures(found.folder / "explanation", pictures, command))
    yield from shown or [Missing(f"{found.run.name} was not explained.", command)]


def _pictures(folder: Path, names: dict[str, tuple[str, str]], command: str) -> Iterator[Picture | Missing]:
    """Those that are there, and the command for those that were last drawn in another format.

    Args:
        folder: where they are.
        names: file name → what the picture shows, and its caption.
        command: draws them as PNG.
    """
    others = set()
    for name, (alternative, caption) in names.items():
        path = folder / name
        drawn = [path.with_suffix(f".{kind}") for kind in get_args(PictureFormat)]
        newest = max((one for one in drawn if one.is_file()), key=lambda one: one.stat().st_mtime, default=None)
        if newest == path:
            yield Picture(path, alternative, caption)
        elif newest is not None:
            others.add(newest.suffix[1:].upper())
    if others:
        kinds = " and ".join(sorted(others))
        yield Missing(f"The last pictures in {folder.name} are {kinds}, and this page takes PNG alone.", command)


def _confused(path: Path, called: Called) -> Iterator[Table]:
    """The pairs of classes that are confused most, by a table of predictions; nothing without one."""
    if not path.is_file():
        return
    _, truth, probabilities, names = read_predictions_csv(path)
    labels = np.array([names.index(name) for name in truth])
    pairs = most_confused(confusion_matrix(labels, probabilities.argmax(axis=1), len(names)), names, PAIRS_SHOWN)
    if pairs:
        yield Table(
            "Pairs of classes that are confused most.",
            ["true class", "taken for", "images", "share of the class"],
            [
                [called(pair["truth"]), called(pair["prediction"]), f"{pair['images']:,}", percent(pair["share"])]
                for pair in pairs
            ],
        )


def _sentences(found: Finished, called: Called) -> Iterator[str]:
    tested = found.tested
    assert tested is not None
    interval = ""
    if tested.accuracy_95_interval is not None:
        low, high = tested.accuracy_95_interval
        interval = f" (95 % interval {percent(low)} to {percent(high)}, Wilson)"
    images = "the test images" if tested.n is None else counted(tested.n, "test image")
    yield (
        f"{found.run.name} is right about {percent(tested.accuracy)} of {images}{interval}; balanced over the classes "
        f"{percent(tested.balanced_accuracy)}; validation, by which it was chosen, {percent(found.validation)}."
    )
    if tested.top3_accuracy is not None:
        yield f"The true class is among its first three in {percent(tested.top3_accuracy)}."
    if tested.expected_calibration_error is not None:
        yield f"Its confidence is {100 * tested.expected_calibration_error:.1f} points off on average."
    scores = {name: score.recall for name, score in tested.per_class.items() if score.recall is not None}
    if len(scores) > 2 * CLASSES_NAMED:
        ranking = sorted(scores, key=lambda name: -(scores[name] or 0))
        best, worst = (
            ", ".join(f"{called(name)} ({percent(scores[name] or 0, 0)})" for name in names)
            for names in (ranking[:CLASSES_NAMED], ranking[: -CLASSES_NAMED - 1 : -1])
        )
        yield f"It finds most of {best}, and least of {worst}."
