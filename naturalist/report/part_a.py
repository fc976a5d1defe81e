"""What a report says of Part A: the model, the sweep, and the best run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from naturalist.models.cnn import closed_form_totals
from naturalist.plots.sweep import plot_accuracy_by_run, plot_influences, plot_parallel_coordinates
from naturalist.report.blocks import (
    Block,
    Command,
    Formula,
    Heading,
    Missing,
    Parallel,
    Picture,
    Section,
    Sentences,
    Table,
    Text,
)
from naturalist.report.found import Finished, Found, Sweep
from naturalist.report.results import about_explanations, about_test, about_training
from naturalist.runs.environment import shell_path
from naturalist.runs.records import RunRecord, as_numbers, is_number, level_name
from naturalist.sweeps.analysis import LEAST_RUNS, caution, influences, judged, sentences, varied_settings
from naturalist.sweeps.read_runs import CUT_OFF, read_runs
from naturalist.wording import counted, percent

METRIC = "val_accuracy"
LEVELS = 8
"""A number with no more values than this has a tick for each."""
FORMULAS = """\
m filters of k×k in every block, n dense units, C classes; s₁ … s₅ the side of each convolution's output,
p the side after the last pooling; with biases, without batch normalisation:

parameters             (3k² + 1)m + 4(k²m + 1)m + (p²m + 1)n + (n + 1)C
multiply–accumulates   3k²m·s₁² + k²m²(s₂² + s₃² + s₄² + s₅²) + p²mn + nC"""
MODEL = ("num_filters", "filter_organization", "kernel_size", "activation", "batch_norm", "dense_units", "dropout")
TRAINING = ("epochs", "batch_size", "optimizer", "learning_rate", "schedule", "data_augmentation", "image_size")


def part_a(found: Found, scratch: Path) -> Section:
    """The section on the CNN from scratch; pictures are drawn into ``scratch``."""
    section, best = Section("part-a", "Part A: a CNN from scratch"), found.best(adapted=False)
    if best is None:
        section.blocks.append(
            Missing("No run of Part A was found.", "python partA/train.py --config configs/partA/default.yaml")
        )
    else:
        section.blocks += [Heading("Model"), *_about_model(best)]
    section.blocks += [Heading("Sweep"), *_about_sweeps(found, scratch)]
    if best is not None:
        section.blocks += [Heading(f"The best run: {best.run.name}"), _settings(best)]
        section.blocks += [*about_training(best, scratch), Heading("Test"), *about_test(best, found.called)]
        section.blocks += about_explanations(best)
    return section


def _about_model(best: Finished) -> Iterator[Block]:
    summary = best.summary
    counts = []
    if summary.parameters is not None:
        counts.append(f"{summary.parameters:,} parameters")
    if summary.multiply_accumulates is not None:
        counts.append(f"{summary.multiply_accumulates:,} multiply–accumulates per image")
    yield Text(
        "Five blocks of convolution, activation and 2×2 max-pooling, then a dense layer and the output layer"
        + (f"; that of {best.run.name} has {' and '.join(counts)}." if counts else ".")
    )
    yield Formula(FORMULAS)
    m, k, n = (best.part(name) for name in ("num_filters", "kernel_size", "dense_units"))
    if best.known is not None and all(isinstance(value, int) for value in (m, k, n)):
        yield _by_the_formulas(best, m, k, n, len(best.known.class_names))
    layers = best.folder / "model.txt"
    if layers.is_file():
        yield Formula(layers.read_text(encoding="utf-8", errors="replace").strip(), "Layer by layer")


def _by_the_formulas(best: Finished, m: int, k: int, n: int, classes: int) -> Block:
    size = best.part("image_size")
    options: dict[str, Any] = {"num_classes": classes, "image_size": size, "padding": best.part("padding") or "same"}
    parameters, operations = closed_form_totals(m, k, n, **options)
    differs = [
        words
        for words, does in (
            (f"its filters are {best.part('filter_organization')}", best.part("filter_organization") != "same"),
            ("it has batch normalisation", bool(best.part("batch_norm"))),
            ("it averages its last feature maps", best.part("pooling") == "average"),
        )
        if does
    ]
    return Text(
        f"For m = {m}, k = {k}, n = {n}, C = {classes} and images of {size} px that is {parameters:,} parameters and "
        f"{operations:,} multiply–accumulates"
        + (f"; this run's count differs, for {' and '.join(differs)}." if differs else ".")
    )


def _settings(best: Finished) -> Block:
    names = [name for name in (*MODEL, *TRAINING) if best.part(name) is not None]
    return Table("Its settings.", ["setting", "value"], [[name, level_name(best.part(name))] for name in names])


def _about_sweeps(found: Found, scratch: Path) -> Iterator[Block]:
    """Of every sweep of Part A; without one, of the runs themselves where there are enough."""
    sweeps = [sweep for sweep in found.sweeps if not sweep.trials[0].is_adapted]
    for sweep in sweeps:
        yield from about_sweep(sweep, scratch)
    if sweeps:
        return
    runs = found.of(adapted=False)
    if len(runs) < LEAST_RUNS:
        yield Missing("No sweep was found.", "python -m naturalist sweep sweep.yaml --count 29")
        return
    yield Text(f"No sweep was found; what follows is of the {len(runs)} runs that were trained one by one.")
    records = read_runs([run.folder for run in runs], METRIC, True)
    yield from _about_runs(records, scratch, "All runs", "runs")


def about_sweep(sweep: Sweep, scratch: Path) -> Iterator[Block]:
    """A sweep's pictures, sentences, best settings, and the command that trains with them."""
    records = read_runs([sweep.folder], METRIC, True)
    yield from _about_runs(records, scratch, f"Sweep {sweep.name}", sweep.name)
    config = sweep.folder.parent / "report" / "best.yaml"
    if config.is_file():
        script = "partB/finetune.py" if sweep.trials[0].is_adapted else "partA/train.py"
        yield Command("Trains with its best settings", f"python {script} --config {shell_path(config)}")


