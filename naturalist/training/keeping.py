"""The checkpoints of a training that goes on, and when they are written: saving may take a small share of its time."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from naturalist.models.state_dict import plain_state_dict, strip_wrappers
from naturalist.runs.checkpoint import BEST, LAST, save_checkpoint
from naturalist.training.epoch import Learner
from naturalist.training.state import EpochSoFar, Progress

SAVING_SHARE = 0.02
"""Of a training's time, at most for saving. The head of a large network learns an epoch in less than a save takes."""


class Keeper:
    """Writes ``last.pt`` and ``best.pt``, whose content agrees with what is recorded.

    Epochs that are shorter than saving allows wait for the next that is kept; of the best among them the weights that
    learn are remembered.

    Args:
        folder: of the run.
        learner: what is kept.
        about: what every checkpoint says beside weights and progress.
        pause: seconds after which ``last.pt`` is written within an epoch; 0 for only at the end of each.
        writes: of several ranks only the first does, and says when; the others go along.
    """

    def __init__(
        self, folder: Path, learner: Learner, about: Mapping[str, Any], pause: float, *, writes: bool = True
    ) -> None:
        self._folder, self._learner, self._about, self._pause = folder, learner, about, pause
        self._writes = writes
        self.kept = Progress()
        """What ``last.pt`` holds."""
        self.seconds = 0.0
        """What saving took."""
        self._last_saved, self._cost = time.perf_counter(), 0.0
        self._best_epoch = 0
        """Of ``best.pt``."""
        self._remembered: tuple[Progress, Mapping[str, Tensor]] | None = None

    def may_save(self) -> bool:
        """Whether saving again would take no more than its share of the time."""
        return self._cost <= SAVING_SHARE * (time.perf_counter() - self._last_saved)

    def is_due(self) -> bool:
        """Whether it is time to save within an epoch."""
        is_time = 0 < self._pause <= time.perf_counter() - self._last_saved
        return self._writes and is_time and self.may_save()

    def take_up(self, progress: Progress, best_epoch: int | None) -> None:
        """Go on from what the files hold; a best epoch that is later than the last is trained again."""
        self.kept = progress
        self._best_epoch = best_epoch if best_epoch is not None and best_epoch <= progress.epoch else 0

    def remember_best(self, progress: Progress) -> None:
        """Keep a copy of the best weights so far, which are written later."""
        names = strip_wrappers(dict(self._learner.model.named_parameters()))
        frozen = {name for name, parameter in names.items() if not parameter.requires_grad}
        state = plain_state_dict(self._learner.evaluated)
        self._remembered = progress, {name: value if name in frozen else value.clone() for name, value in state.items()}

    def write_remembered(self) -> None:
        """Write the best weights that were only remembered, if there are any."""
        if self._remembered is not None:
            progress, weights = self._remembered
            self._save(BEST, weights, progress)
            self._best_epoch, self._remembered = progress.epoch, None

    def save_last(self, progress: Progress, so_far: EpochSoFar, **more: Any) -> None:
        """Write ``last.pt``: the weights that are evaluated, and all else that it takes to go on.

        Args:
            progress: epochs finished.
            so_far: the epoch under way.
            more: plain values for the training state.
        """
        start = time.perf_counter()
        learner = self._learner
        if self._remembered is not None and self._remembered[0].epoch < progress.best_epoch:
            self._remembered = None  # a better epoch has just ended
        self.write_remembered()
        state = {
            "optimizer": learner.optimizer.state_dict(),
            "schedule": learner.schedule.state_dict(),
            "scaler": learner.compute.scaler.state_dict(),
            "progress": vars(progress),
            "so_far": so_far.state_dict() if so_far.batches else None,
            # With an average, the checkpoint's own state_dict is the average.
            "weights": learner.model.state_dict() if learner.average else None,
            "average_updates": learner.average.updates if learner.average else 0,
            **more,
        }
        self._save(LAST, plain_state_dict(learner.evaluated), progress, measured=not so_far.batches, training=state)
        self.kept = progress
        self._end(start)

    def save_best(self) -> None:
        """Let ``best.pt`` follow ``last.pt``, if that is the best epoch and it has not yet."""
        if self.kept.is_best and self._best_epoch != self.kept.epoch:
            start, cost = time.perf_counter(), self._cost
            self._save(BEST, plain_state_dict(self._learner.evaluated), self.kept)
            self._best_epoch = self.kept.epoch
            self._end(start)
            self._cost += cost  # of both

    def _save(
        self, name: str, state: Mapping[str, Tensor], progress: Progress, *, measured: bool = True, **more: Any
    ) -> None:
        if not self._writes:
            return
        save_checkpoint(
            self._folder / name,
            state_dict=state,
            epoch=progress.epoch,
            metrics=progress.history[-1] if measured else None,  # what was measured with these weights
            **self._about,
            **more,
        )

    def _end(self, start: float) -> None:
        self._last_saved = time.perf_counter()
        self._cost = self._last_saved - start
        self.seconds += self._cost
