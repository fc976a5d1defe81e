"""Scan a folder of photographs: its splits, classes and files.

Understood are the shapes that data sets come in: ``train/`` and ``val/`` or ``test/``, each a folder of class folders,
however deep they are nested; or one folder of class folders, which is then training data without a test set.
Where there is no ``test/``, ``val/`` plays its part (as in nature_12K); where there are both, ``val/`` is the
validation set. A ``train`` (or ``test`` …) that holds files and no folders is a class: photographs of trains.
Scanning lists directories and opens no file.
"""

import hashlib
import os
from collections import defaultdict, deque
from collections.abc import Hashable, Iterator
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
    """Hidden files, files outside class folders, and links to folders that are listed already: no part of the data
    set."""

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
        if any(name.lower() in VAL_NAMES + TEST_NAMES and not _is_class(folder / name) for name in names):
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
    ignored = [entry.name for entry in sorted(folder.iterdir()) if not entry.is_dir()]
    files = list(_list_files(folder, class_names, ignored))
    split = Split(folder, class_names, tuple(sorted(files, key=lambda file: file.path)), tuple(ignored))
    empty = [name for name, count in split.counts().items() if count == 0]
    if empty:
        raise UserError(
            f"no files in the class folder{'s' * (len(empty) > 1)} {', '.join(empty)} "
            f"of {str(folder)!r}; add photographs or remove the folder."
        )
    return split


def _list_files(folder: Path, class_names: tuple[str, ...], ignored: list[str]) -> Iterator[ImageFile]:
    """Every file of the class folders once; adds to ``ignored`` what is left out.

    Links to folders wait until all real folders are known: what lies in one class is not of another as well, because
    a link leads there.
    """
    known = _identify_classes(folder, class_names)
    waiting = deque((folder / name, label) for label, name in enumerate(class_names))
    links: deque[tuple[Path, int]] = deque()
    while waiting or links:
        if waiting:
            parent, label = waiting.popleft()
        else:
            parent, label = links.popleft()
            if _leads_back(parent) or not _is_new(parent, known):
                ignored.append(parent.relative_to(folder).as_posix())
                continue
        for entry in _entries(parent):
            path = parent / entry.name
            relative = path.relative_to(folder).as_posix()
            if not _is_folder(entry):
                if _is_hidden(entry.name):
                    ignored.append(relative)
                else:
                    yield _describe(path, relative, label)
            elif not _is_hidden(entry.name):
                if entry.is_symlink():
                    links.append((path, label))
                elif _is_new(path, known):
                    waiting.append((path, label))
                else:  # mounted twice
                    ignored.append(relative)


def _identify_classes(folder: Path, class_names: tuple[str, ...]) -> set[Hashable]:
    """The identities of class folders and of the folder they are in; two that are one and the same are refused."""
    names: dict[Hashable, str] = {}
    for name in class_names:
        twin = names.setdefault(_identity(folder / name), name)
        if twin != name:
            raise UserError(
                f"the class folders {twin} and {name} of {str(folder)!r} are one and the same folder; remove the link."
            )
    return {_identity(folder), *names}


def class_names_of(folder: Path) -> tuple[str, ...]:
    """Names of the class folders of a split, sorted.

    Raises :class:`UserError` for a folder that cannot be read, and for a name that is not text, as it could not be
    written to records, pictures and tables.
    """
    names = _subfolders(folder)
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(name).decode(errors="backslashreplace")
            raise UserError(f"the name of the folder '{shown}' in {str(folder)!r} is not UTF-8; rename it.") from None
    return names


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


def _subfolders(folder: Path) -> tuple[str, ...]:
    return tuple(entry.name for entry in _entries(folder) if _is_folder(entry) and not _is_hidden(entry.name))


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    """What a folder holds, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        _refuse(error)


def _find_train(folder: Path) -> Path | None:
    """The nearest ``train`` below ``folder``, breadth first; several on one level are an error."""
    level = [folder]
    for _ in range(MAX_DEPTH):
        found = [train for candidate in level if (train := _subfolder(candidate, TRAIN_NAMES)) and not _is_class(train)]
        if len(found) > 1:
            raise UserError(
                f"{str(folder)!r} holds more than one data set: "
                f"{', '.join(sorted(str(train.parent) for train in found))}; pass one of them."
            )
        if found:
            return found[0]
        level = [candidate / name for candidate in level for name in _subfolders(candidate)]
    return None


def _subfolder(folder: Path, names: tuple[str, ...]) -> Path | None:
    for name in _subfolders(folder):
        if name.lower() in names:
            return folder / name
    return None


def _is_class(folder: Path) -> bool:
    """Whether a folder called ``train``, or ``test``, holds photographs of trains, or of tests, and no classes."""
    entries = [entry for entry in _entries(folder) if not _is_hidden(entry.name)]
    return bool(entries) and not any(_is_folder(entry) for entry in entries)


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


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; decoding names it as unreadable
        return False


def _is_new(folder: Path, known: set[Hashable]) -> bool:
    """Whether a folder was not met before, under no name; it is known from now on."""
    identity = _identity(folder)
    is_new = identity not in known
    known.add(identity)
    return is_new


def _identity(folder: Path) -> Hashable:
    """What is the same for all names of a folder."""
    try:
        status = folder.stat()
    except OSError as error:
        _refuse(error)
    # Some network drives number nothing.
    return (status.st_dev, status.st_ino) if status.st_ino else folder.resolve()


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
