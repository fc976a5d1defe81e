"""What a search here costs: a trial in a worker against the script started anew, and a cheap first look against none.

    python -m benchmarks.sweep overhead FOLDER [--trials 8] [--repeats 3]
    python -m benchmarks.sweep fidelity FOLDER [--seeds 3] [--fidelity image_size=32] [--filters 16 32] [--set …]

``overhead`` trains the same trials in one sweep with one worker, and by ``partA/train.py`` started for each of them.
What a command takes beyond its epochs (training and validation), be it start, imports, opening the data, checkpoints,
curves or the sweep's report, is overhead. The ways take turns, so that a drift of the machine's speed meets all.

``fidelity`` runs the search of ``sweep.yaml`` as it is, and with ``--fidelity``, for several seeds of the search, the
two taking turns at being first. The maximum over many trials flatters the settings that reached it; so the settings
that each search chose are trained again, with other seeds (and so other splits), and that tells what the choice costs.
"""

import argparse
import csv
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import yaml

from naturalist.data.images import available_cores
from naturalist.runs.folder import read_metrics

FRESH_SEEDS = range(101, 104)
"""Seeds with which the chosen settings are trained again; no search uses them."""


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measures = parser.add_subparsers(dest="measure", required=True)
    overhead = measures.add_parser("overhead", help="a trial in a worker against the script started anew")
    overhead.add_argument("--trials", type=int, default=8)
    overhead.add_argument("--repeats", type=int, default=3, help="times that each way is measured")
    fidelity = measures.add_parser("fidelity", help="a cheap first look against none")
    fidelity.add_argument("--seeds", type=int, default=3, help="searches of either kind")
    fidelity.add_argument("--fidelity", nargs="+", default=["image_size=32"], help="as for python -m naturalist sweep")
    fidelity.add_argument("--filters", type=int, nargs="+", default=[16, 32], help="num_filters to search")
    fidelity.add_argument("--count", type=int, default=29, help="trials of a search")
    fidelity.add_argument("--workers", type=int, default=2)
    for measure in (overhead, fidelity):
        measure.add_argument("data", type=Path, help="folder of photographs")
        measure.add_argument(
            "--set",
            dest="fixed",
            nargs="+",
            default=["image_size=64", "train_fraction=0.25"],
            metavar="NAME=VALUE",
            help="settings of every trial (default: %(default)s)",
        )
        measure.add_argument("--out", type=Path, default=None, help="keep the runs there (default: throw them away)")
    arguments = parser.parse_args()
    print(
        f"{available_cores()} CPU cores, {platform.machine()}; Python {platform.python_version()}, torch "
        f"{torch.__version__}",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if arguments.measure == "overhead":
            compare_overhead(folder, arguments)
        else:
            compare_fidelity(folder, arguments)


def compare_overhead(folder: Path, arguments: argparse.Namespace) -> None:
    """Print seconds outside epochs per trial, for each way."""
    sweep = {
        "program": "partA/train.py",
        "method": "grid",
        "metric": {"name": "val_accuracy", "goal": "maximize"},
        "parameters": {
            "epochs": {"value": 2},
            "num_filters": {"value": 16},
            "seed": {"values": list(range(arguments.trials))},
        },
    }
    file = folder / "overhead.yaml"
    file.write_text(yaml.safe_dump(sweep), encoding="utf-8")

    def outside_epochs(name: str, seconds: float) -> float:
        return (seconds - epoch_seconds(folder / name / "runs")) / int(arguments.trials)

    def workers(name: str) -> float:
        return outside_epochs(name, run_sweep(file, folder, name, arguments.data, arguments.fixed))

    def scripts(name: str, *more: str) -> float:
        flags = ["--epochs=2", "--num_filters=16", *more]
        runs, data, fixed = folder / name / "runs", arguments.data, arguments.fixed
        seeds = range(arguments.trials)
        return outside_epochs(name, sum(run_script(runs, data, fixed, f"--seed={seed}", *flags) for seed in seeds))

    ways: dict[str, Callable[[str], float]] = {
        "sweep with one worker": workers,
        "script anew": lambda name: scripts(name, "--no_validation_pictures"),
        "script anew, with its pictures of the validation set": scripts,
    }
    workers("warm-up")  # decodes the photographs, and fills the system's file cache
    measured = [[way(f"{i}-{repeat}") for i, way in enumerate(ways.values())] for repeat in range(arguments.repeats)]
    print(f"{arguments.trials} trials of 2 epochs with {', '.join(arguments.fixed)}; {arguments.repeats} times each")
    print("\n| outside epochs, per trial | seconds (min–max) | ratio to the sweep (min–max) |\n|---|---|---|")
    for i, name in enumerate(ways):
        values = [row[i] for row in measured]
        ratios = [row[i] / row[0] for row in measured]
        print(f"| {name} | {_median(values)} | {_median(ratios)} |")


def compare_fidelity(folder: Path, arguments: argparse.Namespace) -> None:
    """Print seconds and accuracy of searches with and without a cheap first look."""
    sweep = yaml.safe_load(Path("sweep.yaml").read_text(encoding="utf-8"))
    sweep["parameters"]["num_filters"]["values"] = arguments.filters
    file = folder / "search.yaml"
    file.write_text(yaml.safe_dump(sweep), encoding="utf-8")
    ways = {"whole": [], "cheap": [f"--fidelity={item}" for item in arguments.fidelity]}
    for way, more in ways.items():  # decodes the photographs beforehand
        fixed = [*arguments.fixed, "train_fraction=0.01"]
        run_sweep(file, folder, f"warm-up-{way}", arguments.data, fixed, "--count=1", *more)
    print(
        f"sweep.yaml with num_filters {arguments.filters} and {', '.join(arguments.fixed)}; {arguments.count} "
        f"trials, {arguments.workers} workers; cheap: --fidelity {' '.join(arguments.fidelity)}\n\n"
        "| seed | search | seconds | best trial | its settings, trained again |\n|---|---|---|---|---|",
        flush=True,
    )
    seconds, again = {}, {}
    for seed in range(arguments.seeds):
        for way in list(ways)[:: 1 if seed % 2 == 0 else -1]:
            name, flags = f"{way}-{seed}", [f"--count={arguments.count}", f"--workers={arguments.workers}"]
            flags += [f"--seed={seed}", *ways[way]]
            seconds[way, seed] = run_sweep(file, folder, name, arguments.data, arguments.fixed, *flags)
            values = train_best_again(folder / name, arguments.data)
            again[way, seed] = statistics.mean(values)
            print(
                f"| {seed} | {way} | {seconds[way, seed]:.0f} | {best_accuracy(folder / name):.1%} | "
                f"{again[way, seed]:.1%} ({min(values):.1%}–{max(values):.1%}) |",
                flush=True,
            )
    seeds = range(arguments.seeds)
    print(
        f"\ntime, cheap / whole: {_median([seconds['cheap', i] / seconds['whole', i] for i in seeds])}; accuracy, "
        f"cheap − whole, in points: {_median([100 * (again['cheap', i] - again['whole', i]) for i in seeds])}"
    )


def best_accuracy(sweep: Path) -> float:
    """Of all trials of a sweep."""
    with (sweep / "report" / "runs.csv").open(encoding="utf-8", newline="") as rows:
        return max(float(row["best_val_accuracy"] or 0) for row in csv.DictReader(rows))


def train_best_again(sweep: Path, data: Path) -> list[float]:
    """Train a sweep's best settings with fresh seeds; the accuracy of each run's best epoch."""
    best = f"--config={sweep / 'report' / 'best.yaml'}"
    for seed in FRESH_SEEDS:
        run_script(sweep / "again", data, [], best, f"--seed={seed}", "--no_validation_pictures")
    return [max(entry["val_accuracy"] for entry in read_metrics(run)) for run in (sweep / "again").iterdir()]


def run_sweep(file: Path, folder: Path, name: str, data: Path, fixed: list[str], *more: str) -> float:
    """Seconds that a search takes, from its command to its report."""
    command: list[object] = ["-m", "naturalist", "sweep", file, "--out", folder, "--name", name, "--data", data, *more]
    for item in [*fixed, f"cache_dir={folder / 'cache'}"]:
        command += ["--set", item]
    return time_of(command)


def run_script(runs: Path, data: Path, fixed: list[str], *more: str) -> float:
    """Seconds that ``partA/train.py`` takes."""
    return time_of(
        [
            "partA/train.py",
            *more,
            *(f"--{item}" for item in fixed),
            f"--data={data}",
            f"--runs_dir={runs}",
            f"--cache_dir={runs.parent.parent / 'cache'}",
            "--wandb=disabled",
        ]
    )


def time_of(arguments: Sequence[object]) -> float:
    """Seconds that a Python command takes; what it prints is shown when it fails."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, arguments))}\n{done.stdout}")
    return time.perf_counter() - start


def epoch_seconds(runs: Path) -> float:
    """Seconds of all epochs of all runs in a folder."""
    return sum(float(entry["epoch_seconds"]) for run in runs.iterdir() for entry in read_metrics(run))


def _median(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


if __name__ == "__main__":
    main()
