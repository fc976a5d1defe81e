"""``--find_lr``: the loss while the learning rate rises from step to step, and the rate to take from that."""

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torch.optim import Optimizer

from naturalist.data.balance import loss_weights
from naturalist.data.dataset import Batches, Loading, TrainingData, Transform, Varied
from naturalist.data.phases import PhasedData
from naturalist.device import Compute
from naturalist.errors import UserError
from naturalist.models.parameter_groups import Group, parameter_groups
from naturalist.plots.learning_rate import plot_learning_rate
from naturalist.printable import printable
from naturalist.progress import print_numbers, progress_bar
from naturalist.settings.groups import TrainingSettings
from naturalist.settings.places import run_folder_name
from naturalist.settings.run_settings import RunSettings
from naturalist.training.epoch import Learner, train_one_epoch
from naturalist.training.optim import Schedule, make_optimizer
from naturalist.training.state import EpochSoFar

LOWEST, HIGHEST, STEPS = 1e-6, 10.0, 100
"""The rates that are tried, and in how many steps of the optimiser: 14 for each factor of ten."""

DIVERGED = 4.0
"""A loss so many times the lowest ends the search."""

LATEST = 5
"""Losses whose mean is compared with the lowest such mean."""

WINDOW = 15
"""Losses around each, of which a weighted mean is the smoothed loss."""

Array = NDArray[np.float64]


class _Diverged(Exception):
    """The search is over."""


class _Rise(Schedule):
    """A rate that grows by the same factor at every step; groups keep their proportions."""

    def __init__(self, optimizer: Optimizer, settings: TrainingSettings) -> None:
        super().__init__(optimizer, settings, STEPS, 1)
        self._setting = settings.learning_rate

    def set_learning_rate(self, step: int) -> float:
        rate = float(rates()[min(step, STEPS - 1)])
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * rate / self._setting
        return rate


@dataclass(frozen=True)
class Search:
    """What a search has seen, one value for each step."""

    rates: Array
    losses: Array
    smoothed: Array
    steepest: int
    """Where the smoothed loss falls fastest, over the logarithm of the rate, on the way to its lowest."""
    lowest: int
    diverged: bool

    @property
    def rate(self) -> float:
        """The rate that is proposed, in two digits."""
        return float(f"{self.rates[self.steepest]:.2g}")


def find_learning_rate(
    model: nn.Module,
    data: TrainingData,
    settings: RunSettings,
    compute: Compute,
    groups: list[Group] | None = None,
) -> dict[str, Any]:
    """Train while the learning rate rises until the loss diverges, draw that, and print the flag to use.

    This is the range test of Smith (2017, "Cyclical learning rates for training neural networks") with exponential
    steps, over as many epochs as it takes. Nothing of the training is kept; the picture lies beside the run folders.

    Args:
        model: on any device; its weights are of no use afterwards.
        data: what it trains on, by the run's own augmentation, weights and order.
        settings: of the run; its learning rate and schedule play no part.
        compute: device and arithmetic.
        groups: parameters that learn, in proportion of their rates; by default all that are trainable.

    Returns:
        ``status``, ``learning_rate`` and ``picture``.

    Raises:
        UserError: when the loss falls at no rate.
    """
    training, device = settings.training, compute.device
    model = compute.place(model)
    optimizer = make_optimizer(groups or parameter_groups(model, training.decay), training, device)
    weights = loss_weights(data.plan.counts, training.class_weights, device)
    if isinstance(data, PhasedData):
        data = replace(data, first_epochs=STEPS)  # what learns first does so all along
    learner = Learner(model, optimizer, _Rise(optimizer, training), training, compute, class_weights=weights)
    loader, _ = data.loaders(Loading(training.batch_size, training.seed, compute, sampling=training.sampling))
    augment, _ = data.transforms(settings.augmentation, training.seed)
    losses = _losses(learner, loader, augment)
    search = search_of(losses)
    name = run_folder_name(settings.record.name or settings.describe())
    picture = Path(settings.record.runs_dir) / f"{name}-learning-rate.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    plot_learning_rate(search.rates, search.losses, search.smoothed, search.steepest, picture, name)
    print(f"Picture: {printable(picture)}")
    if not search.lowest:
        raise UserError(
            f"the loss falls at no learning rate between {LOWEST:g} and {HIGHEST:g}, so none can be proposed; see "
            f"{str(picture)!r}, and try --precision fp32 or a larger --batch_size."
        )
    end = f"it diverges above {search.rates[-1]:.2g}" if search.diverged else "it does not diverge"
    print_numbers(
        f"The smoothed loss falls fastest at a learning rate of {search.rate:g} and is lowest at "
        f"{search.rates[search.lowest]:.2g}; {end}. Train with: --learning_rate {search.rate:g}"
    )
    return {"status": "learning rate found", "learning_rate": search.rate, "picture": str(picture)}


def rates() -> Array:
    """The learning rate of each step."""
    return np.geomspace(LOWEST, HIGHEST, STEPS)


def search_of(losses: list[float]) -> Search:
    """What the losses of the first so many steps say; the last may be no number."""
    finite = np.array([loss for loss in losses if np.isfinite(loss)])
    if len(finite) < 2:
        raise UserError("the loss is not finite before any training; try --precision fp32.")
    # A window in the middle of which each loss is, so that the curve is not moved to higher rates.
    window = np.hanning(WINDOW + 2)[1:-1]
    clipped = np.minimum(finite, DIVERGED * finite.min())
    smoothed = np.convolve(clipped, window)[WINDOW // 2 :][: len(finite)]
    smoothed /= np.convolve(np.ones(len(finite)), window)[WINDOW // 2 :][: len(finite)]
    tried, lowest = rates()[: len(finite)], int(smoothed.argmin())
    steepest = int(np.gradient(smoothed, np.log(tried))[: lowest + 1].argmin())
    return Search(tried, finite, smoothed, steepest, lowest, len(losses) < STEPS or len(finite) < len(losses))


def _losses(learner: Learner, loader: Batches, augment: Varied | Transform) -> list[float]:
    """The loss of every step, up to the last or to where it diverges."""
    losses: list[float] = []
    lowest, settings = float("inf"), learner.settings
    so_far, before = EpochSoFar(loader.device), (0.0, 0)

    def look() -> None:
        nonlocal before, lowest
        now = (float(so_far.loss_sum), so_far.images)
        losses.append((now[0] - before[0]) / (now[1] - before[1]))
        before, latest = now, float(np.mean(losses[-LATEST:]))
        lowest = min(lowest, latest)
        if len(losses) == STEPS or not latest <= DIVERGED * lowest:
            raise _Diverged

    total = STEPS * settings.accumulate * min(settings.batch_size, loader.num_images)
    with progress_bar(f"Learning rates from {LOWEST:g} to {HIGHEST:g}", total) as bar:
        try:
            for epoch in itertools.count():
                so_far, before = EpochSoFar(loader.device), (0.0, 0)
                train_one_epoch(learner, loader, augment, epoch=epoch, so_far=so_far, after_step=look, bar=bar)
        except _Diverged:
            return losses
    raise AssertionError("the search ends within its steps")
