"""A whole training: build, restore, one epoch after the other, record each."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import nn

from naturalist.data.balance import loss_weights
from naturalist.data.dataset import Loading, TrainingData, Varied
from naturalist.data.distillation import distillation_of
from naturalist.data.share import Share
from naturalist.device import COMPARED, Compute, forget_peak_memory, peak_memory_mb, tell_difference
from naturalist.entry import stop_requested, stops_held
from naturalist.errors import UserError
from naturalist.memory import require_memory
from naturalist.models.parameter_groups import Release, parameter_groups
from naturalist.progress import progress_bar
from naturalist.ranks import Agreement, take_from_first, this_rank
from naturalist.reading import one_line
from naturalist.runs.checkpoint import BEST, fill_model, load_checkpoint, load_for_resume
from naturalist.runs.tracking import Tracker
from naturalist.settings.groups import AugmentationSettings, TrainingSettings
from naturalist.training.average import WeightAverage
from naturalist.training.captured import CapturedStep
from naturalist.training.epoch import (
    Learner,
    evaluate,
    optimizer_steps,
    refuse_non_finite,
    train_one_epoch,
)
from naturalist.training.keeping import Keeper
from naturalist.training.optim import Schedule, make_optimizer, restore_optimizer
from naturalist.training.parallel import Parallel
from naturalist.training.state import EpochSoFar, Progress
from naturalist.training.telling import Telling
from naturalist.wording import counted

ShouldStop = Callable[[dict[str, Any]], bool]
"""Asked after every epoch with its metrics; True ends the fit."""


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
    checkpoint_seconds: float = 60.0,
    should_stop: ShouldStop | None = None,
    release: Release | None = None,
) -> dict[str, Any]:
    """Train, validate and record epoch by epoch; keep the best checkpoint and the last.

    The best is chosen by ``select_by``. A stop that is requested saves in mid-epoch, a KeyboardInterrupt ends at once.
    With ``resume`` the fit goes on from ``last.pt``, to the weights and metrics of one that nothing interrupted.

    Args:
        model: the network, on any device.
        data: images and their split.
        training: how it learns.
        augmentation: how training batches are varied.
        compute: device and arithmetic.
        tracker: takes the metrics; its folder takes the checkpoints and ``curves.png``.
        about: what every checkpoint says beside weights and progress: ``description`` (of the model), ``data`` …
        resume: go on from ``last.pt``.
        checkpoint_seconds: how often ``last.pt`` is written within an epoch; 0 for only at the end of each.
        should_stop: asked after every epoch with its metrics; True ends the fit.
        release: what begins to learn when; by default all that is trainable learns from the first on.

    Returns:
        The summary: ``status`` (``"finished"``, ``"stopped early"`` by ``patience``, ``"pruned"`` by ``should_stop`` or
        ``"stopped"`` from outside), epochs, the best of them, seconds, memory, device and precision.

    Raises:
        NonFiniteLoss: see :func:`naturalist.training.epoch.train_one_epoch`.
        UserError: when a checkpoint does not fit, or cannot be written.
    """
    run = _Fit(model, data, training, augmentation, compute, tracker, about, checkpoint_seconds, release)
    if resume:
        run.restore()
    try:
        with stops_held():
            status = run.train(should_stop)
    except KeyboardInterrupt:
        run.forget_unsaved()
        status = "stopped"
    except Exception:
        with suppress(Exception):  # nothing may stand before what went wrong
            run.record_unsaved()
            run.telling.draw(run.progress)
        raise
    summary = {"status": status, **run.summary()}
    tracker.conclude(summary)  # before anything that may fail
    with suppress(KeyboardInterrupt):  # a stop that comes now costs the picture
        run.telling.draw(run.progress)
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
        checkpoint_seconds: float,
        release: Release | None,
    ) -> None:
        forget_peak_memory(compute.device)
        self.start = time.perf_counter()
        model = compute.place(model)
        self.tracker, self.release, self.rank = tracker, release, this_rank()
        share = None if self.rank.is_alone else Share(self.rank, augmentation.data_augmentation and augmentation.mixes)
        loading = Loading(training.batch_size, training.seed, compute, share, training.sampling)
        self.train_loader, self.val_loader = data.loaders(loading)
        self.augment, self.prepare = data.transforms(augmentation, training.seed)
        if compute.device.type == "cpu":  # weights, gradients, and two averages of those; a GPU says what it lacks
            trained = sum(weight.nbytes for weight in model.parameters() if weight.requires_grad)
            require_memory(4 * trained, "the network's training")
        groups = parameter_groups(model, training.decay) if release is None else release.groups(0)
        optimizer = make_optimizer(groups, training, compute.device)
        steps = optimizer_steps(len(self.train_loader), training.accumulate)
        first_epochs = 0 if release is None else release.first_epochs
        schedule = Schedule(optimizer, training, steps, training.epochs, first_epochs)
        parallel = None if share is None else Parallel(model, sync_batch_norm=training.sync_batch_norm)
        average = WeightAverage(model, training.ema_decay) if training.ema_decay else None
        weights = loss_weights(data.plan.counts, training.class_weights, compute.device)
        self.learner = Learner(model, optimizer, schedule, training, compute, average, parallel, weights)
        self.captured = self._capture()
        self.asked = Agreement(self.rank)
        told = {"class_names": data.class_names, "preprocessing": data.preprocessing, **about}
        self.keeper = Keeper(tracker.folder, self.learner, told, checkpoint_seconds, writes=self.rank.is_first)
        self.progress, self.so_far = Progress(), EpochSoFar(compute.device)
        self.recorded_epochs, self.planned_epochs = 0, training.epochs
        loaders = self.train_loader, self.val_loader
        self.telling = Telling(tracker.folder, training.epochs, *loaders, training.select_by)

    @property
    def seconds(self) -> float:
        """What the fit took, with what it took before it was resumed."""
        return time.perf_counter() - self.start

    def summary(self) -> dict[str, Any]:
        """How far it came, what that took, and how it computed."""
        compute = self.learner.compute
        return {
            **self.progress.summary(),
            "seconds": self.seconds,
            "saving_seconds": self.keeper.seconds,
            "device": compute.device.type,
            "precision": compute.precision,
            "peak_memory_mb": peak_memory_mb(compute.device),
            "weight_decay": self.learner.settings.decay,
            **{name: getattr(self.learner.settings, name) for name in ("class_weights", "sampling", "select_by")},
        }

    def restore(self) -> None:
        """Take up the state in ``last.pt``."""
        content = load_for_resume(self.tracker.folder)
        try:
            self._load(content)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            problem = one_line(str(error))
            raise UserError(
                f"this checkpoint cannot be resumed: it does not fit the run's settings ({problem})."
            ) from None
        progress, so_far = self.progress, self.so_far
        self.keeper.take_up(progress, _epoch_of(self.tracker.folder / BEST))
        if not so_far.batches:
            self.keeper.save_best()  # its training was killed just before
        self.recorded_epochs = progress.epoch  # the tracker took them over
        epochs = self.learner.settings.epochs
        if self._has_ended():
            how = "" if progress.epoch >= epochs else ", of which the last brought nothing better (--patience)"
            trained = counted(progress.epoch, "epoch")
            print(f"Nothing is left to train after {trained}{how}; --epochs and --patience allow more.")
        elif so_far.batches:
            place = so_far.place(len(self.train_loader))
            print(f"Going on with {place} of epoch {progress.epoch + 1}/{epochs}.", flush=True)

    def _load(self, content: Mapping[str, Any]) -> None:
        state, learner = content["training"], self.learner
        if (learner.average is not None) != (state["weights"] is not None):
            raise UserError("this checkpoint cannot be resumed: it was trained with another ema_decay.")
        self.progress = Progress(**{item.name: state["progress"][item.name] for item in fields(Progress)})
        if state["so_far"] is not None:
            if state["so_far"]["batches"] > len(self.train_loader):
                raise ValueError(f"batch {state['so_far']['batches']} of {len(self.train_loader)}")
            self.so_far.load_state_dict(state["so_far"], with_sums=self.rank.is_first)
        # The groups of an epoch that has begun are in the optimiser.
        for epoch in range(1, self.progress.epoch + (self.so_far.batches > 0)):
            self._add_groups(epoch)
        fill_model(learner.model, state["weights"] if learner.average else content["state_dict"])
        if learner.average:
            fill_model(learner.average.model, content["state_dict"])
            learner.average.updates = state["average_updates"]
        restore_optimizer(learner.optimizer, state["optimizer"])
        learner.schedule.load_state_dict(state["schedule"])
        learner.compute.scaler.load_state_dict(state["scaler"])
        self.planned_epochs = state["planned_epochs"] or self.planned_epochs
        self.start -= state["seconds"]

    def train(self, should_stop: ShouldStop | None) -> str:
        """Train to the end; returns the status."""
        settings, compute = self.learner.settings, self.learner.compute
        if compute.device.type in COMPARED:
            images, _ = next(self.train_loader.epoch(0))
            tell_difference(self.learner.model, compute.lay_out(self.prepare(images)))
        if not self._has_ended():
            steps = optimizer_steps(len(self.train_loader), settings.accumulate)
            self.telling.begin(compute, steps, self.progress.epoch)
        while not self._has_ended():
            if self.asked.now(stop_requested()):
                self.keep()
                raise KeyboardInterrupt
            self.run_epoch()
            progress = self.progress
            if should_stop is not None and should_stop(progress.history[-1]) and progress.epoch < settings.epochs:
                self.keep()
                return "pruned"
        self.keep()
        return "finished" if self.progress.epoch >= settings.epochs else "stopped early"

    def run_epoch(self) -> None:
        """Train and validate once, or what is left of it, and record it."""
        epoch, learner, so_far = self.progress.epoch, self.learner, self.so_far
        start = time.perf_counter() - so_far.seconds
        if epoch > 0 and not so_far.batches and self._add_groups(epoch):
            self.keeper.write_remembered()  # some of these weights were frozen, and begin to change
            self.telling.pace_changes()
        if learner.parallel is not None:
            learner.parallel.wrap()
        label = f"epoch {epoch + 1}/{learner.settings.epochs}"
        images = self.train_loader.num_images - so_far.images
        with progress_bar(label, images, ending=self.telling.left) as bar:
            metrics = train_one_epoch(
                learner,
                self.train_loader,
                self.augment,
                epoch=epoch,
                so_far=so_far,
                after_step=self._after_step,
                bar=bar,
                captured=self.captured,
            )
        if learner.parallel is not None:
            take_from_first(learner.evaluated)
        validation = evaluate(
            learner.evaluated, self.val_loader, self.prepare, learner.compute, after_batch=self._save_if_due
        )
        learner.schedule.end_epoch(validation.loss)
        metrics |= {**validation.metrics(), "epoch_seconds": time.perf_counter() - start}
        self.progress = self.progress.after(metrics, learner.settings.select_by)
        self.so_far = EpochSoFar(learner.compute.device)
        if self.keeper.may_save():
            self.keep()
        elif self.progress.is_best:
            self.keeper.remember_best(self.progress)
        self.telling.epoch(label, self.progress)

    def keep(self) -> None:
        """Save and record all epochs so far, if they are not yet."""
        if self.keeper.kept.epoch < self.progress.epoch:
            self._save_last(self.so_far)

    def forget_unsaved(self) -> None:
        """After an interrupt: what was reached is what is saved; what it cut off of the record is made good."""
        self.progress = self.keeper.kept
        self._record()

    def record_unsaved(self) -> None:
        """After an error: nothing can go on from these weights, but what was measured and the best of it is kept."""
        self.keeper.write_remembered()
        self._log()

    def _record(self) -> None:
        """Let ``best.pt`` and the metrics follow ``last.pt``."""
        self.keeper.save_best()
        self._log()

    def _log(self) -> None:
        for metrics in self.progress.history[self.recorded_epochs :]:
            self.recorded_epochs += 1  # before: a line too few is mended by resuming, one too many is not
            self.tracker.log(metrics)

    def _has_ended(self) -> bool:
        settings, progress = self.learner.settings, self.progress
        since = max(progress.best_epoch, 0 if self.release is None else self.release.complete)
        is_patient = not settings.patience or progress.epoch - since < settings.patience
        return progress.epoch >= settings.epochs or not is_patient

    def _after_step(self) -> None:
        self.telling.after_step(self.so_far)
        self._save_if_due()

    def _save_if_due(self) -> None:
        """Between two steps: save what the epoch has come to if it is time, or a stop was requested, which it obeys."""
        is_stopping, is_due = self.asked.soon(stop_requested(), self.keeper.is_due())
        if not is_stopping and not is_due:
            return
        so_far = self.so_far if self.rank.is_alone else self.so_far.of_all_ranks()
        refuse_non_finite(so_far, self.progress.epoch, self.learner)  # to go on from would be of no use
        self._save_last(so_far)
        if is_stopping:
            raise KeyboardInterrupt

    def _save_last(self, so_far: EpochSoFar) -> None:
        """Write ``last.pt``, and let the record follow."""
        more = {"planned_epochs": self.planned_epochs, "seconds": self.seconds}
        self.keeper.save_last(self.progress, so_far, **more)
        self._record()

    def _add_groups(self, epoch: int) -> bool:
        """Hand the parameters that begin to learn in ``epoch`` to the optimiser; returns whether there are any."""
        groups = self.release.groups(epoch) if self.release is not None else []
        for group in groups:
            self.learner.schedule.add_group(group)
        if groups:
            self.captured = None  # whose memory the next one's first steps can use
            self.captured = self._capture()
        return bool(groups)

    def _capture(self) -> CapturedStep | None:
        """The step that is replayed while the same weights learn."""
        step = self.learner.captured_step(is_taught=distillation_of(self.augment) is not None)
        if step is not None and isinstance(self.augment, Varied):
            self.augment.capture()
        return step


def _epoch_of(checkpoint: Path) -> int | None:
    """Epochs that a checkpoint was trained for; None for one that is not there or damaged."""
    try:
        return int(load_checkpoint(checkpoint)["epoch"])
    except UserError:
        return None
