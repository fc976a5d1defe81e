"""How far a training has come: epochs that are finished, and the one that is under way."""

import math
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from naturalist.ranks import gather
from naturalist.runs.records import SELECTED, merit
from naturalist.settings.groups import SelectBy


@dataclass(frozen=True)
class Progress:
    """How far a fit has come; all of it is kept in ``last.pt``, and what a fit reports is always what is kept there."""

    epoch: int = 0
    """Epochs finished."""
    best_val_accuracy: float = -1.0
    """Of the best epoch, whatever that is chosen by; so is the loss."""
    best_val_loss: float = math.inf
    best_epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """How far, and the best epoch."""
        best = self.history[self.best_epoch - 1] if self.epoch else {}
        return {
            "epochs": self.epoch,
            "best_epoch": self.best_epoch,
            **{f"best_{name}": best.get(name) for name in SELECTED},
        }

    @property
    def is_best(self) -> bool:
        """Whether the last finished epoch is the best."""
        return self.best_epoch == self.epoch > 0

    def after(self, metrics: Mapping[str, float], select_by: SelectBy = "val_accuracy") -> "Progress":
        """How far it is with one more epoch; this one stays as it is, as the checkpoint does that holds it.

        Args:
            metrics: everything that is logged but ``epoch`` and ``best_val_accuracy``.
            select_by: what the best epoch is chosen by.
        """
        best, best_epoch = metrics, self.epoch + 1
        if self.best_epoch and merit(metrics, select_by) <= merit(self.history[self.best_epoch - 1], select_by):
            best, best_epoch = self.history[self.best_epoch - 1], self.best_epoch
        row = {
            "epoch": self.epoch + 1,
            "train_loss": metrics["train_loss"],
            "train_accuracy": metrics["train_accuracy"],
            "val_loss": metrics["val_loss"],
            "val_accuracy": metrics["val_accuracy"],
            "val_balanced_accuracy": metrics["val_balanced_accuracy"],
            "best_val_accuracy": best["val_accuracy"],
            "learning_rate": metrics["learning_rate"],
            "images_per_second": metrics["images_per_second"],
            "epoch_seconds": metrics["epoch_seconds"],
        }
        return Progress(self.epoch + 1, best["val_accuracy"], best["val_loss"], best_epoch, [*self.history, row])


class EpochSoFar:
    """What an epoch has come to so far: the place in it, and sums over its batches.

    The sums stay on the device, because reading them waits for it.

    Args:
        device: of the loss.
    """

    def __init__(self, device: torch.device) -> None:
        self.loss_sum, self.right = torch.zeros((), device=device), torch.zeros((), device=device)
        self.bad_step = torch.full((), -1, device=device)
        """The first whose loss was not finite; -1 for none."""
        self.batches = self.images = 0
        self.learning_rate = 0.0
        """Of the last step of the optimiser."""
        self.seconds = 0.0

    @torch.no_grad()
    def add(self, loss: Tensor, logits: Tensor, targets: Tensor, images: int) -> None:
        """Take in the next batch.

        Args:
            loss: mean over the batch; of a part of it, the part's share of that.
            logits: of the batch, or of the part.
            targets: of the same.
            images: of the whole batch.
        """
        truth = targets if targets.ndim == 1 else targets.argmax(dim=1)
        self.right += (logits.argmax(dim=1) == truth).sum()
        self.loss_sum += loss * images
        is_bad = (self.bad_step < 0) & ~torch.isfinite(loss)
        self.bad_step = torch.where(is_bad, self.batches, self.bad_step)
        self.batches += 1
        self.images += images

    def place(self, batches: int) -> str:
        """What comes next in an epoch of so many batches, in words."""
        return f"batch {self.batches + 1:,} of {batches:,}" if self.batches < batches else "the validation"

    def of_all_ranks(self) -> "EpochSoFar":
        """What all ranks together have come to, if each has added its parts of the batches; waits for them."""
        parts = torch.stack(gather(torch.stack([self.loss_sum, self.right, self.bad_step]).double()[None])).squeeze(1)
        together = copy(self)
        together.loss_sum, together.right = parts[:, 0].sum(), parts[:, 1].sum()
        bad = parts[:, 2][parts[:, 2] >= 0]
        together.bad_step = bad.min().long() if len(bad) else self.bad_step
        return together

    def metrics(self) -> dict[str, float]:
        """Of the batches so far, see :func:`naturalist.training.epoch.train_one_epoch`; waits for the device."""
        return {
            "train_loss": float(self.loss_sum) / self.images,
            "train_accuracy": float(self.right) / self.images,
            "learning_rate": self.learning_rate,
            "images_per_second": self.images / self.seconds,
        }

    def state_dict(self) -> dict[str, Any]:
        """All of it, as plain values."""
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any], *, with_sums: bool = True) -> None:
        """Take up a state from :meth:`state_dict`; its sums, which one of several ranks takes, may lie elsewhere."""
        for name, value in vars(self).items():
            if not isinstance(value, Tensor):
                setattr(self, name, state[name])
            elif with_sums:
                setattr(self, name, state[name].to(value.device))
