"""What lies in the folders that a report is made of: runs of Part A, runs of Part B, and sweeps."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from msgspec import Struct

from naturalist.compare.compare import read_run
from naturalist.errors import UserError
from naturalist.reading import Count, NotNegative, Ordinal, Share, read_json
from naturalist.report.blocks import marked
from naturalist.runs.folder import read_config
from naturalist.runs.records import Run
from naturalist.runs.schemas import Summary
from naturalist.settings.resume import IDENTITY

DEFAULT_FOLDERS = ("runs", "sweeps", "comparison")
"""Where this project's commands put runs, unless they are told otherwise."""
FINISHED = ("finished", "stopped early")
REMEDY = "mend the file, or leave the run out by moving its folder away"


class Images(Struct, frozen=True):
    """How many images a run had."""

    train: Count = 0
    val: Count = 0
    unused: Count = 0


class Known(Struct):
    """``identity.json``, as far as a report says it."""

    fingerprint: str
    class_names: tuple[str, ...]
    images: Images = Images()


class Score(Struct):
    """Of one class."""

    support: Count
    precision: Share | None = None
    recall: Share | None = None
    f1: Share | None = None


class Tested(Struct):
    """``evaluation/test/metrics.json``, as far as a report says it."""

    accuracy: Share
    balanced_accuracy: Share
    n: Ordinal | None = None
    accuracy_95_interval: tuple[Share, Share] | None = None
    top3_accuracy: Share | None = None
    expected_calibration_error: Share | None = None
    loss: NotNegative | None = None
    fingerprint: str | None = None
    per_class: dict[str, Score] = {}


@dataclass(frozen=True)
class Finished:
    """A finished run: its folder, and what that tells."""

    folder: Path
    run: Run
    summary: Summary
    known: Known | None
    """None for a run of an earlier version."""
    tested: Tested | None

    @property
    def is_adapted(self) -> bool:
        """Whether it is of Part B."""
        return self.run.config.get("strategy") is not None

    @property
    def data_key(self) -> str:
        """Of the images, by content where that is known."""
        return self.known.fingerprint if self.known else f"data {self.run.config['data']}"

    @property
    def validation(self) -> float:
        """Accuracy of its best epoch."""
        return self.run.values["val_accuracy"] or 0.0

    def part(self, name: str) -> Any:
        """One of its settings, None where an earlier version did not know it."""
        return self.run.config.get(name)


@dataclass(frozen=True)
class Sweep:
    """A search of settings."""

    folder: Path
    """In which its trials' run folders lie."""
    trials: list[Finished]

    @property
    def name(self) -> str:
        """As it was given."""
        return self.folder.resolve().parent.name


