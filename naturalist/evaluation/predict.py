"""``python -m naturalist predict RUN PHOTO|FOLDER|- …``: what a run says about new photographs."""

import csv
import io
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from numpy.typing import NDArray

from naturalist.data.decode import UnreadableImage
from naturalist.data.images import available_cores
from naturalist.data.listing import is_litter, is_photograph
from naturalist.errors import UserError
from naturalist.evaluation.classifier import Classifier, load_classifier
from naturalist.evaluation.confidence import COOLEST, HOTTEST, tempered
from naturalist.files import harmless
from naturalist.printable import printable, quoted
from naturalist.progress import progress_bar
from naturalist.wording import counted, percent

NONE_OF_THESE = "none of these"
"""The prediction when the confidence is below the threshold."""


def predict_photos(
    run: Path,
    photos: list[str],
    *,
    top: int = 3,
    threshold: float = 0.0,
    temperature: float = 1.0,
    format: str = "table",
    null: bool = False,
    batch_size: int = 64,
    device: str = "auto",
    display_names: Path | None = None,
) -> int:
    """Print a prediction for each photograph, in the order given, as soon as its batch is done.

    Threads decode the next batch while the model works on this one; nothing is kept, so memory stays flat however
    many photographs there are. Unreadable files are named on standard error and skipped.

    Args:
        run: run folder, or a checkpoint file; it holds all that is needed.
        photos: files, folders (searched at any depth), or ``"-"`` for a list of paths, one a line, on standard input.
        top: how many classes to name.
        threshold: confidence below which the prediction is ``NONE_OF_THESE``, in [0, 1].
        temperature: what logits are divided by, from 0.05 to 20; ``evaluate`` says which makes the confidence honest.
        format: ``"table"``, ``"csv"`` or ``"json"`` (an object per line); the latter two are UTF-8 in a file or a pipe.
        null: whether NUL characters separate the paths on standard input, not line ends.
        batch_size: photographs per batch.
        device: see :func:`naturalist.device.choose_device`.
        display_names: how classes are called, see :func:`naturalist.settings.display_names.read_display_names`.

    Returns:
        0, or 1 when a file could not be read: the exit code.

    Raises:
        UserError: for impossible settings, a checkpoint that cannot be used, or no photographs at all.
    """
    _require_possible(top, threshold, temperature, batch_size)
    if format != "table" and isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
        sys.stdout.reconfigure(encoding="utf-8")  # for programs, whatever the terminal's is
    classifier = load_classifier(run, device).called(display_names)
    paths = find_photos(photos, null=null)
    # On a terminal, printing goes through the bar, which stays below; a pipe gets nothing but the predictions.
    write = _writer(format, classifier, top, threshold, None if sys.stdout.isatty() else sys.stdout)
    unreadable = 0
    with progress_bar("Predicting", len(paths), unit="photographs", plain_to=sys.stderr) as bar:
        for batch, pixels, problems in _decoded_batches(classifier, paths, batch_size):
            for path, reason in problems:
                print(f"unreadable: {printable(path)}: {printable(reason)}", file=sys.stderr)
            if batch:
                for path, row in zip(batch, tempered(classifier.probabilities(pixels), temperature), strict=True):
                    write(str(path), row)
            unreadable += len(problems)
            bar.advance(len(batch) + len(problems))
    if unreadable:
        print(f"{unreadable} of {counted(len(paths), 'file')} could not be read.", file=sys.stderr)
    return 1 if unreadable else 0


def _require_possible(top: int, threshold: float, temperature: float, batch_size: int) -> None:
    for name, value, holds, limits in (
        ("--top", top, top >= 1, "at least 1"),
        ("--batch_size", batch_size, batch_size >= 1, "at least 1"),
        ("--threshold", threshold, 0 <= threshold <= 1, "between 0 and 1"),
        ("--temperature", temperature, COOLEST <= temperature <= HOTTEST, f"between {COOLEST:g} and {HOTTEST:g}"),
    ):
        if not holds:
            raise UserError(f"{name} cannot be {value}; it must be {limits}.")


def find_photos(photos: list[str], *, null: bool = False) -> list[Path]:
    """Files in the order given, folders searched at any depth in the order of their names, without systems' litter.

    ``-`` is a list of paths on standard input, one a line, or separated by NUL characters: with ``null``, and where it
    holds one. Raises :class:`UserError` when a folder, or all of it, holds no photographs.
    """
    paths: list[Path] = []
    for name in photos:
        if name == "-":
            paths += _listed(sys.stdin.buffer.read(), null)
        elif Path(name).is_dir():
            found = list(_photos_below(Path(name)))
            if not found:
                raise UserError(f"the folder {name!r} holds no photographs.")
            paths += found
        else:
            paths.append(Path(name))
    if not paths:
        raise UserError(
            "there are no photographs to predict: name files or folders, or pass - and a list of paths "
            "on standard input."
        )
    return paths


def _listed(data: bytes, null: bool) -> list[Path]:
    """The paths of a list, whatever bytes are in them; of a list of lines, the line's end may be Windows'."""
    if null or b"\0" in data:
        names = data.split(b"\0")
    else:
        names = [line.removesuffix(b"\r") for line in data.split(b"\n")]
    return [Path(os.fsdecode(name)) for name in names if name.strip()]


