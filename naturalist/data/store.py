"""One safe place for what can be computed again: decoded images, and features of them.

An entry is a folder of the cache folder. It is made below a lock, under another name, in order, by plain writes: a full
disk is then an error, where writing to a map would kill the process. Its files are flushed before it gets its name, so
that an entry that is there is whole, also after a kill or a power cut. Each use is noted, for ``naturalist clean``.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from naturalist.errors import UserError
from naturalist.files import replace

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
UNFINISHED = ".unfinished"
"""How the name of what is being made ends."""
SEAL = "seal"
"""Field by which a description knows that it was not changed: wrong numbers would be served as somebody's pixels."""
USED = "used"
"""File of an entry whose time of change is that of the last use."""


class NoRoom(UserError):
    """The disk has not, or has no longer, the room that an entry needs."""


def key_of(*recipe: Any) -> str:
    """16 hexadecimal digits for what an entry is made from: numbers, texts, lists and dicts of them."""
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]


@contextmanager
def building(folder: Path, otherwise: str = "") -> Iterator[None]:
    """While an entry is made or changed: nobody else does, and what killed processes left behind is removed.

    Whoever waited for another process should look again whether there is anything left to do.

    Args:
        folder: of the entry; the cache folder that it lies in is made if need be.
        otherwise: what else can be done about a cache folder that cannot be written.

    Raises:
        NoRoom: when the disk is full.
        UserError: when the cache folder cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = lock_of(folder)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"Waiting for another process that is building {folder.name}.", flush=True)
            lock.acquire()
        try:
            remove_leftovers(folder.parent)
            yield
        finally:
            lock.release()
    except OSError as error:
        if error.errno in NO_ROOM:
            raise NoRoom(
                f"the disk of the cache folder {str(folder.parent)!r} is full; free some space or pass "
                "--cache_dir with a folder on another disk."
            ) from None
        raise UserError(
            f"cannot write to the cache folder {str(folder.parent)!r} ({error.strerror or error}); pass "
            f"--cache_dir with a folder that can be written{otherwise}."
        ) from None


@contextmanager
def appearing_whole(folder: Path) -> Iterator[Path]:
    """A folder to write an entry's files to with :func:`written`; it becomes ``folder`` when all went well.

    What was there before is replaced. Whatever goes wrong leaves nothing behind. Call it within :func:`building`.
    """
    unfinished = folder.with_name(folder.name + UNFINISHED)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        yield unfinished
        _flush(unfinished)
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
        _flush(folder.parent)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


@contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """A new file to write to in order; flushed to the disk when all is written."""
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def appended(path: Path, start: int) -> Iterator[BinaryIO]:
    """A file to go on with from byte ``start``, as :func:`written`; if that fails, it ends there again."""
    try:
        with path.open("r+b") as file:
            file.truncate(start)  # a process that was killed may have written more
            file.seek(start)
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        os.truncate(path, start)
        raise


def replace_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        with written(unfinished) as file:
            file.write(text.encode())
        replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise
    _flush(path.parent)


def sealed(content: dict[str, Any]) -> str:
    """What :func:`unsealed` reads: JSON of numbers, texts, lists and dicts."""
    return json.dumps({**content, SEAL: key_of(content)})


def unsealed(path: Path) -> dict[str, Any]:
    """The content of a file that :func:`sealed` made.

    Raises:
        OSError: when there is none.
        ValueError, RecursionError: when it is not as it was written: cut short, edited, no JSON.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.pop(SEAL, None) != key_of(content):
        raise ValueError(path)
    return content


def note_use(folder: Path) -> None:
    """Remember that an entry is used now; one that can only be read is not noted."""
    with contextlib.suppress(OSError):
        (folder / USED).touch()


def require_room(folder: Path, needed: int, what: str, advice: str) -> None:
    """Raise :class:`NoRoom` unless the disk of a folder has ``needed`` bytes free.

    Args:
        folder: to write to.
        needed: bytes.
        what: for which they are, in a few words.
        advice: what can be done.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise NoRoom(f"{what} needs {needed / 1e9:.2f} GB, but {str(folder)!r} has {free / 1e9:.2f} GB free; {advice}.")


def lock_of(folder: Path) -> FileLock:
    """The lock of an entry; held by who makes, changes or removes it, not by who reads it."""
    return FileLock(folder.with_name(folder.name + ".lock"))


def remove_leftovers(cache_folder: Path) -> None:
    """Remove what processes left that were killed while they made an entry."""
    for unfinished in cache_folder.glob("*" + UNFINISHED):
        with contextlib.suppress(Timeout, OSError), lock_of(unfinished.with_suffix("")).acquire(timeout=0):
            shutil.rmtree(unfinished, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Make the names in a folder last; some file systems cannot."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
