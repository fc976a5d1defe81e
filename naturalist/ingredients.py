"""What may go into a soup: runs whose weights can be averaged, and what keeps others from it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from naturalist.errors import UserError
from naturalist.runs.checkpoint import load_checkpoint
from naturalist.runs.folder import read_config
from naturalist.runs.identity import read_identity

PRIOR = ("class_weights", "sampling")
"""What decides how frequent a training makes each class look."""


@dataclass(frozen=True)
class Ingredient:
    """A run that may go into a soup."""

    run: Path
    folder: Path
    checkpoint: dict[str, Any]
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.folder.resolve().name


def read_ingredient(run: Path) -> Ingredient:
    """A run's weights and settings; raises :class:`UserError` where they cannot be read."""
    folder = run if run.is_dir() else run.parent
    return Ingredient(run, folder, load_checkpoint(run), read_config(folder))


def refuse_others(ingredients: Sequence[Ingredient], *, interpolate: bool) -> None:
    """Raise :class:`UserError`, by name, for runs that cannot be averaged."""
    if len(ingredients) < 2 or (interpolate and len(ingredients) != 2):
        raise UserError(f"{'--interpolate needs two runs' if interpolate else 'soup needs at least two runs'}.")
    first, names = ingredients[0], [item.name for item in ingredients]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"the run {twice} is given twice, or two runs have its name; each goes into a soup once.")
    for other in ingredients[1:]:
        (what, own, others), *_ = [*_differences(first, other), ("", "", "")]
        if what:
            raise UserError(
                f"{first.name} and {other.name} cannot be averaged: they have different {what} ({own} and {others})."
            )


def of_all_learnt(kept: Sequence[Ingredient]) -> dict[str, Any]:
    """Of what decides how frequent a class looks, what the runs of a soup do not have in common, in words."""
    settings = [read_identity(item.folder, item.checkpoint).settings for item in kept]
    values = {name: sorted({own[name] for own in settings if name in own}) for name in PRIOR}
    return {name: " and ".join(found) for name, found in values.items() if len(found) > 1}


def _differences(one: Ingredient, other: Ingredient) -> list[tuple[str, str, str]]:
    """What keeps two runs from being averaged: what it is, and how it is in each."""
    one_split, other_split = (read_identity(item.folder, item.checkpoint) for item in (one, other))
    validation = [sorted(file.hash for file in identity.split.of("val")) for identity in (one_split, other_split)]
    # All that parameters depend on; dropout has none.
    networks = [{**item.checkpoint["model"], "dropout": None} for item in (one, other)]
    classes = ", ".join(one_split.class_names), ", ".join(other_split.class_names)
    taught = ["one" if item.config.get("teacher") else "none" for item in (one, other)]
    found = [
        ("networks", *_differing(*networks)),
        ("classes", *classes),
        ("preprocessing", *_differing(one.checkpoint["preprocessing"], other.checkpoint["preprocessing"])),
        ("images", f"fingerprint {one_split.fingerprint}", f"fingerprint {other_split.fingerprint}"),
        ("starting weights", *_beginnings(one, other)),
        ("teachers", taught[0], taught[1]),
    ]
    differ = [difference for difference in found if difference[1] != difference[2]]
    if validation[0] != validation[1]:
        drawn = [{name: item.config.get(name) for name in ("split_seed", "val_fraction")} for item in (one, other)]
        differ.append(("validation images", *_differing(*drawn)))
    return differ


def _beginnings(one: Ingredient, other: Ingredient) -> tuple[str, str]:
    """What weights were before training; heads may differ, for on the same features they learn the same."""
    weights = [str(item.config.get("weights", "none")) for item in (one, other)]
    if weights == ["none", "none"]:
        begun = ["seed", "initialization"]
        if all(item.config.get("initialization") == "patches" for item in (one, other)):
            begun.append("train_fraction")  # of the images that patches come from
        return _differing(*({name: item.config.get(name) for name in begun} for item in (one, other)))
    names = [
        Path(name).name if name != "none" else f"seed {item.config.get('seed')}"
        for name, item in zip(weights, (one, other), strict=True)
    ]
    if names[0] == names[1] and weights[0] != weights[1] and all(Path(name).is_file() for name in weights):
        digests = [hashlib.sha256(Path(name).read_bytes()).hexdigest()[:8] for name in weights]
        names = [f"{name} of hash {digest}" for name, digest in zip(names, digests, strict=True)]
    return names[0], names[1]


def _differing(one: dict[str, Any], other: dict[str, Any]) -> tuple[str, str]:
    """In words, the values that are not the same in both."""
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    words = [", ".join(f"{name} {values.get(name)}" for name in names) for values in (one, other)]
    return words[0], words[1]
