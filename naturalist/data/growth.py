"""Training images that grow: small at first, when there is little to see in them, and cheaper."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import interpolate

from naturalist.data.augment import Augmentation
from naturalist.data.share import Part

STEP = 16
"""Sides between the first and the last are multiples of this: max-pooling would cut off what is left over."""


@dataclass(frozen=True)
class Growth:
    """Sides of the training images, in pixels, from epoch to epoch; a side per epoch, linear and in steps."""

    first: int
    last: int
    epochs: float
    """After so many the last is reached."""

    def side(self, epoch: int) -> int:
        """In an epoch, counted from 0."""
        if epoch >= self.epochs:
            return self.last
        exact = self.first + (self.last - self.first) * epoch / self.epochs
        return min(self.last, max(self.first, STEP * round(exact / STEP)))

    def __str__(self) -> str:
        """For people."""
        if self.first == self.last:
            return f"{self.last} px"
        return f"{self.first} px, growing to {self.last} px within {self.epochs:g} epochs"


def scaled(images: Tensor, side: int) -> Tensor:
    """Square images of at most this side, in pixels; larger ones are scaled down, with antialiasing."""
    if side >= images.shape[-1]:
        return images
    return interpolate(images, (side, side), mode="bilinear", antialias=True, align_corners=False)


class Growing:
    """What turns a training batch into inputs, and scales those to the side of the epoch; features stay as they are.

    Args:
        vary: comes before.
        growth: the sides.
    """

    def __init__(self, vary: Augmentation | Callable[[Tensor], Tensor], growth: Growth) -> None:
        self.vary, self.growth = vary, growth

    def capture(self) -> None:
        """See :class:`naturalist.data.augment.Augmentation`."""
        if isinstance(self.vary, Augmentation):
            self.vary.capture()

    def __call__(
        self, images: Tensor, labels: Tensor, epoch: int, step: int, part: Part | None = None
    ) -> tuple[Tensor, Tensor]:
        """See :class:`naturalist.data.augment.Augmentation`."""
        if isinstance(self.vary, Augmentation):
            inputs, targets = self.vary(images, labels, epoch, step, part)
        else:
            inputs, targets = self.vary(images), labels
        if images.is_floating_point():
            return inputs, targets
        return scaled(inputs, self.growth.side(epoch)), targets
