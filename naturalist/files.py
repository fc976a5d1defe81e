"""Files that are written whole or not at all, and tables in them that no spreadsheet takes for formulas."""

import csv
import io
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

UNFINISHED = ("*.unfinished", "*.tmp")
"""What a write leaves that was killed."""

PAUSES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds."""

_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
"""How a cell begins that a spreadsheet may run, or that looks like one that was made harmless."""

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")


@contextmanager
def appearing_whole(path: Path) -> Iterator[Path]:
    """The path of a file to write, which becomes ``path`` when the block ends well, and else is removed.

    A killed process, a full disk or an error leave what was at ``path`` before, and nothing half-written. An OSError
    about the file to write goes on as one about ``path``.
    """
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    try:
        yield unfinished
        replace(unfinished, path)
    except BaseException as error:
        with suppress(OSError):
            unfinished.unlink()
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(unfinished), unfinished):
            error.filename = str(path)
            del error.filename2
        raise


def replace(new: Path, path: Path) -> None:
    """Give a file the name of another, which is gone then.

    Windows refuses that while anybody reads either, such as a virus scanner, a viewer or another process of ours; so it
    is tried again for two seconds. Raises OSError.
    """
    for pause in PAUSES if sys.platform == "win32" else ():
        try:
            new.replace(path)
            return
        except PermissionError:
            time.sleep(pause)
    new.replace(path)


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write to; as :func:`appearing_whole`, and kept by the disk when the machine loses power.

    Raises OSError, with the path, when it cannot be written, also where the writer made another error of that.
    """
    with appearing_whole(path) as unfinished, _Remembering(unfinished, "w") as raw:
        try:
            file = io.BufferedWriter(raw)
            yield file
            file.flush()
            os.fsync(raw.fileno())  # else the disk may keep the new name and not the content
        except Exception as error:
            raise (raw.error or error) from None


def write_atomically(path: Path, text: str) -> None:
    """Write a text file as :func:`written_whole` does; bytes in names that are no UTF-8 stay what they are."""
    with written_whole(path) as file:
        file.write(text.encode("utf-8", errors="surrogateescape"))


def append_line(path: Path, line: str) -> None:
    """Add a line to a text file, on the disk when this returns; a line that does not fit leaves the file as it was.

    Raises OSError, with the path, when it cannot be written.
    """
    data = memoryview(line.encode("utf-8", errors="surrogateescape"))
    with _Remembering(path, "a") as file:
        before = os.fstat(file.fileno()).st_size
        try:
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(file.fileno(), before)
            error.filename = error.filename or str(path) if error.errno else None
            raise


def write_table(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file, the heading being the first row, as :func:`written_whole` does; see :func:`harmless`."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(harmless(row) for row in rows)
    write_atomically(path, text.getvalue())


def harmless(row: Sequence[Any]) -> list[Any]:
    """The cells of a row, with a ``'`` before text that a spreadsheet would take for a formula; numbers are none."""
    return [f"'{cell}" if isinstance(cell, str) and _is_formula(cell) else cell for cell in row]


def restored(row: Sequence[str]) -> list[str]:
    """The cells of a row as they were before :func:`harmless`."""
    return [cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell for cell in row]


def _is_formula(cell: str) -> bool:
    return _FORMULA.match(cell) is not None and _NUMBER.fullmatch(cell) is None


class _Remembering(io.FileIO):
    """A file that keeps the first error of writing to it: libraries make errors of their own of it."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write what can be written; raises OSError."""
        try:
            return super().write(data)
        except OSError as error:
            self.error = self.error or error
            raise
