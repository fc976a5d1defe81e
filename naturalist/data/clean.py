"""``python -m naturalist clean``: what the store keeps, for which data, and the way to be rid of it."""

import contextlib
import json
import shutil
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout

from naturalist.data import store
from naturalist.errors import UserError
from naturalist.printable import printable
from naturalist.settings.run_settings import cache_folder
from naturalist.settings.verbs import CleanOptions

DAY = 86400
NUMBERS, DESCRIPTIONS = ("pixels.bin", "features.bin"), ("index.json", "form.json")
FILES = {*NUMBERS, *DESCRIPTIONS, store.USED, *(name + store.UNFINISHED for name in DESCRIPTIONS)}
"""All that may lie in an entry's folder; a folder with anything else in it is none of the store's."""


@dataclass(frozen=True)
class Entry:
    """Something that is kept."""

    folder: Path
    size: int
    """Bytes."""
    last_used: float
    """Seconds since 1970."""
    data: str | None
    """Folder of the photographs; None where the entry does not say."""

    @property
    def is_unfinished(self) -> bool:
        """Whether it is what a build has written so far, or left when it was killed."""
        return self.folder.name.endswith(store.UNFINISHED)

    @property
    def state(self) -> str:
        """What there is to say of it, in a few words; often nothing."""
        if self.is_unfinished:
            return "unfinished"
        if self.data is None:
            return "damaged, or of an earlier version"
        return "" if Path(self.data).is_dir() else "its data are gone"

    def is_chosen(self, options: CleanOptions, now: float) -> bool:
        """Whether the options mean it; what is unfinished and not being built is of no use to anybody."""
        is_old = options.older_than is not None and now - self.last_used >= options.older_than * DAY
        return options.all or is_old or (self.is_unfinished and options.older_than is not None)


def clean_cache(options: CleanOptions) -> None:
    """Show what is kept, and remove what is chosen if ``--delete`` says so.

    What another process is building or changing is never touched. Raises :class:`UserError` for options that make no
    sense, and when something cannot be removed.
    """
    if options.older_than is not None and not options.older_than >= 0:
        raise UserError(f"--older_than must not be negative, but it is {options.older_than:g}.")
    if options.all and options.older_than is not None:
        raise UserError("--all and --older_than exclude each other; give one of them.")
    if options.delete and not options.all and options.older_than is None:
        raise UserError("--delete needs to know what to remove: --older_than DAYS, or --all.")
    folder, now = cache_folder(options.cache_dir, options.runs_dir), time.time()
    entries = list_entries(folder)
    if not entries:
        print(f"Nothing is kept in {str(folder)!r}.")
        return
    chosen, busy = [], 0
    for entry in entries:
        if entry.is_chosen(options, now):
            if not options.delete or _remove(entry):
                chosen.append(entry)
            else:
                busy += 1
    done = "removed" if options.delete else "would be removed"
    _show(entries, {entry.folder: done for entry in chosen}, now)
    print(f"{len(entries)} kept in {str(folder)!r}, {_in_words(sum(entry.size for entry in entries))}.")
    if options.all or options.older_than is not None:
        print(f"{len(chosen)} of them, {_in_words(sum(entry.size for entry in chosen))}, {done}.")
    if busy:
        print(f"{busy} left alone: another process is at work on {'it' if busy == 1 else 'them'}.")
    if not options.delete:
        more = "with --delete it is" if chosen else "--older_than DAYS or --all choose what to remove"
        print(f"Nothing was removed: {more}. All of it can be computed again.")


def list_entries(folder: Path) -> list[Entry]:
    """The entries of a cache folder, those used last first; raises :class:`UserError` when it cannot be read."""
    try:
        folders = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"cannot read the cache folder {str(folder)!r}: {error.strerror}.") from None
    entries = []
    for path in folders:
        with contextlib.suppress(OSError):  # removed in the meantime
            entry = _describe(path)
            if entry is not None:
                entries.append(entry)
    return sorted(entries, key=lambda entry: (-entry.last_used, entry.folder.name))


def _describe(folder: Path) -> Entry | None:
    """The entry in a folder; None for a folder that is none."""
    files = {path.name: path.lstat() for path in folder.iterdir()}
    is_unfinished = folder.name.endswith(store.UNFINISHED)
    if not all(stat.S_ISREG(file.st_mode) for file in files.values()) or not files.keys() <= FILES:
        return None
    if not (is_unfinished or files.keys() & {*NUMBERS, *DESCRIPTIONS}):
        return None
    used = files.get(store.USED)
    times = [used.st_mtime] if used else [file.st_mtime for file in files.values()] or [folder.stat().st_mtime]
    return Entry(folder, sum(file.st_size for file in files.values()), max(times), _data_of(folder))


def _data_of(folder: Path) -> str | None:
    for name, field in zip(DESCRIPTIONS, ("folder", "data"), strict=True):
        with contextlib.suppress(OSError, ValueError, RecursionError):
            content: Any = json.loads((folder / name).read_text(encoding="utf-8"))
            if isinstance(content, dict) and isinstance(content.get(field), str):
                return str(content[field])
    return None


def _remove(entry: Entry) -> bool:
    """Remove an entry, unless somebody holds its lock."""
    folder = entry.folder
    finished = folder.with_name(folder.name.removesuffix(store.UNFINISHED))
    try:
        with store.lock_of(finished).acquire(timeout=0):
            unfinished = finished.with_name(finished.name + store.UNFINISHED)
            if folder != unfinished:  # so that a kill half-way leaves nothing that looks whole
                shutil.rmtree(unfinished, ignore_errors=True)
                folder.rename(unfinished)
            shutil.rmtree(unfinished)
    except Timeout:
        return False
    except FileNotFoundError:  # removed by another process
        return True
    except OSError as error:
        raise UserError(f"cannot remove {str(folder)!r}: {error.strerror}.") from None
    return True


def _show(entries: list[Entry], done: dict[Path, str], now: float) -> None:
    """Two lines for each: nothing of a path is cut, however narrow the terminal is."""
    for entry in entries:
        days = int((now - entry.last_used) / DAY)
        used = "today" if days <= 0 else f"{days:,} day{'s' * (days > 1)} ago"
        notes = [f"of {printable(entry.data)}" if entry.data else "", entry.state, done.get(entry.folder, "")]
        print(f"{_in_words(entry.size):>10}  {used:14}{printable(entry.folder.name)}")
        print(f"{'':26}{', '.join(filter(None, notes))}")


def _in_words(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
