"""What a frozen prefix makes of every image: computed once, kept on disk, served in batches like images.

A frozen prefix is a function, so its outputs need to be computed only once per image, or once per fixed augmented
view of an image; training what follows then costs next to nothing. A feature file's name holds a key of everything
that its numbers come from: the images' content, preprocessing, augmentation, the prefix's weights, the arithmetic.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from naturalist.data import store
from naturalist.data.augment import Augmentation
from naturalist.data.dataset import Batches, Loading, TrainingData, Transform
from naturalist.data.feature_loader import FeatureLoader, rows_of
from naturalist.data.growth import scaled
from naturalist.data.images import ImageCache
from naturalist.data.index import FORMAT_VERSION as PIXELS_VERSION
from naturalist.data.loader import BatchLoader
from naturalist.data.placing import choose_place
from naturalist.data.stream import RowFile
from naturalist.device import Compute
from naturalist.errors import UserError
from naturalist.progress import progress_bar
from naturalist.ranks import Agreement, in_turn, this_rank
from naturalist.settings.groups import AugmentationSettings
from naturalist.wording import counted

FEATURES, FORM = "features.bin", "form.json"
DTYPES = ("float32", "bfloat16", "float16")
SMALLER = "--cache_dir names another folder, --unfreeze_from a higher stage has smaller features"
FORMAT_VERSION = 2
"""Part of every key; to be raised whenever the same settings yield other features."""
PREFIX_BATCH = 64
"""Images per pass through the prefix."""
VIEW_SETTINGS = (
    "crop_scale",
    "horizontal_flip",
    "alternating_flip",
    "rotation",
    "brightness",
    "contrast",
    "saturation",
    "random_erasing",
    "trivial_augment",
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
    side: int | None = None
    """To which they are scaled down, in pixels; None for ``image_size``."""

    def recipe(self) -> dict[str, Any]:
        """What tells views from others."""
        side = {} if self.side is None else {"side": self.side}
        if not self.augmentation.data_augmentation:
            return {"views": 1, **side}
        amounts = {name: getattr(self.augmentation, name) for name in VIEW_SETTINGS}
        return {"views": self.count, "seed": self.seed, **amounts, **side}


@dataclass(frozen=True)
class FeatureData(TrainingData):
    """Training data whose batches are features instead of images."""

    train_features: Tensor
    """``[views, N, …]``, mapped from disk."""
    val_features: Tensor
    """``[1, N, …]``."""
    train_file: RowFile
    """The same, a row for each image of each view, to be streamed."""
    val_file: RowFile
    seconds: float
    """What computing the features took, now or when they were first needed."""
    seconds_now: float
    """What of it was now."""

    def loaders(self, how: Loading) -> tuple[Batches, Batches]:
        """Training batches in an order that the seed decides, and validation batches; of both a rank's share."""
        needed = self.train_features.nbytes + self.val_features.nbytes
        device, place = how.compute.device, choose_place(how.compute.device_memory, needed, how.compute.device)
        train = self.train_features, self.train_cache.labels[self.train_indices], how.batch_size, device
        val = self.val_features, self.val_cache.labels[self.val_indices], how.batch_size, device
        order: dict[str, Any] = {"shuffle_seed": how.seed, "sampling": how.sampling}
        return (
            FeatureLoader(*train, **order, place=place, file=self.train_file, share=how.share),
            FeatureLoader(*val, place=place, file=self.val_file, share=how.share),
        )

    def transforms(self, augmentation: AugmentationSettings, seed: int) -> tuple[Transform, Transform]:
        """Nothing is left to do to features."""
        return _unchanged, _unchanged


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
        "version": [FORMAT_VERSION, PIXELS_VERSION],
        "preprocessing": asdict(data.preprocessing),
        "stage": prefix.stage,
        "channels_last": compute.channels_last,
        "precision": compute.precision,
        "prefix": prefix.fingerprint,
    }
    kept = _FeatureStore(prefix, data, compute, cache_folder)
    found, rank = [], this_rank()
    with in_turn(rank):
        try:
            found.append(kept.find(data.train_cache, data.train_indices, {**recipe, **views.recipe()}, views))
            found.append(kept.find(data.val_cache, data.val_indices, {**recipe, "views": 1}, None))
        except store.NoRoom as problem:
            print(f"Features are not kept, every epoch passes through the whole network: {problem}", flush=True)
    if Agreement(rank).now(len(found) < 2):
        return None
    (train, train_file, *train_seconds), (val, val_file, *val_seconds) = found
    seconds, seconds_now = map(sum, zip(train_seconds, val_seconds, strict=True))
    return FeatureData(
        **vars(data),
        train_features=train,
        val_features=val,
        train_file=train_file,
        val_file=val_file,
        seconds=seconds,
        seconds_now=seconds_now,
    )


