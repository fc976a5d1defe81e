"""The images of a split, as a run saw them."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naturalist.data.catalog import scan
from naturalist.data.dataset import cache_of, find_data
from naturalist.data.images import ImageCache
from naturalist.data.layout import find_folders
from naturalist.data.photographs import shown_photographs
from naturalist.data.preprocessing import Preprocessing
from naturalist.data.recorded_split import Part, find_recorded
from naturalist.errors import UserError
from naturalist.printable import printable
from naturalist.runs.checkpoint import preprocessing_of
from naturalist.runs.folder import read_config
from naturalist.runs.identity import read_identity
from naturalist.settings.groups import DataSettings
from naturalist.settings.run_settings import OWN_DATA, cache_folder, name_of_data
from naturalist.wording import counted


@dataclass(frozen=True)
class SplitImages:
    """The images of one split, in the run's own sizes."""

    cache: ImageCache
    indices: NDArray[np.int64]
    """Which images of the cache, int64 ``[N]``."""
    data: str
    """Name of the data set."""
    preprocessing: Preprocessing
    """The run's."""
    unknown: dict[str, int] = field(default_factory=dict)
    """Files by class, of the classes that the run does not know; they are no part of the images."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Classes without an image."""
        counts = np.bincount(self.labels, minlength=len(self.cache.class_names))
        return tuple(name for name, count in zip(self.cache.class_names, counts, strict=True) if not count)

    @property
    def labels(self) -> NDArray[np.int64]:
        """int64 ``[N]``."""
        labels: NDArray[np.int64] = self.cache.labels[self.indices]
        return labels

    @property
    def files(self) -> tuple[str, ...]:
        """Paths relative to the split's folder, ``[N]``."""
        return tuple(self.cache.paths[i] for i in self.indices)

    def photographs(self, chosen: NDArray[np.int64]) -> tuple[NDArray[np.uint8], int]:
        """Some of the images, read again to be shown; see :func:`naturalist.data.photographs.shown_photographs`."""
        return shown_photographs(self.cache, self.indices[chosen], self.preprocessing)

    @property
    def fingerprint(self) -> str:
        """Of the images' names and content."""
        lines = sorted(f"{self.cache.paths[i]}\t{self.cache.hashes[i]}" for i in self.indices)
        return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()[:32]


def images_of_split(
    folder: Path, checkpoint: dict[str, Any], split: str, *, data: str | None = None, cache_dir: str | None = None
) -> SplitImages:
    """The images that a run is to be shown.

    Args:
        folder: run folder.
        checkpoint: of the run; the data is matched with its classes by name. Those that the test set lacks, and files
            of others, are named on the terminal.
        split: ``"test"``, or ``"val"`` for the images held out in training, or ``"train"`` for those trained on.
        data: data set to use instead of the run's own.
        cache_dir: folder for decoded images, if not the run's own.

    Raises:
        UserError: when the data is not there or does not fit.
    """
    preprocessing = preprocessing_of(checkpoint)
    places = _places_of(folder)
    settings = DataSettings(
        data=data or _data_of(checkpoint, places),
        datasets_dir=places.get("datasets_dir", DataSettings.datasets_dir),
        image_size=preprocessing.image_size,
        cache_size=preprocessing.cache_size,
        resize_mode=checkpoint["preprocessing"]["resize_mode"],
    )
    class_names = tuple(checkpoint["class_names"])
    folders = find_data(settings.data, settings.datasets_dir)
    if split == "test":
        if folders.test is None:
            raise UserError(
                f"{settings.data!r} has no test/ (or val/) folder; evaluate on the images held out in "
                "training with --split val, or pass --data with a folder that has train/ and test/."
            )
        source = folders.test
    else:
        source = folders.train if split == "train" or folders.val is None else folders.val
    images = scan(source, class_names)
    cache_dir = cache_dir or places.get("cache_dir")
    cache = cache_of(images, settings, cache_folder(cache_dir, places.get("runs_dir", str(folder.parent))))
    if split == "test":
        shown_images = SplitImages(cache, np.arange(len(cache)), settings.data, preprocessing, images.unknown)
        _say_which_classes(shown_images, source)
        return shown_images
    part: Part = "train" if split == "train" else "val"
    recorded = _recorded(folder, checkpoint, cache, settings.data, part)
    return SplitImages(cache, recorded, settings.data, preprocessing)


def validation_folder(folder: Path, checkpoint: dict[str, Any]) -> Path:
    """Where the images that a run was validated with lie, by its folder; nothing is downloaded or drawn for it.

    Raises :class:`UserError` when the data set is not there.
    """
    places = _places_of(folder)
    data = _data_of(checkpoint, places)
    place = Path(places.get("datasets_dir", DataSettings.datasets_dir), data) if data in OWN_DATA else Path(data)
    folders = find_folders(place.expanduser())
    return folders.val or folders.train


def _say_which_classes(images: SplitImages, source: Path) -> None:
    """Name the classes that a test set lacks, and those that the run does not know."""
    if images.missing:
        number = len(images.cache.class_names) - len(images.missing)
        print(
            f"{printable(source)} has no images of {printable(', '.join(images.missing))}: the numbers are of the "
            f"{counted(number, 'class', 'classes')} that it has.",
            flush=True,
        )
    if images.unknown:
        counts = ", ".join(f"{printable(name)} ({count:,})" for name, count in images.unknown.items())
        unknown = counted(
            sum(images.unknown.values()),
            f"file in {printable(source)} is of a class that the run does not know, and is",
            f"files in {printable(source)} are of classes that the run does not know, and are",
        )
        print(f"{unknown} left out: {counts}.", flush=True)
    lower = {name.casefold() for name in images.missing}
    if any(name.casefold() in lower for name in images.unknown):
        print("Upper and lower case count: rename the folders whose names differ in nothing else.", flush=True)


def _recorded(folder: Path, checkpoint: dict[str, Any], cache: ImageCache, data: str, part: Part) -> NDArray[np.int64]:
    """The images that the run was trained on or validated with, as it wrote them down, as far as they are there."""
    files, kind = read_identity(folder, checkpoint).split.of(part), "training" if part == "train" else "validation"
    found = find_recorded(files, cache)
    missing = found.describe_missing()
    if not len(found.indices):
        raise UserError(
            f"of the run's {counted(len(files), f'{kind} image')}, none is in {data!r} as it was; name the folder that "
            "holds them with --data."
        )
    if missing:
        print(f"Left out of the run's {counted(len(files), f'{kind} image')}: {missing} since.", flush=True)
    return found.indices


def _data_of(checkpoint: dict[str, Any], places: dict[str, Any]) -> str:
    """The run's data set: its name stands in the checkpoint, and where it lies in ``config.yaml``."""
    name: str = checkpoint["data"]
    place: str = places.get("data", "")
    if not place or place.startswith("~"):
        return name
    if name not in OWN_DATA and not Path(name).is_dir() and Path(place).is_dir():
        return place  # the folder got another name, and the run went on with it
    return place if name_of_data(place) == name else name


def _places_of(folder: Path) -> dict[str, Any]:
    """Where things lie, as the run's ``config.yaml`` says; all else that matters stands in the checkpoint."""
    if not (folder / "config.yaml").is_file():
        return {}
    try:
        config = read_config(folder)
    except UserError as error:
        print(f"{error} Default places are used instead.", flush=True)
        return {}
    return {
        name: config[name]
        for name in ("data", "datasets_dir", "cache_dir", "runs_dir")
        if isinstance(config.get(name), str)
    }
