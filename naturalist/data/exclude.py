"""Which images a list leaves out of a training: those that ``naturalist audit`` found, or somebody did not like."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naturalist.data.catalog import Split
from naturalist.data.layout import Folders
from naturalist.data.listing import composed
from naturalist.errors import UserError
from naturalist.reading import read_csv
from naturalist.settings.places import refuse_missing

COLUMN = "path"
"""Of a list, with the images' places in the data folder; others may stand beside it."""


@dataclass(frozen=True)
class Exclusion:
    """Images that a training leaves out."""

    source: str
    """The list's file."""
    names: frozenset[str]
    """Of images, from the data folder on; see :meth:`naturalist.data.layout.Folders.prefix`."""

    @classmethod
    def read(cls, file: str) -> "Exclusion":
        """The images that a list names; raises :class:`UserError` when it is no such list."""
        path = Path(file).expanduser()
        refuse_missing(path, "list of images to exclude")
        heading, rows = read_csv(path, "exclude takes a CSV file")
        columns = [name.removeprefix("\ufeff") for name in heading]  # spreadsheets mark the beginning
        if COLUMN not in columns:
            raise UserError(
                f"{file!r} has no column {COLUMN!r}, which exclude takes the images from; its columns are "
                f"{', '.join(columns)}."
            )
        place = columns.index(COLUMN)
        return cls(file, frozenset(composed(row[place]) for row in rows))

    def record(self) -> dict[str, Any]:
        """How many they are, and a hash of their names."""
        lines = "\n".join(sorted(self.names))
        return {"images": len(self.names), "hash": hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()}

    def describe(self) -> str:
        """How many they are, for the end of a sentence."""
        return f"{len(self.names):,} left out by {self.source}"

    def require_known(self, folders: Folders, splits: Sequence[Split]) -> None:
        """Raise :class:`UserError` for a name that is of no file of the training and validation folders."""
        known = {folders.prefix(split.folder) + file.name for split in splits for file in split.files}
        unknown = sorted(self.names - known)
        if unknown:
            more = f" and {len(unknown) - 1:,} more" if len(unknown) > 1 else ""
            raise UserError(
                f"{self.source!r} names {unknown[0]!r}{more}, of no image to train on or to validate on in "
                f"{str(folders.root)!r}; take what is gone, or of the test set, out of the list, and give every "
                "image's path in that folder."
            )

    def without(
        self,
        indices: NDArray[np.int64],
        prefix: str,
        paths: Sequence[str],
        labels: NDArray[np.int64],
        class_names: Sequence[str],
    ) -> NDArray[np.int64]:
        """Those of a split's images that are not left out.

        Args:
            indices: of images, int64 ``[N]``.
            prefix: of the split.
            paths: of all its images, see :attr:`naturalist.data.catalog.ImageFile.name`.
            labels: their classes, int64.
            class_names: for messages.

        Raises:
            UserError: when nothing would be left of a class.
        """
        left = np.array([i for i in indices.tolist() if prefix + paths[i] not in self.names], np.int64)
        lost = np.setdiff1d(labels[indices], labels[left])
        if len(lost):
            raise UserError(
                f"without the images that {self.source!r} names, none of class {class_names[lost[0]]} is left to train "
                "on, or none to validate on; take some out of the list."
            )
        return left
