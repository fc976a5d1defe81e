"""What a folder holds, without the litter that systems and programs leave in it."""

import os
import unicodedata
from pathlib import Path
from typing import NoReturn

from naturalist.data.formats import SUFFIXES
from naturalist.errors import UserError

LITTER = (
    "__macosx",
    "@eadir",  # Synology's thumbnails of every photograph
    "@recycle",
    "#recycle",
    "#snapshot",
    "lost+found",
    "$recycle.bin",
    "system volume information",
    "network trash folder",
    "temporary items",
    "thumbs.db",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    "picasa.ini",
    "icon\r",
)
"""Files and folders that systems make, in lower case, beside those whose names begin with a dot."""

NAMES_SHOWN = 10
"""Of classes, in a sentence."""


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or made by a system for itself; no part of any data set."""
    return name.startswith(".") or name.lower() in LITTER


def is_photograph(name: str) -> bool:
    """Whether a file of this name is a photograph, by its suffix."""
    return name.lower().endswith(SUFFIXES)


def composed(name: str) -> str:
    """A name in Unicode's composed form (NFC): Macs write ``é`` as two characters, all others as one."""
    return unicodedata.normalize("NFC", name)


def entries_of(folder: Path) -> list["os.DirEntry[str]"]:
    """What a folder holds, sorted by name, litter too; raises :class:`UserError` when it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        refuse_unreadable(error)


def subfolders(folder: Path) -> tuple[str, ...]:
    """Names of the folders in a folder, sorted."""
    return tuple(entry.name for entry in entries_of(folder) if is_folder(entry) and not is_litter(entry.name))


def is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether it is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; decoding names it as unreadable
        return False


def is_flat(folder: Path) -> bool:
    """Whether a folder holds files and no folders."""
    entries = [entry for entry in entries_of(folder) if not is_litter(entry.name)]
    return bool(entries) and not any(is_folder(entry) for entry in entries)


def holds_photographs(folder: Path, *, deep: bool = True) -> bool:
    """Whether a photograph lies in a folder, or with ``deep`` at any depth below; links to folders are not followed."""
    for _, inner, names in os.walk(folder):
        inner[:] = [name for name in inner if deep and not is_litter(name)]
        if any(is_photograph(name) and not is_litter(name) for name in names):
            return True
    return False


def class_folders(folder: Path) -> dict[str, str]:
    """The class folders of a split: name of the class → name of its folder, sorted by class.

    A class is called as its folder in composed form, so that a copy by way of a Mac has the same classes.

    Raises :class:`UserError` for a folder that cannot be read, for a name that is not text, as it could not be
    written to records, pictures and tables, and for two names that differ in Unicode's form only.
    """
    found: dict[str, str] = {}
    for name in subfolders(folder):
        try:
            name.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(name).decode(errors="backslashreplace")
            raise UserError(f"the name of the folder '{shown}' in {str(folder)!r} is not UTF-8; rename it.") from None
        if found.setdefault(composed(name), name) != name:
            raise UserError(
                f"{str(folder)!r} holds two folders {composed(name)!r}, whose names look the same and differ in "
                "Unicode's form only (a copy by way of a Mac?); move the photographs of one into the other."
            )
    return dict(sorted(found.items()))


def differing_names(first: set[str], first_place: str, second: set[str], second_place: str) -> str:
    """Which names are on one side only, for a sentence; says so where nothing but upper and lower case differs."""
    parts = []
    for place, names in ((first_place, first - second), (second_place, second - first)):
        if names:
            more = ", …" if len(names) > NAMES_SHOWN else ""
            parts.append(f"only in {place}: {', '.join(sorted(names)[:NAMES_SHOWN])}{more}")
    lower = {name.casefold() for name in first - second}
    if any(name.casefold() in lower for name in second - first):
        parts.append("upper and lower case count")
    return "; ".join(parts)


def refuse_unreadable(error: OSError) -> NoReturn:
    """Raise :class:`UserError` about a folder."""
    raise UserError(f"cannot read the folder {str(error.filename)!r}: {error.strerror}.") from None
