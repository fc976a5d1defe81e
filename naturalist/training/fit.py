"""A whole training: build, restore, one epoch after the other, record each."""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from naturalist.data.dataset import TrainingData
from naturalist.device import Compute, peak_memory_mb
from naturalist.entry import stop_requested
from naturalist.errors import UserError, describe_error
from naturalist.models.parameter_groups import parameter_groups
from naturalist.plots.curves import plot_curves
from naturalist.progress import progress_bar
from naturalist.runs.checkpoint import BEST, LAST, load_checkpoint, save_checkpoint
from naturalist.runs.tracking import Tracker
from naturalist.settings.groups import AugmentationSettings, TrainingSettings
from naturalist.training.average import WeightAverage
from naturalist.training.epoch import Evaluation, Learner, evaluate, optimizer_steps, train_one_epoch
from naturalist.training.optim import Schedule, make_optimizer

DRAW_SECONDS = 5
"""``curves.png`` is drawn at most so often while training goes on: drawing takes as long as a short epoch."""

Release = Callable[[int], list[dict[str, Any]]]
"""Epoch, counted from 0 → the parameter groups that begin to learn in it."""

ShouldStop = Callable[[dict[str, Any]], bool]
"""Asked after every epoch with its metrics; True ends the fit."""


@dataclass
class Progress:
    """How far a fit has come; all of it is kept in ``last.pt``."""

    epoch: int = 0
    """Epochs finished."""
    best_val_accuracy: float = -1.0
    best_val_loss: float = math.inf
    best_epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """How far, and the best epoch."""
        return {
            "epochs": self.epoch,
            "best_epoch": self.best_epoch,
            "best_val_accuracy": self.best_val_accuracy if self.epoch else None,
            "best_val_loss": self.best_val_loss if self.epoch else None,
        }

    def take_in(self, metrics: Mapping[str, float], validation: Evaluation, seconds: float) -> bool:
        """Add a finished epoch; returns whether it is the best so far."""
        is_best = (validation.accuracy, -validation.loss) > (self.best_val_accuracy, -self.best_val_loss)
        self.epoch += 1
        if is_best:
            self.best_val_accuracy, self.best_val_loss = validation.accuracy, validation.loss
            self.best_epoch = self.epoch
        self.history.append(
            {
                "epoch": self.epoch,
                "train_loss": metrics["train_loss"],
                "train_accuracy": metrics["train_accuracy"],
                "val_loss": validation.loss,
                "val_accuracy": validation.accuracy,
                "best_val_accuracy": self.best_val_accuracy,
                "learning_rate": metrics["learning_rate"],
                "images_per_second": metrics["images_per_second"],
                "epoch_seconds": seconds,
            }
        )
        return is_best


def fit(
    model: nn.Module,
    data: TrainingData,
    training: TrainingSettings,
    augmentation: AugmentationSettings,
    compute: Compute,
    tracker: Tracker,
    about: Mapping[str, Any],
    *,
    resume: bool = False,
    should_stop: ShouldStop | None = None,
    release: Release | None = None,
) -> dict[str, Any]:
    """Train, validate and record epoch by epoch; keep the best checkpoint and the last.

    The best has the highest validation accuracy and, of equals, the lowest loss. A KeyboardInterrupt ends the fit
    after the last finished epoch, whose state lies in ``last.pt``. With ``resume`` the fit goes on
    from there and ends with the weights that an uninterrupted one would have.

    Args:
        model: the network, on any device.
        data: images and their split.
        training: how it learns.
        augmentation: how training batches are varied.
        compute: where, and in which arithmetic.
        tracker: takes the metrics; its folder takes the checkpoints and ``curves.png``.
        about: what every checkpoint says beside weights and progress: ``description`` (of the model), ``data`` …
        resume: go on from ``last.pt``.
        should_stop: asked after every epoch with its metrics; True ends the fit.
        release: asked before every epoch, counted from 0, for the parameter groups that begin to learn in it; by
            default all that is trainable does in the first. See :meth:`naturalist.models.strategies.Strategy.release`.

    Returns:
        The summary: ``status`` (``"finished"``, ``"stopped early"`` by ``patience``, ``"pruned"`` by ``should_stop`` or
        ``"stopped"`` from outside), ``epochs``, ``best_epoch``, ``best_val_accuracy``, ``best_val_loss``,
        ``precision``, ``device``, ``seconds``, ``peak_memory_mb``.

    Raises:
        NonFiniteLoss: see :func:`naturalist.training.epoch.train_one_epoch`.
    """
    start = time.perf_counter()
    run = _Fit(model, data, training, augmentation, compute, tracker, about, release)
    if resume:
        run.restore()
    try:
        status = run.train(should_stop)
    except KeyboardInterrupt:
        status = "stopped"
    except Exception:
        with suppress(Exception):  # the picture must not stand before what went wrong
            run.draw()
        raise
    summary = {"status": status, **run.progress.summary(), "precision": compute.precision}
    summary |= {"device": compute.device.type, "seconds": time.perf_counter() - start}
    summary |= {"peak_memory_mb": peak_memory_mb(compute.device)}
    tracker.conclude(summary)  # before anything that may fail
    with suppress(KeyboardInterrupt):  # a stop that comes now costs the picture
        run.draw()
    return summary


