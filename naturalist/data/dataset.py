"""From the name of a data set to images and their split."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from naturalist.data.augment import IMAGENET_MEAN, IMAGENET_STD, Augmentation, Preprocessing, channel_statistics
from naturalist.data.catalog import Folders, Split, find_folders, scan
from naturalist.data.images import ImageCache, open_cache
from naturalist.data.loader import BatchLoader
from naturalist.data.split import stratified_part, stratified_split
from naturalist.settings.config import RunSettings

STATISTICS_IMAGES = 1000
"""Training images that mean and deviation are taken from."""


@dataclass(frozen=True)
class TrainingData:
    """Everything that training needs to know about a data set; the test set is no part of it."""

    train_cache: ImageCache
    train_indices: np.ndarray
    val_cache: ImageCache
    val_indices: np.ndarray
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    description: str
    """One line for people."""

    def loaders(self, settings: RunSettings, device: torch.device) -> tuple[BatchLoader, BatchLoader]:
        """Training batches in an order that the seed decides, and validation batches."""
        return (
            BatchLoader(self.train_cache, self.train_indices, settings.batch_size, device, shuffle_seed=settings.seed),
            BatchLoader(self.val_cache, self.val_indices, settings.batch_size, device),
        )

    def transforms(self, settings: RunSettings) -> tuple[Augmentation | Preprocessing, Preprocessing]:
        """What a loader's batches go through in training, and in validation."""
        if settings.data_augmentation:
            return Augmentation(settings, self.preprocessing, len(self.class_names)), self.preprocessing
        return self.preprocessing, self.preprocessing


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


def cache_of(split: Split, settings: RunSettings, data: str | None = None) -> ImageCache:
    """The cache of one split under the settings' size, resize mode and folder."""
    name = Path(data or settings.data).expanduser().resolve().name
    return open_cache(
        split,
        settings.cache_size or settings.image_size,
        settings.resize_mode,
        settings.cache_folder,
        name=name,
        on_corrupt=settings.on_corrupt,
    )


def load_training_data(settings: RunSettings) -> TrainingData:
    """Training and validation images: the given validation folder, or a stratified part of the training folder.

    Raises :class:`naturalist.errors.UserError` for data that cannot be used.
    """
    folders = find_data(settings.data, settings.datasets_dir)
    cache = cache_of(scan(folders.train), settings)
    if folders.val is not None:
        train_indices = np.arange(len(cache))
        val_cache = cache_of(scan(folders.val), settings)
        val_indices = np.arange(len(val_cache))
    else:
        val_cache = cache
        train_indices, val_indices = stratified_split(
            cache.labels, cache.class_names, settings.val_fraction, settings.seed
        )
    if settings.train_fraction < 1:
        train_indices = stratified_part(
            train_indices, cache.labels[train_indices], settings.train_fraction, settings.seed
        )
    description = (
        f"{describe_data(settings.data)}; {len(train_indices):,} images to train on, "
        f"{len(val_indices):,} to validate on, {len(cache.class_names)} classes"
    )
    return TrainingData(
        cache,
        train_indices,
        val_cache,
        val_indices,
        cache.class_names,
        _preprocessing(settings, cache, train_indices),
        description,
    )


def _preprocessing(settings: RunSettings, cache: ImageCache, train_indices: np.ndarray) -> Preprocessing:
    if settings.normalization == "imagenet":
        mean, std = IMAGENET_MEAN, IMAGENET_STD
    elif settings.normalization == "half":
        mean = std = (0.5, 0.5, 0.5)
    else:
        stride = max(1, len(train_indices) // STATISTICS_IMAGES)
        mean, std = channel_statistics(torch.from_numpy(cache.read(train_indices[::stride])))
        cache.release()
    return Preprocessing(settings.image_size, cache.size, settings.resize_mode, mean, std)
