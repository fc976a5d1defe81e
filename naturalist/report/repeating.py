"""What a report says of how its numbers were made, for somebody who wants to make them again."""

from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from naturalist.evaluation.looks import read_looks
from naturalist.reading import Count, read_json
from naturalist.report.blocks import Block, Heading, Missing, Section, Sentences, Table
from naturalist.report.found import REMEDY, Finished, Found

PACKAGES = ("naturalist", "python", "torch", "torchvision", "numpy")


class Git(Struct):
    """Of ``environment.json``: the checkout."""

    commit: str = ""
    dirty: bool = False


class Made(Struct):
    """``environment.json``, as far as a report says it."""

    started: str = ""
    command: str = ""
    git: Git | None = None
    naturalist: str = ""
    python: str = ""
    torch: str = ""
    torchvision: str = ""
    numpy: str = ""
    platform: str = ""
    cpu: str = ""
    cpu_count: Count | None = None
    ranks: Count | None = None
    gpu: str | None = None


def about_repeating(found: Found) -> Section:
    """The section on seeds, versions, hardware, commands, commits, and looks at the test set."""
    section = Section("again", "How to get the same again")
    made = {
        run.folder: read_json(run.folder / "environment.json", Made, REMEDY)
        for run in found.all
        if (run.folder / "environment.json").is_file()
    }
    if not made:
        section.blocks.append(Missing("No run says how it was made.", "make reproduce DATA=sample"))
        return section
    section.blocks.append(Sentences([*_distinct(made.values()), *_looks(found)]))
    section.blocks += _commands(found, made)
    return section


def _distinct(made: Iterable[Made]) -> list[str]:
    made = list(made)
    versions = {", ".join(f"{name} {getattr(one, name) or '?'}" for name in PACKAGES) for one in made}
    machines = {
        f"{one.cpu or 'unknown CPU'} ({one.cpu_count or '?'} cores), {one.gpu or 'no GPU'}, {one.platform}"
        + (f", {one.ranks} processes" if (one.ranks or 1) > 1 else "")
        for one in made
    }
    commits = {one.git.commit[:12] + (" with changes" if one.git.dirty else "") for one in made if one.git}
    return [
        f"Versions: {'; or '.join(sorted(versions))}.",
        f"Machines: {'; or '.join(sorted(machines))}.",
        f"Commits: {', '.join(sorted(commits))}." if commits else "Commits: the runs were made from no checkout.",
        "On the same machine and CPU the same command gives the same weights, bit for bit.",
    ]


def _looks(found: Found) -> list[str]:
    """How often the test set was looked at, in every folder of runs."""
    tested = {run.folder.parent for run in found.all if run.tested}
    looks = {look.checkpoint: look for folder in sorted(tested) for look in read_looks(folder)}
    if not looks:
        return ["The test set was not looked at."] if not tested else []
    names = ", ".join(sorted({look.run for look in looks.values()}))
    often = "once" if len(looks) == 1 else f"{len(looks)} times, each with another checkpoint"
    return [
        f"The test set was looked at {often} ({names}). The runs of this page are chosen by validation; whoever "
        "chooses by test results makes them too good."
    ]


def _commands(found: Found, made: dict[Path, Made]) -> list[Block]:
    """A row for every run that is not of a sweep, and for the trials that the report is about."""
    best = [found.best(adapted) for adapted in (False, True)]
    shown: dict[Path, Finished] = {run.folder: run for run in (*found.runs, *(run for run in best if run))}
    rows = []
    for folder, run in shown.items():
        one = made.get(folder, Made())
        commit = one.git.commit[:8] + ("+" if one.git.dirty else "") if one.git else "–"
        rows.append(
            [run.run.name, str(run.run.seed), str(run.part("split_seed")), one.started[:16], commit, one.command]
        )
    return [
        Heading("Commands"),
        Table(
            "Seeds, start (UTC), commit (+ with changes) and command of every run.",
            ["run", "seed", "split", "started", "commit", "command"],
            rows,
        ),
    ]
