"""Pictures, tables and sentences of a sweep, made from its run folders, whichever engine ran them."""

import csv
from pathlib import Path

import yaml

from naturalist.errors import UserError
from naturalist.plots.sweep import plot_accuracy_by_run, plot_influences, plot_parallel_coordinates
from naturalist.runs.records import Influences, RunRecord
from naturalist.settings.config import BOOKKEEPING
from naturalist.sweeps.analysis import influences, judged, sentences, varied_settings
from naturalist.sweeps.read_runs import read_runs


def report_runs(folders: list[Path], target: Path, *, metric: str = "val_accuracy", maximize: bool = True) -> None:
    """Write what the runs in ``folders`` teach to the folder ``target``.

    ``runs.png``, ``parallel.png``, ``influence.png``, the numbers as ``runs.csv`` and ``influence.csv``, the sentences
    as ``findings.txt``, and ``best.yaml`` for ``partA/train.py --config``.

    Raises :class:`UserError` when no run got through an epoch.
    """
    runs = read_runs(folders, metric, maximize)
    counted = [run for run in runs if run.state != "cut off"]
    good = judged(runs)
    if not good:
        raise UserError(f"none of the {len(runs)} runs in {', '.join(map(str, folders))} has a {metric}.")
    target.mkdir(parents=True, exist_ok=True)
    best = (max if maximize else min)(good, key=lambda run: run.value)
    table = influences(runs)
    found = sentences(runs, metric)
    _write_runs(counted, metric, target / "runs.csv")
    _write_influences(table, target / "influence.csv")
    _write_best(best, metric, target / "best.yaml")
    (target / "findings.txt").write_text("".join(f"{sentence}\n" for sentence in found), encoding="utf-8")
    left_out = len(runs) - len(counted)
    note = f"{len(counted)} runs"
    if left_out:
        note += f"; {left_out} that were stopped by hand, cut off or still run are left out"
    plot_accuracy_by_run(
        [run.value for run in counted],
        [run.state for run in counted],
        target / "runs.png",
        metric,
        maximize,
        f"{metric} by run",
        note,
    )
    varied = varied_settings(good)
    if varied:
        plot_parallel_coordinates(
            varied,
            [run.value for run in good],
            [run.state for run in good],
            target / "parallel.png",
            metric,
            maximize,
            f"Settings and {metric} of {len(good)} runs",
        )
    if table.rows:
        plot_influences(table, target / "influence.png", metric, len(good))
    _say(target, best, metric, found)


def _say(target: Path, best: RunRecord, metric: str, found: list[str]) -> None:
    print(
        f"Best: {best.name}, {metric} {best.value:.4f} at {best.epochs} epochs; its settings are in "
        f"{target / 'best.yaml'}."
    )
    for sentence in found:
        print(f"  {sentence}")
    print(f"Pictures and tables: {target}")


def _write_runs(runs: list[RunRecord], metric: str, path: Path) -> None:
    varied = varied_settings(runs)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["run", "name", "state", f"best_{metric.removeprefix('best_')}", "epochs", "seconds", *varied, "reason"]
        )
        for number, run in enumerate(runs, start=1):
            seconds = "" if run.seconds is None else f"{run.seconds:.1f}"
            writer.writerow(
                [
                    number,
                    run.name,
                    run.state,
                    run.value,
                    run.epochs,
                    seconds,
                    *(values[number - 1] for values in varied.values()),
                    run.reason,
                ]
            )


def _write_influences(table: Influences, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["setting", "level", "correlation", "importance", "n"])
        for row in table.rows:
            writer.writerow([row.setting, row.level, f"{row.correlation:.4f}", f"{row.importance:.4f}", row.n])


def _write_best(best: RunRecord, metric: str, path: Path) -> None:
    settings = {name: value for name, value in best.settings.items() if name not in BOOKKEEPING}
    heading = f"# The best run, {best.name}: {metric} {best.value:.4f}.\n"
    path.write_text(heading + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), encoding="utf-8")
