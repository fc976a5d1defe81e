"""``naturalist reproduce``, or ``make reproduce``: every step of the work, by the commands that a person would type.

What is done is written down with its command and time, and not done again; what was stopped goes on. Before each
stage stands how long it will take, by what stages took so far.
"""

import hashlib
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from msgspec import Struct, structs

from naturalist.errors import UserError
from naturalist.files import write_atomically
from naturalist.printable import printable
from naturalist.progress import print_numbers
from naturalist.reading import NotNegative, read_json
from naturalist.runs.folder import write_json
from naturalist.settings.places import run_folder_name
from naturalist.settings.reproduce import ReproduceOptions
from naturalist.wording import duration, roughly

SCRIPTS = (Path("partA/train.py"), Path("partB/finetune.py"), Path("sweep.yaml"))
DONE = "stages.json"
IMAGES = {"sample": 1300, "nature_12K": 12000}
"""Of data that may have to be made or fetched first."""
FETCHING = {"sample": 60.0, "nature_12K": 900.0}
"""Seconds that this takes."""
DOUBT = 60.0
"""Seconds of work before what was measured counts for more than what was expected."""
STARTING = 8.0
"""Seconds that a command takes besides its work, roughly, on two cores; so are the other numbers here."""
CNN_RATE, BACKBONE_RATE, READ_RATE = 150.0, 25.0, 150.0
"""Images per second: trained on at 128 px, trained on at 224 px, read and decoded."""
QUICK = {"epochs": [2, 4], "num_filters": [16, 24]}
"""What a quick sweep searches instead."""


class Done(Struct):
    """A stage that is done: a value of ``stages.json``."""

    command: str
    seconds: NotNegative
    expected: NotNegative


@dataclass(frozen=True)
class Plan:
    """What is to be done, every value settled."""

    data: str
    quick: bool
    count: int
    image_size: int
    epochs: int
    strategies: list[str]
    backbone: str
    weights: str
    finetune_epochs: int
    finetune_image_size: int | None
    device: str
    out: Path

    @classmethod
    def of(cls, options: ReproduceOptions) -> "Plan":
        """The options, with their defaults by data."""
        quick = options.quick or options.data == "sample"
        return cls(
            options.data,
            quick,
            options.count or (12 if quick else 29),
            options.image_size or (32 if quick else 128),
            options.epochs or (10 if quick else 30),
            list(options.strategies),
            options.backbone or ("squeezenet1_1" if quick else "resnet50"),
            options.weights,
            options.finetune_epochs or (3 if quick else 10),
            options.finetune_image_size or (64 if quick else None),
            options.device,
            options.out or Path("reproduction") / run_folder_name(Path(options.data).name),
        )

    @property
    def images(self) -> int:
        """How many there are, roughly."""
        if self.data in IMAGES:
            return IMAGES[self.data]
        return sum(1 for path in Path(self.data).rglob("*") if path.suffix) or 1


@dataclass(frozen=True)
class Stage:
    """One command."""

    name: str
    command: list[str]
    """Behind ``python``."""
    leaves: Path
    """A file that is there when it is done."""
    expected: float
    """Seconds, before anything was measured."""
    needs: Path | None = None
    """A file without which it is left out."""
    may_fail: bool = False
    """Whether the rest can be done without it; once one of these failed, the others are not tried."""
    always: bool = False
    """Whether it is done again."""

    @property
    def shown(self) -> str:
        """As a person types it."""
        return shlex.join(["python", *self.command])


def reproduce(options: ReproduceOptions) -> int:
    """Do every stage that is not done yet.

    Returns:
        The exit code: 1 when Part B could not be done, else 0.

    Raises:
        UserError: outside the repository, and when a stage fails without which the rest is nothing.
    """
    missing = [path for path in SCRIPTS if not path.is_file()]
    if missing:
        raise UserError(f"there is no {missing[0]} here; run naturalist reproduce from the repository's root.")
    plan = Plan.of(options)
    plan.out.mkdir(parents=True, exist_ok=True)
    work, number = _Work(plan.out / DONE), 0
    while number < len(stages := list_stages(plan)):  # anew, for what a stage makes decides on those after it
        work.do(stages[number], stages[number:])
        number += 1
    return work.conclude(plan)


