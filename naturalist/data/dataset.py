"""From the name of a data set to images and their split."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from naturalist.data.augment import Augmentation
from naturalist.data.catalog import Split
from naturalist.data.catalog import scan as scan_folder
from naturalist.data.exclude import Exclusion
from naturalist.data.growth import Growing, Growth
from naturalist.data.images import ImageCache, open_cache
from naturalist.data.layout import Folders, find_folders
from naturalist.data.loader import BatchLoader
from naturalist.data.placing import choose_place
from naturalist.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, channel_statistics
from naturalist.data.recorded_split import RecordedSplit, find_recorded, record_split
from naturalist.data.share import Share
from naturalist.data.split import stratified_part, stratified_split
from naturalist.device import Compute
from naturalist.errors import UserError
from naturalist.printable import printable
from naturalist.settings.groups import AugmentationSettings, DataSettings, Sampling

STATISTICS_IMAGES = 1000
"""Training images that mean and deviation are taken from."""

Scan = Callable[[Path], Split]
"""Lists a folder of class folders, as :func:`naturalist.data.catalog.scan` does."""

Transform = Callable[[Tensor], Tensor]
"""Turns a batch into a model's input."""

Varied = Augmentation | Growing
"""Turns a training batch and its labels into inputs and targets, by epoch and step."""


class Batches(Protocol):
    """What trains and measures a model: batches on a device, epoch by epoch."""

    device: torch.device
    share: Share | None
    """Of several ranks, each with the rows of every batch that :class:`naturalist.data.share.Part` names."""

    def __len__(self) -> int:
        """Batches per epoch."""

    @property
    def num_images(self) -> int:
        """Images per epoch."""

    @property
    def batches(self) -> list[int]:
        """Images of each batch of an epoch, all ranks' together."""

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of one epoch, from batch ``start`` on: inputs ``[B, …]`` and labels int64 ``[B]``."""


@dataclass(frozen=True)
class Loading:
    """How batches are made."""

    batch_size: int
    seed: int
    """Of the order of training images."""
    compute: Compute
    """Where batches are wanted, and where images may lie."""
    share: Share | None = None
    """Which rows of every batch, where several ranks work on each."""
    sampling: Sampling = "shuffle"


@dataclass(frozen=True)
class DataPlan:
    """What a training would train on, in numbers."""

    counts: tuple[int, ...]
    """Training images of each class."""
    description: str
    """One line for people."""
    class_names: tuple[str, ...]

    @property
    def num_train(self) -> int:
        """Training images."""
        return sum(self.counts)

    @property
    def num_classes(self) -> int:
        """Classes."""
        return len(self.counts)


@dataclass(frozen=True)
class TrainingData:
    """Everything that training needs to know about a data set; the test set is no part of it."""

    train_cache: ImageCache
    train_indices: NDArray[np.int64]
    val_cache: ImageCache
    val_indices: NDArray[np.int64]
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    description: str
    """One line for people."""
    split: RecordedSplit | None = field(default=None, kw_only=True)
    """Every image by name and content, for the run's record."""
    growth: Growth | None = field(default=None, kw_only=True)
    """Sides of the training images, where they are not ``image_size`` all along."""
    exclusion: Exclusion | None = field(default=None, kw_only=True)
    """What a list left out; None also for a run that goes on."""

    @property
    def plan(self) -> DataPlan:
        """The same in numbers."""
        counts = _counts(self.train_cache.labels[self.train_indices], self.class_names)
        return DataPlan(counts, self.description, self.class_names)

    def loaders(self, how: Loading) -> tuple[Batches, Batches]:
        """Training batches in an order that the seed decides, and validation batches; of both a rank's share."""
        needed = self.train_cache.bytes_of(self.train_indices) + self.val_cache.bytes_of(self.val_indices)
        device, place = how.compute.device, choose_place(how.compute.device_memory, needed, how.compute.device)
        train, val = (self.train_cache, self.train_indices), (self.val_cache, self.val_indices)
        order: dict[str, Any] = {"shuffle_seed": how.seed, "sampling": how.sampling}
        return (
            BatchLoader(*train, how.batch_size, device, **order, place=place, share=how.share),
            BatchLoader(*val, how.batch_size, device, place=place, share=how.share),
        )

    def transforms(self, augmentation: AugmentationSettings, seed: int) -> tuple[Varied | Transform, Transform]:
        """What a loader's batches go through in training, and in validation."""
        vary: Augmentation | Preprocessing = self.preprocessing
        if augmentation.data_augmentation:
            vary = Augmentation(augmentation, seed, self.preprocessing, len(self.class_names))
        return vary if self.growth is None else Growing(vary, self.growth), self.preprocessing


