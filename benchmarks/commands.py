"""Rows of the suite on whole commands: a search of 29 trials, the way to the first step, ``--help``."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from benchmarks.measuring import Row, Settings, seconds_of, time_row
from benchmarks.usual import make_photographs
from naturalist.data.images import available_cores

ROOT = Path(__file__).resolve().parent.parent
TRIALS, TRIAL_EPOCHS, TRIAL_SIZE = 29, 1, 64


def sweep(settings: Settings) -> Iterator[Row]:
    """A search of 29 trials against the usual loop started anew with the same settings; once, for it takes long.

    Both decode the same photographs at 64 px and train an epoch per trial.
    """
    images = max(128, settings.images // 2)
    train = make_photographs(settings.folder / "photographs" / "train", images)
    rates = [round(1e-4 * 1.15**number, 7) for number in range(TRIALS)]
    sweep_file = settings.folder / "sweep.yaml"
    sweep_file.write_text(
        yaml.safe_dump(
            {
                "program": str(ROOT / "partA" / "train.py"),
                "method": "grid",
                "metric": {"name": "val_accuracy", "goal": "maximize"},
                "parameters": {"learning_rate": {"values": rates}},
            }
        )
    )
    fixed = [f"image_size={TRIAL_SIZE}", f"epochs={TRIAL_EPOCHS}", "num_filters=32", "filter_organization=same"]
    fixed += ["optimizer=AdamW", f"cache_dir={settings.folder / 'cache'}"]  # whose steps cost what the usual loop's do
    command = ["-m", "naturalist", "sweep", str(sweep_file), "--data", str(train.parent), "--workers", "1"]
    command += [word for item in fixed for word in ("--set", item)]

    def ours() -> None:
        run_timed([*command, "--out", str(settings.folder / "sweeps")])

    def usual() -> None:
        for rate in rates:
            flags = ["--size", TRIAL_SIZE, "--epochs", TRIAL_EPOCHS, "--learning_rate", rate]
            run_timed(["-m", "benchmarks.usual", str(train), *map(str, flags)])

    times = [(seconds_of(ours, settings.device), seconds_of(usual, settings.device))]
    yield time_row(f"{TRIALS} trials", times, f"{images} images, {TRIAL_EPOCHS} epoch each, {available_cores()} cores")


def start(settings: Settings) -> Iterator[Row]:
    """From the command to the first line and to the end of an epoch, against what importing the libraries takes."""
    imports = "import torch, torchvision, matplotlib.pyplot, sklearn.metrics, scipy.stats, wandb"
    data = make_photographs(settings.folder / "photographs" / "train", 128).parent
    flags = ["--data", str(data), "--image_size", "32", "--num_filters", "8", "--epochs", "1", "--wandb", "disabled"]
    flags += ["--runs_dir", str(settings.folder / "runs"), "--cache_dir", str(settings.folder / "cache")]
    train = [str(ROOT / "partA" / "train.py"), *flags, "--no_validation_pictures"]
    ways: dict[str, tuple[Sequence[str], str]] = {
        "--help": ([str(ROOT / "partA" / "train.py"), "--help"], ""),
        "command to its first line": (train, "\n"),
        "command to the end of a tiny first epoch": (train, "epoch 1/"),
    }
    for name, (command, until) in ways.items():
        times = []
        for _ in range(settings.repeats + 1):
            times.append((run_timed(command, until)[0], run_timed(["-c", imports])[0]))
        yield time_row(name, times[1:], "against importing the libraries")


def run_timed(
    arguments: Sequence[str], until: str = "", environment: Mapping[str, str] | None = None
) -> tuple[float, str]:
    """Run ``python arguments…`` in the repository; returns the seconds until it printed ``until``, or ended, and all.

    Raises:
        RuntimeError: when it fails.
    """
    begin = time.perf_counter()
    command = [sys.executable, *arguments]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    assert process.stdout is not None
    seconds, printed = None, ""
    while line := process.stdout.readline():
        printed += line
        if seconds is None and until and until in line:
            seconds = time.perf_counter() - begin
    if process.wait():
        raise RuntimeError(f"{' '.join(arguments)} failed: {printed}")
    return seconds or time.perf_counter() - begin, printed
