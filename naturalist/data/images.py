"""Decode every photograph once, to a uint8 memory map on disk.

Decoding an 800×600 JPEG takes longer than training on it, so it is done once, by all cores, and every later epoch of
every later run reads pixels. A cache is a folder ``<data>-<split>-<size>-<mode>-<key>/`` with ``pixels.bin``
(uint8 ``[files, size, size, 3]``) and ``index.json``. Its key is made from what the pixels were made from, so a
changed file or setting leads to another cache, never to a stale one.
"""

import errno
import hashlib
import json
import mmap
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from naturalist.data.catalog import Split
from naturalist.data.decode import UnreadableImage, decode_file
from naturalist.errors import UserError
from naturalist.progress import progress_bar

FORMAT_VERSION = 2
"""Part of every key; to be raised whenever decoding yields other pixels, or an index says more."""

PROBLEMS_SHOWN = 10
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class ImageCache:
    """Decoded images of one split, in the order of their paths."""

    pixels: np.memmap[Any, np.dtype[np.uint8]]
    """uint8 ``[files, size, size, 3]``, read-only; rows of unreadable files are blank."""
    rows: NDArray[np.int64]
    """int64 ``[N]``: the row of each readable image."""
    labels: NDArray[np.int64]
    """int64 ``[N]``."""
    paths: tuple[str, ...]
    """``[N]``, relative to the split's folder."""
    class_names: tuple[str, ...]
    problems: tuple[tuple[str, str], ...]
    """Path and reason of every file that was left out."""
    sizes: tuple[int, ...] = ()
    """``[N]``, bytes of each file."""
    hashes: tuple[str, ...] = ()
    """``[N]``, of each file's content, taken while it was decoded; see :func:`content_hash`."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def size(self) -> int:
        """Side of the images, in pixels."""
        side: int = self.pixels.shape[1]
        return side

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
    split: Split, size: int, resize_mode: str, cache_folder: Path, *, name: str = "images", on_corrupt: str = "skip"
) -> ImageCache:
    """Open the cache of a split, building it first where there is none.

    Args:
        split: the scanned files.
        size: side of the square images, in pixels.
        resize_mode: ``"squash"`` or ``"crop"``, see :func:`naturalist.data.decode.decode_file`.
        cache_folder: where caches are kept; made if need be.
        name: first part of the cache's folder name, for people.
        on_corrupt: ``"skip"`` leaves unreadable files out and names them, ``"error"`` refuses them.

    Raises:
        UserError: when the folder cannot be written, the disk is full, every file of a class is unreadable,
            or a file is unreadable and ``on_corrupt`` is ``"error"``.
    """
    folder = cache_folder / f"{name}-{split.folder.name}-{size}-{resize_mode}-{_key(split, size, resize_mode)}"
    cache = _load(folder, split.class_names, size)
    if cache is None:
        _build_once(split, size, resize_mode, folder)
        cache = _load(folder, split.class_names, size)
        if cache is None:
            raise UserError(f"the cache {str(folder)!r} was removed or damaged while it was opened; try again.")
    _report(cache, split, on_corrupt)
    return cache


def content_hash(data: bytes) -> str:
    """What a file is recognised by: BLAKE2b of its bytes, 32 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _key(split: Split, size: int, resize_mode: str) -> str:
    files = [(file.path, file.size, *file.stamp) for file in split.files]
    made_from = json.dumps([FORMAT_VERSION, size, resize_mode, split.class_names, files])
    return hashlib.sha256(made_from.encode()).hexdigest()[:12]