def _about_runs(records: list[RunRecord], scratch: Path, what: str, key: str) -> Iterator[Block]:
    ended = [run for run in records if run.state != CUT_OFF]
    good = judged(records)
    if not good:
        yield Text(f"{what}: none got through an epoch.")
        return
    best = max(good, key=lambda run: run.value or 0)
    states = [f"{sum(run.state == state for run in ended)} {state}" for state in ("finished", "pruned", "failed")]
    yield Text(
        f"{what}: {counted(len(ended), 'run')} ({', '.join(states)}); the best, "
        f"{best.name}, has a validation accuracy of {percent(best.value or 0)} after "
        f"{counted(best.epochs, 'epoch')}."
    )
    by_run, parallel, influence = (scratch / f"{key}-{name}.png" for name in ("runs", "parallel", "influence"))
    plot_accuracy_by_run(ended, best, by_run, METRIC, True, left_out=len(records) - len(ended))
    yield Picture(
        by_run,
        f"Validation accuracy of {counted(len(ended), 'run')} in the order in which they were made, with the best so "
        f"far; the best of all has {percent(best.value or 0)}.",
        "Accuracy against run.",
    )
    varied = varied_settings(good)
    if varied:
        plot_parallel_coordinates(varied, good, parallel, METRIC, True)
        names = ", ".join(varied)
        alternative = f"Every run as a line over an axis for each setting ({names}) and one for validation accuracy."
        picture = Picture(parallel, alternative, "Parallel coordinates.")
        yield Parallel(picture, _dimensions(varied, good), [run.name for run in good])
    table = influences(records)
    if table.rows:
        plot_influences(table, influence, METRIC, len(good), caution(len(good)))
        first = table.rows[0]
        yield Picture(
            influence,
            f"Importance and correlation with validation accuracy of {counted(len(table.rows), 'setting')}; the most "
            f"important is {first.label} ({first.importance:.2f}, correlation {first.correlation:+.2f}).",
            "Correlation and importance.",
        )
    yield Sentences(sentences(records, METRIC))


def _dimensions(varied: dict[str, list[Any]], runs: list[RunRecord]) -> list[dict[str, Any]]:
    """Axes for plotly: words and few numbers evenly, many numbers as they are or by their logarithm."""
    axes: list[dict[str, Any]] = []
    for name, values in varied.items():
        if is_number(values) and len(set(values)) > LEVELS:
            numbers = as_numbers(values).tolist()
            axes.append({"label": name if numbers == list(values) else f"log₁₀ {name}", "values": numbers})
        else:
            ordered = sorted(values) if is_number(values) else sorted(values, key=level_name)
            levels = list(dict.fromkeys(map(level_name, ordered)))
            positions = [levels.index(level_name(value)) for value in values]
            axes.append({"label": name, "values": positions, "tickvals": list(range(len(levels))), "ticktext": levels})
    return [*axes, {"label": "accuracy, %", "values": [100 * (run.value or 0) for run in runs]}]
