"""Which ingredients make Part A's recipe better? Decided by validation accuracy; the test images are not looked at.

    python -m benchmarks.recipe FOLDER [--image_size 64] [--epochs 8] [--seeds 3] [--only NAME …] [--base NAME …]

Trains the base (what the defaults were before anything was measured, with the ingredients of ``--base``), then one
ingredient after the other on top of the best so far, each with every seed on one split. What gains more than the
standard error of the gain, over the same seeds, is kept. With a single seed there is none: nothing is kept, and each
row is the base with one ingredient, as a first look. Results are lines of ``results.jsonl`` in ``--out``; what is there
already is not trained again, so that the same command goes on, also with more seeds or rows. On a GPU, which one
training does not fill, ``--workers`` trains several seeds at once.
"""

import argparse
import contextlib
import json
import math
import multiprocessing
import os
import runpy
import shlex
import statistics
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from msgspec import Struct, structs

from benchmarks.commands import ROOT
from benchmarks.measuring import describe_environment
from naturalist.device import choose_device
from naturalist.entry import entry_point
from naturalist.errors import UserError
from naturalist.files import append_line, write_atomically
from naturalist.reading import end_last_line, read_json_lines
from naturalist.settings.part_a import CnnSettings

Flags = dict[str, Any]


BEFORE: Flags = {
    "num_filters": 32,
    "dropout": 0.3,
    "initialization": "noise",
    "optimizer": "AdamW",
    "learning_rate": 0.002,
    "schedule": "cosine",
    "crop_scale": 0.4,
    "alternating_flip": False,
    "rotation": 10,
    "brightness": 0.2,
    "contrast": 0.2,
    "saturation": 0.2,
    "random_erasing": 0.1,
}
"""The defaults before the recipe, where it has changed them."""


