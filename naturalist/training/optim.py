"""Optimisers and the course of the learning rate."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from naturalist.models.parameter_groups import LATER
from naturalist.settings.groups import TrainingSettings
from naturalist.training.muon import Muon, is_orthogonal

FINAL_SHARE = 1e-3
"""Where cosine and one-cycle end, as a share of the peak learning rate."""
ONE_CYCLE_START, ONE_CYCLE_RISE = 1 / 25, 0.3
"""One-cycle (Smith & Topin 2017) starts at this share of the peak and rises for this share of the steps."""
PLATEAU_FACTOR, PLATEAU_THRESHOLD = 0.1, 1e-3
"""What a plateau multiplies the learning rate by, and the relative gain in val_loss that is none."""


STATES = {
    "SGD": {"momentum_buffer"},
    "Adam": {"step", "exp_avg", "exp_avg_sq"},
    "AdamW": {"step", "exp_avg", "exp_avg_sq"},
    "NAdam": {"step", "exp_avg", "exp_avg_sq", "mu_product"},
    "Muon": {"step", "exp_avg", "exp_avg_sq"},  # of filters something else, see _state_of
}
"""What each optimiser remembers of a parameter."""


def make_optimizer(groups: list[dict[str, Any]], settings: TrainingSettings, device: torch.device) -> Optimizer:
    """The optimiser that the settings name, fused into one kernel where torch can."""
    fused: dict[str, Any] = {"fused": True} if device.type in ("cuda", "cpu") else {}
    learning_rate = settings.learning_rate
    if settings.optimizer == "SGD":
        return torch.optim.SGD(
            groups, lr=learning_rate, momentum=settings.momentum, nesterov=settings.momentum > 0, **fused
        )
    if settings.optimizer == "Muon":
        return Muon(groups, learning_rate, settings.momentum, **fused)
    if settings.optimizer == "NAdam":
        return torch.optim.NAdam(groups, lr=learning_rate)
    adam = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}[settings.optimizer]
    optimizer: Optimizer = adam(groups, lr=learning_rate, **fused)
    return optimizer


def restore_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Take up what an optimiser of the same settings had learnt; rates and the like stay the run's own.

    Args:
        optimizer: with all of its groups.
        state: of :meth:`torch.optim.Optimizer.state_dict`.

    Raises:
        ValueError: when it is of other parameters, or of another kind of optimiser.
    """
    own = optimizer.state_dict()
    if [group.get("params") for group in state["param_groups"]] != [group["params"] for group in own["param_groups"]]:
        raise ValueError("its optimiser has other parameter groups")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, group in enumerate(own["param_groups"]):
        if len({bool(state["state"].get(parameter)) for parameter in group["params"]}) > 1:
            raise ValueError(f"its optimiser knows only some parameters of group {number}")
    for number, values in state["state"].items():
        if not 0 <= number < len(parameters):
            raise ValueError(f"its optimiser has a parameter {number} of {len(parameters)}")
        wanted = _state_of(optimizer, parameters[number])
        if values and not wanted <= values.keys() <= wanted | {"max_exp_avg_sq"}:
            raise ValueError(f"its optimiser keeps {', '.join(map(str, values))}, not {', '.join(sorted(wanted))}")
        for name, value in values.items():
            shape = () if name in ("step", "mu_product") else parameters[number].shape
            is_absent = value is None and not optimizer.defaults.get("momentum", 1)
            if not is_absent and not (isinstance(value, Tensor) and value.shape == shape and value.is_floating_point()):
                raise ValueError(f"its optimiser's {name} of parameter {number} has another shape or type")
            if name in ("step", "exp_avg_sq") and bool((value < 0).any()):
                raise ValueError(f"its optimiser's {name} of parameter {number} is negative")
    optimizer.load_state_dict({"state": state["state"], "param_groups": own["param_groups"]})


def _state_of(optimizer: Optimizer, parameter: Tensor) -> set[str]:
    """What an optimiser remembers of one parameter."""
    if isinstance(optimizer, Muon) and is_orthogonal(parameter):
        return {"step", "momentum_buffer"}
    return STATES[type(optimizer).__name__]