def run_command(command: list[str]) -> int:
    """Run ``python`` with these arguments, and wait for it; returns its exit code."""
    with subprocess.Popen([sys.executable, *command]) as process:
        try:
            return process.wait()
        except BaseException:
            process.terminate()  # it saves what it has; a second signal after Ctrl-C only tells it so again
            process.wait()
            raise


class _Work:
    """What was done, and how long that took."""

    def __init__(self, path: Path):
        self._path = path
        self._done: dict[str, Done] = {}
        self._failed: list[Stage] = []
        if path.is_file():
            self._done = read_json(path, dict[str, Done], "delete it to do everything again")

    def do(self, stage: Stage, left: list[Stage]) -> None:
        """Do a stage, unless it is done; ``left`` are this and all after it."""
        if self._is_done(stage):
            print_numbers(f"{stage.name}: done before.")
            return
        if (stage.may_fail and self._failed) or (stage.needs is not None and not stage.needs.is_file()):
            return
        done = list(self._done.values())
        speed = (DOUBT + sum(one.seconds for one in done)) / (DOUBT + sum(one.expected for one in done))
        rest = sum(one.expected for one in left if not self._is_done(one)) * speed
        words = f"{stage.name}: about {roughly(stage.expected * speed)} of about {roughly(rest)} that are left"
        print_numbers(f"\n{words}\n  {printable(stage.shown)}")
        sys.stdout.flush()
        started = time.monotonic()
        code = run_command(stage.command)
        if code == 0 and stage.leaves.is_file():
            seconds = time.monotonic() - started
            self._done[stage.name] = Done(stage.shown, seconds, stage.expected)
            write_json(self._path, {name: structs.asdict(done) for name, done in self._done.items()})
            print_numbers(f"{stage.name}: done in {duration(seconds)}")
        elif code and stage.may_fail:
            self._failed.append(stage)
        else:
            why = f"ended with exit code {code}; its message is above" if code else f"did not make {stage.leaves}"
            raise UserError(f"the stage {stage.name!r} {why}. The same command goes on from here.")

    def conclude(self, plan: Plan) -> int:
        """Say where it all is, and what is missing; returns the exit code."""
        print_numbers(f"\nAll of it is in {printable(plan.out)}; look at {printable(plan.out / 'report.html')}")
        for stage in self._failed:
            print_numbers(
                f"Missing: {stage.name}, and the other strategies with it, for the reason above. Once that is mended, "
                "the same command makes up for it."
            )
        return 1 if self._failed else 0

    def _is_done(self, stage: Stage) -> bool:
        done = self._done.get(stage.name)
        return not stage.always and done is not None and done.command == stage.shown and stage.leaves.is_file()


