"""How far two groups of runs are apart, and whether that is more than chance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from naturalist.evaluation.metrics import mcnemar, paired_interval
from naturalist.runs.records import Group
from naturalist.wording import counted, number, p_value, points

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Difference:
    """By how much one group is more accurate than another; shares, 0 to 1."""

    value: float
    low: float
    high: float
    """The 95 % interval."""
    is_sure: bool
    grounds: str
    """What interval and verdict rest on, in words."""

    def __str__(self) -> str:
        """The interval and its grounds, to stand in brackets behind the difference."""
        return f"95 % interval {number(100 * self.low)} to {points(self.high)}, {self.grounds}"


def difference(first: Group, second: Group, column: str) -> Difference | None:
    """By how much ``first`` is more accurate than ``second``; None where nothing tells it from chance.

    Several runs of each are compared by the spread between their seeds (Welch's interval), others image by image, if
    all were tested on the same images. Of single runs McNemar's exact test decides.

    Args:
        first: one group.
        second: the other.
        column: ``test_accuracy`` or ``val_accuracy``; of validation no image's prediction is at hand.
    """
    averages = first.average(column), second.average(column)
    if averages[0] is None or averages[1] is None:
        return None
    value = averages[0] - averages[1]
    if min(len(first.runs), len(second.runs)) > 1:
        return _between_seeds(value, *([run.values[column] for run in group.runs] for group in (first, second)))
    return _between_images(value, first, second) if column == "test_accuracy" else None


def _between_seeds(value: float, first: Sequence[float | None], second: Sequence[float | None]) -> Difference | None:
    samples = np.array(first, dtype=float), np.array(second, dtype=float)
    if not any(np.ptp(sample) for sample in samples):
        return None
    interval = stats.ttest_ind(*samples, equal_var=False).confidence_interval(0.95)
    low, high = float(interval.low), float(interval.high)
    return Difference(value, low, high, low > 0 or high < 0, "from the spread between seeds")


def _between_images(value: float, first: Group, second: Group) -> Difference | None:
    files = first.runs[0].right.keys()
    if not files or any(run.right.keys() != files for group in (first, second) for run in group.runs):
        return None
    rights = [_right(group, list(files)) for group in (first, second)]
    low, high = paired_interval(*rights)
    is_sure, grounds = low > 0 or high < 0, f"paired over {counted(len(files), 'test image')}"
    if len(first.runs) == len(second.runs) == 1:
        p = mcnemar(rights[0] == 1, rights[1] == 1)["p_value"]
        is_sure, grounds = is_sure and p < SIGNIFICANT, f"{grounds}, McNemar's test {p_value(p)}"
    return Difference(value, low, high, is_sure, f"{grounds}; other seeds may differ")


def _right(group: Group, files: Sequence[str]) -> NDArray[np.float64]:
    """Of every image the share of the group's runs that were right."""
    shares: NDArray[np.float64] = np.mean([[run.right[file] for file in files] for run in group.runs], axis=0)
    return shares