@dataclass(frozen=True)
class Found:
    """Everything that a report is made of, all on the same images."""

    runs: list[Finished]
    """Not of sweeps."""
    sweeps: list[Sweep]
    notes: list[str] = field(default_factory=list)
    """What was left out, and why."""
    names: Mapping[str, str] = field(default_factory=dict)
    """What people read instead of the name of a class's folder."""

    def called(self, class_name: str) -> str:
        """What a class is called, as blocks hold it."""
        return marked(self.names.get(class_name, class_name))

    @property
    def all(self) -> list[Finished]:
        """All runs, those of sweeps too."""
        return [*self.runs, *(trial for sweep in self.sweeps for trial in sweep.trials)]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the runs, by their folders; none where no run knows them."""
        return next((run.known.class_names for run in self.all if run.known), ())

    def of(self, adapted: bool) -> list[Finished]:
        """The runs of Part B, or those of Part A, not of sweeps."""
        return [run for run in self.runs if run.is_adapted == adapted]

    def best(self, adapted: bool) -> Finished | None:
        """The run that the report is about: the best by validation, of those that were tested if any were."""
        mine = [run for run in self.all if run.is_adapted == adapted]
        whole = [run for run in mine if not run.part("teacher") and run.part("train_fraction") in (None, 1.0)] or mine
        return max([run for run in whole if run.tested] or whole, key=lambda run: run.validation, default=None)


def find_runs(folders: Sequence[Path]) -> Found:
    """Look for runs and sweeps, and keep those on the data that most of them are on.

    Args:
        folders: run folders, sweeps or folders of either; where there are none, those of :data:`DEFAULT_FOLDERS`.

    Raises:
        UserError: for a folder without runs, or one whose record is damaged.
    """
    paths, notes, unfinished = [], [], []
    for folder in folders or [Path(name) for name in DEFAULT_FOLDERS if Path(name).is_dir()]:
        if not folder.is_dir():
            raise UserError(f"there is no folder {str(folder)!r} of runs.")
        paths += list(_walk(folder))
        if folders and not paths:
            raise UserError(f"{str(folder)!r} holds no runs.")
    runs: dict[Path, Finished] = {}
    for path in dict.fromkeys(path.resolve() for path in paths):
        run = _read(path)
        if run is not None:
            runs[path] = run
        elif not _is_trial(path):  # a sweep's pictures show those that ended early, too
            unfinished.append(path.name)
    if unfinished:
        notes.append(f"Left out, for they have not finished or have failed: {_listed(unfinished)}.")
    kept, left_out = _on_most_data(runs.values())
    if left_out:
        notes.append(f"Left out, for they are on other images: {_listed([run.run.name for run in left_out])}.")
    kept, elsewhere = _tested_alike(kept)
    if elsewhere:
        notes.append(f"Not counted, for it is of other test images: the test result of {_listed(elsewhere)}.")
    sweeps: dict[Path, list[Finished]] = {}
    for run in kept:
        if _is_trial(run.folder):
            sweeps.setdefault(run.folder.parent, []).append(run)
    alone = [run for run in kept if not _is_trial(run.folder)]
    return Found(alone, [Sweep(folder, trials) for folder, trials in sweeps.items()], notes)


def _walk(folder: Path) -> Iterator[Path]:
    if (folder / "config.yaml").is_file():
        yield folder
        return
    for part in sorted(folder.iterdir()):
        if part.is_dir() and not part.is_symlink() and not part.name.startswith("."):
            yield from _walk(part)


def _is_trial(run: Path) -> bool:
    """A sweep keeps what its trials printed beside the folder of their runs."""
    return run.parent.name == "runs" and (run.parent.parent / "logs").is_dir()


def _read(folder: Path) -> Finished | None:
    """A run; None for one that has not finished."""
    path = folder / "summary.json"
    if not path.is_file() or not (folder / "metrics.jsonl").is_file():
        return None
    summary = read_json(path, Summary, REMEDY)
    if summary.status not in FINISHED:
        return None
    read_config(folder)
    identity, tested = folder / IDENTITY, folder / "evaluation" / "test" / "metrics.json"
    return Finished(
        folder,
        read_run(folder),
        summary,
        read_json(identity, Known, REMEDY) if identity.is_file() else None,
        read_json(tested, Tested, "evaluate the run again") if tested.is_file() else None,
    )


def _on_most_data(runs: Iterable[Finished]) -> tuple[list[Finished], list[Finished]]:
    """Those on the images that most are on, and the others."""
    runs = list(runs)
    most = Counter(run.data_key for run in runs).most_common(1)
    kept = [run for run in runs if run.data_key == most[0][0]]
    return kept, [run for run in runs if run.data_key != most[0][0]]


def _tested_alike(runs: list[Finished]) -> tuple[list[Finished], list[str]]:
    """The runs without test results on other test images than most; and whose those were."""
    sets = Counter(run.tested.fingerprint for run in runs if run.tested)
    most = sets.most_common(1)[0][0] if sets else None
    kept, elsewhere = [], []
    for run in runs:
        if run.tested and run.tested.fingerprint != most:
            elsewhere.append(run.run.name)
            values = {**run.run.values, "test_accuracy": None, "test_balanced_accuracy": None}
            run = replace(run, tested=None, run=replace(run.run, values=values, test_fingerprint=None))
        kept.append(run)
    return kept, elsewhere


def _listed(names: list[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
