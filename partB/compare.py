"""Train every strategy, and the CNN from scratch, on the same data, and set them side by side.

    python partB/compare.py --backbone mobilenet_v2 --data nature_12K --seeds 3 --epochs 10
    python partB/compare.py --strategies head full scratch --minutes 10 --data FOLDER --image_size 160

Every run is a process of its own, so that its peak memory is its own.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from naturalist.entry import entry_point, shows_tracebacks
from naturalist.errors import UserError
from naturalist.ranks import require_alone
from naturalist.runs.folder import read_metrics
from naturalist.settings.arguments import option
from naturalist.settings.command_line import parse_options_and_rest
from naturalist.settings.part_a import CnnSettings
from naturalist.settings.part_b import FinetuneSettings

ROOT = Path(__file__).resolve().parent.parent
SCRATCH = "scratch"
STRATEGIES = ["head", "partial", "full", "gradual", "probe-then-full", SCRATCH]
MAX_EPOCHS = 100  # under equal time: a head whose features are computed trains an epoch in milliseconds


@dataclass(frozen=True)
class Options:
    """Train every strategy, and the CNN from scratch, on the same data, and set them side by side.

    Settings of the two training scripts, such as --data, --image_size or --learning_rate, go to every run.
    """

    EXAMPLE: ClassVar[str] = "python partB/compare.py --backbone mobilenet_v2 --data nature_12K --seeds 3 --epochs 10"

    strategies: list[Literal["head", "partial", "full", "gradual", "probe-then-full", "scratch"]] = option(
        STRATEGIES, metavar="NAME …"
    )
    """What to compare."""
    backbone: list[str] = option(["resnet50"], metavar="NAME …")
    """One or more."""
    weights: list[str] = option(["DEFAULT"], metavar="NAME …", path=True)
    """One for all backbones, or one for each."""
    seeds: int = 3
    """Runs of each strategy."""
    epochs: int | None = None
    """Equal epochs for all; by default 10."""
    minutes: float | None = None
    """Instead: equal time for all, by a pilot epoch of each."""
    config: str | None = option(None, path=True)
    """YAML file of settings for the adapted backbones."""
    scratch_config: str | None = option(None, path=True)
    """YAML file of settings for the CNN from scratch."""
    out: Path = option(Path("comparison"), short="-o", metavar="FOLDER")
    """New folder for runs, table and pictures."""


def main() -> None:
    """Parse the command line, train, evaluate and compare."""
    require_alone("partB/compare.py")
    scripts = (FinetuneSettings, CnnSettings)
    compare_strategies(*parse_options_and_rest(Options, "python partB/compare.py", sys.argv[1:], scripts))


def compare_strategies(options: Options, passed_on: list[str]) -> None:
    """Train, evaluate on the test set, and compare; seed after seed, so that an early end leaves whole rounds."""
    from naturalist.compare.compare import compare_runs
    from naturalist.evaluation.evaluate import evaluate_run

    runs_dir = options.out / "runs"
    if options.seeds < 1:
        raise UserError(f"seeds must be at least 1, but it is {options.seeds}.")
    if len(options.weights) not in (1, len(options.backbone)):
        raise UserError("give one --weights for all backbones or one for each.")
    if runs_dir.exists():
        raise UserError(f"{str(runs_dir)!r} holds runs already; name another folder with --out.")
    if options.epochs is not None and options.minutes is not None:
        raise UserError("--epochs and --minutes exclude each other; give one of them.")
    commands = _commands(options)
    epochs = dict.fromkeys(commands, 10 if options.epochs is None else options.epochs)
    if options.minutes is not None:
        pilots = options.out / "pilots"
        epochs = {name: _epochs_in(options.minutes, commands[name], name, pilots, passed_on) for name in commands}
    folders = []
    for seed in range(options.seeds):
        for name, command in commands.items():
            settings = [*passed_on, f"--epochs={epochs[name]}", f"--seed={seed}"]
            folders.append(_train(command, f"{name}_seed-{seed}", runs_dir, settings))
            evaluate_run(folders[-1], quiet=True)
    compare_runs(folders, options.out)


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
    # What becomes a full run is measured as one.
    becomes_full = "--strategy=gradual", "--strategy=probe-then-full"
    pilot = ["--strategy=full" if part in becomes_full else part for part in command]
    folder = _train(pilot, name, runs_dir, [*passed_on, "--epochs=2"])
    return max(1, min(MAX_EPOCHS, int(60 * minutes / read_metrics(folder)[1]["epoch_seconds"])))


def _train(command: list[str], name: str, runs_dir: Path, settings: list[str]) -> Path:
    print(f"\n{name}", flush=True)
    place = [f"--name={name}", f"--runs_dir={runs_dir}", *(["--debug"] if shows_tracebacks() else [])]
    finished = subprocess.run([sys.executable, ROOT / command[0], *command[1:], *settings, *place])
    if finished.returncode:
        raise UserError(f"{command[0]} ended with exit code {finished.returncode}; its message is above.")
    return runs_dir / name


if __name__ == "__main__":
    with entry_point():
        main()
