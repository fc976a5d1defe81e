"""What follows a training: a look at the validation set, the uploads, and the words about what is next."""

import gc
from pathlib import Path
from typing import Any

import torch
from torch import nn

from naturalist.entry import seconds_of_process, stops_ignored, stops_let_through
from naturalist.errors import describe_error
from naturalist.evaluation.evaluate import evaluate_run
from naturalist.printable import printable
from naturalist.progress import print_numbers
from naturalist.ranks import leave, this_rank
from naturalist.runs.checkpoint import BEST, LAST
from naturalist.runs.environment import shell_path, shell_word
from naturalist.runs.tracking import Tracker
from naturalist.settings.groups import SelectBy
from naturalist.settings.run_settings import RunSettings
from naturalist.wording import counted, duration, percent

MENTIONED = 1.1
"""How much longer than training a run must take for both to be said."""


def finish_run(
    tracker: Tracker,
    result: dict[str, Any],
    settings: RunSettings,
    model: nn.Module | None = None,
    feature_seconds: float | None = None,
) -> dict[str, Any]:
    """Close the record, look at the validation set with the best checkpoint, say what lies where and what is next.

    The result comes first: whatever fails after it costs a line. Of several ranks the first does all of it, alone.

    Args:
        tracker: of the run.
        result: what :func:`naturalist.training.fit.fit` returned.
        settings: of the run.
        model: what was trained, to be filled with the best weights for the look, as memory may not do for a second.
        feature_seconds: what computing the features took that it was trained on; 0 where they were kept from before.

    Returns:
        The result, with the run's ``folder``.
    """
    folder = tracker.folder
    leave()
    if not this_rank().is_first:
        return result
    with stops_ignored():
        tracker.conclude(result)
        was_cut_short = result["status"] in ("stopped", "pruned")  # whoever stops a run does not want to wait
        if settings.record.validation_pictures and not was_cut_short and (folder / BEST).is_file():
            _look_at_validation(tracker, settings, model)
        if (folder / "curves.png").is_file():  # not when a stop came just before the first was drawn
            tracker.log_image("curves", folder / "curves.png")
        tracker.finish(result)
        _say_what_is_next(folder, result, settings, feature_seconds)
    return {**result, "folder": str(folder)}


def _look_at_validation(tracker: Tracker, settings: RunSettings, model: nn.Module | None) -> None:
    folder = tracker.folder
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # what training needed beyond the weights
    try:
        with stops_let_through():
            evaluate_run(
                folder,
                split="val",
                device=settings.machine.device,
                batch_size=settings.training.batch_size,
                quiet=True,
                tracker=tracker,
                model=model,
            )
    except (Exception, KeyboardInterrupt) as error:  # of whatever kind: the run is finished
        again = f"python -m naturalist evaluate {shell_path(folder)} --split val"
        print(
            f"The look at the validation set failed ({describe_error(error)}); make it again with: {again}", flush=True
        )


def _say_what_is_next(
    folder: Path, result: dict[str, Any], settings: RunSettings, feature_seconds: float | None
) -> None:
    if result["epochs"]:
        print_numbers(
            f"{result['status'].capitalize()} after {counted(result['epochs'], 'epoch')} and "
            f"{_time_taken(result['seconds'], feature_seconds, settings)}; best validation "
            f"{_best(result, settings.training.select_by)} at epoch {result['best_epoch']}."
        )
        shown = (BEST, LAST, "metrics.jsonl", "curves.png", "evaluation/val")
        print(f"In {printable(folder)}: {', '.join(name for name in shown if (folder / name).exists())}")
    elif (folder / LAST).is_file():
        print(f"Stopped before the first epoch was finished; {printable(folder / LAST)} holds what was learnt so far.")
    else:
        print(f"Stopped before the first epoch was finished; {printable(folder)} holds no checkpoint.")
    if result["status"] == "stopped" and (folder / LAST).is_file():
        print(f"Go on with:        python {settings.SCRIPT} --resume {shell_word(folder)}")
    if (folder / BEST).is_file():
        print(f"Test it once with: python -m naturalist evaluate {shell_word(folder)}", flush=True)


def _time_taken(training: float, features: float | None, settings: RunSettings) -> str:
    """What the run took, imports and pictures and all, and what of it for training and for features.

    Of a run that goes on, and of one among others in its process, it is only known what these two took.
    """
    whole = None if settings.record.resume else seconds_of_process()
    whole = training + (features or 0) if whole is None else whole
    parts = [f"{duration(training)} of them for training"] if whole > MENTIONED * training else []
    if features:
        parts.append(f"{duration(features)}{'' if parts else ' of them'} for features")
    kept = ", on features kept from before" if features == 0 else ""
    return f"{duration(whole)}{', ' if parts else ''}{' and '.join(parts)}{kept}"


def _best(result: dict[str, Any], select_by: SelectBy) -> str:
    """What the best epoch was chosen by."""
    value = result[f"best_{select_by}"]
    name = select_by.removeprefix("val_").replace("_", " ")
    return f"{name} {value:.3f}" if select_by == "val_loss" else f"{name} {percent(value)}"
