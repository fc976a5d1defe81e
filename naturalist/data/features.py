"""What a frozen prefix makes of every image: computed once, kept on disk, served in batches like images.

A frozen prefix is a function, so its outputs need to be computed only once per image, or once per fixed augmented
view of an image; training what follows then costs next to nothing. A feature file's name holds a key of everything
that its numbers come from: images, preprocessing, augmentation, the prefix's weights, the arithmetic.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from naturalist.data.augment import Augmentation
from naturalist.data.dataset import Batches, TrainingData, Transform
from naturalist.data.images import ImageCache
from naturalist.data.loader import RESIDENT_SHARE, BatchLoader, batch_bounds, batch_order
from naturalist.device import Compute
from naturalist.errors import UserError
from naturalist.progress import progress_bar
from naturalist.seeding import generator
from naturalist.settings.groups import AugmentationSettings

FORMAT_VERSION = 1
"""Part of every key; to be raised whenever the same settings yield other features."""
PREFIX_BATCH = 64
"""Images per pass through the prefix."""
VIEW_SETTINGS = (
    "crop_scale",
    "horizontal_flip",
    "rotation",
    "brightness",
    "contrast",
    "saturation",
    "random_erasing",
)
"""What the views of an image depend on, beside the seed."""


class Prefix(Protocol):
    """The frozen part of a network, in evaluation mode and on the device."""

    name: str
    """For people, such as ``resnet50-layer4``."""
    stage: str
    """The first stage that it leaves out."""
    fingerprint: str
    """Of everything that it computes with."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """Normalised images ``[B, 3, S, S]`` → features ``[B, …]``."""


@dataclass(frozen=True)
class Views:
    """Which fixed views of every training image are computed."""

    count: int
    augmentation: AugmentationSettings
    seed: int

    def recipe(self) -> dict[str, Any]:
        """What tells views from others."""
        if not self.augmentation.data_augmentation:
            return {"views": 1}
        amounts = {name: getattr(self.augmentation, name) for name in VIEW_SETTINGS}
        return {"views": self.count, "seed": self.seed, **amounts}


@dataclass(frozen=True)
class FeatureData(TrainingData):
    """Training data whose batches are features instead of images."""

    train_features: Tensor
    """``[views, N, …]``, mapped from disk."""
    val_features: Tensor
    """``[1, N, …]``."""
    seconds: float
    """What computing the features took, now or when they were first needed."""

    def loaders(self, batch_size: int, seed: int, device: torch.device) -> tuple[Batches, Batches]:
        """Training batches in an order that the seed decides, and validation batches."""
        train_labels = self.train_cache.labels[self.train_indices]
        val_labels = self.val_cache.labels[self.val_indices]
        return (
            FeatureLoader(self.train_features, train_labels, batch_size, device, shuffle_seed=seed),
            FeatureLoader(self.val_features, val_labels, batch_size, device),
        )

    def transforms(self, augmentation: AugmentationSettings, seed: int) -> tuple[Transform, Transform]:
        """Nothing is left to do to features."""
        return _unchanged, _unchanged


class FeatureLoader:
    """Iterates over features as :class:`naturalist.data.loader.BatchLoader` does over images, in the same order.

    Args:
        features: ``[views, N, …]``; in every epoch each image shows one of its views, drawn by chance.
        labels: int64 ``[N]``.
        batch_size: images per batch.
        device: where batches are wanted; on a GPU with room, features are copied there once.
        shuffle_seed: seed of order and views; None keeps the order and takes the first view.
    """

    def __init__(
        self,
        features: Tensor,
        labels: NDArray[np.int64],
        batch_size: int,
        device: torch.device,
        *,
        shuffle_seed: int | None = None,
    ) -> None:
        self.device, self.shuffle_seed = device, shuffle_seed
        self.features, self.labels = features, torch.from_numpy(labels)
        size = features.numel() * features.element_size()
        if device.type == "cuda" and size < RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
            self.features, self.labels = features.to(device), self.labels.to(device)
        self._bounds = batch_bounds(len(labels), batch_size)

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self._bounds)

    @property
    def num_images(self) -> int:
        """Images per epoch."""
        return len(self.labels)

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of one epoch, from batch ``start`` on: features ``[B, …]``, labels int64 ``[B]``, on the device."""
        order = torch.from_numpy(batch_order(self.num_images, self.shuffle_seed, epoch))
        views = torch.zeros(self.num_images, dtype=torch.int64)
        if self.shuffle_seed is not None and len(self.features) > 1:
            views = torch.randint(
                len(self.features), (self.num_images,), generator=generator(self.shuffle_seed, "views", epoch)
            )
        order, views = order.to(self.features.device), views.to(self.features.device)
        for first, stop in self._bounds[start:]:
            chosen = order[first:stop]
            yield self.features[views[first:stop], chosen].to(self.device), self.labels[chosen].to(self.device)


