"""The runs of a sweep, read from what they left: run folders, or W&B's offline folders."""

import json
import math
import struct
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from naturalist.errors import UserError
from naturalist.reading import DamagedRecord, Settings, fit, read_json
from naturalist.runs.folder import read_config, read_metrics
from naturalist.runs.records import RunRecord, is_number
from naturalist.runs.schemas import Environment, Summary
from naturalist.settings.groups import BOOKKEEPING

CUT_OFF = "cut off"
"""Status of a run that a sweep gave up to run it again."""

STATES = {"finished": "finished", "stopped early": "finished", "pruned": "pruned", "failed": "failed"}
"""States of the runs that ended by themselves, by what their summaries say."""


LEAVE_OUT = "mend the file, or leave the run out by moving its folder away"
"""What to do with a damaged run."""


def read_runs(folders: list[Path], metric: str, maximize: bool) -> list[RunRecord]:
    """Read every run in ``folders``, oldest first.

    Args:
        folders: run folders, folders of run folders, or W&B's ``wandb`` folders.
        metric: its best epoch becomes the run's value.
        maximize: whether more is better.

    Raises:
        UserError: when a folder holds no run.
    """
    runs = []
    for folder in folders:
        found = [
            _read_folder(path, metric, maximize) if path.is_dir() else _read_wandb(path, metric, maximize)
            for path in _find(folder)
        ]
        if not found:
            raise UserError(f"{str(folder)!r} holds no runs.")
        runs += found
    return sorted(runs, key=lambda run: (run.started, run.name))


def searched_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """What was tried: the settings without places, names and machines."""
    return {name: value for name, value in settings.items() if name not in BOOKKEEPING}


def _find(folder: Path) -> Iterator[Path]:
    """Run folders, and W&B files that belong to none."""
    if (folder / "config.yaml").is_file() and (folder / "metrics.jsonl").is_file():
        yield folder
    elif any(folder.glob("*.wandb")):
        yield from folder.glob("*.wandb")
    elif folder.is_dir():
        if (folder / "config.yaml").is_file() and not any(folder.glob("wandb/*/*.wandb")):
            yield folder  # ended before its first epoch
        for part in sorted(folder.iterdir()):
            if part.is_dir() and not part.is_symlink():  # W&B links the latest run
                yield from _find(part)


def _read_folder(folder: Path, metric: str, maximize: bool) -> RunRecord:
    settings = read_config(folder)
    summary_file = folder / "summary.json"
    summary = read_json(summary_file, Summary, LEAVE_OUT) if summary_file.is_file() else None
    history = read_metrics(folder) if (folder / "metrics.jsonl").is_file() else []
    made = (folder / "config.yaml").stat().st_mtime
    seconds = summary_file.stat().st_mtime - made if summary else None
    summary = summary or Summary()
    value, start = _best(history, metric, maximize), _started(folder / "environment.json", made)
    state = _state(summary, CUT_OFF)
    return RunRecord(folder.name, state, dict(settings), value, len(history), start, seconds, summary.reason)


def _started(path: Path, made: float) -> float:
    """When a run was started, in seconds since 1970; of one whose record is damaged, when its settings were written."""
    try:
        started = read_json(path, Environment, "its file's time counts instead").started if path.is_file() else None
        # "started" has whole seconds; within one, the file's time tells the order.
        return datetime.fromisoformat(started).timestamp() + made % 1 if started else made
    except (DamagedRecord, ValueError, OverflowError) as error:
        print(error if isinstance(error, DamagedRecord) else f"{path} has no readable time; its file's counts instead.")
        return made


def _read_wandb(path: Path, metric: str, maximize: bool) -> RunRecord:
    """Read the file that W&B keeps of a run until it is uploaded."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no stubs
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # made when it is imported

    settings: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    history: list[dict[str, Any]] = []
    name, start, otherwise = path.parent.name, 0.0, CUT_OFF
    try:
        for record in map(Record.FromString, _wandb_records(path)):
            if record.HasField("run"):
                name, start = record.run.display_name or name, record.run.start_time.ToMicroseconds() / 1e6
                settings |= _items(record.run.config.update)
            elif record.HasField("config"):
                settings |= _items(record.config.update)
            elif record.HasField("history"):
                history.append(_items(record.history.item))
            elif record.HasField("summary"):
                summary |= _items(record.summary.update)
            elif record.HasField("exit"):
                otherwise = "failed" if record.exit.exit_code else "finished"
    except (DecodeError, ValueError, OverflowError, RecursionError):
        raise UserError(f"{path} is damaged; {LEAVE_OUT}.") from None
    known = {name: value for name, value in settings.items() if name not in ("environment", "_wandb")}
    kept = fit(known, Settings, f"a setting in {path}", LEAVE_OUT)
    history = [entry for entry in history if metric in entry]
    end = fit(summary, Summary, f"the summary in {path}", LEAVE_OUT)
    value, state = _best(history, metric, maximize), _state(end, otherwise)
    return RunRecord(name, state, dict(kept), value, len(history), start, end.seconds, end.reason)


def _state(summary: Summary, otherwise: str) -> str:
    # A W&B agent prunes by a signal, which the run can only record as being stopped.
    if summary.status in ("stopped", CUT_OFF):
        return "pruned" if summary.sweep is not None else CUT_OFF
    return STATES.get(summary.status, otherwise)


def _wandb_records(path: Path) -> Iterator[bytes]:
    """The records of a ``.wandb`` file: a LevelDB log after seven bytes of W&B's own.

    A record lies whole in a block of 32 KiB, or in parts over several; each part has a checksum, a length and a kind
    (1 whole, 2 first, 3 middle, 4 last). A last part that was cut off is left out. W&B's own reader is in its Go half.
    """
    content = path.read_bytes()
    if content[:4] != b":W&B":
        raise UserError(f"{path} is no W&B file.")
    block, position, record = 32768, 7, b""
    while position + 7 <= len(content):
        if block - position % block < 7:  # no room for a header: padding
            position += block - position % block
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        part = content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind == 0 or len(part) < length:
            return
        record = part if kind in (1, 2) else record + part
        if kind in (1, 4):
            yield record


def _items(items: Iterable[Any]) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _best(history: list[dict[str, Any]], metric: str, maximize: bool) -> float | None:
    values = [entry[metric] for entry in history if is_number([entry.get(metric)])]
    return (max if maximize else min)(filter(math.isfinite, values), default=None)
