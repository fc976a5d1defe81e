"""Commands on a disk that becomes full while they write."""

import ctypes
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random

import torch

from benchmarks import forked
from naturalist.data.sources.sample import make_sample

NEW_USER, NEW_MOUNTS = 0x10000000, 0x00020000
DISK_MB = 96
SHARES = (0.0, 0.03, 0.1, 0.2, 0.35, 0.6, 0.95)
"""Of what a command writes: so much room it finds."""
TINY = [
    "--image_size=32",
    "--num_filters=8",
    "--filter_organization=same",
    "--dense_units=64",
    "--batch_size=32",
    "--device=cpu",
    "--wandb=disabled",
]
COMMANDS: dict[str, tuple[tuple[str, ...], tuple[str, ...] | None]] = {
    "prepare": (("prepare", "--data=pictures", "--image_size=64"), None),
    "train": (
        ("partA/train.py", "--data=pictures", "--name=new", "--epochs=3", *TINY),
        ("partA/train.py", "--data=pictures", "--name=new", "--epochs=3", *TINY, "--resume=auto"),
    ),
    "resume": (("partA/train.py", "--resume=runs/first", "--epochs=4"), None),
    "finetune": (
        ("partB/finetune.py", "--data=pictures", "--name=fine", "--epochs=2", "--backbone=squeezenet1_1")
        + ("--weights=none", "--image_size=32", "--device=cpu", "--wandb=disabled", "--strategy=head"),
        ("partB/finetune.py", "--data=pictures", "--name=fine", "--epochs=2", "--backbone=squeezenet1_1")
        + ("--weights=none", "--image_size=32", "--device=cpu", "--wandb=disabled", "--strategy=head")
        + ("--resume=auto",),
    ),
    "evaluate": (("evaluate", "runs/first"), None),
    "evaluate two": (("evaluate", "runs/first", "runs/second", "--split=val"), None),
    "explain": (("explain", "runs/first", "--images=2", "--only=filters,grad_cam"), None),
    "compare": (("compare", "runs/first", "runs/second", "-o", "comparison"), None),
    "sweep-report": (("sweep-report", "runs", "-o", "report"), None),
    "export torch": (("export", "runs/first", "--format=torch"), None),
    "export onnx": (("export", "runs/first", "--format=onnx"), None),
}
"""Each with the command that goes on when there is room again, where that is another."""


def disk(folder: Path, chance: Random) -> Iterator[str | None]:
    """Every command with every share of the room that it needs."""
    _enter_own_mounts()
    prepared = folder / "prepared"
    prepared.mkdir()
    make_sample(prepared / "pictures", train_images=80, test_images=20)
    for number, name in enumerate(("first", "second", "third", "fourth")):
        arguments = (f"--name={name}", "--data=pictures", "--epochs=2", *TINY, f"--seed={number}")
        forked.prepare("partA/train.py", *arguments, f"--dropout=0.{number + 1}", folder=prepared)
    small = folder / "disk"
    small.mkdir()
    for name, (command, again) in COMMANDS.items():
        with_room = _on_small_disk(small, prepared, command, None, again)
        yield with_room.fault and f"{name} with room: {with_room.fault}"
        for share in SHARES:
            tried = _on_small_disk(small, prepared, command, int(share * with_room.written), again)
            yield tried.fault and f"{name} with {share:.0%} of {with_room.written:,} bytes: {tried.fault}"


class _Tried:
    def __init__(self, fault: str | None, written: int) -> None:
        self.fault, self.written = fault, written


def _on_small_disk(
    disk: Path, prepared: Path, command: tuple[str, ...], room: int | None, again: tuple[str, ...] | None
) -> _Tried:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "none", str(disk)], check=True)
    try:
        home = disk / "home"
        shutil.copytree(prepared, home, symlinks=True)
        before = {path: _digest(path) for path in home.rglob("*") if path.is_file()}
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        if room is not None:
            _fill(disk / "filler", free - room)
        outcome = forked.run(*command, folder=home)
        fault = outcome.fault or _left_behind(home, before)
        written = free - os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        if room is not None and not fault:
            (disk / "filler").unlink()
            repeated = forked.run(*(again or command), folder=home)
            fault = f"afterwards: {repeated.errors or repeated.fault}" if repeated.code else None
        return _Tried(fault, written)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def _left_behind(home: Path, before: dict[Path, str]) -> str | None:
    """What a command left half-written, or spoilt."""
    for path in home.rglob("*"):
        name = str(path.relative_to(home))
        if path.suffix in (".tmp", ".unfinished"):
            return f"{name} was left"
        if path.is_file() and before.get(path) != _digest(path):
            try:
                _read(path)
            except Exception as error:  # of whatever kind: that is what is looked for
                return f"{name} is not whole: {type(error).__name__}: {error}"
    gone = [str(path.relative_to(home)) for path in before if not path.exists()]
    gone = [name for name in gone if not name.endswith(("summary.json", ".lock"))]
    return f"{', '.join(gone)} went" if gone else None


def _read(path: Path) -> None:
    if path.suffix == ".json":
        json.loads(path.read_bytes())
    elif path.suffix == ".jsonl":
        for line in path.read_text().splitlines():
            json.loads(line)
    elif path.suffix == ".pt":
        torch.load(path, weights_only=True)
    elif path.suffix == ".png":
        from PIL import Image

        Image.open(path).load()
    elif path.suffix in (".csv", ".md", ".txt", ".py", ".yaml", ".onnx", ".pt2") and not path.stat().st_size:
        raise ValueError("empty")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _fill(path: Path, size: int) -> None:
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, size))


def _enter_own_mounts() -> None:
    """Have this process see disks of its own, which vanish with it."""
    users, groups = os.getuid(), os.getgid()
    if ctypes.CDLL(None, use_errno=True).unshare(NEW_MOUNTS | (NEW_USER if users else 0)):
        raise SystemExit(f"faults: no small disk can be made here: {os.strerror(ctypes.get_errno())}.")
    if users:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {users} 1")
        Path("/proc/self/gid_map").write_text(f"0 {groups} 1")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
