"""From cached pixels to a model's input, the same for validation, test and new photographs."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

Channels = tuple[float, float, float]
"""A number for red, green and blue."""

IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)

OVERSAMPLING = 1.15
"""How much larger than wanted a JPEG is decoded at least, before it is resized with antialiasing. So an 800×600
photograph is decoded at 1/8, 1/4 or 1/2 for 64, 128 or 256 px, which libjpeg-turbo does fastest. On detailed
photographs the peak signal-to-noise ratio against full decoding is 38 to 44 dB, a difference that nobody sees."""

Interpolation = Literal["bilinear", "bicubic"]


def interpolation_of(resize_mode: str) -> Interpolation:
    """By which a resize mode resizes."""
    return "bicubic" if resize_mode.endswith("bicubic") else "bilinear"


def jpeg_side(size: int) -> int:
    """Pixels that both sides of a JPEG keep at least, decoded at 1/2, 1/4 or 1/8 for a square of ``size``."""
    return int(size * OVERSAMPLING)


def is_squashed(resize_mode: str) -> bool:
    """Whether the whole photograph becomes the square, rather than its centre."""
    return resize_mode == "squash"


@dataclass(frozen=True)
class Preprocessing:
    """From cached pixels to the model's input, the same for validation, test and new photographs."""

    image_size: int
    cache_size: int
    resize_mode: str
    mean: Channels
    std: Channels

    @property
    def interpolation(self) -> Interpolation:
        """By which photographs are resized, with antialiasing."""
        return interpolation_of(self.resize_mode)

    @property
    def border(self) -> float:
        """Share of the side of a photograph's central square that is left out on each side, in [0, 0.5)."""
        return 0.0 if is_squashed(self.resize_mode) else (1 - self.image_size / self.cache_size) / 2

    def describe(self) -> dict[str, object]:
        """From photograph to input, for programs that know nothing of this package, as plain JSON values.

        Scale to a square of ``image_size`` by ``interpolation``, either the whole photograph (``squash``) or the square
        in its centre after taking the share ``border`` off each side (``crop``); divide by 255, subtract ``mean``,
        divide by ``std``. That is near enough for a photograph. To the pixel: a JPEG is decoded at 1/2, 1/4 or 1/8
        while both its sides keep ``jpeg_size`` pixels, scaled to ``resize_size``, turned upright, and then the rest is
        scaled or taken off, as the example beside an exported model does.
        """
        return {
            "resize_mode": "squash" if is_squashed(self.resize_mode) else "crop",
            "interpolation": self.interpolation,
            "antialias": True,
            "jpeg_size": jpeg_side(self.cache_size),
            "resize_size": self.cache_size,
            "image_size": self.image_size,
            "border": self.border,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 ``[B, 3, cache_size, cache_size]`` → normalised float32 ``[B, 3, image_size, image_size]``."""
        if self.image_size != self.cache_size:
            if not is_squashed(self.resize_mode):
                margin = (self.cache_size - self.image_size) // 2
                images = images[..., margin : margin + self.image_size, margin : margin + self.image_size]
            else:
                images = interpolate(
                    images.float(),
                    (self.image_size, self.image_size),
                    mode="bilinear",
                    antialias=True,
                    align_corners=False,
                )
        return self.normalize(images.float() / 255)

    def normalize(self, images: Tensor) -> Tensor:
        """Float images in [0, 1], ``[B, 3, H, W]`` → zero mean and unit deviation per channel."""
        return (images - per_channel(self.mean, images.device)) / per_channel(self.std, images.device)


@lru_cache(maxsize=64)
def per_channel(values: Channels, device: torch.device) -> Tensor:
    """``[3, 1, 1]`` on the device; kept, because copying numbers to a GPU waits until all its work is done."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device).view(3, 1, 1)


def channel_statistics(pixels: Tensor) -> tuple[Channels, Channels]:
    """Mean and standard deviation per channel of uint8 pixels ``[N, S, S, 3]``, on the scale [0, 1]."""
    values = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in range(3):
        shares = torch.bincount(pixels[..., channel].reshape(-1), minlength=256).double()
        shares /= shares.sum()
        mean = float((shares * values).sum())
        means.append(mean)
        stds.append(max(float((shares * (values - mean) ** 2).sum().sqrt()), 1e-3))
    return (means[0], means[1], means[2]), (stds[0], stds[1], stds[2])