def describe_data(data: str) -> str:
    """What to call a data set in pictures and on the terminal; the sample is never passed off as photographs."""
    return "sample: synthetic pictures, not photographs" if data == "sample" else Path(data).expanduser().resolve().name


def find_data(data: str, datasets_dir: str) -> Folders:
    """Folders of the data set that ``--data`` names; 'sample' is drawn and 'nature_12K' downloaded first if need be."""
    if data == "sample":
        from naturalist.data.sources.sample import make_sample

        return find_folders(make_sample(Path(datasets_dir) / "sample"))
    if data == "nature_12K":
        from naturalist.data.sources.nature12k import fetch_nature_12k

        return find_folders(fetch_nature_12k(Path(datasets_dir)))
    return find_folders(Path(data).expanduser())


def cache_of(split: Split, settings: DataSettings, cache_folder: Path) -> ImageCache:
    """The cache of one split under the settings' size and resize mode."""
    size = settings.cache_size or settings.image_size
    return open_cache(split, size, settings.resize_mode, cache_folder, on_corrupt=settings.on_corrupt)


def load_training_data(
    settings: DataSettings, cache_folder: Path, scan: Scan | None = None, recorded: RecordedSplit | None = None
) -> TrainingData:
    """Training and validation images: the given validation folder, or a stratified part of the training folder.

    Args:
        settings: which images.
        cache_folder: where decoded images are kept.
        scan: lists a folder; who trains again and again on the same one can remember what it found.
        recorded: the split of a run that goes on; it is not drawn again.

    Raises:
        UserError: for data that cannot be used, or that are not those of the recorded split any more.
    """
    folders = find_data(settings.data, settings.datasets_dir)
    if recorded is not None:
        scan = partial(scan_folder, known=sorted({file.class_name for file in recorded.files}))
    elif scan is None:
        scan = scan_folder
    splits = [scan(folder) for folder in (folders.train, folders.val) if folder is not None]
    # On record is also what was left out.
    exclusion = _exclusion(settings, folders, splits) if recorded is None else None
    train, *own = (cache_of(split, settings, cache_folder) for split in splits)
    val = own[0] if own else train
    if recorded is not None:
        train_indices, val_indices = _find_all(recorded, train, val, settings.data)
        split = recorded
    else:
        train_indices, val_indices = _choose(settings, folders, exclusion, train, own[0] if own else None)
        split = record_split(train, train_indices, None if own else val_indices, val, val_indices)
    counts = len(train_indices), len(val_indices)
    description = describe_split(settings, *counts, train.class_names, folders, exclusion)
    preprocessing = _preprocessing(settings, train, train_indices)
    return TrainingData(
        train,
        train_indices,
        val,
        val_indices,
        train.class_names,
        preprocessing,
        description,
        split=split,
        exclusion=exclusion,
    )


class Listed(Protocol):
    """Images of a split, decoded or not."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """int64 ``[N]``."""

    @property
    def paths(self) -> tuple[str, ...]:
        """``[N]``, see :attr:`naturalist.data.catalog.ImageFile.name`."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the labels."""


def _exclusion(settings: DataSettings, folders: Folders, splits: Sequence[Split]) -> Exclusion | None:
    if settings.exclude is None:
        return None
    exclusion = Exclusion.read(settings.exclude)
    exclusion.require_known(folders, splits)
    return exclusion


