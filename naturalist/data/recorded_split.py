"""Which images a run trained on and which it was validated with: written once, read ever after.

A split that is drawn again is another one as soon as a single file has come or gone, and validation images would then
be some that the run was trained on.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from naturalist.data.images import ImageCache
from naturalist.data.listing import composed
from naturalist.files import write_table
from naturalist.reading import damaged, read_csv

FILE_NAME = "split.csv"
COLUMNS = ("path", "class", "split", "bytes", "hash")
HELD_OUT, OWN_FOLDER = "held out", "folder"
NAMES_SHOWN = 3

Part = Literal["train", "val", "unused"]
"""``unused`` are the images that train_fraction or exclude left out."""


@dataclass(frozen=True)
class RecordedFile:
    """One image, as it was when the run began."""

    path: str
    """Relative to the folder of its split, with forward slashes."""
    class_name: str
    part: Part
    size: int
    """Bytes."""
    hash: str
    """See :func:`naturalist.data.decode.content_hash`."""


@dataclass(frozen=True)
class RecordedSplit:
    """Every readable image of a run's training and validation folders."""

    validation: str
    """``"held out"`` of the training folder, or a ``"folder"`` of its own."""
    files: tuple[RecordedFile, ...]

    @property
    def fingerprint(self) -> str:
        """Of the data set, however it is split: names, classes and content."""
        digest = hashlib.sha256(self.validation.encode())
        for file in sorted(self.files, key=lambda file: (file.path, file.hash)):
            own = file.part if self.validation == OWN_FOLDER and file.part == "val" else ""
            digest.update(
                "\t".join((own, file.path, file.class_name, file.hash, "\n")).encode(errors="surrogateescape")
            )
        return digest.hexdigest()[:32]

    def of(self, part: Part) -> tuple[RecordedFile, ...]:
        """The images of one part."""
        return tuple(file for file in self.files if file.part == part)

    def write(self, folder: Path) -> None:
        """Write ``split.csv``."""
        rows = ([item.path, item.class_name, item.part, item.size, item.hash] for item in self.files)
        write_table(folder / FILE_NAME, [COLUMNS, *rows])

    @classmethod
    def read(cls, folder: Path, validation: str) -> "RecordedSplit":
        """What :meth:`write` wrote; raises :class:`UserError` when it is not there, or damaged."""
        path, remedy = folder / FILE_NAME, "without it nobody knows which images are which"
        heading, rows = read_csv(path, remedy)
        if tuple(heading) != COLUMNS:
            damaged(str(path), f"its columns are not {', '.join(COLUMNS)}", remedy)
        files, seen = [], set()
        for number, row in enumerate(rows, start=2):
            problem = _problem_of(row)
            key = (row[0], validation == OWN_FOLDER and row[2] == "val")
            if not problem and key in seen:
                problem = f"{row[0]!r} is there already"
            if problem:
                damaged(f"{path}, row {number},", problem, remedy)
            seen.add(key)
            files.append(RecordedFile(row[0], row[1], cast(Part, row[2]), int(row[3]), row[4]))
        return cls(validation, tuple(files))


def record_split(
    train: ImageCache,
    train_indices: NDArray[np.int64],
    held_out: NDArray[np.int64] | None,
    val: ImageCache,
    val_indices: NDArray[np.int64],
) -> RecordedSplit:
    """Put a split on record.

    Args:
        train: images of the training folder.
        train_indices: which of them are trained on.
        held_out: which of them are validated with; None where validation has a folder of its own.
        val: images of the folder that validation images lie in.
        val_indices: which of them are validated with.
    """
    parts: dict[int, Part] = dict.fromkeys(train_indices.tolist(), "train")
    if held_out is not None:
        parts |= dict.fromkeys(held_out.tolist(), "val")
        return RecordedSplit(HELD_OUT, tuple(_record(train, i, parts.get(i, "unused")) for i in range(len(train))))
    files = [_record(train, i, parts.get(i, "unused")) for i in range(len(train))]
    files += [_record(val, i, "val") for i in val_indices.tolist()]
    return RecordedSplit(OWN_FOLDER, tuple(files))


@dataclass(frozen=True)
class Found:
    """Recorded images that are still there as they were, and what has become of the others."""

    indices: NDArray[np.int64]
    """Of the cache, int64 ``[N]``, ascending."""
    gone: tuple[str, ...]
    changed: tuple[str, ...]

    def describe_missing(self) -> str:
        """How many are gone or changed, and the first of them; empty when all are there."""
        kinds = [(self.gone, "gone"), (self.changed, "changed")]
        words = []
        for paths, kind in kinds:
            if paths:
                more = ", …" if len(paths) > NAMES_SHOWN else ""
                words.append(f"{len(paths):,} {kind} ({', '.join(paths[:NAMES_SHOWN])}{more})")
        return " and ".join(words)


def find_recorded(files: Sequence[RecordedFile], cache: ImageCache) -> Found:
    """Look recorded images up among those that are there; what is new since then is left out."""
    positions = {path: i for i, path in enumerate(cache.paths)}
    indices, gone, changed = [], [], []
    for file in files:
        position = positions.get(composed(file.path))
        if position is None:
            gone.append(file.path)
        elif cache.hashes[position] != file.hash:
            changed.append(file.path)
        else:
            indices.append(position)
    return Found(np.sort(np.array(indices, np.int64)), tuple(gone), tuple(changed))


def _problem_of(row: list[str]) -> str:
    """What is impossible in a row; empty when nothing is."""
    path, class_name, part, size, content_hash = row
    if not path or path.startswith("/") or ".." in PurePosixPath(path).parts:
        return f"the path {path!r} leads out of the data set"
    if not class_name:
        return "it names no class"
    if part not in get_args(Part):
        return f"{part!r} is none of {', '.join(get_args(Part))}"
    if not re.fullmatch("[0-9]{1,18}", size):
        return f"{size!r} is no number of bytes"
    if not re.fullmatch("[0-9a-f]{32}", content_hash):
        return f"{content_hash!r} is no hash"
    return ""


def _record(cache: ImageCache, index: int, part: Part) -> RecordedFile:
    class_name = cache.class_names[int(cache.labels[index])]
    return RecordedFile(cache.paths[index], class_name, part, cache.sizes[index], cache.hashes[index])
