"""What an entry of decoded images says about itself: ``index.json``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from naturalist.data import store
from naturalist.data.budget import decode_budget
from naturalist.data.catalog import ImageFile
from naturalist.data.formats import can_read_heic

NAME = "index.json"
FORMAT_VERSION = 4
"""To be raised whenever decoding yields other pixels, or an index says more."""


@dataclass(frozen=True)
class Known:
    """One file, as it was when it was read."""

    size: int
    """Bytes."""
    stamp: tuple[int, int]
    """See :class:`naturalist.data.catalog.ImageFile`."""
    hash: str
    """Of its content; empty for one that could not be read."""
    row: int | None
    """Of its pixels; None for one that could not be decoded."""
    reason: str = ""
    """Why it could not."""

    def holds(self, file: ImageFile, index: "Index") -> bool:
        """Whether this is true of the file now, as far as its size and times tell."""
        is_same = (self.size, self.stamp) == (file.size, file.stamp)
        return is_same and (
            self.row is not None or (index.budget >= decode_budget() and index.reads_heic >= can_read_heic())
        )


@dataclass(frozen=True)
class Index:
    """All files of an entry."""

    folder: str
    """Folder of the split that the images are of."""
    size: int
    """Side of the images, in pixels."""
    resize_mode: str
    rows: int
    """Images in ``pixels.bin``; not all are in use."""
    budget: int
    """Bytes that decoding was given: with more, files may be readable that were not."""
    reads_heic: bool
    """Whether the library for HEIC was installed: with it, files may be readable that were not."""
    files: dict[str, Known]
    """By path, relative to ``folder``."""

    def text(self) -> str:
        """What :func:`read_index` reads."""
        files = [[path, file.size, *file.stamp, file.hash, file.row, file.reason] for path, file in self.files.items()]
        return store.sealed({"version": FORMAT_VERSION, **vars(self), "files": files})


def read_index(entry: Path) -> Index | None:
    """The index in an entry's folder; None where there is none, it is of another version, or damaged."""
    try:
        content = store.unsealed(entry / NAME)
        if content.get("version") != FORMAT_VERSION:
            return None
        rows = _natural(content["rows"])
        files = {_text(path): _known(rows, *values) for path, *values in content["files"]}
        return Index(
            folder=_text(content["folder"]),
            size=_natural(content["size"]),
            resize_mode=_text(content["resize_mode"]),
            rows=rows,
            budget=_natural(content["budget"]),
            reads_heic=bool(content["reads_heic"]),
            files=files,
        )
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _known(rows: int, size: Any, changed: Any, inode_changed: Any, content: Any, row: Any, reason: Any) -> Known:
    if row is not None and _natural(row) >= rows:
        raise ValueError(row)
    return Known(_natural(size), (_whole(changed), _whole(inode_changed)), _text(content), row, _text(reason))


def _natural(value: Any) -> int:
    if _whole(value) < 0:
        raise ValueError(value)
    return int(value)


def _whole(value: Any) -> int:
    if type(value) is not int:  # true and false are no numbers here
        raise ValueError(value)
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(value)
    return value
