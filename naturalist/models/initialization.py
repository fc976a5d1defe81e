"""Beginnings for Part A's network that are better than noise; what the network is stays the same.

After airbench (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU"), where the whitening layer stands before
the blocks and is frozen; here it is the first block's own convolution, and learns on from there.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from naturalist.models.cnn import FiveBlockCNN
from naturalist.seeding import generator

PATCHES = 100
"""Taken from each image."""
SCALE, FLOOR = 0.3, 5e-4
"""Length of a filter's answer to whitened patches, and what is added to their variances."""


@torch.no_grad()
def begin_with_identity(model: FiveBlockCNN) -> None:
    """Have blocks 2 to 5 pass on what they get: as many filters as there are channels take one channel each.

    What is more than those keeps its noise. (Dirac initialisation.)
    """
    for convolution in _convolutions(model)[1:]:
        nn.init.dirac_(convolution.weight[: convolution.in_channels])


@torch.no_grad()
def begin_with_patches(model: FiveBlockCNN, batches: Iterable[Tensor], seed: int) -> None:
    """Have the first convolution see what patches of training images vary in most.

    Each two filters are an eigenvector of the patches' covariance over the root of its eigenvalue, and its negative,
    from the largest eigenvalue on. Filters beyond two for each direction keep their noise.

    Args:
        model: on any device.
        batches: normalised training images ``[B, 3, S, S]``.
        seed: of the choice of patches.
    """
    weight = _convolutions(model)[0].weight
    filters, _, kernel, _ = weight.shape
    total, second, count = torch.zeros(3 * kernel**2, 1), torch.zeros(3 * kernel**2, 3 * kernel**2), 0
    for number, images in enumerate(batches):
        patches = _random_patches(images.cpu(), kernel, generator(seed, "patches", number))
        total, second, count = total + patches.sum(0)[:, None], second + patches.T @ patches, count + len(patches)
    covariance = (second - total @ total.T / count).double() / count
    variances, directions = torch.linalg.eigh(covariance)  # in rising order
    whitened = SCALE * directions.flip(1) / (variances.flip(0).clamp(min=0) + FLOOR).sqrt()
    pairs = torch.stack([whitened.T, -whitened.T], dim=1).flatten(0, 1)[:filters]
    weight[: len(pairs)] = pairs.view(-1, 3, kernel, kernel).to(weight)


def _convolutions(model: FiveBlockCNN) -> list[nn.Conv2d]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


def _random_patches(images: Tensor, kernel: int, chance: torch.Generator) -> Tensor:
    """:data:`PATCHES` of each image, float32 ``[n, 3·kernel²]``."""
    number = torch.arange(len(images)).repeat_interleave(PATCHES)
    steps = torch.arange(kernel)
    top, left = (
        torch.randint(side - kernel + 1, (len(number), 1), generator=chance) + steps for side in images.shape[2:]
    )
    patches = images[number[:, None, None], :, top[:, :, None], left[:, None, :]]  # [n, kernel, kernel, 3]
    return patches.permute(0, 3, 1, 2).flatten(1)