def cache_features(
    prefix: Prefix, data: TrainingData, views: Views, compute: Compute, cache_folder: Path
) -> FeatureData | None:
    """Compute, or find, what a frozen prefix makes of training and validation images.

    Args:
        prefix: with its weights.
        data: images and their split.
        views: of every training image; a validation image has one, as it is.
        compute: where, and in which arithmetic.
        cache_folder: where features are kept.

    Returns:
        The features, or None when the disk has no room for them, which is said.
    """
    recipe = {
        "version": FORMAT_VERSION,
        "preprocessing": asdict(data.preprocessing),
        "stage": prefix.stage,
        "channels_last": compute.channels_last,
        "precision": compute.precision,
        "prefix": prefix.fingerprint,
    }
    store = _FeatureStore(prefix, data, compute, cache_folder)
    try:
        train, train_seconds = store.find(data.train_cache, data.train_indices, {**recipe, **views.recipe()}, views)
        val, val_seconds = store.find(data.val_cache, data.val_indices, {**recipe, "views": 1}, None)
    except _NoRoom as problem:
        print(f"Features are not kept, every epoch passes through the whole network: {problem}", flush=True)
        return None
    return FeatureData(**vars(data), train_features=train, val_features=val, seconds=train_seconds + val_seconds)


class _NoRoom(Exception):
    pass


@dataclass(frozen=True)
class _FeatureStore:
    """Feature files of one prefix."""

    prefix: Prefix
    data: TrainingData
    compute: Compute
    cache_folder: Path

    def find(
        self, cache: ImageCache, indices: NDArray[np.int64], recipe: dict[str, Any], views: Views | None
    ) -> tuple[Tensor, float]:
        """Features ``[views, len(indices), …]``, from disk if they are there, and the seconds computing them took."""
        # The image cache's folder name ends in a key of its files.
        made_from = json.dumps([recipe, Path(str(cache.pixels.filename)).parent.name, cache.rows[indices].tolist()])
        key = hashlib.sha256(made_from.encode()).hexdigest()[:16]
        folder = self.cache_folder / f"features-{self.prefix.name}-{key}"
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_name(f"{folder.name}.lock")):
                if not folder.is_dir():
                    self._compute(cache, indices, recipe["views"], views, folder)
        except OSError as error:
            raise UserError(
                f"cannot keep features in the cache folder {str(folder.parent)!r}: {error.strerror or error}; "
                "pass --cache_dir with another folder, or --no_cache_features."
            ) from None
        form = json.loads((folder / "form.json").read_text(encoding="utf-8"))
        return _map(folder / "features.bin", form["shape"], getattr(torch, form["dtype"])), form["seconds"]

    @torch.no_grad()
    def _compute(
        self, cache: ImageCache, indices: NDArray[np.int64], count: int, views: Views | None, folder: Path
    ) -> None:
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed; the lock says nobody works on it
        unfinished.mkdir()
        features: Tensor | None = None
        start_time = time.perf_counter()
        try:
            with progress_bar(f"Features of {len(indices):,} images × {count} view(s)", count * len(indices)) as bar:
                for view, start, stop, batch in self._batches(cache, indices, count, views):
                    if features is None:
                        shape = [count, len(indices), *batch.shape[1:]]
                        _check_room(folder.parent, prod(shape) * batch.element_size())
                        features = _map(unfinished / "features.bin", shape, batch.dtype, new=True)
                    features[view, start:stop] = batch
                    bar.advance(stop - start)
            form = {
                "shape": shape,
                "dtype": str(batch.dtype).removeprefix("torch."),
                "seconds": time.perf_counter() - start_time,
            }
            (unfinished / "form.json").write_text(json.dumps(form), encoding="utf-8")
            del features
            unfinished.rename(folder)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise

    def _batches(
        self, cache: ImageCache, indices: NDArray[np.int64], count: int, views: Views | None
    ) -> Iterator[tuple[int, int, int, Tensor]]:
        """View, first and last image, and features on the CPU, of every batch."""
        loader = BatchLoader(cache, indices, PREFIX_BATCH, self.compute.device, resident=False)
        preprocessing, augment = self.data.preprocessing, None
        if views is not None and views.augmentation.data_augmentation:
            augment = Augmentation(views.augmentation, views.seed, preprocessing, len(self.data.class_names))
        bounds = batch_bounds(len(indices), PREFIX_BATCH)
        for view in range(count):
            for step, ((start, stop), (pixels, labels)) in enumerate(zip(bounds, loader.epoch(), strict=True)):
                inputs = augment(pixels, labels, view, step)[0] if augment else preprocessing(pixels)
                with self.compute.autocast():
                    features = self.prefix(self.compute.lay_out(inputs))
                yield view, start, stop, features.cpu()


def _map(path: Path, shape: list[int], dtype: torch.dtype, new: bool = False) -> Tensor:
    """A tensor in a file; changes reach the file only if it is new."""
    if new:
        path.touch()
    return torch.from_file(str(path), shared=new, size=prod(shape), dtype=dtype).view(shape)


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise _NoRoom(
            f"they need {needed / 1e9:.1f} GB, but {str(folder)!r} has {free / 1e9:.1f} GB free; "
            "--cache_dir names another folder, --unfreeze_from a higher stage has smaller features."
        )


def _unchanged(features: Tensor) -> Tensor:
    return features
