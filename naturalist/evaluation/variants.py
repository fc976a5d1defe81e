"""What else a run says about the same images: averaged over views of each, or as if all classes were as frequent.

Each variant is reported beside the plain predictions, under ``with_`` and its name, and compared with them.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor

from naturalist.data.balance import POWERS, learnt_prior
from naturalist.errors import UserError
from naturalist.progress import print_numbers, print_table
from naturalist.runs.identity import read_identity
from naturalist.settings.verbs import Tta
from naturalist.wording import number, percent

Array = NDArray[np.float64]
Change = Callable[[Tensor], Tensor]
"""Pixels ``[B, 3, S, S]`` → a view of them."""

SHIFT = 1 / 32
"""How far a shifted view is moved, as a share of the image's side: the pixel of CIFAR's 32 that airbench moves them by
(Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU")."""

WITH = "with_"
"""What the keys of variants begin with."""

NUMBERS = ("accuracy", "balanced_accuracy", "loss", "expected_calibration_error")
"""What variants, and runs, are compared by."""

HEADINGS = ("accuracy", "balanced", "loss", "calibration error")


def unchanged(pixels: Tensor) -> Tensor:
    """The image as it is."""
    return pixels


def mirrored(pixels: Tensor) -> Tensor:
    """Left and right exchanged."""
    return pixels.flip(-1)


def shifted(pixels: Tensor, direction: int) -> Tensor:
    """Moved along the diagonal, to the upper left (1) or the lower right (-1); what comes in is a reflection."""
    side = pixels.shape[-1]
    places = (torch.arange(side, device=pixels.device) + direction * max(1, round(SHIFT * side))).abs()
    places = (side - 1) - ((side - 1) - places).abs()
    return pixels[..., places, :][..., places]


def predict_variants(
    predict: Callable[[str, Change], Array], tta: Tta = "none", prior: Array | None = None
) -> dict[str, Array]:
    """Probabilities ``[N, classes]``: plain ones under ``""``, and others under their names.

    The shifted views count for half, as in airbench; of every view there is its mirror image.

    Args:
        predict: gives the probabilities of all images, each changed; the word says how.
        tta: over which views there is a mean.
        prior: how frequent training made each class look; each of the others is also corrected by it.
    """
    views = {"": predict("", unchanged)}
    if tta != "none":
        views["flips"] = (views[""] + predict("mirrored", mirrored)) / 2
    if tta == "flip-shift":
        moved = [
            predict(words, change)
            for direction in (1, -1)
            for words, change in (
                ("shifted", lambda pixels, by=direction: shifted(pixels, by)),
                ("shifted and mirrored", lambda pixels, by=direction: mirrored(shifted(pixels, by))),
            )
        ]
        views["flips_and_shifts"] = views["flips"] / 2 + np.mean(moved, axis=0) / 2
    return views if prior is None else with_uniform_prior(views, prior)


def with_uniform_prior(views: dict[str, Array], prior: Array) -> dict[str, Array]:
    """The same and, of each, the variant that takes all classes for equally frequent.

    That subtracts the logarithm of how frequent training made a class look from its logit (Menon et al. 2021,
    "Long-tail learning via logit adjustment", with τ = 1), which is the best prediction for the mean recall.
    """
    corrected = {}
    for name, probabilities in views.items():
        odds = probabilities / prior
        corrected["_and_".join(filter(None, [name, "uniform_prior"]))] = odds / odds.sum(axis=1, keepdims=True)
    return {**views, **corrected}


def prior_of_run(folder: Path, checkpoint: dict[str, Any]) -> Array:
    """How frequent each class looked in a run's training, by its own record; says so on the terminal.

    Raises :class:`UserError` for a run that has no record of its split, or whose prior nobody knows: one that learnt
    from a teacher, too, which does not say how frequent its own training made each class look, or a soup of runs that
    weighted classes differently.
    """
    if checkpoint.get("identity") is None:
        raise UserError(
            f"the run in {str(folder)!r} was made by an earlier version, which did not write down its split, so that "
            "nobody knows its class frequencies; leave --prior out."
        )
    identity = read_identity(folder, checkpoint)
    if identity.settings.get("teacher"):
        raise UserError(
            f"the run in {str(folder)!r} learnt from a teacher, too, so that nobody knows how frequent its training "
            "made each class look; leave --prior out."
        )
    images = Counter(file.class_name for file in identity.split.of("train"))
    kind, sampling = identity.settings.get("class_weights", "none"), identity.settings.get("sampling", "shuffle")
    if kind not in POWERS or sampling not in ("shuffle", "balanced"):
        raise UserError(
            f"the runs of the soup in {str(folder)!r} were trained with class_weights {kind} and sampling {sampling}, "
            "so that nobody knows how frequent they make each class look; leave --prior out."
        )
    prior = learnt_prior([images[name] for name in checkpoint["class_names"]], kind, sampling)
    because = f"sampling {sampling}" if sampling == "balanced" else f"class_weights {kind}" if kind != "none" else ""
    if because and np.allclose(prior, prior[0]):
        print(f"The training made all classes look alike ({because}), so --prior uniform changes nothing.")
    else:
        of = f" with {because}" if because else ""
        print(
            f"Class frequencies{of} in training, which --prior uniform corrects: "
            f"{number(100 * prior.min())} to {percent(prior.max())}"
        )
    return prior


def names_of_variants(metrics: dict[str, Any]) -> list[str]:
    """Keys of the variants in an evaluation's metrics."""
    return [key for key in metrics if key.startswith(WITH)]


def show(key: str, value: float, plain: float | None = None) -> str:
    """A number of an evaluation in a table, and in brackets what it gained, in points where it is a share."""
    shown = f"{value:.4f}" if key == "loss" else percent(value)
    if plain is None:
        return shown
    gain = number(value - plain, 4) if key == "loss" else number(100 * (value - plain))
    return f"{shown} ({gain if gain.startswith('−') else f'+{gain}'})"


def print_variants(metrics: dict[str, Any]) -> None:
    """Plain numbers and those of the variants below each other, with gains; nothing where there are no variants."""
    variants = names_of_variants(metrics)
    if not variants:
        return
    table = Table("", title=f"{metrics['split']}: in brackets the gain", title_justify="left")
    for heading in (*HEADINGS, "p"):
        table.add_column(heading, justify="right")
    table.add_row("plain", *(show(key, metrics[key]) for key in NUMBERS), "")
    for name in variants:
        own = metrics[name]
        numbers = (show(key, own[key], metrics[key]) for key in NUMBERS)
        table.add_row(name.replace("_", " "), *numbers, f"{own['compared_without']['p_value']:.2g}")
    print_table(table)
    print_numbers("p: of McNemar's exact test, that right and wrong differ from the plain ones by chance alone.")
