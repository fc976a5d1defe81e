"""Pictures, tables and sentences of a sweep, made from its run folders, whichever engine made them."""

from pathlib import Path

import yaml

from naturalist.errors import UserError
from naturalist.files import write_atomically, write_table
from naturalist.plots.sweep import plot_accuracy_by_run, plot_influences, plot_parallel_coordinates
from naturalist.printable import printable
from naturalist.runs.records import RunRecord
from naturalist.sweeps.analysis import LEAST_RUNS, influences, judged, sentences, too_few, varied_settings
from naturalist.sweeps.read_runs import CUT_OFF, read_runs, searched_settings


def report_runs(folders: list[Path], target: Path, *, metric: str = "val_accuracy", maximize: bool = True) -> None:
    """Write what the runs in ``folders`` teach to the folder ``target``.

    ``runs.png``, ``parallel.png``, ``influence.png``, the numbers as ``runs.csv`` and ``influence.csv``, the sentences
    as ``findings.txt``, and ``best.yaml`` for ``partA/train.py --config``.

    Raises :class:`UserError` when no run got through an epoch.
    """
    runs = read_runs(folders, metric, maximize)
    counted = [run for run in runs if run.state != CUT_OFF]
    good = judged(runs)
    if not good:
        raise UserError(f"none of the {len(runs)} runs in {', '.join(map(str, folders))} has a {metric}.")
    target.mkdir(parents=True, exist_ok=True)
    best = (max if maximize else min)(good, key=lambda run: run.value or 0)
    varied, table, found = varied_settings(good), influences(runs), sentences(runs, metric)
    _write_runs(target / "runs.csv", counted, metric)
    rows = [[row.setting, row.level, f"{row.correlation:.4f}", f"{row.importance:.4f}", row.n] for row in table.rows]
    write_table(target / "influence.csv", [["setting", "level", "correlation", "importance", "n"], *rows])
    write_atomically(target / "findings.txt", "".join(f"{sentence}\n" for sentence in found))
    settings = yaml.safe_dump(searched_settings(best.settings), sort_keys=False, allow_unicode=True)
    heading = f"# The best run, {printable(best.name)}: {metric} {best.value:.4f}.\n"
    write_atomically(target / "best.yaml", heading + settings)
    plot_accuracy_by_run(counted, best, target / "runs.png", metric, maximize, left_out=len(runs) - len(counted))
    if varied:
        plot_parallel_coordinates(varied, good, target / "parallel.png", metric, maximize)
    if table.rows:
        caution = "a bar may be chance: findings.txt says which settings matter"
        if len(good) < LEAST_RUNS:
            caution = too_few(len(good))
        plot_influences(table, target / "influence.png", metric, len(good), caution)
    said = f"{metric} {best.value:.4f} at {best.epochs} epochs; its settings are in {target / 'best.yaml'}."
    print(f"Best: {printable(best.name)}, {said}", *(f"  {printable(sentence)}" for sentence in found), sep="\n")
    print(f"Pictures and tables: {target}")


def _write_runs(path: Path, runs: list[RunRecord], metric: str) -> None:
    varied = varied_settings(runs)
    head = ["run", "name", "state", f"best_{metric.removeprefix('best_')}", "epochs", "seconds", *varied, "reason"]
    rows = []
    for number, run in enumerate(runs, start=1):
        seconds = "" if run.seconds is None else f"{run.seconds:.1f}"
        settings = [values[number - 1] for values in varied.values()]
        rows.append([number, run.name, run.state, run.value, run.epochs, seconds, *settings, run.reason])
    write_table(path, [head, *rows])
