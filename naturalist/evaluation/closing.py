"""What every training script does around the fit: the run folder before, the closing words after."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from naturalist.errors import UserError
from naturalist.evaluation.evaluate import evaluate_run
from naturalist.runs.checkpoint import BEST, LAST, load_checkpoint
from naturalist.runs.tracking import Tracker, create_run_folder
from naturalist.settings.config import IN_SWEEP, RunSettings


@contextmanager
def record_run(settings: RunSettings, job_type: str) -> Iterator[Tracker]:
    """A run folder and its tracker; when training fails, the reason is recorded before the error goes on.

    With ``settings.resume`` the folder is that run's, cut back to its last finished epoch.
    """
    if settings.resume:
        folder = Path(settings.resume)
        history = load_checkpoint(folder, LAST)["training"]["progress"]["history"]
    else:
        folder = create_run_folder(Path(settings.runs_dir), settings.name or settings.describe())
        history = None
    config = {name: value for name, value in asdict(settings).items() if name != "resume"}
    try:
        tracker = Tracker(
            folder,
            config,
            settings.wandb,
            project=settings.wandb_project,
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


def finish_run(tracker: Tracker, result: dict, settings: RunSettings) -> None:
    """Look at the validation set with the best checkpoint, close the record, say what lies where and what is next.

    Args:
        tracker: of the run.
        result: what :func:`naturalist.training.engine.fit` returned.
        settings: of the run.
    """
    folder = tracker.folder
    if result["status"] == "stopped" and IN_SWEEP in os.environ:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # agents repeat it, and what follows saves
        result = {**result, "sweep": os.environ[IN_SWEEP]}
    if not (folder / BEST).is_file():
        tracker.finish(result)
        print(f"Stopped before the first epoch was finished; {folder} holds no checkpoint.")
        return
    was_cut_short = result["status"] in ("stopped", "pruned")  # whoever stops a run does not want to wait
    if settings.validation_pictures and not was_cut_short:
        with suppress(KeyboardInterrupt):  # a stop that comes now costs the look, not the record
            evaluate_run(folder, split="val", device=settings.device, quiet=True, tracker=tracker)
    if (folder / "curves.png").is_file():  # not when a stop came just before the first was drawn
        tracker.log_image("curves", folder / "curves.png")
    tracker.finish(result)
    print(
        f"{result['status'].capitalize()} after {result['epochs']} epochs and {result['seconds']:.0f} s; best "
        f"validation accuracy {result['best_val_accuracy']:.1%} at epoch {result['best_epoch']}."
    )
    files = [
        name
        for name in ("best.pt", "last.pt", "metrics.jsonl", "curves.png", "evaluation/val")
        if (folder / name).exists()
    ]
    print(f"In {folder}: {', '.join(files)}")
    if result["status"] == "stopped":
        print(f"Go on with:        python {_script(settings)} --resume {folder}")
    print(f"Test it once with: python -m naturalist evaluate {folder}")


def _script(settings: RunSettings) -> str:
    return "partA/train.py" if type(settings).__name__ == "CnnSettings" else "partB/finetune.py"
