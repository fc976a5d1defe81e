"""What a report says of Part B: strategies and backbones side by side, and fine-tuned against scratch."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from naturalist.compare.compare import group_runs
from naturalist.compare.differences import SIGNIFICANT
from naturalist.compare.sentences import inferences, share
from naturalist.evaluation.metrics import mcnemar, paired_interval
from naturalist.plots.comparison import plot_accuracy_over_parameters, plot_accuracy_over_time, plot_learning_curves
from naturalist.report.blocks import Block, Heading, Missing, Picture, Section, Sentences, Table, Text
from naturalist.report.found import Finished, Found
from naturalist.report.part_a import about_sweep
from naturalist.report.results import about_explanations, about_test, about_training
from naturalist.runs.environment import shell_path
from naturalist.runs.records import Group
from naturalist.runs.schemas import Stage
from naturalist.wording import counted, number, p_value, percent, points

COLUMNS = {
    "trainable_parameters": "trainable parameters",
    "total_seconds": "seconds",
    "val_accuracy": "validation",
    "test_accuracy": "test",
    "test_balanced_accuracy": "test, balanced",
}
PICTURES: dict[str, tuple[Callable[[Sequence[Group], Path], None], str, str]] = {
    "over_time": (
        plot_accuracy_over_time,
        "Validation accuracy of every run over the seconds since its training began.",
        "Time against accuracy.",
    ),
    "over_parameters": (
        plot_accuracy_over_parameters,
        "Accuracy over the number of trainable parameters, a mark for each kind of run.",
        "Trainable parameters against accuracy.",
    ),
    "learning_curves": (
        plot_learning_curves,
        "Training and validation accuracy over the epochs, a line for each kind of run.",
        "Curves together.",
    ),
}
MOST_GROUPS = 12
"""Kinds of runs in one picture."""


def part_b(found: Found, scratch: Path) -> Section:
    """The section on pre-trained backbones; pictures are drawn into ``scratch``."""
    section, best = Section("part-b", "Part B: a pre-trained backbone, adapted"), found.best(adapted=True)
    for sweep in found.sweeps:
        if sweep.trials[0].is_adapted:
            section.blocks += [Heading("Sweep"), *about_sweep(sweep, scratch)]
    if best is None:
        section.blocks.append(
            Missing("No run of Part B was found.", "python partB/finetune.py --strategy partial --backbone resnet50")
        )
        return section
    section.blocks += _about_all(found, scratch)
    section.blocks += [Heading(f"The best run: {best.run.name}"), *about_training(best, scratch)]
    section.blocks += [Heading("Test"), *about_test(best, found.called), *about_explanations(best)]
    return section


def against_scratch(found: Found) -> Section:
    """The section that sets the best of both parts side by side."""
    section = Section("scratch", "Scratch against fine-tuned")
    best = [found.best(adapted) for adapted in (False, True)]
    pair = [run for run in best if run is not None]
    if len(pair) < 2:
        section.blocks.append(Missing("That needs a run of each part.", "python partB/compare.py"))
        return section
    section.blocks.append(
        Table(
            "The best run of each part, chosen by validation.",
            ["", "run", "parameters", "seconds", "validation", "test", "test, balanced"],
            [[part, *_row(run)] for part, run in zip(("from scratch", "fine-tuned"), pair, strict=True)],
        )
    )
    section.blocks += _whether_they_differ(*pair)
    return section


def _row(run: Finished) -> list[str]:
    values, parameters = run.run.values, run.summary.parameters
    tested = [values["test_accuracy"], values["test_balanced_accuracy"]]
    return [
        run.run.name,
        "–" if parameters is None else f"{parameters:,}",
        f"{values['total_seconds'] or 0:,.0f}",
        percent(run.validation),
        *("–" if value is None else percent(value) for value in tested),
    ]


def _whether_they_differ(scratch: Finished, adapted: Finished) -> Iterator[Block]:
    """McNemar's test on the test images, where both were shown the same."""
    for run in (scratch, adapted):
        if run.tested is None:
            command = f"python -m naturalist evaluate {shell_path(run.folder)}"
            yield Missing(f"{run.run.name} was not tested.", command)
            return
    files = scratch.run.right.keys()
    if not files or not adapted.run.right:
        return
    if files != adapted.run.right.keys():
        yield Text("They were shown different test images, so that they cannot be compared image by image.")
        return
    first, second = (np.array([run.run.right[file] for file in files]) for run in (scratch, adapted))
    paired, (low, high) = mcnemar(first, second), paired_interval(second, first)
    gain = second.mean() - first.mean()
    sure = "more than chance" if paired["p_value"] < SIGNIFICANT else "no more than chance may be"
    yield Sentences(
        [
            f"Fine-tuned is {points(abs(gain))} {'above' if gain >= 0 else 'below'} scratch on "
            f"{counted(len(files), 'test image')}: {paired['only_second_right']:,} only fine-tuned gets right, "
            f"{paired['only_first_right']:,} only scratch. That is {sure} (95 % interval {number(100 * low)} to "
            f"{points(high)}; McNemar's exact test, {p_value(paired['p_value'])})."
        ]
    )


