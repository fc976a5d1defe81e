"""What the local page says of a run before anybody asks it: what it knows, how good it is, when it is unsure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from naturalist.data.catalog import scan
from naturalist.data.dataset import describe_data
from naturalist.data.decode import UnreadableImage, decode_file, hash_file
from naturalist.data.listing import composed
from naturalist.data.recorded_split import RecordedFile
from naturalist.errors import UserError
from naturalist.evaluation.metrics import read_predictions_csv
from naturalist.evaluation.selective import Threshold, fit_threshold
from naturalist.evaluation.split_images import validation_folder
from naturalist.printable import in_markdown, printable
from naturalist.reading import Count, Ordinal, Share, damaged, read_json
from naturalist.runs.environment import shell_word
from naturalist.runs.identity import read_identity
from naturalist.settings.display_names import name_in_markdown, names_by_folder, read_display_names
from naturalist.wording import counted, percent

MOST_NAMED = 20
"""Classes that a sentence can hold."""

EXAMPLES, THUMBNAIL_PIXELS = 8, 160
AGAIN = "evaluate the run again"


class Measured(Struct):
    """``evaluation/<split>/metrics.json``, as far as the page reads it."""

    accuracy: Share
    accuracy_95_interval: tuple[Share, Share]
    n: Ordinal
    epoch: Count
    data: str


@dataclass(frozen=True)
class Facts:
    """Sentences in Markdown."""

    knows: str
    quality: str
    doubt: str
    threshold: Threshold | None


@dataclass(frozen=True)
class Example:
    """A photograph to try the page with."""

    path: Path
    class_name: str
    thumbnail: NDArray[np.uint8]
    """``[THUMBNAIL_PIXELS, THUMBNAIL_PIXELS, 3]``."""


def read_facts(run: Path, checkpoint: dict[str, Any], display_names: Path | None = None) -> Facts:
    """What is known of a run.

    Args:
        run: run folder, or a checkpoint file; what was measured counts for the checkpoint's epoch only.
        checkpoint: its content.
        display_names: how classes are called, see :func:`naturalist.settings.display_names.read_display_names`.

    Raises:
        UserError: for a file of names that cannot be used, and when what was measured is damaged.
    """
    names = read_display_names(display_names, checkpoint["class_names"])
    doubt, threshold = _doubt(run, checkpoint)
    return Facts(_knows(names), _quality(run, checkpoint), doubt, threshold)


def find_examples(run: Path, checkpoint: dict[str, Any], display_names: Path | None = None) -> list[Example]:
    """Some of the photographs that the run was validated with, of as many classes as there is room for.

    They are drawn by chance, blind to what the model says of them, and each still has the content that it had then; one
    of the test set is never among them. Empty where there are none, for which a line on the terminal gives the reason.
    ``display_names`` says how their classes are called.
    """
    folder = _folder_of(run)
    try:
        recorded = read_identity(folder, checkpoint).split.of("val")
        split = scan(validation_folder(folder, checkpoint), checkpoint["class_names"])
    except UserError as reason:
        print(f"The page shows no example photographs: {printable(reason)}", flush=True)
        return []
    places = {file.name: split.folder / file.path for file in split.files}
    called = names_by_folder(display_names, checkpoint["class_names"])
    found: list[Example] = []
    for file in _drawn(recorded):
        path = places.get(composed(file.path))
        try:
            if path is not None and hash_file(path) == file.hash:
                found.append(Example(path, called[file.class_name], decode_file(path, THUMBNAIL_PIXELS, "crop")))
        except (UnreadableImage, OSError):
            continue
        if len(found) == EXAMPLES:
            break
    if not found:
        print(f"The page shows no example photographs: none of validation is in {printable(split.folder)}.", flush=True)
    return sorted(found, key=lambda example: example.class_name)


def _drawn(files: Sequence[RecordedFile]) -> list[RecordedFile]:
    """All files in an order of chance, but a class's second after every class's first."""
    turns: Counter[str] = Counter()
    turn_of: dict[str, int] = {}
    shuffled = [files[i] for i in np.random.default_rng(0).permutation(len(files))]
    for file in shuffled:
        turn_of[file.path] = turns[file.class_name]
        turns[file.class_name] += 1
    return sorted(shuffled, key=lambda file: turn_of[file.path])


def _knows(class_names: Sequence[str]) -> str:
    named = ", ".join(map(name_in_markdown, class_names[:MOST_NAMED]))
    more = f" and {len(class_names) - MOST_NAMED:,} more" if len(class_names) > MOST_NAMED else ""
    return (
        f"It knows {len(class_names):,} classes and takes every photograph for one of them, whatever it shows: "
        f"{named}{more}."
    )


def _quality(run: Path, checkpoint: dict[str, Any]) -> str:
    measured, why = _measured(run, checkpoint, "test")
    if measured is None:
        return f"How good it is, nobody knows: {why}"
    low, high = measured.accuracy_95_interval
    return (
        f"On its test set ({in_markdown(describe_data(measured.data))}) it was right about "
        f"{percent(measured.accuracy)} of {counted(measured.n, 'image')} (95 % interval {percent(low)} to "
        f"{percent(high)})."
    )


def _doubt(run: Path, checkpoint: dict[str, Any]) -> tuple[str, Threshold | None]:
    measured, why = _measured(run, checkpoint, "val")
    if measured is None:
        return f"When it is unsure, it cannot say: {why}", None
    path = _folder_of(run) / "evaluation" / "val" / "predictions.csv"
    _, truths, probabilities, names = read_predictions_csv(path)
    if names != list(checkpoint["class_names"]):
        damaged(str(path), "its classes are not those of the run", AGAIN)
    threshold = fit_threshold(probabilities, np.array([names.index(truth) for truth in truths]))
    if threshold is None:
        return (
            f"When it is unsure, it cannot say: on {counted(measured.n, 'validation image')} its confidence did not "
            "tell right from wrong.",
            None,
        )
    below = "" if threshold.accuracy_below is None else f", and {percent(threshold.accuracy_below)} of the others"
    return (
        f"It calls itself unsure below a confidence of {percent(threshold.confidence)}. On "
        f"{counted(threshold.images, 'validation image')} {percent(threshold.coverage)} of its answers reached that; "
        f"{percent(threshold.accuracy)} of these were right{below}.",
        threshold,
    )


def _measured(run: Path, checkpoint: dict[str, Any], split: str) -> tuple[Measured | None, str]:
    """What was measured of this checkpoint; or None, and which command does it."""
    path = _folder_of(run) / "evaluation" / split / "metrics.json"
    command = f"python -m naturalist evaluate {shell_word(run)}{' --split val' if split == 'val' else ''}"
    images = "test set" if split == "test" else "validation images"
    if not path.is_file():
        return None, f"it was never measured on its {images}; {in_markdown(command)} does it."
    measured = read_json(path, Measured, AGAIN)
    if measured.epoch != checkpoint["epoch"]:
        return None, (
            f"it is of epoch {checkpoint['epoch']}, and what was measured on its {images} is of epoch "
            f"{measured.epoch}; {in_markdown(command)} measures it."
        )
    return measured, ""


def _folder_of(run: Path) -> Path:
    return run if run.is_dir() else run.parent
