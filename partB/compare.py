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
MAX_EPOCHS = 100  # under equal time: a head whose features are computed trains an epoch in milliseconds


class Options(argparse.Namespace):
    """What --help lists."""

    strategies: list[str]
    backbone: list[str]
    weights: list[str]
    seeds: int
    epochs: int
    minutes: float | None
    config: str | None
    scratch_config: str | None
    output: Path


def main() -> None:
    """Parse the command line, train, evaluate and compare."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout, allow_abbrev=False)
    add = parser.add_argument
    listed = f"what to compare, of {', '.join(STRATEGIES)} (default: all)"
    add("--strategies", nargs="+", default=list(STRATEGIES), choices=STRATEGIES, metavar="STRATEGY", help=listed)
    add("--backbone", nargs="+", default=["resnet50"], help="one or more (default: resnet50)")
    add("--weights", nargs="+", default=["DEFAULT"], help="one for each backbone (default: DEFAULT)")
    add("--seeds", type=int, default=3, help="runs of each strategy (default: %(default)s)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=int, default=10, help="equal epochs for all (default: %(default)s)")
    length.add_argument("--minutes", type=float, help="instead: equal time for all, by a pilot epoch of each")
    add("--config", help="YAML file of settings for the adapted backbones")
    add("--scratch_config", help="YAML file of settings for the CNN from scratch")
    folder = "new folder for runs, table and pictures (default: %(default)s)"
    add("--output", type=Path, default=Path("comparison"), help=folder)
    compare_strategies(*parser.parse_known_args(namespace=Options()))


def compare_strategies(options: Options, passed_on: list[str]) -> None:
    """Train, evaluate on the test set, and compare; seed after seed, so that an early end leaves whole rounds."""
    from naturalist.compare.compare import compare_runs
    from naturalist.evaluation.evaluate import evaluate_run

    runs_dir = options.output / "runs"
    if options.seeds < 1:
        raise UserError(f"seeds must be at least 1, but it is {options.seeds}.")
    if len(options.weights) not in (1, len(options.backbone)):
        raise UserError("give one --weights for all backbones or one for each.")
    if runs_dir.exists():
        raise UserError(f"{str(runs_dir)!r} holds runs already; name another folder with --output.")
    commands = _commands(options)
    epochs = dict.fromkeys(commands, options.epochs)
    if options.minutes is not None:
        pilots = options.output / "pilots"
        epochs = {name: _epochs_in(options.minutes, commands[name], name, pilots, passed_on) for name in commands}
    folders = []
    for seed in range(options.seeds):
        for name, command in commands.items():
            settings = [*passed_on, f"--epochs={epochs[name]}", f"--seed={seed}"]
            folders.append(_train(command, f"{name}_seed-{seed}", runs_dir, settings))
            evaluate_run(folders[-1], quiet=True)
    compare_runs(folders, options.output)


def _commands(options: Options) -> dict[str, list[str]]:
    """Script and settings for each name of a run, the seed's left out."""
    weights = options.weights * (len(options.backbone) if len(options.weights) == 1 else 1)
    config, scratch_config = ([f"--config={file}"] if file else [] for file in (options.config, options.scratch_config))
    commands = {}
    for backbone, weight in zip(options.backbone, weights, strict=True):
        for strategy in options.strategies:
            if strategy != SCRATCH:
                adapted = [f"--backbone={backbone}", f"--weights={weight}", f"--strategy={strategy}"]
                commands[f"{backbone}_{strategy}"] = ["partB/finetune.py", *config, *adapted]
    if SCRATCH in options.strategies:
        commands[SCRATCH] = ["partA/train.py", *scratch_config]
    return commands


def _epochs_in(minutes: float, command: list[str], name: str, runs_dir: Path, passed_on: list[str]) -> int:
    """How many epochs fit, by the second epoch of a pilot: the first may have things to set up."""
    # A gradual run is measured as a full one, which it becomes.
    pilot = ["--strategy=full" if part == "--strategy=gradual" else part for part in command]
    folder = _train(pilot, name, runs_dir, [*passed_on, "--epochs=2"])
    return max(1, min(MAX_EPOCHS, int(60 * minutes / read_metrics(folder)[1]["epoch_seconds"])))


def _train(command: list[str], name: str, runs_dir: Path, settings: list[str]) -> Path:
    print(f"\n{name}", flush=True)
    place = [f"--name={name}", f"--runs_dir={runs_dir}"]
    finished = subprocess.run([sys.executable, ROOT / command[0], *command[1:], *settings, *place])
    if finished.returncode:
        raise UserError(f"{command[0]} ended with exit code {finished.returncode}; its message is above.")
    return runs_dir / name


if __name__ == "__main__":
    with entry_point():
        main()
