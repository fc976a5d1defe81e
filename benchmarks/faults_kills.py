"""Trainings that are killed at random moments and resumed."""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from time import sleep

import torch

from benchmarks import forked
from naturalist.data.sources.sample import make_sample

KILLS = 100
TIMES = ("epoch_seconds", "images_per_second")
TINY = [
    "--image_size=32",
    "--num_filters=4",
    "--filter_organization=same",
    "--dense_units=8",
    "--batch_size=8",
    "--device=cpu",
    "--wandb=disabled",
    "--no_validation_pictures",
    "--epochs=6",
    "--ema_decay=0.9",
    "--mixup=0.2",
    "--checkpoint_seconds=0.05",
]


def kills(folder: Path, chance: Random) -> Iterator[str | None]:
    """Kill trainings, each at several moments, until there were enough."""
    make_sample(folder / "pictures", train_images=160, test_images=10)
    whole = forked.prepare("partA/train.py", "--data=pictures", "--name=whole", *TINY, folder=folder)
    killed = number = 0
    while killed < KILLS:
        number += 1
        command = ("partA/train.py", "--data=pictures", f"--name=parts-{number}", *TINY, "--resume=auto")
        while True:
            training = forked.start(*command, folder=folder)
            sleep(chance.uniform(0, 1.2 * whole.seconds))
            if not training.has_ended():
                training.kill()
                killed += 1
                yield _damage(folder / "runs" / f"parts-{number}")
            elif (folder / "runs" / f"parts-{number}" / "summary.json").is_file():
                break
            else:
                yield forked.run(*command, folder=folder).fault or "a training ended without its summary"
                break
        yield _difference(folder / "runs" / "whole", folder / "runs" / f"parts-{number}")


def _damage(run: Path) -> str | None:
    """What a kill left that cannot be read."""
    for path in run.glob("*.pt"):
        try:
            torch.load(path, weights_only=True)
        except Exception as error:  # of whatever kind: that is what is looked for
            return f"{path.name} cannot be read after a kill: {error}"
    for path in run.glob("*.json"):
        try:
            json.loads(path.read_bytes())
        except ValueError as error:
            return f"{path.name} cannot be read after a kill: {error}"
    return None


def _difference(whole: Path, parts: Path) -> str | None:
    """Between a run that nothing interrupted and one that was killed and resumed."""
    first, second = (torch.load(run / "last.pt", weights_only=True)["state_dict"] for run in (whole, parts))
    if not all(torch.equal(first[name], second[name]) for name in first):
        return f"{parts.name}: other weights"
    lines = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (whole, parts)]
    for one, other in zip(*lines, strict=True):
        if any(one[name] != other[name] for name in one if name not in TIMES):
            return f"{parts.name}: other metrics in epoch {one['epoch']}"
    return None
