"""Variation of training batches, and of nothing else.

It runs on whole batches on the device, with parameters drawn for every image by itself. All geometry
(random resized crop, mirror, rotation) is one affine map, so pixels are interpolated once.
"""

import math
from collections.abc import Callable, Iterator
from copy import copy
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from naturalist.captured import Captured
from naturalist.data.preprocessing import Preprocessing, per_channel
from naturalist.data.share import Part
from naturalist.data.trivial import Trivial
from naturalist.seeding import derive_seed, generator
from naturalist.settings.groups import AugmentationSettings

ASPECT_RATIO = (3 / 4, 4 / 3)
"""Range of a random crop's aspect ratio (Szegedy et al. 2015, "Going deeper with convolutions")."""
ERASED_SHARE, ERASED_RATIO = (0.02, 0.2), (0.3, 3.3)
"""Range of area and aspect ratio of an erased rectangle (Zhong et al. 2017, "Random erasing data augmentation")."""
LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G and B in brightness (ITU-R BT.601)."""


class Augmentation:
    """Augments training batches; equal (seed, epoch, step) give equal pictures on every device.

    Args:
        settings: how much.
        seed: of all chance.
        preprocessing: normalisation and sizes.
        num_classes: for the soft targets of MixUp and CutMix.
    """

    def __init__(
        self, settings: AugmentationSettings, seed: int, preprocessing: Preprocessing, num_classes: int
    ) -> None:
        self.settings, self.seed, self.preprocessing = settings, seed, preprocessing
        self._captured: Captured | None = None
        self.mixes: list[Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = []
        if settings.mixes:
            from torchvision.transforms import v2  # takes as long to import as torch, and few runs mix
        if settings.mixup:
            self.mixes.append(v2.MixUp(alpha=settings.mixup, num_classes=num_classes))
        if settings.cutmix:
            self.mixes.append(v2.CutMix(alpha=settings.cutmix, num_classes=num_classes))

    def __call__(
        self, images: Tensor, labels: Tensor, epoch: int, step: int, part: Part | None = None
    ) -> tuple[Tensor, Tensor]:
        """Augment one batch, or a rank's part of it to what the whole batch would have there.

        Args:
            images: uint8 ``[B, 3, S, S]``.
            labels: int64 ``[B]``.
            epoch: epoch, for the random draws.
            step: step within the epoch, for the random draws.
            part: which rows of a batch these are; None for all.

        Returns:
            Normalised float32 ``[B, 3, image_size, image_size]``; labels, or soft targets ``[B, classes]`` from
            MixUp (Zhang et al. 2018) and CutMix (Yun et al. 2019).
        """
        batch = len(images) if part is None else part.batch
        numbers = Draws.numbers(batch, generator(self.seed, "augment", epoch, step))
        if part is not None:
            numbers = numbers[:, part.rows]
        turns = [(_coin(images, self.seed) + epoch) % 2] if self.settings.alternating_flip else []
        vary = self._captured or self._vary_by
        (pictures,) = vary(images, numbers.to(images.device, non_blocking=True), *turns)
        if self.mixes:
            # torchvision draws from the global CPU generator; torch.manual_seed would reseed the GPU's as well.
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(derive_seed(self.seed, "mix", epoch, step))
                mix = self.mixes[int(torch.randint(len(self.mixes), ()))]
                pictures, labels = mix(pictures, labels)
        return pictures, labels

    def capture(self) -> None:
        """Replay from now on what it computes on the GPU, see :mod:`naturalist.captured`."""
        if self._captured is None:  # of a copy, because what refers to itself outlives its use
            self._captured = Captured(copy(self)._vary_by, "the augmentation's steps")

    def _vary_by(self, images: Tensor, numbers: Tensor, turn: Tensor | None = None) -> tuple[Tensor]:
        return (self.vary(images, Draws(numbers), turn),)

    def vary(self, images: Tensor, draws: "Draws", turn: Tensor | None = None) -> Tensor:
        """Vary each image by its own draws, and mix none.

        Args:
            images: uint8 ``[B, 3, S, S]``.
            draws: chance.
            turn: 1 for an image to mirror, else 0; None leaves that to chance.

        Returns:
            Normalised float32 ``[B, 3, image_size, image_size]``.
        """
        trivial = Trivial(*(draws.uniform(0, 1) for _ in range(3))) if self.settings.trivial_augment else None
        pictures = self._warp(images.float() / 255, draws, turn, trivial)
        pictures = self._jitter_colors(pictures, draws, trivial)
        if trivial is not None:
            pictures = trivial.retouch(pictures)
        return self._erase(self.preprocessing.normalize(pictures), draws)

    def _warp(self, images: Tensor, draws: "Draws", turn: Tensor | None, trivial: Trivial | None) -> Tensor:
        """Crop, mirror, rotate and shear by one affine map per image; what lies outside is filled by reflection."""
        settings, size = self.settings, self.preprocessing.image_size
        area = draws.uniform(settings.crop_scale, 1)
        log_ratio = draws.uniform(math.log(ASPECT_RATIO[0]), math.log(ASPECT_RATIO[1]))
        # Where the whole image is to be kept there is no room for another aspect ratio.
        log_ratio = torch.minimum(torch.maximum(log_ratio, area.log()), -area.log())
        width, height = (area * log_ratio.exp()).sqrt(), (area / log_ratio.exp()).sqrt()
        center_x, center_y = (draws.uniform(-1, 1) * (1 - side) for side in (width, height))
        chance = draws.happens(settings.horizontal_flip)
        mirror = 1 - 2 * (chance if turn is None else turn)
        angle = draws.uniform(-settings.rotation, settings.rotation) * (math.pi / 180)
        cos, sin = angle.cos(), angle.sin()
        maps = torch.stack(
            [
                torch.stack([width * cos * mirror, -width * sin, center_x], dim=1),
                torch.stack([height * sin * mirror, height * cos, center_y], dim=1),
            ],
            dim=1,
        )
        if trivial is not None:
            linear, center = maps[:, :, :2], maps[:, :, 2:]
            maps = torch.cat([linear @ trivial.linear(), linear @ trivial.shift() + center], dim=2)
        return grid_sample(
            images, sampling_grid(maps, size), mode="bilinear", padding_mode="reflection", align_corners=False
        )

    def _jitter_colors(self, images: Tensor, draws: "Draws", trivial: Trivial | None) -> Tensor:
        """Brightness, contrast and saturation as in torchvision's ColorJitter, in one pass over the pixels."""
        settings = self.settings
        brightness, contrast, saturation = (
            draws.uniform(1 - amount, 1 + amount)
            for amount in (settings.brightness, settings.contrast, settings.saturation)
        )
        if trivial is not None:
            brightness = brightness * (1 + trivial.amount("brightness"))
            contrast = contrast * (1 + trivial.amount("contrast"))
            saturation = saturation * (1 + trivial.amount("saturation"))
        elif not (settings.brightness or settings.contrast or settings.saturation):
            return images
        brightness, contrast, saturation = (factor.view(-1, 1, 1, 1) for factor in (brightness, contrast, saturation))
        images = images * brightness
        gray = (images * per_channel(LUMA, images.device)).sum(dim=1, keepdim=True)
        images = torch.lerp(gray.expand_as(images), images, saturation.expand_as(images))
        return torch.lerp(gray.mean(dim=(2, 3), keepdim=True), images, contrast).clamp_(0, 1)

    def _erase(self, images: Tensor, draws: "Draws") -> Tensor:
        """Blank one rectangle of the chosen images with the mean colour, which is 0 after normalisation."""
        if not self.settings.random_erasing:
            return images
        size = images.shape[-1]
        area = draws.uniform(*ERASED_SHARE)
        ratio = draws.uniform(math.log(ERASED_RATIO[0]), math.log(ERASED_RATIO[1])).exp()
        half_width, half_height = ((area * ratio).sqrt() / 2).clamp(max=0.5), ((area / ratio).sqrt() / 2).clamp(max=0.5)
        center_x = half_width + draws.uniform(0, 1) * (1 - 2 * half_width)
        center_y = half_height + draws.uniform(0, 1) * (1 - 2 * half_height)
        erased = draws.happens(self.settings.random_erasing).bool()
        position = (torch.arange(size, device=images.device) + 0.5) / size
        inside_x = (position - center_x[:, None]).abs() < half_width[:, None]
        inside_y = (position - center_y[:, None]).abs() < half_height[:, None]
        hole = inside_y[:, :, None] & inside_x[:, None, :] & erased[:, None, None]
        return images.masked_fill(hole[:, None], 0)


