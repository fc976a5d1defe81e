"""Train every strategy, and the CNN from scratch, on the same data, and set them side by side.

    python partB/compare.py --backbone mobilenet_v2 --data nature_12K --seeds 3 --epochs 10
    python partB/compare.py --strategies head full scratch --minutes 10 --data FOLDER --image_size 160

Every run is a process of its own, so that its peak memory is its own. Settings that are not listed by --help, such as
--data, --image_size or --learning_rate, go to every run.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from naturalist.entry import entry_point
from naturalist.errors import UserError
from naturalist.runs.folder import read_metrics

ROOT = Path(__file__).resolve().parent.parent
SCRATCH = "scratch"
STRATEGIES = ("head", "partial", "full", "gradual", SCRATCH)
MAX_EPOCHS = 100
"""Under equal time; a head whose features are computed trains an epoch in milliseconds."""


def main() -> None:
    """Parse the command line, train, evaluate and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--strategies",
        nargs="+",
        default=list(STRATEGIES),
        choices=STRATEGIES,
        metavar="STRATEGY",
        help=f"what to compare, of {', '.join(STRATEGIES)} (default: all)",
    )
    parser.add_argument("--backbone", nargs="+", default=["resnet50"], help="one or more (default: resnet50)")
    parser.add_argument("--weights", nargs="+", default=["DEFAULT"], help="one for each backbone (default: DEFAULT)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each strategy (default: %(default)s)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=int, default=10, help="equal epochs for all (default: %(default)s)")
    length.add_argument("--minutes", type=float, help="instead: equal time for all, by a pilot epoch of each")
    parser.add_argument("--config", help="YAML file of settings for the adapted backbones")
    parser.add_argument("--scratch_config", help="YAML file of settings for the CNN from scratch")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("comparison"),
        help="new folder for runs, table and pictures (default: %(default)s)",
    )
    arguments, passed_on = parser.parse_known_args()
    compare_strategies(arguments, passed_on)


def compare_strategies(arguments: argparse.Namespace, passed_on: list[str]) -> None:
    """Train, evaluate on the test set, and compare; seed after seed, so that an early end leaves whole rounds."""
    from naturalist.compare.compare import compare_runs
    from naturalist.evaluation.evaluate import evaluate_run

    runs_dir = arguments.output / "runs"
    if arguments.seeds < 1:
        raise UserError(f"seeds must be at least 1, but it is {arguments.seeds}.")
    if len(arguments.weights) not in (1, len(arguments.backbone)):
        raise UserError("give one --weights for all backbones or one for each.")
    if runs_dir.exists():
        raise UserError(f"{str(runs_dir)!r} holds runs already; name another folder with --output.")
    contestants = _contestants(arguments)
    epochs = {
        name: arguments.epochs
        if arguments.minutes is None
        else _epochs_in(arguments.minutes, name, command, arguments.output / "pilots", passed_on)
        for name, command in contestants.items()
    }
    folders = []
    for seed in range(arguments.seeds):
        for name, command in contestants.items():
            folder = _train(
                command, f"{name}_seed-{seed}", runs_dir, [*passed_on, f"--epochs={epochs[name]}", f"--seed={seed}"]
            )
            evaluate_run(folder, quiet=True)
            folders.append(folder)
    compare_runs(folders, arguments.output)


def _contestants(arguments: argparse.Namespace) -> dict[str, list[str]]:
    """Name of a run → script and settings."""
    weights = arguments.weights * (len(arguments.backbone) if len(arguments.weights) == 1 else 1)
    contestants = {}
    for backbone, weight in zip(arguments.backbone, weights, strict=True):
        for strategy in arguments.strategies:
            if strategy != SCRATCH:
                contestants[f"{backbone}_{strategy}"] = [
                    "partB/finetune.py",
                    *([f"--config={arguments.config}"] if arguments.config else []),
                    f"--backbone={backbone}",
                    f"--weights={weight}",
                    f"--strategy={strategy}",
                ]
    if SCRATCH in arguments.strategies:
        contestants[SCRATCH] = [
            "partA/train.py",
            *([f"--config={arguments.scratch_config}"] if arguments.scratch_config else []),
        ]
    return contestants


def _epochs_in(minutes: float, name: str, command: list[str], runs_dir: Path, passed_on: list[str]) -> int:
    """How many epochs fit, by the second epoch of a pilot: the first may have things to set up.

    A gradual run is measured as a full one, which it becomes.
    """
    pilot = ["--strategy=full" if part == "--strategy=gradual" else part for part in command]
    folder = _train(pilot, name, runs_dir, [*passed_on, "--epochs=2"])
    return max(1, min(MAX_EPOCHS, int(60 * minutes / read_metrics(folder)[1]["epoch_seconds"])))


def _train(command: list[str], name: str, runs_dir: Path, settings: list[str]) -> Path:
    script, *own = command
    print(f"\n{name}", flush=True)
    finished = subprocess.run(
        [sys.executable, ROOT / script, *own, *settings, f"--name={name}", f"--runs_dir={runs_dir}"]
    )
    if finished.returncode:
        raise UserError(f"{script} ended with exit code {finished.returncode}; its message is above.")
    return runs_dir / name


if __name__ == "__main__":
    with entry_point():
        main()