def _choose(
    settings: DataSettings, folders: Folders, exclusion: Exclusion | None, train: Listed, val: Listed | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The images to train on, and those to validate on: of ``val``, or held out where there is none.

    The split is drawn before images are left out, so that all others stay on their side of it.
    """
    if val is None:
        chosen = stratified_split(train.labels, train.class_names, settings.val_fraction, settings.split_seed)
    else:
        chosen = np.arange(len(train.labels)), np.arange(len(val.labels))
    if exclusion is not None:
        sides = ((folders.train, train), (folders.val or folders.train, val or train))
        left = (
            exclusion.without(indices, folders.prefix(folder), images.paths, images.labels, images.class_names)
            for indices, (folder, images) in zip(chosen, sides, strict=True)
        )
        chosen = next(left), next(left)
    train_indices, val_indices = chosen
    if settings.train_fraction < 1:
        labels = train.labels[train_indices]
        train_indices = stratified_part(train_indices, labels, settings.train_fraction, settings.split_seed)
    return train_indices, val_indices


def _find_all(
    recorded: RecordedSplit, train: ImageCache, val: ImageCache, data: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The images of a run that goes on, which must all be there as they were."""
    found = find_recorded(recorded.of("train"), train), find_recorded(recorded.of("val"), val)
    for part, images in zip(("trained on", "validated with"), found, strict=True):
        missing = images.describe_missing()
        if missing:
            raise UserError(
                f"of the images that the run is {part}, {missing} in {data!r} since it began, so it cannot go on as "
                "it was; put them back, name the folder that holds them with --data, or train a new run."
            )
    return found[0].indices, found[1].indices


def plan_training_data(settings: DataSettings) -> DataPlan:
    """Count the files of a training without downloading or decoding any; unreadable ones show only when decoded.

    Raises :class:`UserError` for data that cannot be used, or that is not there yet.
    """
    if settings.data == "nature_12K" and not (Path(settings.datasets_dir) / "nature_12K").is_dir():
        raise UserError(
            "nature_12K has not been downloaded yet, so its images cannot be counted; fetch it first with: "
            "python -m naturalist prepare --data nature_12K"
        )
    folders = find_data(settings.data, settings.datasets_dir)
    splits = [scan_folder(folder) for folder in (folders.train, folders.val) if folder is not None]
    exclusion = _exclusion(settings, folders, splits)
    indices, val_indices = _choose(settings, folders, exclusion, splits[0], splits[1] if len(splits) > 1 else None)
    names = splits[0].class_names
    description = describe_split(settings, len(indices), len(val_indices), names, folders, exclusion)
    return DataPlan(_counts(splits[0].labels[indices], names), description, names)


def describe_split(
    settings: DataSettings,
    num_train: int,
    num_val: int,
    class_names: Sequence[str],
    folders: Folders,
    exclusion: Exclusion | None,
) -> str:
    """One line about the images of a training, and about what is unusual in the names of folders."""
    counts = f"{num_train:,} images to train on, {num_val:,} to validate on, {len(class_names)} classes"
    left_out = exclusion.describe() if exclusion else f"without those of {settings.exclude}" * bool(settings.exclude)
    data = describe_data(settings.data)
    return "; ".join(filter(None, (f"{data}; {counts}", printable(left_out), folders.note, case_twins(class_names))))


def _counts(labels: NDArray[np.int64], class_names: Sequence[str]) -> tuple[int, ...]:
    return tuple(np.bincount(labels, minlength=len(class_names)).tolist())


def case_twins(class_names: Sequence[str]) -> str:
    """A sentence about classes that differ in upper and lower case only; empty where there are none."""
    groups: dict[str, list[str]] = {}
    for name in class_names:
        groups.setdefault(name.casefold(), []).append(name)
    twins = [" and ".join(group) for group in groups.values() if len(group) > 1]
    if not twins:
        return ""
    return printable(
        f"{', '.join(twins)} are classes apart here, but one folder on Windows and most Macs, where case does not count"
    )


def _preprocessing(settings: DataSettings, cache: ImageCache, train_indices: NDArray[np.int64]) -> Preprocessing:
    if settings.normalization == "imagenet":
        mean, std = IMAGENET_MEAN, IMAGENET_STD
    elif settings.normalization == "half":
        mean = std = (0.5, 0.5, 0.5)
    else:
        stride = max(1, len(train_indices) // STATISTICS_IMAGES)
        mean, std = channel_statistics(torch.from_numpy(cache.read(train_indices[::stride])))
        cache.release()
    return Preprocessing(settings.image_size, cache.size, settings.resize_mode, mean, std)
