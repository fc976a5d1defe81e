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
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from naturalist.data.augment import Augmentation
from naturalist.data.dataset import TrainingData
from naturalist.data.images import ImageCache
from naturalist.data.loader import RESIDENT_SHARE, BatchLoader, batch_bounds, batch_order
from naturalist.device import Precision
from naturalist.errors import UserError
from naturalist.models.backbones import StagedNetwork
from naturalist.progress import progress_bar
from naturalist.seeding import generator
from naturalist.settings.config import FinetuneSettings

FORMAT_VERSION = 1
"""Part of every key; to be raised whenever the same settings yield other features."""
PREFIX_BATCH = 64
"""Images per pass through the prefix."""
AUGMENTATION_FIELDS = (
    "seed",
    "crop_scale",
    "horizontal_flip",
    "rotation",
    "brightness",
    "contrast",
    "saturation",
    "random_erasing",
)


@dataclass(frozen=True)
class FeatureData(TrainingData):
    """Training data whose batches are features instead of images."""

    train_features: Tensor
    """``[views, N, …]``, mapped from disk."""
    val_features: Tensor
    """``[1, N, …]``."""
    seconds: float
    """What computing the features took, now or when they were first needed."""

    def loaders(self, settings: FinetuneSettings, device: torch.device) -> tuple["FeatureLoader", "FeatureLoader"]:
        """Training batches in an order that the seed decides, and validation batches."""
        train_labels = self.train_cache.labels[self.train_indices]
        val_labels = self.val_cache.labels[self.val_indices]
        return (
            FeatureLoader(self.train_features, train_labels, settings.batch_size, device, shuffle_seed=settings.seed),
            FeatureLoader(self.val_features, val_labels, settings.batch_size, device),
        )

    def transforms(self, settings: FinetuneSettings) -> tuple:
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
        labels: np.ndarray,
        batch_size: int,
        device: torch.device,
        *,
        shuffle_seed: int | None = None,
    ):
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

    def epoch(self, epoch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of one epoch: features ``[B, …]`` and labels int64 ``[B]``, on the device."""
        order = torch.from_numpy(batch_order(self.num_images, self.shuffle_seed, epoch))
        views = torch.zeros(self.num_images, dtype=torch.int64)
        if self.shuffle_seed is not None and len(self.features) > 1:
            views = torch.randint(
                len(self.features), (self.num_images,), generator=generator(self.shuffle_seed, "views", epoch)
            )
        order, views = order.to(self.features.device), views.to(self.features.device)
        for start, stop in self._bounds:
            chosen = order[start:stop]
            yield self.features[views[start:stop], chosen].to(self.device), self.labels[chosen].to(self.device)


def cache_features(
    model: StagedNetwork, stage: str, data: TrainingData, settings: FinetuneSettings, device: torch.device
) -> FeatureData | None:
    """Compute, or find, what the stages before ``stage`` make of training and validation images.

    Args:
        model: with its weights, on any device.
        stage: the first that learns.
        data: images and their split.
        settings: ``views`` (with augmentation), augmentation, precision, ``cache_folder``.
        device: where to compute.

    Returns:
        The features, or None when the disk has no room for them, which is said.
    """
    memory_format = torch.channels_last if settings.channels_last else torch.contiguous_format
    model = model.to(device, memory_format=memory_format).eval()
    recipe = {
        "version": FORMAT_VERSION,
        "preprocessing": vars(data.preprocessing),
        "stage": stage,
        "channels_last": settings.channels_last,
        "precision": Precision(settings.precision, device).name,
        "prefix": _hash_prefix(model, stage),
    }
    view_recipe = (
        {"views": settings.views, **{name: getattr(settings, name) for name in AUGMENTATION_FIELDS}}
        if settings.data_augmentation
        else {"views": 1}
    )
    try:
        train, train_seconds = _features(
            model,
            stage,
            data.train_cache,
            data.train_indices,
            data,
            settings,
            device,
            {**recipe, **view_recipe},
            augmented=settings.data_augmentation,
        )
        val, val_seconds = _features(
            model,
            stage,
            data.val_cache,
            data.val_indices,
            data,
            settings,
            device,
            {**recipe, "views": 1},
            augmented=False,
        )
    except _NoRoom as problem:
        print(f"Features are not kept, every epoch passes through the whole network: {problem}", flush=True)
        return None
    return FeatureData(**vars(data), train_features=train, val_features=val, seconds=train_seconds + val_seconds)


class _NoRoom(Exception):
    pass


def _features(
    model: StagedNetwork,
    stage: str,
    cache: ImageCache,
    indices: np.ndarray,
    data: TrainingData,
    settings: FinetuneSettings,
    device: torch.device,
    recipe: dict,
    *,
    augmented: bool,
) -> tuple[Tensor, float]:
    """Features ``[views, len(indices), …]``, from disk if they are there, and the seconds computing them took."""
    # The image cache's folder name ends in a key of its files.
    made_from = json.dumps([recipe, Path(cache.pixels.filename).parent.name, cache.rows[indices].tolist()])
    key = hashlib.sha256(made_from.encode()).hexdigest()[:16]
    folder = settings.cache_folder / f"features-{settings.backbone}-{stage}-{key}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            if not folder.is_dir():
                _compute(model, stage, cache, indices, data, settings, device, recipe["views"], augmented, folder)
    except OSError as error:
        raise UserError(
            f"cannot keep features in the cache folder {str(folder.parent)!r}: {error.strerror or error}; "
            "pass --cache_dir with another folder, or --no_cache_features."
        ) from None
    form = json.loads((folder / "form.json").read_text(encoding="utf-8"))
    return _map(folder / "features.bin", form["shape"], getattr(torch, form["dtype"])), form["seconds"]


@torch.no_grad()
def _compute(
    model: StagedNetwork,
    stage: str,
    cache: ImageCache,
    indices: np.ndarray,
    data: TrainingData,
    settings: FinetuneSettings,
    device: torch.device,
    views: int,
    augmented: bool,
    folder: Path,
) -> None:
    loader = BatchLoader(cache, indices, PREFIX_BATCH, device, resident=False)
    augment = Augmentation(settings, data.preprocessing, len(data.class_names))
    precision = Precision(settings.precision, device)
    memory_format = torch.channels_last if settings.channels_last else torch.contiguous_format
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed; the lock says nobody works on it
    unfinished.mkdir()
    features = None
    start_time = time.perf_counter()
    try:
        with progress_bar(f"Features of {len(indices):,} images × {views} view(s)", views * len(indices)) as bar:
            for view in range(views):
                for step, ((start, stop), (pixels, labels)) in enumerate(
                    zip(batch_bounds(len(indices), PREFIX_BATCH), loader.epoch(), strict=True)
                ):
                    inputs = augment(pixels, labels, view, step)[0] if augmented else data.preprocessing(pixels)
                    with precision.autocast():
                        batch = model.prefix(inputs.contiguous(memory_format=memory_format), stage).cpu()
                    if features is None:
                        shape = [views, len(indices), *batch.shape[1:]]
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


def _hash_prefix(model: StagedNetwork, stage: str) -> str:
    """A hash of everything that the prefix computes with: its steps, parameters and buffers."""
    digest = hashlib.sha256()
    steps = model.steps_before(stage)
    digest.update(json.dumps([type(model.network).__name__, steps]).encode())
    later = [f"{step}." for step in model.steps[len(steps) :]]
    for name, value in model.network.state_dict().items():
        if not name.startswith(tuple(later)):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _unchanged(features: Tensor) -> Tensor:
    return features
