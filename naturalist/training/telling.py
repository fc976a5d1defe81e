"""What a training says while it goes: how it computes, a line for every epoch, how long it will take, its curves."""

import time
from pathlib import Path
from statistics import mean

import torch

from naturalist.data.dataset import Batches
from naturalist.device import Compute
from naturalist.errors import describe_error
from naturalist.plots.curves import plot_curves
from naturalist.progress import print_numbers
from naturalist.ranks import this_rank
from naturalist.runs.environment import shell_word
from naturalist.settings.groups import SelectBy
from naturalist.training.state import EpochSoFar, Progress
from naturalist.wording import counted, percent, roughly

DRAW_SECONDS = 5
"""``curves.png`` is drawn at most so often while training goes on: drawing takes as long as a short epoch."""

MEASURE_SECONDS = 5
"""For so long steps are measured before anything is said of the whole run; the first, which sets up, never counts."""

VALIDATION_COST = 1 / 3
"""Of an image, relative to training on it, before it was measured: a pass forward without the one back."""

EPOCHS_MEASURED = 3
"""The last epochs tell how long the next take."""


class Telling:
    """Tells of a training that is under way.

    Args:
        folder: of the run, where the curves are drawn.
        epochs: of the whole training.
        train: training batches.
        val: validation batches.
        select_by: what the best epoch is chosen by.
    """

    def __init__(
        self, folder: Path, epochs: int, train: Batches, val: Batches, select_by: SelectBy = "val_accuracy"
    ) -> None:
        self._folder, self._epochs, self._train, self._val = folder, epochs, train, val
        self._select_by = select_by
        self._last_drawn = time.perf_counter()
        self._first: tuple[float, int] | None = None
        """When the first step of this process was done, and how many images of its epoch were, then."""
        self._image_seconds: float | None = None
        self._measured: list[float] = []
        self._epochs_done = self._images_done = 0
        self._is_told = False

    def begin(self, compute: Compute, steps: int, epochs_done: int) -> None:
        """Say how the training computes and what it consists of, in a line, and what its lines mean, in another."""
        self._epochs_done = epochs_done
        device, where = compute.device, str(compute.device)
        if device.type == "cuda":
            where = f"{device} ({torch.cuda.get_device_name(device)})"
        elif device.type == "cpu":
            where = f"cpu, {counted(torch.get_num_threads(), 'thread')}"
        epochs = counted(self._epochs, "epoch") if not epochs_done else f"epochs {epochs_done + 1} to {self._epochs}"
        amount = f"{counted(self._train.num_images, 'image')} in {counted(steps, 'step')}"
        print_numbers(f"Training on {where}, {compute.precision}: {epochs} of {amount}")
        print_numbers("Epoch lines: loss and accuracy, training and validation; * the best so far")

    def after_step(self, so_far: EpochSoFar) -> None:
        """Take in a step; once enough were measured, say what an epoch and the whole run will take."""
        now, self._images_done = time.perf_counter(), so_far.images
        if self._measured:
            return
        if self._first is None or so_far.images <= self._first[1]:
            self._first = now, so_far.images
            return
        self._image_seconds = (now - self._first[0]) / (so_far.images - self._first[1])
        left = self._left()
        if not self._is_told and left is not None and now - self._first[0] >= MEASURE_SECONDS:
            self._is_told = True
            print(
                f"At this pace an epoch takes about {roughly(self._epoch_seconds() or 0)}, "
                f"the rest of the run about {roughly(left)}.",
                flush=True,
            )

    def left(self) -> str:
        """How long the whole run will still take, in words; empty while that is not known."""
        left = self._left()
        return "" if left is None else f"run: {roughly(left)} left"

    def pace_changes(self) -> None:
        """Forget what was measured, for more of the network learns from now on."""
        self._first, self._image_seconds = None, None
        self._measured.clear()

    def epoch(self, label: str, progress: Progress) -> None:
        """Say how an epoch went, and draw the curves now and then."""
        seconds = progress.history[-1]["epoch_seconds"]
        if self._first and self._image_seconds is not None and not self._measured:
            seconds = min(seconds, time.perf_counter() - self._first[0])
        self._measured.append(seconds)
        self._epochs_done, self._images_done = progress.epoch, 0
        left = self._left()
        ending = f", {roughly(left)} left" if left and progress.epoch < self._epochs else ""
        print_numbers(epoch_line(label, progress, self._select_by) + ending)
        if time.perf_counter() - self._last_drawn >= DRAW_SECONDS:
            self.draw(progress)

    def draw(self, progress: Progress) -> None:
        """Draw the curves of what is recorded; a failure costs the picture and a line."""
        try:
            if this_rank().is_first and progress.history and self._folder.is_dir():
                plot_curves(progress.history, self._folder / "curves.png", self._folder.name, self._select_by)
        except Exception as error:  # of whatever kind: metrics.jsonl has the numbers
            again = f"--resume {shell_word(self._folder)}"
            print(f"The curves were not drawn ({describe_error(error)}); make them again with: {again}", flush=True)
        self._last_drawn = time.perf_counter()

    def _epoch_seconds(self) -> float | None:
        """What an epoch takes, as far as is known."""
        if self._measured:
            return mean(self._measured[-EPOCHS_MEASURED:])
        if self._image_seconds is None:
            return None
        return self._image_seconds * (self._train.num_images + VALIDATION_COST * self._val.num_images)

    def _left(self) -> float | None:
        """Seconds to the end of the last epoch, as far as is known."""
        seconds = self._epoch_seconds()
        done = self._epochs_done + self._images_done / self._train.num_images
        return None if seconds is None else seconds * (self._epochs - done)


def epoch_line(label: str, progress: Progress, select_by: SelectBy = "val_accuracy") -> str:
    """How the last epoch went, in less than 80 columns, with room for what is left; a star marks the best so far.

    The balanced accuracy stands in the place of the plain one where epochs are chosen by it.
    """
    metrics = progress.history[-1]
    train = f"train {_loss(metrics['train_loss'])} {percent(metrics['train_accuracy'])}"
    is_balanced = select_by == "val_balanced_accuracy"
    accuracy = percent(metrics[select_by if is_balanced else "val_accuracy"])
    val = f"val {_loss(metrics['val_loss'])} {'balanced ' if is_balanced else ''}{accuracy}"
    seconds = metrics["epoch_seconds"]
    took = f"{seconds:.1f} s" if seconds < 99.95 else roughly(seconds)
    return f"{label}  {train}  {val} {'*' if progress.is_best else ' '}  {took}"


def _loss(value: float) -> str:
    """In at most six characters."""
    return f"{value:.{3 if value < 99 else 1}f}" if value < 999 else f"{value:.0e}"
