"""Hold out a part of every class for validation."""

import math

import numpy as np
from numpy.typing import NDArray

from naturalist.errors import UserError
from naturalist.wording import counted


def stratified_split(
    labels: NDArray[np.int64], class_names: tuple[str, ...], val_fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split image indices into training and validation, each class in the same proportion.

    Args:
        labels: class indices, int64 ``[N]``, in an order that does not depend on the machine.
        class_names: used in messages.
        val_fraction: share held out, in (0, 1).
        seed: equal seeds give equal splits on every machine.

    Returns:
        Sorted indices of the training and of the validation images, int64.

    Raises:
        UserError: when a class has too few images to be on both sides.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    if counts.min() < 2:
        rare = class_names[int(counts.argmin())]
        raise UserError(
            f"class {rare} has {counted(int(counts.min()), 'readable image')}; at least 2 are needed, one to train on "
            "and one to validate on."
        )
    num_val = math.ceil(len(labels) * val_fraction)
    num_train = len(labels) - num_val
    if min(num_train, num_val) < len(class_names):
        raise UserError(
            f"val_fraction {val_fraction} of {len(labels)} images leaves {num_train} to train on and "
            f"{num_val} to validate on, less than one for each of {len(class_names)} classes; choose "
            "another val_fraction or add images."
        )
    held_out = _apportion(counts, num_val)
    missing = np.flatnonzero((held_out == 0) | (held_out == counts))
    if len(missing):
        names = ", ".join(class_names[label] for label in missing)
        which, them = ("class", "it") if len(missing) == 1 else ("classes", "them")
        raise UserError(
            f"with val_fraction {val_fraction} the {which} {names} would be missing from one side of the split; add "
            f"images of {them} or choose another val_fraction."
        )
    generator = np.random.default_rng(seed)
    is_val = np.zeros(len(labels), bool)
    for label, number in enumerate(held_out):
        is_val[generator.permutation(np.flatnonzero(labels == label))[:number]] = True
    return np.flatnonzero(~is_val), np.flatnonzero(is_val)


def stratified_part(
    indices: NDArray[np.int64], labels: NDArray[np.int64], fraction: float, seed: int
) -> NDArray[np.int64]:
    """Choose ``fraction`` of the images of every class, at least one of each.

    Args:
        indices: int64 ``[N]``.
        labels: their classes, int64 ``[N]``.
        fraction: in (0, 1]; a smaller part is contained in a larger one of the same seed.
        seed: equal seeds choose equal images on every machine.

    Returns:
        Sorted indices, int64.
    """
    generator = np.random.default_rng(seed)
    parts = [generator.permutation(indices[labels == label]) for label in np.unique(labels)]
    return np.sort(np.concatenate([part[: max(1, round(fraction * len(part)))] for part in parts]))


def _apportion(counts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Share ``total`` among classes as their ``counts`` are, by largest remainders; of equal ones the first."""
    shares, remainders = np.divmod(counts * total, counts.sum())
    largest = np.argsort(-remainders, kind="stable")[: total - shares.sum()]
    shares[largest] += 1
    return shares
