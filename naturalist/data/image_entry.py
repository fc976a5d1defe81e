"""The store's entry of one folder of photographs, in one size: decoded pixels, and of which files they are.

An entry is a folder ``<data>-<split>-<size>-<mode>-<key>/`` with ``pixels.bin`` (uint8 ``[rows, size, size, 3]``) and
``index.json``. It belongs to a folder of photographs and follows it: a file whose size or times differ is read again,
and decoded to a new row only where its content is new. Rows are never changed, so whoever has mapped them reads on.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import torch
from filelock import Timeout
from numpy.typing import NDArray

from naturalist.data import store
from naturalist.data.budget import decode_budget
from naturalist.data.catalog import ImageFile, Split
from naturalist.data.decode import Pixels, UnreadableImage, content_hash, hash_file
from naturalist.data.formats import can_read_heic
from naturalist.data.index import FORMAT_VERSION, Index, Known, read_index
from naturalist.data.index import NAME as INDEX
from naturalist.data.stream import RowFile
from naturalist.data.threads import in_order
from naturalist.errors import UserError
from naturalist.progress import progress_bar

PIXELS = "pixels.bin"
AHEAD = 8
"""Images for each thread that may be decoded before those before them are written."""
NAME_BYTES = 40
"""Of a folder's name that are part of an entry's."""

Decode = Callable[[Path, int, str, Callable[[bytes], None]], Pixels]
"""As :func:`naturalist.data.decode.decode_file`."""
Decoded = tuple[str, Known, Pixels | None]
"""A file's path, what is to be known of it, and its pixels, if it has any."""

T = TypeVar("T")
Result = TypeVar("Result")