def list_stages(plan: Plan) -> list[Stage]:
    """Every stage, by what is there now: the best run is named by its settings, which the sweep finds."""
    images, runs = plan.images, plan.out / "runs"
    best_settings = plan.out / "sweeps" / "search" / "report" / "best.yaml"
    best = runs / _name_by(best_settings)
    verb, place = ["-m", "naturalist"], [f"--runs_dir={runs}", f"--device={plan.device}", "--wandb=disabled"]
    audit = [*verb, "audit", plan.data, "-o", str(plan.out / "audit"), f"--runs_dir={runs}"]
    sweep = [*verb, "sweep", str(_sweep_file(plan)), f"--count={plan.count}", f"--data={plan.data}", "--name=search"]
    sweep += ["-o", str(plan.out / "sweeps"), f"--set=image_size={plan.image_size}", f"--set=device={plan.device}"]
    sweep += [f"--set=cache_dir={plan.out / 'cache'}"]
    train = ["partA/train.py", f"--config={best_settings}", f"--epochs={plan.epochs}", f"--name={best.name}"]
    pass_seconds = images * (plan.image_size / 128) ** 2 / CNN_RATE
    sweep_seconds = plan.count * ((3 if plan.quick else 7.5) * pass_seconds + 1)  # epochs on average
    fetching = 0.0 if Path("datasets", plan.data).is_dir() else FETCHING.get(plan.data, 0.0)
    return [
        Stage("audit", audit, plan.out / "audit" / "audit.json", STARTING + fetching + images / READ_RATE),
        Stage("sweep", sweep, best_settings, STARTING + sweep_seconds),
        Stage(
            "train the best",
            [*train, *place, "--resume=auto"],
            best / "summary.json",
            STARTING + plan.epochs * pass_seconds,
        ),
        *_measured(plan, best, "the best"),
        Stage(
            "explain the best",
            [*verb, "explain", str(best), f"--device={plan.device}"],
            best / "explanation" / "predictions.png",
            3 * STARTING,
        ),
        *(stage for strategy in plan.strategies for stage in _fine_tuning(plan, runs / strategy, images, place)),
        *_comparison(plan, [best, *(runs / strategy for strategy in plan.strategies)]),
    ]


def _fine_tuning(plan: Plan, run: Path, images: int, place: list[str]) -> list[Stage]:
    """Train a strategy, and test it."""
    command = ["partB/finetune.py", f"--strategy={run.name}", f"--backbone={plan.backbone}"]
    command += [f"--weights={plan.weights}", f"--data={plan.data}", f"--epochs={plan.finetune_epochs}"]
    size = plan.finetune_image_size
    command += [] if size is None else [f"--image_size={size}"]
    seconds = plan.finetune_epochs * images * ((size or 224) / 224) ** 2 / BACKBONE_RATE
    command += [f"--name={run.name}", *place, "--resume=auto"]
    summary = run / "summary.json"
    return [
        Stage(f"fine-tune: {run.name}", command, summary, STARTING + seconds, may_fail=True),
        *_measured(plan, run, run.name),
    ]


def _measured(plan: Plan, run: Path, name: str) -> list[Stage]:
    command = ["-m", "naturalist", "evaluate", str(run), f"--device={plan.device}"]
    metrics = run / "evaluation" / "test" / "metrics.json"
    return [Stage(f"test {name}", command, metrics, 2 * STARTING, needs=run / "best.pt")]


def _comparison(plan: Plan, runs: list[Path]) -> Iterator[Stage]:
    """Runs side by side, where there are two; and the report."""
    there = [str(run) for run in runs if (run / "evaluation" / "test" / "metrics.json").is_file()]
    verb, comparison = ["-m", "naturalist"], plan.out / "comparison"
    if len(there) > 1:
        command = [*verb, "compare", *there, "-o", str(comparison)]
        yield Stage("compare", command, comparison / "comparison.md", STARTING)
    page = plan.out / "report.html"
    command = [*verb, "report", str(plan.out / "runs"), str(plan.out / "sweeps"), f"--audit={plan.out / 'audit'}"]
    yield Stage("report", [*command, "-o", str(page)], page, 3 * STARTING, always=True)


def _sweep_file(plan: Plan) -> Path:
    """The search of the original work, or the same with smaller networks for fewer epochs."""
    if not plan.quick:
        return Path("sweep.yaml")
    path, search = plan.out / "sweep.yaml", yaml.safe_load(Path("sweep.yaml").read_text(encoding="utf-8"))
    for name, values in QUICK.items():
        search["parameters"][name] = {"values": values}
    if not path.is_file():
        write_atomically(path, yaml.safe_dump(search, sort_keys=False))
    return path


def _name_by(settings: Path) -> str:
    """Of the run with the best settings: other settings are another run."""
    return f"best-{hashlib.sha256(settings.read_bytes()).hexdigest()[:8]}" if settings.is_file() else "best"
