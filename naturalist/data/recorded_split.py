"""Which images a run trained on and which it was validated with: written once, read ever after.

A split that is drawn again is another one as soon as a single file has come or gone, and validation images would then
be some that the run was trained on.
"""

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from naturalist.data.images import ImageCache
from naturalist.errors import UserError
from naturalist.files import read_table, write_table

FILE_NAME = "split.csv"
COLUMNS = ("path", "class", "split", "bytes", "hash")
HELD_OUT, OWN_FOLDER = "held out", "folder"
NAMES_SHOWN = 3

Part = Literal["train", "val", "unused"]
"""``unused`` are the images that train_fraction left out."""


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
        """What :meth:`write` wrote; raises :class:`UserError` when it is not there, or not whole."""
        path = folder / FILE_NAME
        try:
            heading, *rows = read_table(path)
            if tuple(heading) != COLUMNS or any(row[2] not in ("train", "val", "unused") for row in rows):
                raise ValueError
            files = tuple(RecordedFile(row[0], row[1], cast(Part, row[2]), int(row[3]), row[4]) for row in rows)
        except (OSError, ValueError, IndexError, csv.Error):
            raise UserError(f"{path} is missing or damaged; without it nobody knows which images are which.") from None
        return cls(validation, files)


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
        position = positions.get(file.path)
        if position is None:
            gone.append(file.path)
        elif cache.hashes[position] != file.hash:
            changed.append(file.path)
        else:
            indices.append(position)
    return Found(np.sort(np.array(indices, np.int64)), tuple(gone), tuple(changed))


def _record(cache: ImageCache, index: int, part: Part) -> RecordedFile:
    class_name = cache.class_names[int(cache.labels[index])]
    return RecordedFile(cache.paths[index], class_name, part, cache.sizes[index], cache.hashes[index])
