"""Everything that is to be known about the photographs of a data set, before a network sees them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naturalist.data.catalog import Split, scan
from naturalist.data.dataset import cache_of
from naturalist.data.duplicates import Duplicates, Prints, find_duplicates
from naturalist.data.images import ImageCache
from naturalist.data.layout import Folders
from naturalist.data.metadata import Header, guessed_by, read_header
from naturalist.data.quality import Looks, look_at
from naturalist.progress import progress_bar
from naturalist.settings.audit import Limits
from naturalist.settings.groups import DataSettings

SIDE = 128
"""Of the pixels that are looked at; as a training by default has them, too."""


@dataclass(frozen=True)
class Part:
    """A split: its files, and the pixels of those that can be read."""

    name: str
    """``train``, ``val`` or ``test``, by what it is used for."""
    split: Split
    cache: ImageCache
    prefix: str
    """See :meth:`naturalist.data.layout.Folders.prefix`."""


def open_parts(folders: Folders, settings: DataSettings, cache_folder: Path) -> list[Part]:
    """The splits of a data set, in the order train, val, test, decoded.

    Raises :class:`UserError` for data that cannot be used.
    """
    splits = {"train": scan(folders.train)}
    if folders.val is not None:
        splits["val"] = scan(folders.val)
    if folders.test is not None:
        splits["test"] = scan(folders.test, splits["train"].class_names)
    return [
        Part(name, split, cache_of(split, settings, cache_folder), folders.prefix(split.folder))
        for name, split in splits.items()
    ]


@dataclass(frozen=True)
class Images:
    """All readable photographs of a data set, split after split."""

    parts: list[Part]
    looks: Looks
    prints: Prints

    @classmethod
    def of(cls, parts: list[Part], limits: Limits) -> "Images":
        """Look at the photographs of all splits."""
        looked = [look_at(part.cache, limits) for part in parts]
        looks, prints = (_joined(kind) for kind in zip(*looked, strict=True))
        return cls(parts, looks, prints)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """int64 ``[N]``."""
        return np.concatenate([part.cache.labels for part in self.parts])

    @cached_property
    def splits(self) -> NDArray[np.int64]:
        """Which of the parts each is in, int64 ``[N]``."""
        return np.repeat(np.arange(len(self.parts)), [len(part.cache) for part in self.parts])

    @cached_property
    def paths(self) -> list[str]:
        """From the data folder on, ``[N]``."""
        return [part.prefix + path for part in self.parts for path in part.cache.paths]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Those of the training images."""
        return self.parts[0].split.class_names

    def pixels(self, indices: Sequence[int]) -> list[NDArray[np.uint8]]:
        """Some of the photographs, uint8 ``[S, S, 3]`` each."""
        starts = np.searchsorted(self.splits, np.arange(len(self.parts)))
        return [self.parts[self.splits[i]].cache.read(np.array([i - starts[self.splits[i]]]))[0] for i in indices]

    def duplicates(self, distance: int) -> Duplicates:
        """What is there twice."""
        contents = [content for part in self.parts for content in part.cache.hashes]
        return find_duplicates(self.prints, contents, self.splits, self.labels, distance)


def read_headers(parts: Sequence[Part]) -> list[Header]:
    """The headers of all readable photographs, in the order of :class:`Images`."""
    headers = []
    with progress_bar("Reading headers", sum(len(part.cache) for part in parts), "files") as bar:
        for part in parts:
            files = {file.name: file.path for file in part.split.files}
            for name in part.cache.paths:
                headers.append(read_header(part.split.folder / files[name]))
                bar.advance()
    return headers


@dataclass(frozen=True)
class Oddity:
    """Something about a file that is to be looked at."""

    path: str
    """From the data folder on."""
    class_name: str
    split: str
    problem: str
    value: float | None
    """What the limit is compared with."""
    index: int | None
    """Of the photograph among :class:`Images`; None for one that cannot be read."""


def find_oddities(images: Images, headers: Sequence[Header], limits: Limits) -> Iterator[Oddity]:
    """What is suspicious: files that cannot be read, and by problem the photographs beyond a limit, worst first."""
    names = images.class_names
    for part in images.parts:
        labels = {file.path: file.label for file in part.split.files}
        for path, reason in part.cache.problems:
            yield Oddity(part.prefix + path, names[labels[path]], part.name, f"unreadable: {reason}", None, None)
    sides = np.array([min(header.width, header.height) for header in headers])
    values = {"small": sides, **images.looks.values()}
    for problem, found in {"small": sides < limits.small, **images.looks.problems(limits)}.items():
        indices = np.flatnonzero(found)
        order = np.argsort(-values[problem][indices] if problem == "very bright" else values[problem][indices])
        for i in indices[order].tolist():
            class_name, split = names[images.labels[i]], images.parts[images.splits[i]].name
            yield Oddity(images.paths[i], class_name, split, problem, round(float(values[problem][i]), 2), i)


def describe_classes(images: Images, headers: Sequence[Header]) -> list[dict[str, Any]]:
    """Each class of each split in numbers: files, sizes, shapes, modes, formats, cameras, places."""
    rows = []
    for number, part in enumerate(images.parts):
        files = part.split.counts()
        for label, class_name in enumerate(images.class_names):
            chosen = (images.splits == number) & (images.labels == label)
            own = [headers[i] for i in np.flatnonzero(chosen).tolist()]
            cameras = Counter(header.camera for header in own if header.camera)
            rows.append(
                {
                    "class": class_name,
                    "split": part.name,
                    "files": files[class_name],
                    "readable": len(own),
                    "width": _spread([header.width for header in own]),
                    "height": _spread([header.height for header in own]),
                    "aspect": _spread([header.aspect for header in own]),
                    "modes": dict(Counter(header.mode for header in own).most_common()),
                    "formats": dict(Counter(header.format for header in own).most_common()),
                    "with_camera": cameras.total(),
                    "cameras": len(cameras),
                    "with_place": sum(header.has_place for header in own),
                }
            )
    return rows


def giveaways(images: Images, headers: Sequence[Header]) -> dict[str, float]:
    """Share of photographs whose class can be guessed from one thing about the file, and by always guessing one.

    See :func:`naturalist.data.metadata.guessed_by`.
    """
    values: dict[str, list[Any]] = {
        "camera": [header.camera for header in headers],
        "size": [(header.width, header.height) for header in headers],
        "mode": [header.mode for header in headers],
        "format": [header.format for header in headers],
    }
    shares = {name: guessed_by(column, images.labels) for name, column in values.items()}
    largest = float(np.bincount(images.labels).max() / len(images.labels))
    return {name: round(share, 4) for name, share in {"largest class": largest, **shares}.items()}


def _spread(values: Sequence[float]) -> list[float]:
    """Smallest, median and largest; of nothing, nothing."""
    return [round(float(value), 3) for value in np.quantile(values, (0, 0.5, 1))] if values else []


def _joined(parts: Sequence[Any]) -> Any:
    """Of arrays in dataclasses of one kind, one such dataclass of longer arrays."""
    return type(parts[0])(*(np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])))