def sampling_grid(maps: Tensor, size: int) -> Tensor:
    """Where each pixel comes from, ``[B, S, S, 2]`` in [-1, 1], by maps ``[B, 2, 3]``.

    To rounding it is torch's ``affine_grid`` with ``align_corners=False``, whose matrix product takes a CPU longer
    than the interpolation does.
    """
    centers = (torch.arange(size, device=maps.device) + 0.5) * (2 / size) - 1
    by_column = maps[:, :, 0, None] * centers
    by_row = maps[:, :, 1, None] * centers + maps[:, :, 2, None]
    return (by_row[:, :, :, None] + by_column[:, :, None, :]).permute(0, 2, 3, 1)


def _coin(images: Tensor, seed: int) -> Tensor:
    """0 or 1 for each image of uint8 ``[B, 3, S, S]``, by its content: the same in every epoch, order and process.

    It is the parity of the lowest bits at random places, as good as a coin for each image, and another one for each
    seed.
    """
    pixels = images.permute(0, 2, 3, 1)  # as they lie in memory
    return (pixels & _places(images.shape[1:], seed, images.device)).sum(dim=(1, 2, 3)) % 2


@lru_cache(maxsize=4)
def _places(shape: torch.Size, seed: int, device: torch.device) -> Tensor:
    """Random 0 and 1, uint8 ``[S, S, 3]`` for a shape ``[3, S, S]``."""
    with torch.inference_mode(False):
        places = torch.randint(2, shape, generator=generator(seed, "mirror"), dtype=torch.uint8)
        return places.permute(1, 2, 0).contiguous().to(device)


class Draws:
    """Random numbers for each image of a batch, drawn on the CPU so that every device sees the same ones.

    Args:
        numbers: of :meth:`numbers`, a column for each image.
    """

    COUNT = 20
    """Numbers set aside per image: all are drawn, and sent to the device, at once."""

    def __init__(self, numbers: Tensor) -> None:
        self._numbers: Iterator[Tensor] = iter(numbers)

    @classmethod
    def numbers(cls, batch: int, generator: torch.Generator) -> Tensor:
        """For so many images, ``[COUNT, batch]`` in [0, 1)."""
        return torch.rand(cls.COUNT, batch, generator=generator)

    def uniform(self, low: float, high: float) -> Tensor:
        """``[B]`` numbers between ``low`` and ``high``."""
        return low + (high - low) * next(self._numbers)

    def happens(self, probability: float) -> Tensor:
        """``[B]`` of 1 with the given probability, else 0."""
        return (next(self._numbers) < probability).float()
