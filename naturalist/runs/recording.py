"""Around a training: the run folder before it, and the reason when it fails."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from naturalist.entry import IN_SWEEP
from naturalist.errors import UserError
from naturalist.runs.checkpoint import load_for_resume
from naturalist.runs.folder import create_run_folder
from naturalist.runs.tracking import Tracker
from naturalist.settings.run_settings import RunSettings


@contextmanager
def record_run(settings: RunSettings, job_type: str) -> Iterator[Tracker]:
    """A run folder and its tracker; when training fails, the reason is recorded before the error goes on.

    With ``resume`` the folder is that run's, cut back to its last finished epoch.

    Args:
        settings: all of them, for they are what is recorded.
        job_type: what W&B calls it.
    """
    record = settings.record
    if record.resume:
        folder = Path(record.resume)
        history = load_for_resume(folder)["training"]["progress"]["history"]
    else:
        folder = create_run_folder(Path(record.runs_dir), record.name or settings.describe())
        history = None
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
        if history is None:
            shutil.rmtree(folder)  # nothing of a run that did not begin
        raise
    print(f"Run: {folder}", flush=True)
    try:
        yield tracker
    except BaseException as error:
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        if isinstance(error, KeyboardInterrupt):
            if IN_SWEEP in os.environ:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            tracker.finish({"status": "stopped", "reason": "It was stopped before training began."})
        else:
            tracker.finish({"status": "failed", "reason": reason}, exit_code=1)
        raise
