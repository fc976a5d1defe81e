"""What more photographs would bring: the error over the number of images of a class, as a power law, if that holds.

Errors of classifiers fall as ``a · n^-b`` over wide ranges of the number n of training images (Hestness et al. 2017,
"Deep learning scaling is predictable, empirically"). It is fitted to the logarithms; what is said of b, and so of
further images, has the 95 % interval of that regression.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from naturalist.compare.compare import NOT_COMPARED
from naturalist.plots.more_images import plot_more_images
from naturalist.report.blocks import Block, Missing, Picture, Section, Sentences, Text
from naturalist.report.found import Finished, Found
from naturalist.wording import percent

MORE = (10, 100)
"""Photographs a class of which it is said what they would bring."""
LEAST_SIZES, LEAST_RUNS = 3, 4
COMMAND = "python partA/train.py --train_fraction 0.25"


@dataclass(frozen=True)
class Law:
    """An error that falls by a power of the number of images of a class."""

    factor: float
    power: float
    low: float
    """Of the power's 95 % interval."""
    high: float

    def error(self, images: float) -> float:
        """The error with so many images a class."""
        return float(self.factor * images**-self.power)

    def gain(self, images: float, more: float, power: float) -> float:
        """How much accuracy further images bring, if the power were ``power``."""
        return float(self.error(images) * (1 - ((images + more) / images) ** -power))


def fit_law(images: Sequence[float], accuracy: Sequence[float]) -> Law | None:
    """Fit a power law to accuracies in [0, 1) by images a class; None where they do not show that the error falls."""
    points = [(n, 1 - a) for n, a in zip(images, accuracy, strict=True) if a < 1]
    if len(points) < LEAST_RUNS or len({n for n, _ in points}) < LEAST_SIZES:
        return None
    n, error = np.log(np.array(points)).T
    line = stats.linregress(n, error)
    half = float(stats.t.ppf(0.975, len(points) - 2) * line.stderr)
    power = -float(line.slope)
    if power - half <= 0:
        return None
    return Law(float(np.exp(line.intercept)), power, power - half, power + half)


def about_more_images(found: Found, scratch: Path) -> Section:
    """The section on learning curves over the number of images; empty where all runs had as many."""
    section = Section("growth", "More photographs")
    families = _families(found.runs)
    if not families:
        section.blocks.append(
            Missing(
                f"That needs runs that differ in their share of the training images, at least {LEAST_SIZES} of them.",
                COMMAND,
            )
        )
    for number, family in enumerate(families):
        section.blocks += _about_family(family, scratch / f"growth-{number}.png")
    return section


def _families(runs: list[Finished]) -> list[list[Finished]]:
    """Runs that differ in nothing but their seed and their share of the images."""
    gathered: dict[str, list[Finished]] = {}
    for run in runs:
        if run.known is None or not run.known.images.train:
            continue
        left_out = (*NOT_COMPARED, "train_fraction")
        settings = {name: value for name, value in run.run.config.items() if name not in left_out}
        gathered.setdefault(json.dumps(settings, sort_keys=True), []).append(run)
    return [family for family in gathered.values() if len({run.part("train_fraction") for run in family}) > 1]


def _about_family(family: list[Finished], path: Path) -> Iterator[Block]:
    tested = all(run.tested for run in family)
    where = "test" if tested else "validation"
    images = [run.known.images.train / len(run.known.class_names) for run in family if run.known]
    accuracy = [run.tested.accuracy if run.tested else run.validation for run in family]
    label, law = family[0].run.label, fit_law(images, accuracy)
    fewest, most = min(images), max(images)
    furthest = most * most / fewest  # as far beyond what was measured as that is wide
    plot_more_images(images, accuracy, law.error if law else None, furthest, path, f"{label}: {where} accuracy")
    yield Picture(
        path,
        f"{where.capitalize()} accuracy of {label} over {fewest:.0f} to {most:.0f} training images a class, "
        f"{percent(min(accuracy))} to {percent(max(accuracy))}.",
        f"{label}: {where} accuracy over training images a class.",
    )
    if law is None:
        yield Text(
            f"{len(family)} runs of {label} are too few, or differ too much, to say what more photographs would bring."
        )
        return
    said = [
        f"The error of {label} falls as n to the power −{law.power:.2f} (95 % interval −{law.low:.2f} to "
        f"−{law.high:.2f}, {len(family)} runs with {fewest:.0f} to {most:.0f} images a class)."
    ]
    for more in MORE:
        if most + more <= furthest:
            best, low, high = (100 * law.gain(most, more, power) for power in (law.power, law.low, law.high))
            said.append(
                f"{more} more photographs a class than {most:.0f} would bring {best:.1f} points (95 % interval "
                f"{low:.1f} to {high:.1f}) if that goes on."
            )
        else:
            said.append(f"{more} more photographs a class are too far from what was measured to say anything.")
    yield Sentences(said)
