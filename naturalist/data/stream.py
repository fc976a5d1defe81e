"""Rows of a file that memory cannot hold, read in a thread ahead of the device that works on them.

Order is exact: every epoch is shuffled as a whole, so that the rows of a batch lie anywhere in the file. What makes
single rows as fast as reading in order is that the disk always has many of them to fetch: those of the next batches
are announced to the system long before the thread copies them, each in one piece.
"""

import itertools
import os
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from naturalist.data.threads import in_order
from naturalist.errors import UserError

ANNOUNCED_BYTES = 64 * 2**20
"""What the system is told that it will be read next."""

BATCHES_AHEAD = 3
"""Batches that are read, or on their way to the device, beside the one that it works on: one of them is being taken."""


class RowFile:
    """Rows of equal length, by their number.

    Args:
        rows: uint8 ``[N, bytes of a row]``, mostly a map of the file.
        file: the same, open, to be read in place of the map: a page that cannot be read from a map kills the process.
            Without it, and where the system cannot read a file at several places (Windows), the map is read.
    """

    def __init__(self, rows: NDArray[np.uint8], file: BinaryIO | None = None) -> None:
        self.rows = rows
        self._name, self._descriptor = "", None
        if file is not None and hasattr(os, "preadv"):
            self._name, self._descriptor = file.name, os.dup(file.fileno())
            weakref.finalize(self, os.close, self._descriptor)

    @property
    def row_bytes(self) -> int:
        """Length of a row."""
        return int(self.rows.shape[1])

    def announce(self, numbers: NDArray[np.int64]) -> None:
        """Have the system begin to fetch rows, without waiting for them."""
        if self._descriptor is not None and hasattr(os, "posix_fadvise"):  # macOS has none
            for place, start, stop in self._pieces(numbers):
                os.posix_fadvise(self._descriptor, place, (stop - start) * self.row_bytes, os.POSIX_FADV_WILLNEED)

    def read(self, numbers: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """Copy rows to ``out``, uint8 ``[len(numbers), bytes of a row]``.

        Raises:
            OSError: naming the file, when the disk fails.
            UserError: when the file has become shorter.
        """
        if self._descriptor is None:
            np.take(self.rows, numbers, axis=0, out=out)
            return
        for place, start, stop in self._pieces(numbers):
            self._read_piece(self._descriptor, place, out[start:stop].reshape(-1).data)

    def _pieces(self, numbers: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
        """Of rows that follow each other in the file: its place there, the first and the one behind the last."""
        cuts = np.flatnonzero(np.diff(numbers) != 1) + 1
        for start, stop in itertools.pairwise([0, *cuts.tolist(), len(numbers)]):
            if stop > start:
                yield int(numbers[start]) * self.row_bytes, start, stop

    def _read_piece(self, descriptor: int, place: int, out: memoryview) -> None:
        while out:
            try:
                count = os.preadv(descriptor, [out], place)
            except OSError as error:
                error.filename = self._name
                raise
            if not count:
                raise UserError(
                    f"{self._name!r} has become shorter since it was opened; give the same command again, which makes "
                    "the file anew."
                )
            out, place = out[count:], place + count


def streamed(file: RowFile, batches: Iterable[NDArray[np.int64]], device: torch.device) -> Iterator[Tensor]:
    """The rows of one batch after the other, uint8 ``[rows of the batch, bytes of a row]``, on the device.

    A thread reads ahead, and ends with the iterator. On a GPU the same thread sends what it read, from pinned memory
    and beside the device's work.

    Args:
        file: to read.
        batches: numbers of the rows of each.
        device: where they are wanted.

    Raises:
        OSError, UserError: as :meth:`RowFile.read`, when the batch's turn comes.
    """
    sending = _sending(device) if device.type == "cuda" else None

    def read(batch: tuple[NDArray[np.int64], list[NDArray[np.int64]]]) -> tuple[Tensor, torch.cuda.Event | None]:
        numbers, announced = batch
        for later in announced:
            file.announce(later)
        rows = torch.empty((len(numbers), file.row_bytes), dtype=torch.uint8, pin_memory=sending is not None)
        file.read(numbers, rows.numpy())
        if sending is None:
            return rows, None
        with torch.cuda.stream(sending):
            return rows.to(device, non_blocking=True), sending.record_event()

    pool = ThreadPoolExecutor(1, "stream")
    for rows, sent in in_order(pool, read, _with_announcements(batches, file.row_bytes), BATCHES_AHEAD):
        if sent is not None:
            current = torch.cuda.current_stream(device)
            current.wait_event(sent)
            rows.record_stream(current)  # its memory is the other stream's, and must not be used again before
        yield rows.to(device)


@lru_cache
def _sending(device: torch.device) -> torch.cuda.Stream:
    """Always the same: torch gives out few, one after the other, again and again, also those that others work on."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # of torch


def _with_announcements(
    batches: Iterable[NDArray[np.int64]], row_bytes: int
) -> Iterator[tuple[NDArray[np.int64], list[NDArray[np.int64]]]]:
    """Each batch, with the batches that are to be announced before it is read: all up to those far enough ahead."""
    waiting = deque[NDArray[np.int64]]()
    new: list[NDArray[np.int64]] = []
    size = 0
    for numbers in batches:
        waiting.append(numbers)
        new.append(numbers)
        size += len(numbers) * row_bytes
        while size - len(waiting[0]) * row_bytes >= ANNOUNCED_BYTES:
            size -= len(waiting[0]) * row_bytes
            yield waiting.popleft(), new
            new = []
    while waiting:
        yield waiting.popleft(), new
        new = []
