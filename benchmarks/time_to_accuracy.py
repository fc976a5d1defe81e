"""In how many seconds, from the command on, is the usual loop's accuracy reached?

    python -m benchmarks.time_to_accuracy FOLDER [--seeds 5] [--config configs/partA/fast.yaml]

``FOLDER`` holds ``train/`` and ``test/`` (or ``val/``), each with a folder for each class. The usual loop (96 px, 32
filters, Adam with 1e-3, no augmentation) trains five epochs on all of ``train/``; what it reaches on the test images is
the mark. Then ``partA/train.py`` trains the recipe on the same images with a cache of its own each time, so that
decoding counts, and ``naturalist evaluate`` tells its test accuracy afterwards. Both are timed from the command to the
end of the training; the test set is looked at after that and chooses nothing. The two take turns.
"""

import argparse
import json
import re
import statistics
import tempfile
from pathlib import Path

import torch

from benchmarks.commands import ROOT, run_timed
from benchmarks.measuring import describe_environment
from naturalist.data.layout import find_folders
from naturalist.entry import entry_point
from naturalist.errors import UserError


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of photographs")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "partA" / "fast.yaml")
    arguments = parser.parse_args()
    with entry_point():
        folders = find_folders(arguments.data)
        if folders.test is None:
            raise UserError(f"{str(arguments.data)!r} has no test images; put them in test/ beside train/.")
        print(f"{describe_environment(torch.device('cpu'))}\n", flush=True)
        print("| seed | usual loop | its test accuracy | recipe | its test accuracy | times sooner |", flush=True)
        print("|---|---|---|---|---|---|", flush=True)
        rows = []
        for seed in range(arguments.seeds):
            with tempfile.TemporaryDirectory() as temporary:
                ours = train_ours(arguments.data, arguments.config, seed, Path(temporary))
            usual = train_usual(folders.train, folders.test, seed)
            rows.append((*usual, *ours))
            print(
                f"| {seed} | {usual[0]:.1f} s | {usual[1]:.1%} | {ours[0]:.1f} s | {ours[1]:.1%} "
                f"| {usual[0] / ours[0]:.1f} |",
                flush=True,
            )
        middle = [statistics.median(column) for column in zip(*rows, strict=True)]
        ratio = statistics.median(row[0] / row[2] for row in rows)
        print(f"| median | {middle[0]:.1f} s | {middle[1]:.1%} | {middle[2]:.1f} s | {middle[3]:.1%} | {ratio:.1f} |")


def train_usual(train: Path, test: Path, seed: int) -> tuple[float, float]:
    """Seconds to the end of the usual training, and its test accuracy."""
    command = ["-m", "benchmarks.usual", str(train), "--seed", str(seed), "--test", str(test)]
    seconds, printed = run_timed(command, "trained")
    found = re.search(r"^test accuracy (.+)$", printed, re.MULTILINE)
    assert found is not None
    return seconds, float(found[1])


def train_ours(data: Path, config: Path, seed: int, folder: Path) -> tuple[float, float]:
    """Seconds to the end of the recipe's training, decoding included, and its test accuracy."""
    places = ["--runs_dir", str(folder), "--cache_dir", str(folder / "cache"), "--name", "run", "--wandb", "disabled"]
    command = [str(ROOT / "partA" / "train.py"), "--config", str(config), "--data", str(data), *places]
    seconds, _ = run_timed([*command, "--seed", str(seed)])
    run_timed(["-m", "naturalist", "evaluate", str(folder / "run"), "--cache_dir", str(folder / "cache")])
    metrics = json.loads((folder / "run" / "evaluation" / "test" / "metrics.json").read_text())
    return seconds, float(metrics["accuracy"])


if __name__ == "__main__":
    main()
