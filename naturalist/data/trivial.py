"""TrivialAugment, "wide": each image gets one change, of a random kind and strength.

Müller and Hutter 2021, "TrivialAugment: tuning-free yet state-of-the-art data augmentation"; kinds and largest
strengths are the paper's, except that strengths have no steps, a shift is a share of the side instead of 32 pixels, and
what lies outside of an image is filled by reflection, not black.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

KINDS = (
    "identity",
    "shear_x",
    "shear_y",
    "shift_x",
    "shift_y",
    "rotation",
    "brightness",
    "contrast",
    "saturation",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
)
LARGEST = 0.99
"""Of shears, and of changes of brightness, contrast, saturation and sharpness."""
LARGEST_SHIFT, LARGEST_ROTATION = 0.25, math.radians(135)
"""A share of the side; radians."""
FEWEST_BITS = 2
"""That posterizing leaves of a channel's eight."""


class Trivial:
    """The change of each image of a batch, by three random numbers of each.

    Args:
        kind: ``[B]`` in [0, 1), for one of :data:`KINDS`, all equally likely.
        strength: ``[B]`` in [0, 1).
        sign: ``[B]`` in [0, 1), for the direction of changes that have two.
    """

    def __init__(self, kind: Tensor, strength: Tensor, sign: Tensor) -> None:
        self._kind, self._strength = (kind * len(KINDS)).long(), strength
        self._signed = torch.where(sign < 0.5, strength, -strength)

    def amount(self, kind: str, largest: float = LARGEST) -> Tensor:
        """``[B]`` between -``largest`` and ``largest``, and 0 for images with another kind of change."""
        return self._signed * largest * self._is(kind)

    def linear(self) -> Tensor:
        """Shear and rotation, ``[B, 2, 2]``: where a pixel at (x, y) comes from, apart from the shift."""
        right, down = self.amount("shear_x"), self.amount("shear_y")
        angle = self.amount("rotation", LARGEST_ROTATION)
        cos, sin = angle.cos(), angle.sin()
        return torch.stack([cos, right - sin, down + sin, cos], dim=1).view(-1, 2, 2)

    def shift(self) -> Tensor:
        """Along x and y, ``[B, 2, 1]``, in units of half the side."""
        sides = self.amount("shift_x", 2 * LARGEST_SHIFT), self.amount("shift_y", 2 * LARGEST_SHIFT)
        return torch.stack(sides, dim=1)[:, :, None]

    def retouch(self, images: Tensor) -> Tensor:
        """Sharpen or blur, posterize, solarize, stretch contrast, equalize the histogram.

        Args:
            images: float32 ``[B, 3, S, S]`` in [0, 1]; they may be overwritten.

        Returns:
            The same.
        """
        from torchvision.transforms.v2 import functional  # takes as long to import as torch, and few runs need it

        images = self._change("sharpness", images, sharpen, 1 + self._signed * LARGEST)
        images = self._change("posterize", images, posterize, 8 - (self._strength * (8 - FEWEST_BITS)).round())
        images = self._change("solarize", images, solarize, 1 - self._strength)
        images = self._change("autocontrast", images, lambda chosen, _: functional.autocontrast(chosen), self._strength)
        return self._change("equalize", images, lambda chosen, _: functional.equalize(chosen), self._strength)

    def _change(self, kind: str, images: Tensor, change: Callable[[Tensor, Tensor], Tensor], amounts: Tensor) -> Tensor:
        """Change the images of a kind: on a GPU all are computed, since it would wait to learn which these are."""
        chosen = self._is(kind)
        amounts = amounts.view(-1, 1, 1, 1)
        if images.device.type != "cpu":
            return torch.where(chosen.view(-1, 1, 1, 1), change(images, amounts), images)
        rows = chosen.nonzero().flatten()
        return images.index_copy_(0, rows, change(images[rows], amounts[rows])) if len(rows) else images

    def _is(self, kind: str) -> Tensor:
        return self._kind == KINDS.index(kind)


def sharpen(images: Tensor, factors: Tensor) -> Tensor:
    """Between smoothed (0), the same (1) and sharper (2), as torchvision's ``adjust_sharpness``; its border stays."""
    inner = images[..., 1:-1, 1:-1]
    smooth = (avg_pool2d(images, 3, stride=1) * 9 + inner * 4) / 13
    images = images.clone()
    images[..., 1:-1, 1:-1] = torch.lerp(smooth, inner, factors.expand_as(inner))
    return images.clamp_(0, 1)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Leave so many of the eight bits of each value."""
    step = 2 ** (8 - bits)
    return ((images * 255 + 0.5).floor() / step).floor() * step / 255


def solarize(images: Tensor, thresholds: Tensor) -> Tensor:
    """Invert values from the threshold on."""
    return torch.where(images >= thresholds, 1 - images, images)
