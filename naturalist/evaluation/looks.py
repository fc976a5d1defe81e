"""A memory of who has looked at a test set: choosing by test results makes it a validation set.

``test_looks.jsonl`` lies in the folder of runs, where the runs of a sweep lie side by side, one line per look.
"""

import hashlib
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from msgspec import Struct, structs

from naturalist.files import append_line
from naturalist.reading import Count, Share, end_last_line, read_json_lines
from naturalist.runs.checkpoint import BEST
from naturalist.wording import percent

FILE_NAME = "test_looks.jsonl"


class Look(Struct):
    """A line of the memory."""

    test_set: str
    checkpoint: str
    run: str
    epoch: Count
    accuracy: Share | None
    when: str


def record_look(run: Path, files: tuple[str, ...], epoch: int, accuracy: float | None) -> list[dict[str, Any]]:
    """Write down that a checkpoint was tested, and tell who was before.

    Args:
        run: run folder, or a checkpoint file in one.
        files: the test images' paths, by which the test set is recognised.
        epoch: of the checkpoint.
        accuracy: of the checkpoint, in [0, 1]; None where the images were looked at and nothing was measured.

    Returns:
        The earlier looks at these images by other checkpoints in the same folder of runs, each with ``run``,
        ``epoch``, ``accuracy`` and ``when``. A look by the same checkpoint again is no new look.
    """
    folder, checkpoint = (run, run / BEST) if run.is_dir() else (run.parent, run)
    folder = folder.resolve()
    with checkpoint.open("rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()[:16]
    test_set = hashlib.sha256("\n".join(files).encode(errors="surrogateescape")).hexdigest()[:16]
    record = folder.parent / FILE_NAME
    looks = [look for look in read_looks(folder.parent) if look.test_set == test_set]
    own = [look for look in looks if look.checkpoint == digest]
    if all(look.accuracy is None for look in own) and not (own and accuracy is None):
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        look = Look(test_set, digest, folder.name, epoch, accuracy, now)
        end_last_line(record)
        append_line(record, json.dumps(structs.asdict(look)) + "\n")
    others: dict[str, dict[str, Any]] = {}
    for look in looks:  # of a checkpoint that was looked at and then measured, the measurement
        if look.checkpoint != digest:
            others[look.checkpoint] = {key: getattr(look, key) for key in ("run", "epoch", "accuracy", "when")}
    return list(others.values())


def describe_looks(looks: list[dict[str, Any]]) -> str:
    """One sentence for people; empty when there was no earlier look."""
    if not looks:
        return ""
    named = ", ".join(f"{look['run']} (epoch {look['epoch']}, {_result(look)})" for look in looks[-3:])
    more = f" and {len(looks) - 3} more" if len(looks) > 3 else ""
    return (
        f"This is look {len(looks) + 1} at this test set, after {named}{more}: whoever picks the best of these by "
        "its test result makes the result too good; choose by validation."
    )


def _result(look: dict[str, Any]) -> str:
    return "looked at" if look["accuracy"] is None else percent(look["accuracy"])


def read_looks(runs_dir: Path) -> list[Look]:
    """The looks so far; a damaged line is named and left out, for it is no reason not to look."""
    record = runs_dir / FILE_NAME
    if not record.is_file():
        return []
    return read_json_lines(record, Look, "that look is not counted", leave_out=lambda damage: print(damage, flush=True))
