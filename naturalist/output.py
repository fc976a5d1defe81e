"""Standard output and error that may fail, and what a program prints with them goes on."""

import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


@contextmanager
def output_may_fail() -> Iterator[None]:
    """What cannot be printed goes nowhere: hours of training are worth more than the words about them.

    The reader of ``| head`` or ``| tee`` may go, the terminal may be closed, the disk that standard output is sent to
    may be full. From then on the descriptor leads to the null device, also for libraries and child processes.
    """
    for descriptor in range(3):  # one that is closed would be given to the next file that is opened
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    before = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    now = {name: _forgiving(stream) for name, stream in before.items()}
    for name, stream in now.items():
        setattr(sys, name, stream)
    try:
        yield
    finally:
        for name, stream in now.items():
            if stream is not None:
                stream.flush()
            if getattr(sys, name) is stream:
                setattr(sys, name, before[name])


class _ForgivingFile(io.FileIO):
    """A descriptor that may become impossible to write to."""

    def write(self, data: Any) -> int:
        """Write what can be written; the rest goes to the null device."""
        try:
            while (written := super().write(data)) is None:  # a pipe that somebody else made non-blocking is full
                select.select([], [self], [])
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return memoryview(data).nbytes
        return written


def forgiving_text(descriptor: int, encoding: str, errors: str, line_buffering: bool = False) -> io.TextIOWrapper:
    """Text to a descriptor, for which :func:`output_may_fail` holds."""
    file = io.BufferedWriter(_ForgivingFile(descriptor, "w", closefd=False))
    return io.TextIOWrapper(file, encoding, errors, line_buffering=line_buffering)


def _forgiving(stream: Any) -> Any:
    """A stream to the same descriptor that does not fail; the stream itself where it has none.

    A console of Windows stays what it is, too: it shows all letters, which its descriptor does not.
    """
    if not isinstance(stream, io.TextIOWrapper) or not isinstance(_raw(stream), io.FileIO):
        return stream
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return stream
    with suppress(OSError):  # what was printed before may already have nowhere to go
        stream.flush()
    wants_lines = stream.line_buffering or stream.write_through  # python -u wants nothing to wait
    return forgiving_text(descriptor, stream.encoding, stream.errors or "strict", wants_lines)


def _raw(stream: io.TextIOWrapper) -> Any:
    return getattr(stream.buffer, "raw", stream.buffer)