def _about_all(found: Found, scratch: Path) -> Iterator[Block]:
    """Every strategy and backbone, and the CNN from scratch beside them."""
    whole = [run for run in found.runs if run.part("train_fraction") in (None, 1.0)]
    best = found.best(adapted=False)
    if best is not None and not any(not run.is_adapted for run in whole):
        whole.append(best)
    groups = group_runs([run.run for run in whole])
    groups.sort(key=lambda group: -(group.average("val_accuracy") or 0))
    yield Heading("Strategies and backbones compared")
    yield Table(
        "Mean ± standard deviation over runs that differ in their seed only; validation at the best epoch.",
        ["", "runs", *COLUMNS.values()],
        [[group.label, str(len(group.runs)), *(_cell(group, column) for column in COLUMNS)] for group in groups],
    )
    if len(groups) > 1:
        yield Sentences(inferences(groups))
    untested = [run for run in whole if run.is_adapted and run.tested is None]
    if untested:
        names = " ".join(shell_path(run.folder) for run in untested)
        yield Missing(
            f"Of the runs, {counted(len(untested), 'was', 'were')} not tested.",
            f"python -m naturalist evaluate {names}",
        )
    shown = groups[:MOST_GROUPS]
    if len(groups) > MOST_GROUPS:
        yield Text(f"The pictures show the best {MOST_GROUPS} of {len(groups)} kinds of runs.")
    for name, (plot, alternative, caption) in PICTURES.items():
        plot(shown, scratch / f"{name}.png")
        yield Picture(scratch / f"{name}.png", f"{alternative} {_listed(shown)}", caption)
    rows = [[run.run.name, _frozen(run), *_stages(run)] for run in whole if run.is_adapted]
    yield Heading("What was frozen")
    yield Table("Which stages learnt, and from which epoch on.", ["run", "frozen parameters", "learns", "rests"], rows)


def _listed(groups: Sequence[Group]) -> str:
    return "; ".join(f"{group.label} {share(group, 'val_accuracy')}" for group in groups) + " (validation)."


def _cell(group: Group, column: str) -> str:
    average = group.average(column)
    if average is None:
        return "–"
    return share(group, column) if "accuracy" in column else f"{average:,.0f}"


def _frozen(run: Finished) -> str:
    total, trainable = run.summary.parameters, run.summary.trainable_parameters
    return "–" if total is None or trainable is None else f"{total - trainable:,} of {total:,}"


def _stages(run: Finished) -> tuple[str, str]:
    """Stages that learn, with the epoch that they are released in, and those that never do."""
    learns, rests = [], ""
    for release, stages in groupby(run.summary.stages, key=lambda stage: stage.release_epoch):
        names = _span(list(stages))
        if release is None:
            rests = ", ".join(filter(None, (rests, names)))
        else:
            learns.append(names if release == 0 else f"{names} from epoch {release + 1}")
    return "; ".join(learns) or "–", rests or "–"


def _span(stages: list[Stage]) -> str:
    first, last = stages[0].name, stages[-1].name
    return first if first == last else f"{first} to {last}"
