"""Decode every photograph once, to a uint8 memory map on disk.

Decoding an 800×600 JPEG takes longer than training on it, so it is done once, by all cores, and every later epoch of
every later run reads pixels. They are kept in the store, see :mod:`naturalist.data.image_entry`.
"""

import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naturalist.data import store
from naturalist.data.catalog import Split
from naturalist.data.decode import decode_file
from naturalist.data.image_entry import ImageEntry
from naturalist.data.stream import RowFile
from naturalist.errors import UserError
from naturalist.printable import printable
from naturalist.wording import counted

PROBLEMS_SHOWN = 10


@dataclass(frozen=True)
class ImageCache:
    """Decoded images of one split, in the order of their paths."""

    pixels: np.memmap[Any, np.dtype[np.uint8]]
    """uint8 ``[rows, size, size, 3]``, read-only; there are some that no image has."""
    rows: NDArray[np.int64]
    """int64 ``[N]``: the row of each readable image."""
    labels: NDArray[np.int64]
    """int64 ``[N]``."""
    paths: tuple[str, ...]
    """``[N]``, relative to the split's folder; see :attr:`naturalist.data.catalog.ImageFile.name`."""
    class_names: tuple[str, ...]
    problems: tuple[tuple[str, str], ...]
    """Path and reason of every file that was left out."""
    sizes: tuple[int, ...] = ()
    """``[N]``, bytes of each file."""
    hashes: tuple[str, ...] = ()
    """``[N]``, of each file's content, taken while it was decoded; see :func:`naturalist.data.decode.content_hash`."""
    folder: str = ""
    """The split's."""
    file: RowFile | None = None
    """The same pixels, a row for each image, to be streamed."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def size(self) -> int:
        """Side of the images, in pixels."""
        side: int = self.pixels.shape[1]
        return side

    def bytes_of(self, indices: NDArray[np.int64]) -> int:
        """What the pixels of so many images take."""
        return len(indices) * self.size**2 * 3

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Copy images out of the map: uint8 ``[len(indices), size, size, 3]``."""
        images: NDArray[np.uint8] = self.pixels[self.rows[indices]]
        return images

    def release(self) -> None:
        """Take the pages read so far out of this process's memory; the system keeps them as file cache.

        Without it a process that reads the whole map seems to need as much memory as the map is large.
        """
        pages = self.pixels.base
        if isinstance(pages, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            pages.madvise(mmap.MADV_DONTNEED)


def open_cache(
    split: Split, size: int, resize_mode: str, cache_folder: Path, *, on_corrupt: str = "skip"
) -> ImageCache:
    """Open the cache of a split, once it is built or brought up to date if need be.

    Args:
        split: the scanned files.
        size: side of the square images, in pixels.
        resize_mode: ``"squash"`` or ``"crop"``, see :func:`naturalist.data.decode.decode_file`.
        cache_folder: where caches are kept; made if need be.
        on_corrupt: ``"skip"`` leaves unreadable files out and names them, ``"error"`` refuses them.

    Raises:
        UserError: when the folder cannot be written, the disk is full, every file of a class is unreadable,
            or a file is unreadable and ``on_corrupt`` is ``"error"``.
    """
    entry = ImageEntry.of(split, size, resize_mode, cache_folder)
    cache = _load(entry)
    if cache is None or (_is_mostly_waste(cache) and os.access(entry.folder, os.W_OK)):
        with store.building(entry.folder):
            cache = _load(entry)
            if cache is None or _is_mostly_waste(cache):
                entry.bring_up_to_date(decode_file, available_cores())
                cache = _load(entry)
        if cache is None:
            raise UserError(f"the cache {str(entry.folder)!r} was removed or damaged while it was opened; try again.")
    store.note_use(entry.folder)
    _report(cache, split, on_corrupt)
    return cache


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _load(entry: ImageEntry) -> ImageCache | None:
    """The images of an entry; None unless all files are in it as they are now."""
    version, index = entry.version(), entry.read_index()
    if index is None:
        return None
    images, problems = [], []
    for file in entry.split.files:
        known = index.files.get(file.path)
        if known is None or not known.holds(file, index):
            return None
        if known.row is None:
            problems.append((file.path, known.reason))
        else:
            images.append((known.row, file.label, file.name, known.size, known.hash))
    try:
        pixels, pixel_file = entry.open(index)
    except (OSError, ValueError):
        return None
    if entry.version() != version:  # replaced in between: these may be the pixels of another index
        return None
    rows, labels, paths, sizes, hashes = zip(*images, strict=True) if images else ((), (), (), (), ())
    return ImageCache(
        pixels,
        np.array(rows, np.int64),
        np.array(labels, np.int64),
        paths,
        entry.split.class_names,
        tuple(problems),
        sizes,
        hashes,
        str(entry.split.folder.resolve()),
        pixel_file,
    )


def _is_mostly_waste(cache: ImageCache) -> bool:
    """Whether most pixels are those of files that are gone or changed."""
    return 2 * max(1, len(np.unique(cache.rows))) < len(cache.pixels)


def _report(cache: ImageCache, split: Split, on_corrupt: str) -> None:
    """Name the files that were left out; refuse what cannot be gone on with."""
    if not cache.problems:
        return
    count = f"{len(cache.problems):,} of {counted(len(split.files), 'file')} in {split.folder.name}/"
    it, is_or_are = ("it", "is") if len(cache.problems) == 1 else ("them", "are")
    named = "".join(f"\n  {printable(path)}: {printable(reason)}" for path, reason in cache.problems[:PROBLEMS_SHOWN])
    if len(cache.problems) > PROBLEMS_SHOWN:
        named += f"\n  … and {len(cache.problems) - PROBLEMS_SHOWN} more"
    if on_corrupt == "error":
        raise UserError(
            f"{count} cannot be read; repair or remove {it}, or leave {it} out with --on_corrupt skip:{named}"
        )
    print(f"{count} cannot be read and {is_or_are} left out:{named}", flush=True)
    readable = np.bincount(cache.labels, minlength=len(cache.class_names))
    for (name, listed), count in zip(split.counts().items(), readable, strict=True):
        if listed and not count:
            raise UserError(
                f"no file of class {name} in {str(split.folder)!r} can be read; add photographs or remove the folder."
            )
