"""Scan a folder of photographs: its splits, classes and files.

Understood are the shapes that data sets come in: ``train/`` and ``val/`` or ``test/``, each a folder of class folders,
however deep they are nested; or one folder of class folders, which is then training data without a test set.
Where there is no ``test/``, ``val/`` plays its part (as in nature_12K); where there are both, ``val/`` is the
validation set. Scanning lists directories and opens no file.
"""

import hashlib
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from naturalist.errors import UserError

TRAIN_NAMES = ("train", "training", "train_set", "training_set")
TEST_NAMES = ("test", "testing", "test_set")
VAL_NAMES = ("val", "valid", "validation", "val_set", "validation_set")
MAX_DEPTH = 4
"""Levels below the given folder at which ``train`` is looked for."""


@dataclass(frozen=True)
class ImageFile:
    """One file of a class folder."""

    path: str
    """Path relative to the split's folder, with forward slashes."""
    label: int
    """Index of its class."""
    size: int
    """Bytes."""
    stamp: tuple[int, int]
    """Times of the last change of content and of inode, in nanoseconds; as in git's index, they tell a changed
    file without reading it."""


@dataclass(frozen=True)
class Split:
    """The files of one folder of class folders, sorted by path."""

    folder: Path
    class_names: tuple[str, ...]
    files: tuple[ImageFile, ...]
    ignored: tuple[str, ...]
    """Hidden files and files outside class folders, which are no part of the data set."""

    def counts(self) -> dict[str, int]:
        """Files per class name."""
        counts = dict.fromkeys(self.class_names, 0)
        for file in self.files:
            counts[self.class_names[file.label]] += 1
        return counts


@dataclass(frozen=True)
class Folders:
    """Where the splits of a data set lie; ``val`` and ``test`` are None where there is none."""

    train: Path
    val: Path | None
    test: Path | None


def find_folders(folder: Path) -> Folders:
    """Find the folders of the splits below ``folder``.

    Raises :class:`UserError` when the folder is missing, when it holds no class folders, or when the class folders
    of the splits differ.
    """
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {str(folder)!r}; --data takes 'sample', 'nature_12K' or a folder "
            "that holds train/ and test/ (or val/), or one folder for each class."
        )
    train = _find_train(folder)
    if train is None:
        names = class_names_of(folder)
        if not names:
            raise UserError(f"{str(folder)!r} holds neither a train/ folder nor a folder for each class.")
        if any(name.lower() in VAL_NAMES + TEST_NAMES for name in names):
            raise UserError(f"{str(folder)!r} holds {', '.join(names)}, but no train/ folder.")
        return Folders(train=folder, val=None, test=None)
    val, test = _subfolder(train.parent, VAL_NAMES), _subfolder(train.parent, TEST_NAMES)
    if test is None:
        val, test = None, val
    for other in (val, test):
        if other is not None:
            _require_same_classes(train, other)
    return Folders(train, val, test)


def scan(folder: Path) -> Split:
    """List the class folders of ``folder`` and their files, at any depth below the class folder.

    Raises :class:`UserError` when there are fewer than two classes, a class has no file or a folder cannot be read.
    """
    class_names = class_names_of(folder)
    if len(class_names) < 2:
        raise UserError(
            f"{str(folder)!r} must hold a folder for each of at least two classes, but it holds {len(class_names)}."
        )
    files: list[ImageFile] = []
    ignored = [entry.name for entry in sorted(folder.iterdir()) if not entry.is_dir()]
    for label, name in enumerate(class_names):
        for parent, subfolders, file_names in os.walk(folder / name, onerror=_refuse, followlinks=True):
            subfolders[:] = [sub for sub in subfolders if not _is_hidden(sub) and not _leads_back(Path(parent, sub))]
            for file_name in file_names:
                path = Path(parent, file_name)
                relative = path.relative_to(folder).as_posix()
                if _is_hidden(file_name):
                    ignored.append(relative)
                else:
                    files.append(_describe(path, relative, label))
    split = Split(folder, class_names, tuple(sorted(files, key=lambda file: file.path)), tuple(ignored))
    empty = [name for name, count in split.counts().items() if count == 0]
    if empty:
        raise UserError(
            f"no files in the class folder{'s' * (len(empty) > 1)} {', '.join(empty)} "
            f"of {str(folder)!r}; add photographs or remove the folder."
        )
    return split


def class_names_of(folder: Path) -> tuple[str, ...]:
    """Names of the class folders of a split, sorted."""
    try:
        with os.scandir(folder) as entries:
            return tuple(sorted(entry.name for entry in entries if entry.is_dir() and not _is_hidden(entry.name)))
    except OSError as error:
        _refuse(error)


def same_bytes(first: Split, second: Split) -> list[tuple[str, str]]:
    """Pairs of files of two splits whose content is identical, as paths relative to their splits.

    Only files of equal size are read.
    """

    def by_size(split: Split) -> dict[int, list[str]]:
        groups = defaultdict(list)
        for file in split.files:
            if file.size:
                groups[file.size].append(file.path)
        return groups

    first_sizes, second_sizes = by_size(first), by_size(second)
    pairs = []
    for size in sorted(first_sizes.keys() & second_sizes.keys()):
        digests = defaultdict(list)
        for path in first_sizes[size]:
            digests[_digest(first.folder / path)].append(path)
        for path in second_sizes[size]:
            pairs += [(twin, path) for twin in digests.get(_digest(second.folder / path), ())]
    return pairs


def _find_train(folder: Path) -> Path | None:
    """The nearest ``train`` below ``folder``, breadth first; several on one level are an error."""
    level = [folder]
    for _ in range(MAX_DEPTH):
        found = [train for candidate in level if (train := _subfolder(candidate, TRAIN_NAMES))]
        if len(found) > 1:
            raise UserError(
                f"{str(folder)!r} holds more than one data set: "
                f"{', '.join(sorted(str(train.parent) for train in found))}; pass one of them."
            )
        if found:
            return found[0]
        level = [candidate / name for candidate in level for name in class_names_of(candidate)]
    return None


def _subfolder(folder: Path, names: tuple[str, ...]) -> Path | None:
    for name in class_names_of(folder):
        if name.lower() in names:
            return folder / name
    return None


def _require_same_classes(train: Path, other: Path) -> None:
    train_names, other_names = set(class_names_of(train)), set(class_names_of(other))
    if train_names != other_names:
        parts = [
            f"only in {folder.name}/: {', '.join(sorted(names))}"
            for folder, names in ((train, train_names - other_names), (other, other_names - train_names))
            if names
        ]
        raise UserError(
            f"the class folders of {str(train)!r} and {str(other)!r} differ ({'; '.join(parts)}); "
            "both must hold the same classes."
        )


def _refuse(error: OSError) -> NoReturn:
    raise UserError(f"cannot read the folder {str(error.filename)!r}: {error.strerror}.") from None


def _leads_back(folder: Path) -> bool:
    """Whether it is a link to a folder that it lies in, which would be walked for ever."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX")) or name in ("Thumbs.db", "desktop.ini")


def _describe(path: Path, relative: str, label: int) -> ImageFile:
    try:
        status = path.stat()
    except OSError:  # a dangling link; decoding names it as unreadable
        return ImageFile(relative, label, size=0, stamp=(0, 0))
    return ImageFile(relative, label, status.st_size, (status.st_mtime_ns, status.st_ctime_ns))


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return (
                hashlib.file_digest(file, "sha256").digest()
                if hasattr(hashlib, "file_digest")
                else hashlib.sha256(file.read()).digest()
            )
    except OSError:  # unreadable files are reported by decoding; they equal nothing here
        return os.urandom(32)