def ingredients(size: int) -> dict[str, Flags]:
    """Name → settings, in the order in which they are tried, for images of ``size`` pixels."""
    return {
        "identity": {"initialization": "identity"},
        "patches": {"initialization": "patches"},
        "one-cycle, rate ×2": {"schedule": "one-cycle", "learning_rate": 0.004},
        "alternating flip": {"alternating_flip": True},
        "larger crops": {"crop_scale": 0.8},
        "whole images": {"crop_scale": 1.0},
        "no colours": {"brightness": 0, "contrast": 0, "saturation": 0},
        "no turns, nothing erased": {"rotation": 0, "random_erasing": 0},
        "no dropout": {"dropout": 0},
        "Muon": {"optimizer": "Muon"},
        "rate ×3": {"learning_rate": 0.006},
        "rate ×6": {"learning_rate": 0.012},
        "average": {"ema_decay": 0.99},
        "average pooling": {"pooling": "average"},
        "biases ×16": {"bias_lr_scale": 16},
        "batch-norm momentum": {"batch_norm_momentum": 0.4},
        "smaller in training": {"pooling": "average", "train_image_size": size * 7 // 8},
        "growing": {"pooling": "average", "first_image_size": max(32, size // 2)},
        "decay ×2": {"weight_decay": 0.1},
        "smaller batches": {"batch_size": 32},
        "smoothing 0.2": {"label_smoothing": 0.2},
        "SGD": {"optimizer": "SGD", "learning_rate": 0.1, "weight_decay": 0.002},
        "ReLU": {"activation": "ReLU"},
        "more in front": {"num_filters": [24, 48, 96, 128, 192]},
        "larger kernels in front": {"kernel_size": [5, 3, 3, 3, 3]},
        "TrivialAugment": {"trivial_augment": True},
    }


@dataclass(frozen=True)
class Result:
    """What one ingredient came to, seed by seed."""

    name: str
    flags: Flags
    accuracies: list[float]
    seconds: list[float]

    def gains_over(self, other: "Result") -> tuple[float, float]:
        """Mean over the seeds, and its standard error, which is nan for one."""
        gains = [ours - theirs for ours, theirs in zip(self.accuracies, other.accuracies, strict=True)]
        error = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.nan
        return statistics.mean(gains), error


class Run(Struct):
    """A line of ``results.jsonl``: one training."""

    flags: Flags
    val_accuracy: float
    seconds: float


class Bench:
    """Trainings of Part A's network, remembered.

    Args:
        out: folder of results, runs and decoded images.
        common: settings of all trainings.
        seeds: of each.
        workers: processes that train.
    """

    def __init__(self, out: Path, common: Flags, seeds: int, workers: int) -> None:
        self.out, self.common, self.seeds = out, common, seeds
        self.file = out / "results.jsonl"
        self.pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))

    def result(self, name: str, flags: Flags) -> Result:
        """Train what is not trained yet."""
        wanted = [{**self.common, **flags, "seed": seed} for seed in range(self.seeds)]
        known = self._read()
        missing = [flags for flags in wanted if not any(run.flags == flags for run in known)]
        for run in self.pool.map(train, missing, [self.out] * len(missing)):
            append_line(self.file, json.dumps(structs.asdict(run)) + "\n")
            known.append(run)
        runs = [next(run for run in known if run.flags == flags) for flags in wanted]
        result = Result(name, flags, [run.val_accuracy for run in runs], [run.seconds for run in runs])
        print(f"{name}: {spread(result.accuracies)}", flush=True)
        return result

    def _read(self) -> list[Run]:
        if not self.file.is_file():
            return []
        end_last_line(self.file)
        return read_json_lines(self.file, Run, "delete that line, and it is trained again", leave_out=print)


def train(flags: Flags, out: Path) -> Run:
    """Train once, in this process; what is said lies beside the runs."""
    places = {"runs_dir": str(out / "runs"), "name": "run", "wandb": "disabled", "cache_dir": str(out / "cache")}
    settings = CnnSettings.of(**{**flags, **places, "validation_pictures": False})
    script = runpy.run_path(str(ROOT / "partA" / "train.py"))
    with (out / f"said-{os.getpid()}.txt").open("a", encoding="utf-8") as said, contextlib.redirect_stdout(said):
        summary = script["train"](settings)
    return Run(flags, summary["best_val_accuracy"], summary["seconds"])


def spread(values: list[float]) -> str:
    """Mean ± deviation of shares, in per cent."""
    deviation = f" ± {statistics.stdev(values):.1%}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1%}{deviation}".replace("% ±", " ±").replace("%", " %")


def line_of(result: Result, best: Result | None) -> tuple[str, bool]:
    """A line of the table, and whether the ingredient is kept."""
    gain, verdict, is_kept = "", "", best is None
    if best is not None:
        mean, error = result.gains_over(best)
        is_kept = mean > error
        gain = f"{100 * mean:+.1f}".replace("-", "−") + ("" if math.isnan(error) else f" ± {100 * error:.1f}")
        verdict = "one seed decides nothing" if math.isnan(error) else "kept" if is_kept else "left out"
    known = best.flags if best else {}
    flags = " ".join(f"`{name}={value}`" for name, value in result.flags.items() if known.get(name) != value)
    seconds = statistics.mean(result.seconds)
    cells = (result.name, flags, spread(result.accuracies), len(result.accuracies), f"{seconds:,.0f}", gain, verdict)
    return f"| {' | '.join(map(str, cells))} |", is_kept


def main() -> None:
    """Train, and write the table after every row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of photographs")
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="seeds that are trained at once")
    parser.add_argument("--threads", type=int, help="of each training; by default as many as there are cores")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="ingredients, in the order in which they are tried")
    parser.add_argument("--base", nargs="+", metavar="NAME", default=[], help="ingredients that the base has already")
    parser.add_argument("--set", nargs="+", metavar="NAME=VALUE", default=[], help="settings of all runs")
    parser.add_argument("--out", type=Path, default=Path("runs") / "recipe", help="folder of results and runs")
    parser.add_argument("--table", type=Path, default=ROOT / "benchmarks" / "RECIPE.md")
    arguments = parser.parse_args()
    with entry_point():
        known = ingredients(arguments.image_size)
        if unknown := {*(arguments.only or known), *arguments.base} - set(known):
            raise UserError(f"there is no ingredient {min(unknown)!r}; there are: {', '.join(known)}.")
        if arguments.seeds < 1 or arguments.workers < 1:
            raise UserError("--seeds and --workers must be at least 1.")
        if arguments.threads:
            os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
        data = str(arguments.data.expanduser().resolve())
        common = {"data": data, "image_size": arguments.image_size, "epochs": arguments.epochs}
        if wrong := [setting for setting in arguments.set if "=" not in setting]:
            raise UserError(f"--set takes NAME=VALUE, not {wrong[0]!r}.")
        pairs = (setting.split("=", 1) for setting in arguments.set)
        common |= {**BEFORE, **{name: yaml.safe_load(value) for name, value in pairs}}
        arguments.out.mkdir(parents=True, exist_ok=True)
        bench = Bench(arguments.out, common, arguments.seeds, arguments.workers)
        flags: Flags = {}
        for name in arguments.base:
            flags |= known[name]
        best = bench.result(" + ".join(["base", *arguments.base]), flags)
        lines = [line_of(best, None)[0]]
        for name in arguments.only or [name for name in known if name not in arguments.base]:
            result = bench.result(name, {**best.flags, **known[name]})
            line, is_kept = line_of(result, best)
            lines.append(line)
            best = result if is_kept else best
            write_atomically(arguments.table, heading(arguments) + "\n".join(lines) + "\n")


def heading(arguments: argparse.Namespace) -> str:
    """What stands above the table's lines."""
    given = {"--base": arguments.base, "--only": arguments.only, "--set": arguments.set}
    more = "".join(f" {shlex.join([flag, *values])}" for flag, values in given.items() if values)
    changed = {setting.split("=", 1)[0] for setting in arguments.set}
    before = " ".join(f"`{name}={value}`" for name, value in BEFORE.items() if name not in changed)
    return (
        f"# Ingredients of Part A's recipe\n\n`python -m benchmarks.recipe {arguments.data.name} --image_size "
        f"{arguments.image_size} --epochs {arguments.epochs} --seeds {arguments.seeds}{more}`\n\n"
        f"{describe_environment(choose_device('auto'))}"
        f"{f'; {arguments.workers} trainings at once' * (arguments.workers > 1)}\n\n"
        f"The base: {before}{', what --set says' * bool(arguments.set)}, else the defaults.\n\n"
        "Validation accuracy of the best epoch, mean ± deviation over n seeds on one split; gain over the best row so "
        "far that was kept, ± its standard error; what gains more than that is kept.\n\n"
        "| ingredient | settings beside those kept so far | validation accuracy | n | seconds | gain | |\n"
        "|---|---|---|---|---|---|---|\n"
    )


if __name__ == "__main__":
    main()