class _Fit:
    """A training that is under way."""

    def __init__(
        self,
        model: nn.Module,
        data: TrainingData,
        training: TrainingSettings,
        augmentation: AugmentationSettings,
        compute: Compute,
        tracker: Tracker,
        about: Mapping[str, Any],
        release: Release | None,
    ) -> None:
        model = compute.place(model)
        self.data, self.tracker, self.about, self.release = data, tracker, about, release
        self.train_loader, self.val_loader = data.loaders(training.batch_size, training.seed, compute.device)
        self.augment, self.prepare = data.transforms(augmentation, training.seed)
        groups = parameter_groups(model, training.weight_decay) if release is None else release(0)
        optimizer = make_optimizer(groups, training, compute.device)
        steps = optimizer_steps(len(self.train_loader), training.accumulate)
        schedule = Schedule(optimizer, training, steps, training.epochs)
        average = WeightAverage(model, training.ema_decay) if training.ema_decay else None
        self.learner = Learner(model, optimizer, schedule, training, compute, average)
        self.progress = Progress()
        self.last_drawn = time.perf_counter()

    def restore(self) -> None:
        """Take up the state in ``last.pt``."""
        content = load_checkpoint(self.tracker.folder, LAST)
        state, learner = content.get("training"), self.learner
        if state is None or (learner.average is not None) != (state["weights"] is not None):
            raise UserError(
                "this checkpoint cannot be resumed: it holds no training state, or was trained with another ema_decay."
            )
        for epoch in range(1, content["epoch"]):
            self._add_groups(epoch)
        learner.model.load_state_dict(state["weights"] if learner.average else content["state_dict"])
        if learner.average:
            learner.average.model.load_state_dict(content["state_dict"])
            learner.average.updates = state["average_updates"]
        learner.optimizer.load_state_dict(state["optimizer"])
        learner.schedule.load_state_dict(state["schedule"])
        learner.compute.scaler.load_state_dict(state["scaler"])
        vars(self.progress).update(state["progress"])

    def train(self, should_stop: ShouldStop | None) -> str:
        """Train to the end; returns the status."""
        settings, progress = self.learner.settings, self.progress
        while progress.epoch < settings.epochs:
            if stop_requested():
                raise KeyboardInterrupt
            if settings.patience and progress.epoch - progress.best_epoch >= settings.patience:
                return "stopped early"
            self.run_epoch()
            if should_stop is not None and should_stop(progress.history[-1]) and progress.epoch < settings.epochs:
                return "pruned"
        return "finished"

    def run_epoch(self) -> None:
        """Train and validate once, and record it."""
        start, epoch, learner = time.perf_counter(), self.progress.epoch, self.learner
        if epoch > 0:
            self._add_groups(epoch)
        label = f"epoch {epoch + 1}/{learner.settings.epochs}"
        with progress_bar(label, self.train_loader.num_images) as bar:
            metrics = train_one_epoch(learner, self.train_loader, self.augment, epoch=epoch, bar=bar)
        validation = evaluate(learner.evaluated, self.val_loader, self.prepare, learner.compute)
        learner.schedule.end_epoch(validation.loss)
        is_best = self.progress.take_in(metrics, validation, time.perf_counter() - start)
        self._record(label, is_best)

    def draw(self) -> None:
        """Draw the curves of what is recorded."""
        try:
            if self.progress.history:
                plot_curves(self.progress.history, self.tracker.folder / "curves.png", self.tracker.folder.name)
        except Exception as error:  # of whatever kind: metrics.jsonl has the numbers
            again = f"--resume {self.tracker.folder}"
            print(f"The curves were not drawn ({describe_error(error)}); make them again with: {again}", flush=True)
        self.last_drawn = time.perf_counter()

    def _record(self, label: str, is_best: bool) -> None:
        if is_best:
            self._save(BEST)
        self._save(LAST, training=self._state())
        self.tracker.log(self.progress.history[-1])
        if time.perf_counter() - self.last_drawn >= DRAW_SECONDS:
            self.draw()
        print(_epoch_line(label, self.progress.history[-1], is_best), flush=True)

    def _save(self, name: str, **more: Any) -> None:
        save_checkpoint(
            self.tracker.folder / name,
            model=self.learner.evaluated,
            class_names=self.data.class_names,
            preprocessing=self.data.preprocessing,
            epoch=self.progress.epoch,
            metrics=self.progress.history[-1],
            **self.about,
            **more,
        )

    def _state(self) -> dict[str, Any]:
        """What ``last.pt`` holds beyond the weights that are evaluated."""
        learner = self.learner
        return {
            "optimizer": learner.optimizer.state_dict(),
            "schedule": learner.schedule.state_dict(),
            "scaler": learner.compute.scaler.state_dict(),
            "progress": vars(self.progress),
            # With an average, the checkpoint's own state_dict is the average.
            "weights": learner.model.state_dict() if learner.average else None,
            "average_updates": learner.average.updates if learner.average else 0,
        }

    def _add_groups(self, epoch: int) -> None:
        """Hand the parameters that begin to learn in ``epoch`` to the optimiser."""
        for group in self.release(epoch) if self.release is not None else ():
            self.learner.schedule.add_group(group)


def _epoch_line(label: str, metrics: Mapping[str, Any], is_best: bool) -> str:
    return (
        f"{label}  train loss {metrics['train_loss']:.3f} accuracy {metrics['train_accuracy']:.1%}  "
        f"val loss {metrics['val_loss']:.3f} accuracy {metrics['val_accuracy']:.1%}{' *' if is_best else '  '}  "
        f"lr {metrics['learning_rate']:.2g}  {metrics['images_per_second']:,.0f} images/s  "
        f"{metrics['epoch_seconds']:.1f} s"
    )
