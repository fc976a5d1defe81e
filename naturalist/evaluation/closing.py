"""What ends a training: a look at the validation set, the summary, and the words about what is next."""

import os
import signal
from contextlib import suppress
from typing import Any

from naturalist.entry import IN_SWEEP
from naturalist.evaluation.evaluate import evaluate_run
from naturalist.runs.checkpoint import BEST
from naturalist.runs.tracking import Tracker
from naturalist.settings.run_settings import RunSettings


def finish_run(tracker: Tracker, result: dict[str, Any], settings: RunSettings) -> dict[str, Any]:
    """Look at the validation set with the best checkpoint, close the record, say what lies where and what is next.

    Args:
        tracker: of the run.
        result: what :func:`naturalist.training.fit.fit` returned.
        settings: of the run.

    Returns:
        The result, with the run's ``folder``.
    """
    folder = tracker.folder
    told = {**result, "folder": str(folder)}
    if result["status"] == "stopped" and IN_SWEEP in os.environ:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # agents repeat it, and what follows saves
        result = {**result, "sweep": os.environ[IN_SWEEP]}
    if not (folder / BEST).is_file():
        tracker.finish(result)
        print(f"Stopped before the first epoch was finished; {folder} holds no checkpoint.")
        return told
    was_cut_short = result["status"] in ("stopped", "pruned")  # whoever stops a run does not want to wait
    if settings.record.validation_pictures and not was_cut_short:
        with suppress(KeyboardInterrupt):  # a stop that comes now costs the look, not the record
            evaluate_run(folder, split="val", device=settings.machine.device, quiet=True, tracker=tracker)
    if (folder / "curves.png").is_file():  # not when a stop came just before the first was drawn
        tracker.log_image("curves", folder / "curves.png")
    tracker.finish(result)
    print(
        f"{result['status'].capitalize()} after {result['epochs']} epochs and {result['seconds']:.0f} s; best "
        f"validation accuracy {result['best_val_accuracy']:.1%} at epoch {result['best_epoch']}."
    )
    shown = ("best.pt", "last.pt", "metrics.jsonl", "curves.png", "evaluation/val")
    print(f"In {folder}: {', '.join(name for name in shown if (folder / name).exists())}")
    if result["status"] == "stopped":
        print(f"Go on with:        python {settings.SCRIPT} --resume {folder}")
    print(f"Test it once with: python -m naturalist evaluate {folder}")
    return told
