"""``python -m naturalist sweep``: search settings with several persistent workers, here, without a server."""

import math
import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from naturalist.errors import UserError
from naturalist.memory import machine_memory
from naturalist.printable import printable
from naturalist.runs.environment import shell_word
from naturalist.settings.places import LONGEST_NAME, portable
from naturalist.settings.run_settings import RunSettings
from naturalist.sweeps.fidelity import name_round, plan_rounds, promoted
from naturalist.sweeps.parameter import require
from naturalist.sweeps.program import check_sweep, load_program
from naturalist.sweeps.report import report_runs
from naturalist.sweeps.round import Round
from naturalist.sweeps.space import SweepFile, read_sweep
from naturalist.sweeps.store import Store
from naturalist.sweeps.trials import Trials
from naturalist.sweeps.workers import Pool
from naturalist.wording import counted


def run_sweep(
    file: Path,
    *,
    count: int | None = None,
    workers: int = 1,
    storage: str | None = None,
    out: Path = Path("sweeps"),
    name: str | None = None,
    data: str | None = None,
    fixed: list[str] | None = None,
    fidelity: list[str] | None = None,
    allow_repeats: bool = False,
    seed: int = 0,
) -> Path:
    """Run ``sweep.yaml`` until ``count`` trials are done, or go on with a sweep that was stopped.

    In ``out/name``, which is returned, are then ``runs/`` (a folder per trial), ``logs/`` (what each trial printed),
    ``report/`` (pictures, tables, ``best.yaml``) and, without a database, ``journal.log``.

    Args:
        file: the sweep, in W&B's format.
        count: trials of the whole sweep, over all processes and restarts; of the first round with ``fidelity``.
        workers: trials at once on this machine.
        storage: database URL, to share the sweep between machines; None for the journal.
        out: folder of all sweeps.
        name: of the sweep; by default its ``name``, else the file's.
        data: data set for every trial, as ``--data`` of the program.
        fixed: ``NAME=VALUE`` for every trial, as flags of the program.
        fidelity: ``NAME=VALUE,VALUE``, for cheap first rounds; see :mod:`naturalist.sweeps.fidelity`.
        allow_repeats: whether settings that ran may be run again.
        seed: of the search.

    Raises:
        UserError: for a mistake in the sweep file, before the first trial; for a database that does not answer;
            when every one of the first trials failed.
        KeyboardInterrupt: after a clean stop.
    """
    given = [f"--{item}" for item in fixed or []] + ([f"--data={data}"] if data else [])
    sweep = read_sweep(file)
    sweep = replace(sweep, name=name or sweep.name, given=tuple(given))
    program = load_program(sweep.program)
    check_sweep(sweep, program)
    rounds = plan_rounds(fidelity or [], sweep, program)
    target = _target(sweep, count, workers)
    folder = _make_folder(out / _folder_name(sweep.name))
    _say_what_a_worker_may_take(workers)
    with Store(folder, storage) as store, closing(Pool(program.path, workers)) as pool:
        _run_rounds(sweep, rounds, target, store, pool, folder, seed, allow_repeats)
    return folder


def _target(sweep: SweepFile, count: int | None, workers: int) -> float:
    target = min(limit for limit in (count, sweep.run_cap, math.inf) if limit is not None)
    require(target >= 1 and workers >= 1, "--count and --workers must be at least 1.")
    ends, kind = target < math.inf or sweep.method == "grid", f"a {sweep.method} sweep"
    require(ends, f"{sweep.path}: {kind} never ends by itself; give --count N, or run_cap in the file.")
    return target


def _folder_name(name: str) -> str:
    """What the sweep's folder in --out is called; raises :class:`UserError` for a name that would lie elsewhere."""
    is_shown = name.strip(" .") != "" and all(character.isprintable() for character in name)
    require(is_shown, f"a sweep cannot be called {name!r}; give it a name of letters with --name.")
    is_short = len(os.fsencode(name)) <= LONGEST_NAME
    require(is_short, f"the sweep's name {name[:20]!r}… is too long; give it one of at most {LONGEST_NAME} letters.")
    return portable(name)


def _make_folder(folder: Path) -> Path:
    try:
        (folder / "logs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"{error.strerror}; choose another with --out."
        raise UserError(f"cannot make the sweep's folder {folder}: {reason}") from None
    return folder


def _say_what_a_worker_may_take(workers: int) -> None:
    memory = machine_memory()
    if workers > 1 and memory is not None:
        share = memory / workers / 1e9
        print(f"{workers} workers: each may take {share:.1f} GB before this machine's {memory / 1e9:.1f} GB are full.")


def _run_rounds(
    sweep: SweepFile,
    rounds: list[list[str]],
    target: float,
    store: Store,
    pool: Pool,
    folder: Path,
    seed: int,
    allow_repeats: bool,
) -> None:
    """Run one round after the other, each with what the one before promoted, and report each."""
    chosen = None
    for flags in rounds:
        label = name_round(flags)
        searched = replace(sweep, target=None) if flags else sweep  # a cheap trial cannot reach the target
        trials = Trials(store, sweep.name + label, searched, seed=seed, allow_repeats=allow_repeats, promoted=chosen)
        runs = folder / f"runs{label}"
        Round(trials, pool, folder / "logs", label, [*_defaults(runs), *sweep.given], flags).run(target)
        _report(trials, runs, folder / f"report{label}", store.is_shared)
        if flags:
            target, chosen = math.inf, promoted(trials)
        else:  # the last
            _say_what_is_next(trials)


def _defaults(runs: Path) -> list[str]:
    """What a sweep sets unless its file or its command does; the cache is shared by all sweeps of a folder."""
    return [
        f"--runs_dir={runs}",
        f"--cache_dir={RunSettings().cache_folder}",
        "--wandb=disabled",
        "--no_validation_pictures",
    ]


def _report(trials: Trials, runs: Path, target: Path, is_shared: bool) -> None:
    counts = trials.counts()
    print(f"{counted(counts.finished, 'trial')} finished, {counts.pruned} pruned, {counts.failed} failed.")
    for trial in trials.shown():
        if "failure" in trial.user_attrs:
            print(f"  trial {trial.number}: {printable(trial.user_attrs['failure'])}")
    if is_shared:
        print(f"The report is made of the runs in {runs}; those of other machines are in their folders.")
    try:
        report_runs([runs], target, metric=trials.sweep.metric, maximize=trials.sweep.maximize)
    except UserError as error:  # the trials are safe, and another machine may have more to report
        print(f"No report: {printable(error)}")


def _say_what_is_next(trials: Trials) -> None:
    best = trials.best()
    run = best.user_attrs.get("folder") if best is not None else None
    if best is None or run is None:
        return
    if not Path(run).is_dir():
        print(f"The best trial, {best.number}, was run on another machine, in its folder {run}.")
    else:
        print(f"Look at the best:  python -m naturalist evaluate {shell_word(run)} --split val")
        print(f"Test it once with: python -m naturalist evaluate {shell_word(run)}")
