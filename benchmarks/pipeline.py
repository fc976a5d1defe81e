"""Rows of the suite on photographs and batches: decoding, input, an epoch, what the data path costs, validation."""

import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.measuring import Row, Settings, in_turns, rate_row
from benchmarks.usual import BATCH_SIZE, MEAN, STD, UsualLoop, make_photographs
from naturalist.data.augment import Augmentation
from naturalist.data.catalog import scan
from naturalist.data.images import ImageCache, open_cache
from naturalist.data.loader import BatchLoader
from naturalist.data.preprocessing import Preprocessing
from naturalist.data.sources.sample import CLASSES
from naturalist.device import Compute
from naturalist.models.cnn import FiveBlockCNN
from naturalist.models.parameter_groups import parameter_groups
from naturalist.settings.groups import TrainingSettings
from naturalist.settings.part_a import CnnAugmentationSettings
from naturalist.training.epoch import Learner, evaluate, train_one_epoch
from naturalist.training.optim import Schedule, make_optimizer

SIZE = 128


class CachedPath:
    """This project's way from JPEGs to a trained epoch.

    Args:
        folder: of photographs, in ``train/``; the cache is made beside it.
        size: side of the network's input, in pixels.
        model: is trained, with augmentation.
        device: where.
    """

    def __init__(self, folder: Path, size: int, model: nn.Module, device: torch.device) -> None:
        self.folder, self.size = folder, size
        settings = TrainingSettings(batch_size=BATCH_SIZE)
        compute = Compute(device, cuda_graphs=True)
        self.preprocessing = Preprocessing(size, size, "squash", MEAN, STD)
        self.augment = Augmentation(CnnAugmentationSettings(), settings.seed, self.preprocessing, len(CLASSES))
        model = compute.place(model)
        optimizer = make_optimizer(parameter_groups(model, settings.decay), settings, device)
        self.loader = self._load(device)
        schedule = Schedule(optimizer, settings, len(self.loader), 1)
        self.learner = Learner(model, optimizer, schedule, settings, compute)
        self.captured = self.learner.captured_step()
        if self.captured is not None:
            self.augment.capture()

    def build(self) -> None:
        """Decode all photographs into a new cache."""
        number = len(list(self.folder.glob("cache*")))
        self._open(self.folder / f"cache{number}")

    def _open(self, cache: Path) -> ImageCache:
        return open_cache(scan(self.folder / "train"), self.size, "squash", cache)

    def _load(self, device: torch.device) -> BatchLoader:
        cache = self._open(self.folder / f"cache-of-{self.size}")
        return BatchLoader(cache, np.arange(len(cache)), BATCH_SIZE, device, shuffle_seed=0)

    def read(self) -> None:
        """One epoch of augmented batches, without a network."""
        for step, (images, labels) in enumerate(self.loader.epoch()):
            self.augment(images, labels, 0, step)

    def train(self) -> None:
        """One epoch of training with augmentation."""
        train_one_epoch(self.learner, self.loader, self.augment, epoch=0, captured=self.captured)

    def validate(self) -> None:
        """One pass over all images, as after an epoch."""
        evaluate(self.learner.model, self.loader, self.preprocessing, self.learner.compute)


class SameBatch(BatchLoader):
    """A batch that lies on the device already, as often as an epoch has batches."""

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """As :meth:`BatchLoader.epoch`."""
        images, labels = next(super().epoch(epoch))
        for first, stop in self._bounds[start:]:
            yield images[: stop - first], labels[: stop - first]


def small_network(size: int) -> FiveBlockCNN:
    """32 filters in every block, SiLU, batch normalisation."""
    return FiveBlockCNN(len(CLASSES), size, num_filters=32, filter_organization="same", activation="SiLU")


def original_network(size: int) -> FiveBlockCNN:
    """The original work's best: 64 filters, doubled from block to block, without padding."""
    return FiveBlockCNN(len(CLASSES), size, num_filters=64, padding="valid", dropout=0.3)


def decode(settings: Settings) -> Iterator[Row]:
    """Every photograph decoded once."""
    ours, usual = _both(settings, SIZE, settings.images)
    yield rate_row("decode", in_turns(ours.build, usual.decode, settings.repeats, settings.device), settings.images)


def read(settings: Settings) -> Iterator[Row]:
    """An epoch of batches; ours are augmented."""
    ours, usual = _both(settings, SIZE, settings.images)
    yield rate_row("input", in_turns(ours.read, usual.decode, settings.repeats, settings.device), settings.images)


def cases(settings: Settings) -> Iterator[tuple[str, Callable[[int], FiveBlockCNN], int, int]]:
    """Names, networks, sizes and how many images; a CPU gets fewer for the large network."""
    share = 0.2 if settings.device.type == "cpu" else 1.0
    for name, make, images in (
        ("32 filters", small_network, settings.images),
        ("original, 64 doubling", original_network, max(2 * BATCH_SIZE, int(settings.images * share))),
    ):
        for size in (128, 224):
            yield f"{name}, {size} px", make, size, images


def epoch(settings: Settings) -> Iterator[Row]:
    """An epoch of training; ours augments."""
    for name, make, size, images in cases(settings):
        ours, usual = _both(settings, size, images, make)
        times = in_turns(ours.train, usual.train, settings.repeats, settings.device)
        note = f"{images} images, {ours.learner.compute.precision}, {usual.workers} workers"
        yield rate_row(f"epoch: {name}", times, images, note=note)


def data_path(settings: Settings) -> Iterator[Row]:
    """An epoch against the same steps on a batch that is there already, not augmented: what the data path costs."""
    for name, make, size, images in cases(settings):
        ours = _ours(settings, size, images, make)
        there = SameBatch(ours.loader.cache, ours.loader.indices, BATCH_SIZE, settings.device, shuffle_seed=0)

        def steps(ours: CachedPath = ours, there: BatchLoader = there) -> None:
            train_one_epoch(ours.learner, there, ours.preprocessing, epoch=0, captured=ours.captured)

        times = in_turns(ours.train, steps, settings.repeats, settings.device)
        costs = [our / other - 1 for our, other in times]
        note = f"reading and augmenting cost {statistics.median(costs):.1%} ({min(costs):.1%}–{max(costs):.1%})"
        yield rate_row(f"data path: {name}", times, images, note=note)


def validation(settings: Settings) -> Iterator[Row]:
    """A pass over the validation images."""
    ours, usual = _both(settings, SIZE, settings.images)
    times = in_turns(ours.validate, usual.accuracy, settings.repeats, settings.device)
    yield rate_row("validation", times, settings.images)


def _both(
    settings: Settings, size: int, images: int, make: Callable[[int], FiveBlockCNN] = small_network
) -> tuple[CachedPath, UsualLoop]:
    """Both ways on the same photographs, with a network each."""
    ours = _ours(settings, size, images, make)
    return ours, UsualLoop(ours.folder / "train", size, make(size), settings.device)


def _ours(settings: Settings, size: int, images: int, make: Callable[[int], FiveBlockCNN]) -> CachedPath:
    folder = settings.folder / f"{images}"
    if not (folder / "train").is_dir():
        make_photographs(folder / "train", images)
    return CachedPath(folder, size, make(size), settings.device)