def _build_once(split: Split, size: int, resize_mode: str, folder: Path) -> None:
    """Build below a lock; whoever waited for another process finds the cache finished."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(folder.name + ".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"Waiting for another process that is building {folder.name}.", flush=True)
            lock.acquire()
        try:
            if _load(folder, split.class_names, size) is None:
                _build(split, size, resize_mode, folder)
        finally:
            lock.release()
    except OSError as error:
        if error.errno in NO_ROOM:
            raise UserError(
                f"the disk of the cache folder {str(folder.parent)!r} is full; free some space or pass "
                "--cache_dir with a folder on another disk."
            ) from None
        raise UserError(
            f"cannot write to the cache folder {str(folder.parent)!r} ({error.strerror or error}); pass "
            "--cache_dir with a folder that can be written."
        ) from None


def _build(split: Split, size: int, resize_mode: str, folder: Path) -> None:
    image_bytes = size * size * 3
    needed, free = len(split.files) * image_bytes, shutil.disk_usage(folder.parent).free
    if needed > free:
        raise UserError(
            f"the cache of {len(split.files):,} images at {size} px needs {needed / 1e9:.2f} GB, but "
            f"{str(folder.parent)!r} has {free / 1e9:.2f} GB free; free some space, pass --cache_dir "
            "with a folder on another disk, or choose a smaller size."
        )
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a build that was killed; the lock says nobody works on it
    unfinished.mkdir()
    try:
        problems, hashes = _decode_all(split, size, resize_mode, unfinished / "pixels.bin")
        index = {
            "files": len(split.files),
            "size": size,
            "resize_mode": resize_mode,
            "class_names": split.class_names,
            "images": [
                [row, file.path, file.label, file.size, hashes[row]]
                for row, file in enumerate(split.files)
                if row not in problems
            ],
            "problems": [[split.files[row].path, reason] for row, reason in sorted(problems.items())],
        }
        (unfinished / "index.json").write_text(json.dumps(index), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # damaged, or _load would have taken it
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _decode_all(split: Split, size: int, resize_mode: str, target: Path) -> tuple[dict[int, str], dict[int, str]]:
    """Write every file's pixels to its row of ``target``; returns reasons of the unreadable rows, and hashes.

    Pixels are written rather than mapped: a full disk is then an error, not a bus error, and memory stays flat.
    Threads suffice because reading, decoding, resizing and writing all release the interpreter's lock.
    """
    image_bytes = size * size * 3
    problems: dict[int, str] = {}
    hashes: dict[int, str] = {}
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
    os.ftruncate(descriptor, len(split.files) * image_bytes)

    def decode_row(row: int) -> None:
        path = split.folder / split.files[row].path
        try:
            pixels = decode_file(path, size, resize_mode, lambda data: hashes.update({row: content_hash(data)}))
        except UnreadableImage as reason:
            problems[row] = str(reason)
        except OSError as error:
            raise UserError(f"cannot read {str(path)!r}: {error.strerror}; try again when the disk is well.") from None
        else:
            if os.pwrite(descriptor, pixels.data, row * image_bytes) != image_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    torch_threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(available_cores(), initializer=torch.set_num_threads, initargs=(1,))
    try:
        with progress_bar(f"Decoding {split.folder.name} at {size} px", len(split.files)) as bar:
            for _ in pool.map(decode_row, range(len(split.files))):
                bar.advance()
        os.fsync(descriptor)  # so that after a power cut no finished folder holds blank pixels
    finally:
        pool.shutdown(cancel_futures=True)
        os.close(descriptor)
        torch.set_num_threads(torch_threads)
    return problems, hashes


def _load(folder: Path, class_names: tuple[str, ...], size: int) -> ImageCache | None:
    """The cache in ``folder``; None where there is none or it is damaged (by a power cut, by copying a part)."""
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        pixels = np.memmap(folder / "pixels.bin", np.uint8, mode="r", shape=(index["files"], size, size, 3))
    except (OSError, ValueError):
        return None
    columns = zip(*index["images"], strict=True) if index["images"] else ((), (), (), (), ())
    rows, paths, labels, sizes, hashes = columns
    return ImageCache(
        pixels,
        np.array(rows, np.int64),
        np.array(labels, np.int64),
        paths,
        class_names,
        tuple((path, reason) for path, reason in index["problems"]),
        sizes,
        hashes,
    )


def _report(cache: ImageCache, split: Split, on_corrupt: str) -> None:
    """Name the files that were left out; refuse what cannot be gone on with."""
    if not cache.problems:
        return
    count = f"{len(cache.problems)} of {len(split.files)} files in {split.folder.name}/"
    named = "".join(f"\n  {path}: {reason}" for path, reason in cache.problems[:PROBLEMS_SHOWN])
    if len(cache.problems) > PROBLEMS_SHOWN:
        named += f"\n  … and {len(cache.problems) - PROBLEMS_SHOWN} more"
    if on_corrupt == "error":
        raise UserError(
            f"{count} cannot be read; repair or remove them, or leave them out with --on_corrupt skip:{named}"
        )
    print(f"{count} cannot be read and are left out:{named}", flush=True)
    counts = np.bincount(cache.labels, minlength=len(cache.class_names))
    if counts.min() == 0:
        raise UserError(
            f"no file of class {cache.class_names[int(counts.argmin())]} in {str(split.folder)!r} can be read."
        )
