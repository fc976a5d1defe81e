"""List a split's folder of photographs: its classes and files.

Files may lie at any depth below their class folder. Listing opens no file.
"""

from collections import Counter, deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from naturalist.data.listing import (
    class_folders,
    composed,
    differing_names,
    entries_of,
    is_folder,
    is_litter,
    refuse_unreadable,
    subfolders,
)
from naturalist.errors import UserError


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

    @property
    def name(self) -> str:
        """Its path in Unicode's composed form: by that it is known in records, also after a copy by way of a Mac."""
        return composed(self.path)


@dataclass(frozen=True)
class Split:
    """The files of one folder of class folders, sorted by name."""

    folder: Path
    class_names: tuple[str, ...]
    files: tuple[ImageFile, ...]
    ignored: tuple[str, ...]
    """Hidden files and folders, those that systems make, files outside class folders, and links to folders that are
    listed already: no part of the data set."""
    unknown: dict[str, int] = field(default_factory=dict)
    """Files by class, of the classes that a run does not know."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Names of the files, ``[N]``."""
        return tuple(file.name for file in self.files)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Classes of the files, int64 ``[N]``."""
        return np.array([file.label for file in self.files], np.int64)

    def counts(self) -> dict[str, int]:
        """Files per class name."""
        counts = dict.fromkeys(self.class_names, 0)
        for file in self.files:
            counts[self.class_names[file.label]] += 1
        return counts


def scan(folder: Path, known: Sequence[str] | None = None) -> Split:
    """List the class folders of ``folder`` and their files, at any depth below the class folder.

    Args:
        folder: of the split.
        known: classes of the run that is to be shown the files. Labels are theirs, some may have no files here, and
            files of other classes are counted.

    Raises:
        UserError: when a folder cannot be read; without ``known``, when there are fewer than two classes or a class
            has no file; with it, when there is no file of any.
    """
    folders = class_folders(folder)
    names = tuple(folders) if known is None else tuple(known)
    if known is None and len(names) < 2:
        inner = [folder / name for name in folders.values() if subfolders(folder / name)]
        raise UserError(
            f"{str(folder)!r} must hold a folder for each of at least two classes, but it holds {len(names)}"
            + (f"; is --data {str(inner[0])!r} meant?" if inner else ".")
        )
    classes = [composed(name) for name in names]
    classes += [name for name in folders if name not in classes]
    labels = {folders[name]: label for label, name in enumerate(classes) if name in folders}
    ignored = [entry.name for entry in entries_of(folder) if not is_folder(entry) or is_litter(entry.name)]
    listed = sorted(_list_files(folder, labels, ignored), key=lambda file: file.name)
    _require_names_apart(folder, listed)
    files = tuple(file for file in listed if file.label < len(names))
    unknown = Counter(classes[file.label] for file in listed if file.label >= len(names))
    split = Split(folder, names, files, tuple(ignored), dict(unknown))
    if known is not None and not folders:
        raise UserError(
            f"{str(folder)!r} holds no class folders, so nothing can be evaluated on it; naturalist predict takes "
            "photographs whose class is not known."
        )
    if known is not None and not files:
        differing = differing_names(set(folders), f"{folder.name}/", set(classes[: len(names)]), "the run")
        raise UserError(f"{str(folder)!r} holds no files of any class that the run was trained on ({differing}).")
    empty = [name for name, count in split.counts().items() if count == 0]
    if known is None and empty:
        raise UserError(
            f"no files in the class folder{'s' * (len(empty) > 1)} {', '.join(empty)} "
            f"of {str(folder)!r}; add photographs or remove the folder."
        )
    return split


def _require_names_apart(folder: Path, files: Sequence[ImageFile]) -> None:
    for file, following in pairwise(files):
        if file.name == following.name:
            raise UserError(
                f"{str(folder)!r} holds two files {file.name!r}, whose names look the same and differ in Unicode's "
                "form only (a copy by way of a Mac?); rename or remove one."
            )


def _list_files(folder: Path, labels: dict[str, int], ignored: list[str]) -> Iterator[ImageFile]:
    """Every file of the class folders, given with their labels, once; adds to ``ignored`` what is left out.

    Links to folders wait until all real folders are known: what lies in one class is not of another as well, because
    a link leads there.
    """
    known = _identify_classes(folder, labels)
    waiting = deque((folder / name, label) for name, label in labels.items())
    links: deque[tuple[Path, int]] = deque()
    while waiting or links:
        if waiting:
            parent, label = waiting.popleft()
        else:
            parent, label = links.popleft()
            if _leads_back(parent) or not _is_new(parent, known):
                ignored.append(parent.relative_to(folder).as_posix())
                continue
        for entry in entries_of(parent):
            path = parent / entry.name
            relative = path.relative_to(folder).as_posix()
            if is_litter(entry.name):
                ignored.append(relative)
            elif not is_folder(entry):
                yield _describe(path, relative, label)
            elif entry.is_symlink():
                links.append((path, label))
            elif _is_new(path, known):
                waiting.append((path, label))
            else:  # mounted twice
                ignored.append(relative)


def _identify_classes(folder: Path, class_names: Iterable[str]) -> set[Hashable]:
    """The identities of class folders and of the folder they are in; two that are one and the same are refused."""
    names: dict[Hashable, str] = {}
    for name in class_names:
        twin = names.setdefault(_identity(folder / name), name)
        if twin != name:
            raise UserError(
                f"the class folders {twin} and {name} of {str(folder)!r} are one and the same folder; remove the link."
            )
    return {_identity(folder), *names}


def _leads_back(folder: Path) -> bool:
    """Whether it is a link to a folder that it lies in, which would be walked for ever."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


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
        refuse_unreadable(error)
    # Some network drives number nothing.
    return (status.st_dev, status.st_ino) if status.st_ino else folder.resolve()


def _describe(path: Path, relative: str, label: int) -> ImageFile:
    try:
        status = path.stat()
    except OSError:  # a dangling link; decoding names it as unreadable
        return ImageFile(relative, label, size=0, stamp=(0, 0))
    return ImageFile(relative, label, status.st_size, (status.st_mtime_ns, status.st_ctime_ns))
