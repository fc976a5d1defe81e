"""Around a training: the run folder before it, and the reason when it fails."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from naturalist.entry import run_in_progress, stops_ignored
from naturalist.errors import UserError, reason_of
from naturalist.printable import printable
from naturalist.ranks import this_rank
from naturalist.runs.checkpoint import BEST, LAST, load_for_resume
from naturalist.runs.folder import create_run_folder, locked_run, read_metrics
from naturalist.runs.records import SELECTED, best_of
from naturalist.runs.tracking import Tracker
from naturalist.settings.groups import SelectBy
from naturalist.settings.run_settings import RunSettings


@contextmanager
def record_run(settings: RunSettings, job_type: str, *, may_begin: bool = False) -> Iterator[Tracker]:
    """A run folder and its tracker; when training fails, the reason is recorded before the error goes on.

    With ``resume`` the folder is that run's, cut back to its last finished epoch. Of several ranks the first records.

    Args:
        settings: all of them, for they are what is recorded.
        job_type: what W&B calls it.
        may_begin: a run to resume that was killed before its first checkpoint begins anew in its folder.

    Raises:
        UserError: when another process trains the run, or the folder cannot be used.
    """
    record = settings.record
    is_new = not record.resume
    if not this_rank().is_first:
        with run_in_progress():
            yield _NoTracker(Path(record.resume or record.runs_dir))
        return
    if record.resume:
        folder = Path(record.resume)
    else:
        folder = create_run_folder(Path(record.runs_dir), record.name or settings.describe())
    with run_in_progress(), locked_run(folder):
        history = None if is_new else _history_of(folder, may_begin)
        try:
            tracker = Tracker(
                folder,
                settings.recorded(),
                record.wandb,
                project=record.wandb_project,
                name=folder.name,
                job_type=job_type,
                history=history,
            )
        except BaseException:
            if is_new:
                shutil.rmtree(folder, ignore_errors=True)  # nothing of a run that did not begin
            raise
        print(f"Run: {printable(folder)}", flush=True)
        try:
            yield tracker
        except BaseException as error:
            with stops_ignored():
                _record_end(tracker, error, settings.training.select_by)
            raise


class _NoTracker(Tracker):
    """Records nothing: another rank does.

    Args:
        folder: of the run that goes on.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._run = folder, None

    def log(self, metrics: dict[str, Any]) -> None:
        pass

    def write(self, name: str, text: str) -> None:
        pass

    def set_summary(self, values: dict[str, Any]) -> None:
        pass

    def conclude(self, summary: dict[str, Any], exit_code: int = 0) -> None:
        pass


def _history_of(folder: Path, may_begin: bool) -> list[dict[str, Any]] | None:
    """The epochs that a resumed run goes on from; None when it has to begin anew."""
    if may_begin and not (folder / LAST).is_file():
        (folder / BEST).unlink(missing_ok=True)  # killed between the two; the new run's first epoch writes it again
        return None
    history: list[dict[str, Any]] = load_for_resume(folder)["training"]["progress"]["history"]
    return history


def _record_end(tracker: Tracker, error: BaseException, select_by: SelectBy) -> None:
    """Record why a run ended before its time; what was recorded first stands."""
    if not isinstance(error, KeyboardInterrupt):
        summary: dict[str, Any] = {"status": "failed", "reason": reason_of(error)}
    elif epochs := _recorded_epochs(tracker.folder):
        summary = {"status": "stopped", "epochs": len(epochs)}
        best = epochs[best_of(epochs, select_by)]
        summary |= {"best_epoch": best["epoch"]}
        summary |= {f"best_{name}": best.get(name) for name in SELECTED}
    else:
        summary = {"status": "stopped", "reason": "It was stopped before training began."}
    with suppress(Exception):  # the error that ended the run must not be hidden by one of its record
        tracker.finish(summary, exit_code=0 if summary["status"] == "stopped" else 1)


def _recorded_epochs(folder: Path) -> list[dict[str, Any]]:
    with suppress(UserError):
        return read_metrics(folder)
    return []