def _photos_below(folder: Path) -> Iterator[Path]:
    for parent, subfolders, names in os.walk(folder):
        subfolders[:] = sorted(name for name in subfolders if not is_litter(name))
        for name in sorted(names):
            # A file that is named itself is tried whatever it is called.
            if not is_litter(name) and (is_photograph(name) or not Path(name).suffix):
                yield Path(parent, name)


def _decoded_batches(
    classifier: Classifier, paths: list[Path], batch_size: int
) -> Iterator[tuple[list[Path], NDArray[Any], list[tuple[Path, str]]]]:
    """Yield the readable paths of a batch, their pixels ``[B, S, S, 3]`` and the others with reasons."""

    def decode(path: Path) -> NDArray[Any] | str:
        try:
            return classifier.decode(path)
        except UnreadableImage as reason:
            return str(reason)

    def submit(start: int) -> list[tuple[Path, Future[NDArray[np.uint8] | str]]]:
        return [(path, pool.submit(decode, path)) for path in paths[start : start + batch_size]]

    torch_threads = torch.get_num_threads()
    with ThreadPoolExecutor(available_cores(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        upcoming = submit(0)
        for start in range(0, len(paths), batch_size):
            current, upcoming = upcoming, submit(start + batch_size)
            results = [(path, future.result()) for path, future in current]
            torch.set_num_threads(torch_threads)  # on some platforms the decoding threads' setting counts for all
            good = [(path, pixels) for path, pixels in results if not isinstance(pixels, str)]
            problems = [(path, reason) for path, reason in results if isinstance(reason, str)]
            yield (
                [path for path, _ in good],
                np.stack([pixels for _, pixels in good]) if good else np.empty(0),
                problems,
            )


def _writer(
    format: str, classifier: Classifier, top: int, threshold: float, file: TextIO | None
) -> Callable[[str, NDArray[Any]], None]:
    """A function that prints one photograph's row of probabilities; the heading is printed here.

    Nothing is printed that a terminal would obey. In CSV and JSON, names still lead back to their files, whatever
    characters or bytes they are made of: a JSON line holds the name itself, escaped as JSON does; a CSV cell that is
    not printable, or begins with ``"``, is a JSON string.
    """
    names = classifier.class_names
    only_ascii = getattr(sys.stdout, "encoding", None) not in ("utf-8", "UTF-8")
    top = min(top, len(names))
    width = max(len(NONE_OF_THESE), *map(len, names))

    def describe(probabilities: NDArray[Any]) -> tuple[str, list[tuple[str, float]]]:
        order = np.argsort(-probabilities, kind="stable")[:top]
        ranked = [(names[i], float(probabilities[i])) for i in order]
        return (ranked[0][0] if ranked[0][1] >= threshold else NONE_OF_THESE), ranked

    def write_table(path: str, probabilities: NDArray[Any]) -> None:
        prediction, ranked = describe(probabilities)
        prediction, ranked = printable(prediction), [(printable(name), share) for name, share in ranked]
        shown = ranked if prediction == NONE_OF_THESE else ranked[1:]
        others = "  ".join(f"{name:<{width}} {percent(share):>7}" for name, share in shown[: max(top - 1, 0)])
        print(f"{prediction:<{width}} {percent(ranked[0][1]):>7}  {others}  {printable(path)}", file=file, flush=True)

    def write_csv(path: str, probabilities: NDArray[Any]) -> None:
        prediction, ranked = describe(probabilities)
        ranks = [text for name, share in ranked for text in (_cell(name, only_ascii), f"{share:.6f}")]
        csv.writer(file or sys.stdout, lineterminator="\n").writerow(
            harmless([_cell(path, only_ascii), _cell(prediction, only_ascii), f"{ranked[0][1]:.6f}", *ranks])
        )

    def write_json(path: str, probabilities: NDArray[Any]) -> None:
        prediction, ranked = describe(probabilities)
        print(
            quoted(
                {
                    "file": path,
                    "prediction": prediction,
                    "confidence": round(ranked[0][1], 6),
                    "top": [{"class": name, "probability": round(share, 6)} for name, share in ranked],
                },
                only_ascii,
            ),
            file=file,
            flush=True,
        )

    if format == "csv":
        ranks = [heading for i in range(1, top + 1) for heading in (f"class_{i}", f"probability_{i}")]
        csv.writer(file or sys.stdout, lineterminator="\n").writerow(["file", "prediction", "confidence", *ranks])
    elif format == "table":
        others = "then" if top > 1 else ""
        print(
            f"{'prediction':<{width}} {'conf.':>7}  {others:<{max(0, (width + 10) * (top - 1) - 2)}}  photograph",
            file=file,
        )
    return {"table": write_table, "csv": write_csv, "json": write_json}[format]


def _cell(name: str, only_ascii: bool) -> str:
    """A name as a cell of CSV, see :func:`_writer`."""
    is_plain = name.isprintable() and not name.startswith('"') and (name.isascii() or not only_ascii)
    return name if is_plain else quoted(name, only_ascii)
