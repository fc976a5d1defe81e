"""A run's folder and the small files in it, each written whole or not at all."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from naturalist.errors import UserError
from naturalist.files import UNFINISHED, write_atomically
from naturalist.reading import Settings, damaged, fit, read_json_lines
from naturalist.runs.schemas import Epoch
from naturalist.settings.places import run_folder_name
from naturalist.settings.yaml_file import read_yaml

LOCK = "run.lock"
"""File in a run folder that a training process holds; the system frees it when the process is killed."""


def create_run_folder(runs_dir: Path, name: str) -> Path:
    """Make ``runs_dir/name``, or ``name-2``, ``name-3`` … when that is taken; two processes never share one.

    The name is made safe by :func:`naturalist.settings.places.run_folder_name`; one that differs from another run's
    only in its case is taken. Raises :class:`UserError` when ``runs_dir`` cannot be written.
    """
    name = run_folder_name(name)
    number = 1
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        there = {other.name.casefold() for other in runs_dir.iterdir()}
        while True:
            folder = runs_dir / (name if number == 1 else f"{name}-{number}")
            if folder.name.casefold() not in there:
                with suppress(FileExistsError):
                    folder.mkdir()  # one atomic step: checks and takes the name
                    return folder
            number += 1
    except FileExistsError:
        raise UserError(
            f"Cannot make a run folder in {runs_dir}: it is a file, or a link that leads nowhere. Choose another one "
            "with --runs_dir."
        ) from None
    except OSError as error:
        raise UserError(
            f"Cannot make a run folder in {runs_dir}: {error.strerror}. Choose another one with --runs_dir."
        ) from error


@contextmanager
def locked_run(folder: Path) -> Iterator[None]:
    """Be the only process that trains this run; what a killed one left half-written is removed.

    Raises :class:`UserError` at once, with nothing written, when another process does.
    """
    path = folder / LOCK
    if not folder.is_dir():
        raise UserError(f"there is no run folder {str(folder)!r}.")
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
        if not path.exists():  # its last holder removed it just before we got it, and another may have made a new one
            lock.release()
            raise Timeout(str(path))
    except Timeout:
        raise UserError(
            f"{str(folder)!r} is being trained by another process; wait for its end, or stop it, and resume then."
        ) from None
    except OSError as error:
        raise UserError(f"cannot lock the run {str(folder)!r}: {error.strerror or error}.") from None
    try:
        for pattern in UNFINISHED:
            for leftover in folder.glob(pattern):
                with suppress(OSError):  # a folder, or one that is not ours to remove, is in nobody's way
                    leftover.unlink()
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # before it is free, else it might be another one's by now
        lock.release()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the epochs recorded in ``folder/metrics.jsonl``, in order.

    A last line without its line end is what a killed process leaves; it counts only when it is whole.
    Raises :class:`UserError` when there is no such file, or another line is damaged.
    """
    path, remedy = folder / "metrics.jsonl", "mend or delete that line"
    if not path.is_file():
        raise UserError(f"Cannot read {path}. Is {folder} the folder of a run?")
    epochs = read_json_lines(path, dict[str, Any], remedy, schema=Epoch)
    for number, (before, after) in enumerate(pairwise(epochs), start=2):
        if after["epoch"] <= before["epoch"]:
            damaged(f"{path}, line {number},", f"epoch {after['epoch']} follows {before['epoch']}", remedy)
    return epochs


def read_config(folder: Path) -> Settings:
    """The settings in ``folder/config.yaml``.

    Raises :class:`UserError` when there is no such file, or it holds what no setting can be.
    """
    path = folder / "config.yaml"
    return fit(read_yaml(path, "settings of the run"), Settings, str(path), "its lines are settings and plain values")


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Write how a run ended to ``folder/summary.json``."""
    write_json(folder / "summary.json", summary)


def json_line(metrics: dict[str, Any]) -> str:
    """One line of JSON; NaN and infinities are null."""
    return json.dumps(_finite(metrics), allow_nan=False) + "\n"


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write an object, indented for people; NaN and infinities are null."""
    write_atomically(path, json.dumps(_finite(content), indent=2, ensure_ascii=False) + "\n")


def _finite(value: Any) -> Any:
    """Replace NaN and infinities, which JSON does not know, by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
