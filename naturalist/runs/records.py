"""Runs as tables and figures see them: what a folder tells of one run, and of several."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from naturalist.settings.groups import SelectBy
from naturalist.wording import percent

LOG_RATIO = 50
"""A number that spans such a ratio is seen by its logarithm."""

COLUMNS = {
    "trainable_parameters": "trainable parameters",
    "epochs": "epochs",
    "epoch_seconds": "s per epoch",
    "total_seconds": "s in all",
    "peak_memory_mb": "peak memory, MB",
    "train_accuracy": "train",
    "val_accuracy": "validation",
    "gap": "train − validation",
    "test_accuracy": "test",
    "test_balanced_accuracy": "test, balanced",
}


TRIAL = "trial-"
"""What the names of a sweep's runs begin with, before the number."""

SELECTED = ("val_accuracy", "val_balanced_accuracy", "val_loss")
"""What ``best.pt`` may be chosen by; a summary has each of its epoch, as ``best_val_accuracy`` and so on."""


def trial_label(number: int) -> str:
    """What the name of a trial's run begins with."""
    return f"{TRIAL}{number:04d}"


def numbered(runs: Sequence["RunRecord"]) -> tuple[str, list[int]]:
    """What runs are counted by, and their numbers: their sweep's, if all are of one, or from 1 in this order."""
    trials = [run.trial for run in runs if run.trial is not None]
    is_one_sweep = len(set(trials)) == len(runs)
    return ("trial", trials) if is_one_sweep else ("run", list(range(1, len(runs) + 1)))


def merit(epoch: Mapping[str, Any], select_by: SelectBy = "val_accuracy") -> tuple[float, float]:
    """What ``best.pt`` is chosen by, more being better: a validation accuracy and, of equals, the loss, or the loss."""
    loss = epoch.get("val_loss")
    gain = -loss if loss is not None and math.isfinite(loss) else -math.inf
    return gain if select_by == "val_loss" else epoch.get(select_by) or 0.0, gain


def best_of(history: Sequence[Mapping[str, Any]], select_by: SelectBy = "val_accuracy") -> int:
    """Position of the epoch that ``best.pt`` is of; of equals the first."""
    return max(range(len(history)), key=lambda i: merit(history[i], select_by))


@dataclass(frozen=True)
class RunRecord:
    """A run, as the pictures need it."""

    name: str
    state: str
    """finished, pruned, failed, or cut off (killed, stopped by hand, still running, or run again)."""
    settings: dict[str, Any]
    value: float | None
    """The metric's best epoch."""
    epochs: int
    started: float
    """Seconds since 1970."""
    seconds: float | None
    """From beginning to end."""
    reason: str = ""
    """Why a run failed."""

    @property
    def trial(self) -> int | None:
        """Its number in the sweep that ran it, which its name begins with; None for a run of its own."""
        found = re.match(rf"{TRIAL}(\d+)_", self.name)
        return int(found[1]) if found else None


@dataclass(frozen=True)
class Run:
    """What a finished run's folder tells."""

    name: str
    label: str
    seed: int
    config: dict[str, Any]
    """Of its config.yaml."""
    history: list[dict[str, Any]]
    """The epochs of its metrics.jsonl."""
    feature_seconds: float
    values: dict[str, float | None]
    """A value for each of :data:`COLUMNS`; accuracies of train and validation are those of the best epoch."""
    test_fingerprint: str | None = None
    """Of the images that it was tested on; None before it was."""
    right: Mapping[str, bool] = field(default_factory=dict)
    """Whether it was right about each of them, by the file's name; empty before it was tested."""


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed."""

    label: str
    runs: tuple[Run, ...]

    def average(self, column: str) -> float | None:
        """Mean over the runs; None where a run has no value."""
        values = self._values(column)
        return mean(values) if values else None

    def deviation(self, column: str) -> float | None:
        """Standard deviation over the runs; None for a single run, or where a run has no value."""
        values = self._values(column)
        return stdev(values) if len(values) > 1 else None

    def _values(self, column: str) -> list[float]:
        """A value for each run; empty where one has none."""
        values = [value for run in self.runs if (value := run.values[column]) is not None]
        return values if len(values) == len(self.runs) else []


@dataclass(frozen=True)
class Influence:
    """One row of the table: a number, or one level of a setting."""

    setting: str
    level: str | None
    correlation: float
    importance: float
    """Share of what the forest explains, 0 to 1."""
    n: int
    """Runs that have the level; all runs for a number."""

    @property
    def label(self) -> str:
        """As axes and tables show it."""
        return self.setting if self.level is None else f"{self.setting} = {self.level}"


@dataclass(frozen=True)
class Influences:
    """The whole table, the most important first."""

    rows: list[Influence]
    explained: float | None
    """R² of the forest for runs that a tree has not seen; None with too few runs."""


def is_number(values: Sequence[object]) -> TypeGuard[Sequence[float]]:
    """Whether a setting is a number everywhere."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def as_numbers(values: Sequence[float]) -> NDArray[np.float64]:
    """A number's values, or their logarithms where they span orders of magnitude."""
    numbers = np.array(values, dtype=float)
    return np.log10(numbers) if numbers.min() > 0 and numbers.max() / numbers.min() >= LOG_RATIO else numbers


def level_name(value: object) -> str:
    """A value of a setting, in tables and pictures."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def amount(value: float, metric: str) -> str:
    """A value of a metric, in sentences and pictures."""
    return percent(value) if metric.endswith("accuracy") else f"{value:.4g}".replace("-", "−")