@dataclass(frozen=True)
class ImageEntry:
    """Where the pixels of a split are kept, whether they are there already or not."""

    split: Split
    size: int
    resize_mode: str
    folder: Path

    @classmethod
    def of(cls, split: Split, size: int, resize_mode: str, cache_folder: Path) -> "ImageEntry":
        """The entry of a split; other paths to its folder lead to the same."""
        source = split.folder.resolve()
        key = store.key_of(FORMAT_VERSION, str(source), size, resize_mode)
        names = (os.fsencode(name)[:NAME_BYTES].decode(errors="ignore") for name in (source.parent.name, source.name))
        return cls(split, size, resize_mode, cache_folder / "-".join((*names, str(size), resize_mode, key)))

    @property
    def image_bytes(self) -> int:
        """Of each image."""
        return self.size * self.size * 3

    def read_index(self) -> Index | None:
        """None where there is no entry, or a damaged one: by a power cut, by copying a part."""
        index = read_index(self.folder)
        if index is None or (index.size, index.resize_mode) != (self.size, self.resize_mode):
            return None
        try:
            length = (self.folder / PIXELS).stat().st_size
        except OSError:
            return None
        return index if 0 < index.rows * self.image_bytes <= length else None

    def version(self) -> tuple[int, ...] | None:
        """What changes whenever the index is replaced; None where there is none."""
        try:
            status = (self.folder / INDEX).stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def map(self, index: Index) -> np.memmap[Any, np.dtype[np.uint8]]:
        """All pixels, uint8 ``[rows, size, size, 3]``; raises OSError and ValueError when they are gone."""
        return self.open(index)[0]

    def open(self, index: Index) -> tuple[np.memmap[Any, np.dtype[np.uint8]], RowFile]:
        """The same, and the file below: whoever has both reads on when the entry is replaced."""
        with (self.folder / PIXELS).open("rb") as file:
            pixels = np.memmap(file, np.uint8, mode="r", shape=(index.rows, self.size, self.size, 3))
            return pixels, RowFile(pixels.reshape(index.rows, -1), file)

    def bring_up_to_date(self, decode: Decode, threads: int) -> None:
        """Decode what is new; to be called within :func:`naturalist.data.store.building`, which says what is raised."""
        index = self.read_index() or self._adopt()
        known: dict[str, Known] = {}
        if index is not None:
            known = self._recognise(index, threads)
        new = [file for file in self.split.files if file.path not in known]
        used = {file.row for file in known.values() if file.row is not None}
        if index is None or 2 * (len(used) + len(new)) < index.rows or not used:
            old = None if index is None else self.map(index)
            self._build(lambda files: self._decode(files, known, old, decode, threads))
        else:
            self._append(index, known, new, lambda files: self._decode(files, {}, None, decode, threads))

    def _recognise(self, index: Index, threads: int) -> dict[str, Known]:
        """The files whose content the entry has: those that did not change, and those that were touched or renamed."""
        known = {
            file.path: found
            for file in self.split.files
            if (found := index.files.get(file.path)) and found.holds(file, index)
        }
        rows = {found.hash: found.row for found in index.files.values() if found.row is not None}
        others = [file for file in self.split.files if file.path not in known]

        def hash_of(file: ImageFile) -> str:
            with _disk_is_well(self.split.folder / file.path):
                try:
                    return hash_file(self.split.folder / file.path)
                except UnreadableImage:  # decoding says so again
                    return ""

        with progress_bar(f"Reading what changed in {self.split.folder.name}", len(others), "files") as bar:
            for file, content in zip(others, _decoding(hash_of, others, threads), strict=True):
                if content in rows:
                    known[file.path] = Known(file.size, file.stamp, content, rows[content])
                bar.advance()
        return known

    def _build(self, decode: Callable[[Sequence[ImageFile]], Iterator[Decoded]]) -> None:
        """Write a new entry."""
        self._require_room(len(self.split.files))
        with store.appearing_whole(self.folder) as folder:
            with store.written(folder / PIXELS) as file:
                rows, known = self._write(file, 0, decode(self.split.files))
                if not rows:  # nothing cannot be mapped
                    file.write(bytes(self.image_bytes))
            with store.written(folder / INDEX) as file:
                file.write(self._index(max(1, rows), known).text().encode())

    def _append(
        self,
        index: Index,
        known: dict[str, Known],
        new: Sequence[ImageFile],
        decode: Callable[[Sequence[ImageFile]], Iterator[Decoded]],
    ) -> None:
        """Write the pixels of new files behind those of the others."""
        self._require_room(len(new))
        rows = index.rows
        if new:
            with store.appended(self.folder / PIXELS, rows * self.image_bytes) as file:
                rows, found = self._write(file, rows, decode(new))
            known = {**known, **found}
        store.replace_text(self.folder / INDEX, self._index(rows, known).text())

    def _write(self, file: BinaryIO, row: int, decoded: Iterator[Decoded]) -> tuple[int, dict[str, Known]]:
        """Write pixels from ``row`` on; returns the row behind the last, and what is known of every file."""
        known = {}
        for path, state, pixels in decoded:
            known[path] = state
            if pixels is not None:
                file.write(pixels.data)
                known[path], row = replace(state, row=row), row + 1
        return row, known

    def _index(self, rows: int, files: dict[str, Known]) -> Index:
        source = str(self.split.folder.resolve())
        return Index(source, self.size, self.resize_mode, rows, decode_budget(), can_read_heic(), files)

    def _require_room(self, count: int) -> None:
        store.require_room(
            self.folder.parent,
            count * self.image_bytes,
            f"the cache of {count:,} images at {self.size} px",
            "free some space, pass --cache_dir with a folder on another disk, or choose a smaller size",
        )

    def _decode(
        self,
        files: Sequence[ImageFile],
        known: dict[str, Known],
        old: NDArray[np.uint8] | None,
        decode: Decode,
        threads: int,
    ) -> Iterator[Decoded]:
        """Decode files, in their order; the pixels of those that are known are copied out of ``old``."""

        def look_at(file: ImageFile) -> Decoded:
            before = known.get(file.path)
            if before is not None and old is not None:
                return file.path, before, None if before.row is None else np.ascontiguousarray(old[before.row])
            path, hashes = self.split.folder / file.path, [""]
            with _disk_is_well(path):
                try:
                    pixels = decode(path, self.size, self.resize_mode, lambda data: hashes.append(content_hash(data)))
                except UnreadableImage as reason:
                    return file.path, Known(file.size, file.stamp, "", None, str(reason)), None
            return file.path, Known(file.size, file.stamp, hashes[-1], None), pixels

        with progress_bar(f"Decoding {self.split.folder.name} at {self.size} px", len(files)) as bar:
            for result in _decoding(look_at, files, threads):
                yield result
                bar.advance()

    def _adopt(self) -> Index | None:
        """Take over the entry of a folder that is gone and held some of these files: it has been moved, or renamed."""
        best, most = None, 0
        for other in sorted(self.folder.parent.glob(f"*-{self.size}-{self.resize_mode}-*")):
            index = read_index(other)
            if index is None or index.resize_mode != self.resize_mode or Path(index.folder).exists():
                continue
            same = sum(
                found is not None and (found.size, found.stamp[0]) == (file.size, file.stamp[0])
                for file in self.split.files
                for found in [index.files.get(file.path)]
            )
            if same > most:
                best, most = other, same
        if best is None:
            return None
        try:
            with store.lock_of(best).acquire(timeout=0):
                best.rename(self.folder)
        except (Timeout, OSError):  # somebody else's now
            return None
        return self.read_index()


@contextmanager
def _disk_is_well(path: Path) -> Iterator[None]:
    """Around reading a photograph: what is no fault of the file must not be taken for one, nor for one of the cache."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror}; try again when the disk is well.") from None


def _decoding(function: Callable[[T], Result], items: Sequence[T], threads: int) -> Iterator[Result]:
    """Results for ``items`` in their order, by threads that are not further ahead than memory allows.

    Threads suffice because reading, decoding and resizing all release the interpreter's lock.
    """
    torch_threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield from in_order(pool, function, items, AHEAD * threads)
    finally:
        torch.set_num_threads(torch_threads)
