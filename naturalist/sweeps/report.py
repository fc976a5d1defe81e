"""Pictures, tables and sentences of a sweep, made from its run folders, whichever engine made them."""

from pathlib import Path

import yaml

from naturalist.errors import UserError
from naturalist.files import write_atomically, write_table
from naturalist.plots.sweep import plot_accuracy_by_run, plot_influences, plot_parallel_coordinates
from naturalist.printable import printable
from naturalist.runs.records import RunRecord, amount, numbered
from naturalist.sweeps.analysis import caution, influences, judged, sentences, varied_settings
from naturalist.sweeps.read_runs import CUT_OFF, read_runs, searched_settings
from naturalist.wording import counted


def report_runs(
    folders: list[Path], target: Path, *, metric: str = "val_accuracy", maximize: bool = True, format: str = "png"
) -> None:
    """Write what the runs in ``folders`` teach to the folder ``target``.

    The pictures ``runs``, ``parallel`` and ``influence``, the numbers as ``runs.csv`` and ``influence.csv``, the
    sentences as ``findings.txt``, and ``best.yaml`` for ``partA/train.py --config``.

    Raises :class:`UserError` when no run got through an epoch.
    """
    runs = read_runs(folders, metric, maximize)
    ended = [run for run in runs if run.state != CUT_OFF]
    _, numbers = numbered(ended)
    ended = [run for _, run in sorted(zip(numbers, ended, strict=True), key=lambda pair: pair[0])]
    good = judged(ended)
    if not good:
        places = ", ".join(map(str, folders))
        raise UserError(f"{counted(len(runs), f'run in {places} has', f'runs in {places} have')} no {metric}.")
    target.mkdir(parents=True, exist_ok=True)
    best = (max if maximize else min)(good, key=lambda run: run.value or 0)
    varied, table, found = varied_settings(good), influences(runs), sentences(runs, metric)
    _write_runs(target / "runs.csv", ended, metric)
    rows = [[row.setting, row.level, f"{row.correlation:.4f}", f"{row.importance:.4f}", row.n] for row in table.rows]
    write_table(target / "influence.csv", [["setting", "level", "correlation", "importance", "n"], *rows])
    write_atomically(target / "findings.txt", "".join(f"{sentence}\n" for sentence in found))
    settings = yaml.safe_dump(searched_settings(best.settings), sort_keys=False, allow_unicode=True)
    heading = f"# The best run, {printable(best.name)}: {metric} {amount(best.value or 0, metric)}.\n"
    write_atomically(target / "best.yaml", heading + settings)
    plot_accuracy_by_run(ended, best, target / f"runs.{format}", metric, maximize, left_out=len(runs) - len(ended))
    if varied:
        plot_parallel_coordinates(varied, good, target / f"parallel.{format}", metric, maximize)
    if table.rows:
        plot_influences(table, target / f"influence.{format}", metric, len(good), caution(len(good)))
    said = f"{metric} {amount(best.value or 0, metric)} in {counted(best.epochs, 'epoch')}"
    said += f"; its settings are in {target / 'best.yaml'}."
    print(f"Best: {printable(best.name)}, {said}", *(f"  {printable(sentence)}" for sentence in found), sep="\n")
    print(f"Pictures and tables: {target}")


def _write_runs(path: Path, runs: list[RunRecord], metric: str) -> None:
    varied = varied_settings(runs)
    unit, numbers = numbered(runs)
    head = [unit, "name", "state", f"best_{metric.removeprefix('best_')}", "epochs_done", "seconds"]
    names = [f"{name}_set" if name in (*head, "reason") else name for name in varied]  # no column has two meanings
    head += [*names, "reason"]
    rows = []
    for position, (number, run) in enumerate(zip(numbers, runs, strict=True)):
        seconds = "" if run.seconds is None else f"{run.seconds:.1f}"
        settings = [values[position] for values in varied.values()]
        rows.append([number, run.name, run.state, run.value, run.epochs, seconds, *settings, run.reason])
    write_table(path, [head, *rows])