@dataclass(frozen=True)
class _FeatureStore:
    """Feature files of one prefix."""

    prefix: Prefix
    data: TrainingData
    compute: Compute
    cache_folder: Path

    def find(
        self, cache: ImageCache, indices: NDArray[np.int64], recipe: dict[str, Any], views: Views | None
    ) -> tuple[Tensor, RowFile, float, float]:
        """Features ``[views, len(indices), …]``, the seconds that computing them took, and those of them now."""
        key = store.key_of(recipe, [cache.hashes[i] for i in indices])
        folder = self.cache_folder / f"features-{self.prefix.name}-{key}"
        form, seconds_now = _read_form(folder), 0.0
        if form is None:
            with store.building(folder, ", or --no_cache_features"):
                if _read_form(folder) is None:
                    seconds_now = self._compute(cache, indices, recipe["views"], views, folder)
            form = _read_form(folder)
            if form is None:
                raise UserError(
                    f"the features {str(folder)!r} were removed or damaged while they were opened; try again."
                )
        if form.data != cache.folder:  # moved, and found by their content
            with contextlib.suppress(OSError):
                store.replace_text(folder / FORM, replace(form, data=cache.folder).text())
        store.note_use(folder)
        with (folder / FEATURES).open("rb") as file:
            features = torch.from_file(file.name, size=prod(form.shape), dtype=form.type).view(form.shape)
            return features, rows_of(features, file), form.seconds, seconds_now

    @torch.no_grad()
    def _compute(
        self, cache: ImageCache, indices: NDArray[np.int64], count: int, views: Views | None, folder: Path
    ) -> float:
        """Write them; returns the seconds that took."""
        start_time = time.perf_counter()
        label = f"Features of {counted(len(indices), 'image')} × {counted(count, 'view')}"
        shape: list[int] = []
        with store.appearing_whole(folder) as unfinished:
            with (
                store.written(unfinished / FEATURES) as file,
                progress_bar(label, count * len(indices)) as bar,
            ):
                for batch in self._batches(cache, indices, count, views):
                    if not shape:
                        shape = [count, len(indices), *batch.shape[1:]]
                        store.require_room(folder.parent, prod(shape) * batch.element_size(), "keeping them", SMALLER)
                    file.write(batch.reshape(-1).view(torch.uint8).numpy().data)
                    bar.advance(len(batch))
            form = _Form(shape, str(batch.dtype).removeprefix("torch."), time.perf_counter() - start_time, cache.folder)
            with store.written(unfinished / FORM) as file:
                file.write(form.text().encode())
        return form.seconds

    def _batches(
        self, cache: ImageCache, indices: NDArray[np.int64], count: int, views: Views | None
    ) -> Iterator[Tensor]:
        """Features of every batch, on the CPU; one view after the other."""
        loader = BatchLoader(cache, indices, PREFIX_BATCH, self.compute.device, place="file")
        preprocessing, augment = self.data.preprocessing, None
        if views is not None and views.augmentation.data_augmentation:
            augment = Augmentation(views.augmentation, views.seed, preprocessing, len(self.data.class_names))
        for view in range(count):
            for step, (pixels, labels) in enumerate(loader.epoch()):
                inputs = augment(pixels, labels, view, step)[0] if augment else preprocessing(pixels)
                if views is not None and views.side is not None:
                    inputs = scaled(inputs, views.side)
                with self.compute.autocast():
                    features = self.prefix(self.compute.lay_out(inputs))
                yield features.cpu()


@dataclass(frozen=True)
class _Form:
    """What ``form.json`` says of the numbers beside it."""

    shape: list[int]
    dtype: str
    seconds: float
    data: str
    """Folder of the images."""

    @property
    def type(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    def text(self) -> str:
        return store.sealed(vars(self))


def _read_form(folder: Path) -> _Form | None:
    """None where there are no features, or they are damaged."""
    try:
        form = _Form(**store.unsealed(folder / FORM))
        whole = all(type(side) is int and side > 0 for side in form.shape) and isinstance(form.data, str)
        if not whole or not isinstance(form.seconds, float) or form.dtype not in DTYPES:
            return None
        size = prod(form.shape) * form.type.itemsize
        return form if (folder / FEATURES).stat().st_size == size else None
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _unchanged(features: Tensor) -> Tensor:
    return features