class Schedule:
    """Sets every group's learning rate before each step of the optimiser.

    Args:
        optimizer: its groups' present learning rates are their peaks.
        settings: ``schedule``, ``warmup_epochs``, ``plateau_patience``.
        steps_per_epoch: steps of the optimiser, not batches.
        epochs: of the whole training.
        first_epochs: where the rate takes its course twice, the epochs of the first; 0 for one course.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        settings: TrainingSettings,
        steps_per_epoch: int,
        epochs: int,
        first_epochs: int = 0,
    ):
        self.optimizer, self.kind = optimizer, settings.schedule
        self.total_steps = steps_per_epoch * epochs
        self.second_begins = steps_per_epoch * first_epochs
        self.warmup_steps = int(settings.warmup_epochs * steps_per_epoch)
        self.peaks: list[float] = []
        self.later_peaks: list[float] = []
        for group in optimizer.param_groups:
            self._take_peaks(group)
        self.plateau_patience = settings.plateau_patience
        self.plateau_share, self.lowest_val_loss, self.stalled_epochs = 1.0, math.inf, 0

    def add_group(self, group: dict[str, Any]) -> None:
        """Hand a group to the optimiser, whose peak is its ``lr``."""
        self.optimizer.add_param_group(group)
        self._take_peaks(group)

    def _take_peaks(self, group: dict[str, Any]) -> None:
        self.peaks.append(group["lr"])
        self.later_peaks.append(group.get(LATER, group["lr"]))

    def set_learning_rate(self, step: int) -> float:
        """Set the rates for ``step``, counted from 0 over all epochs; returns the first group's."""
        if step == self.second_begins:
            self.plateau_share, self.lowest_val_loss, self.stalled_epochs = 1.0, math.inf, 0
        share, is_first = self.share_of_peak(step), step < self.second_begins
        for group, peak in zip(self.optimizer.param_groups, self.peaks if is_first else self.later_peaks, strict=True):
            group["lr"] = peak * share
        return float(self.optimizer.param_groups[0]["lr"])

    def share_of_peak(self, step: int) -> float:
        """Learning rate at ``step`` as a share of its peak, in (0, 1]."""
        if step < self.second_begins:
            steps = self.second_begins
        else:
            step, steps = step - self.second_begins, self.total_steps - self.second_begins
        if self.kind == "one-cycle":  # has its own warm-up
            rise = max(1, int(ONE_CYCLE_RISE * steps))
            if step < rise:
                return _cosine(ONE_CYCLE_START, 1.0, step / rise)
            return _cosine(1.0, FINAL_SHARE, (step - rise) / max(1, steps - 1 - rise))
        warmup = min(self.warmup_steps, steps - 1)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if self.kind == "cosine":
            return _cosine(1.0, FINAL_SHARE, (step - warmup) / max(1, steps - 1 - warmup))
        return self.plateau_share

    def end_epoch(self, val_loss: float) -> None:
        """Tell the validation loss of an epoch that ended; only a plateau cares."""
        if self.kind != "plateau":
            return
        if val_loss < self.lowest_val_loss * (1 - PLATEAU_THRESHOLD):
            self.lowest_val_loss, self.stalled_epochs = val_loss, 0
            return
        self.stalled_epochs += 1
        if self.stalled_epochs > self.plateau_patience:
            self.plateau_share *= PLATEAU_FACTOR
            self.stalled_epochs = 0

    def state_dict(self) -> dict[str, Any]:
        """What changes while training."""
        return {
            "plateau_share": self.plateau_share,
            "lowest_val_loss": self.lowest_val_loss,
            "stalled_epochs": self.stalled_epochs,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state from :meth:`state_dict`."""
        self.plateau_share, self.lowest_val_loss = state["plateau_share"], state["lowest_val_loss"]
        self.stalled_epochs = state["stalled_epochs"]


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2
