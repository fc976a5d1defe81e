"""Classes of unequal size: what an image of each weighs in the loss, and how often it comes in an epoch."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from naturalist.seeding import generator
from naturalist.settings.groups import ClassWeights, Sampling

POWERS = {"none": 0.0, "sqrt": 0.5, "balanced": 1.0}
"""By which power of a class's rarity its images weigh more."""


def class_weights(counts: Sequence[int], kind: ClassWeights) -> NDArray[np.float64]:
    """What an image of each class weighs in the training loss, float64 ``[classes]``.

    ``balanced`` is n / (k · n_c) for n_c of n images and k classes, ``sqrt`` the root of that; the mean over the images
    is 1. A class without images weighs 0.
    """
    images = np.array(counts, np.float64)
    present = images > 0
    weights = np.where(present, (images.sum() / (present.sum() * np.maximum(images, 1))) ** POWERS[kind], 0.0)
    normalised: NDArray[np.float64] = weights / (weights @ images / images.sum())
    return normalised


def loss_weights(counts: Sequence[int], kind: ClassWeights, device: torch.device) -> Tensor | None:
    """:func:`class_weights` as the loss takes them, float32 on the device; None where all weigh the same."""
    return None if kind == "none" else torch.from_numpy(class_weights(counts, kind)).float().to(device)


def learnt_prior(counts: Sequence[int], kind: ClassWeights, sampling: Sampling) -> NDArray[np.float64]:
    """How frequent a training has made each class look, float64 ``[classes]`` that sum to 1.

    Args:
        counts: training images of each class.
        kind: of weights in the loss; ``balanced`` makes all alike, ``sqrt`` leaves the root of the frequencies.
        sampling: ``balanced`` makes all alike, too.
    """
    images = np.array(counts, np.float64)
    learnt = (images > 0).astype(np.float64) if sampling == "balanced" else images
    learnt = learnt * class_weights(counts, kind)
    prior: NDArray[np.float64] = learnt / learnt.sum()
    return prior


def balanced_order(labels: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
    """Positions of images in an epoch that every class comes in equally often, int64 ``[N]`` like ``labels``.

    Of a large class some images are drawn anew in every epoch; a small class's come again, each as often as the others
    or once more. Where N is no multiple of the number of classes, some by chance get one more.
    """
    chance = generator(seed, "balanced order", epoch)
    counts = np.unique(labels, return_counts=True)[1]
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    wanted = np.full(len(counts), len(labels) // len(counts))
    wanted[torch.randperm(len(counts), generator=chance)[: len(labels) % len(counts)].numpy()] += 1
    chosen = []
    for own, number in zip(members, wanted, strict=True):
        turns = [torch.randperm(len(own), generator=chance).numpy() for _ in range(number // len(own) + 1)]
        chosen.append(own[np.concatenate(turns)[:number]])
    order: NDArray[np.int64] = np.concatenate(chosen)[torch.randperm(len(labels), generator=chance).numpy()]
    return order


def describe_balance(counts: Sequence[int], kind: ClassWeights, sampling: Sampling) -> str:
    """A line about what is done to classes of unequal size; empty where nothing is."""
    images = np.array([count for count in counts if count])
    beginning = f"Classes: {images.min():,} to {images.max():,} training images each; "
    if sampling == "balanced":
        times = images.sum() / (len(images) * images)
        return (
            f"{beginning}every class comes equally often (sampling balanced), so that an image comes "
            f"{times.min():.2g} to {times.max():.2g} times an epoch on average"
        )
    if kind == "none":
        return ""
    weights = class_weights(images.tolist(), kind)
    return (
        f"{beginning}in the training loss an image weighs {weights.min():.2g} to {weights.max():.2g} "
        f"(class_weights {kind}), in val_loss always 1"
    )
