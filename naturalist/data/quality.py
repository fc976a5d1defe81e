"""What is odd about a photograph, told by its pixels; a file that nobody would have taken into a data set by choice."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from naturalist.data.duplicates import BASIS, Prints, take_prints
from naturalist.data.images import ImageCache
from naturalist.settings.audit import Limits

BLOCK = 128
"""Photographs that are measured at once."""
GREY = 2.0
"""Mean difference of a grey photograph's channels, 0 to 255, at most: JPEG leaves a trace of colour."""
RED, GREEN, BLUE = 0.299, 0.587, 0.114
"""Shares of luminance (ITU-R BT.601)."""


@dataclass(frozen=True)
class Looks:
    """Photographs in numbers, float32 ``[N]`` each."""

    brightness: NDArray[np.float32]
    """Mean luminance, 0 to 255."""
    contrast: NDArray[np.float32]
    """Standard deviation of luminance."""
    sharpness: NDArray[np.float32]
    """Variance of luminance's Laplacian; it depends on the size at which it is taken."""
    colour: NDArray[np.float32]
    """Mean difference of the largest and the smallest channel."""

    def problems(self, limits: Limits) -> dict[str, NDArray[np.bool_]]:
        """Name of what may be wrong → whether it is, ``[N]``. What is nearly uniform is not called blurred, too."""
        uniform = self.contrast < limits.uniform
        return {
            "nearly uniform": uniform,
            "blurred": (self.sharpness < limits.blurred) & ~uniform,
            "very dark": self.brightness < limits.dark,
            "very bright": self.brightness > limits.bright,
            "grey": self.colour < GREY,
        }

    def values(self) -> dict[str, NDArray[np.float32]]:
        """The number behind each problem."""
        return {
            "nearly uniform": self.contrast,
            "blurred": self.sharpness,
            "very dark": self.brightness,
            "very bright": self.brightness,
            "grey": self.colour,
        }


def look_at(cache: ImageCache, limits: Limits) -> tuple[Looks, Prints]:
    """Measure all photographs of a cache, and take what they are recognised by."""
    looks, prints = [], []
    for start in range(0, len(cache), BLOCK):
        pixels = cache.read(np.arange(start, min(start + BLOCK, len(cache))))
        # Channels apart, for sums over three neighbours are slow.
        red, green, blue = torch.from_numpy(pixels).permute(3, 0, 1, 2).contiguous()
        luminance = (RED * red).add_(green, alpha=GREEN).add_(blue, alpha=BLUE)
        largest, smallest = red.maximum(green).maximum(blue), red.minimum(green).minimum(blue)
        measured = (
            luminance.mean((1, 2)),
            luminance.std((1, 2), correction=0),
            _laplacian(luminance).var((1, 2), correction=0),
            (largest - smallest).float().mean((1, 2)),
        )
        looks.append(torch.stack(measured).numpy())
        shows_something = looks[-1][1] >= limits.uniform
        prints.append(take_prints(adaptive_avg_pool2d(luminance[:, None], BASIS)[:, 0].numpy(), shows_something))
    cache.release()
    hashes, grains = (np.concatenate([getattr(part, name) for part in prints]) for name in ("hashes", "grains"))
    return Looks(*np.concatenate(looks, axis=1)), Prints(hashes, grains)


def _laplacian(luminance: Tensor) -> Tensor:
    """Of the inner pixels; ``[N, H, W]`` → ``[N, H - 2, W - 2]``."""
    inner = luminance[:, 1:-1, 1:-1]
    beside = luminance[:, 1:-1, :-2] + luminance[:, 1:-1, 2:] + luminance[:, :-2, 1:-1] + luminance[:, 2:, 1:-1]
    return beside - 4 * inner
