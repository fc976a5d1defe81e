"""``python -m naturalist sweep``: search settings with several persistent workers, here, without a server."""

import math
import shlex
import time
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from naturalist.errors import UserError
from naturalist.runs.folder import write_summary
from naturalist.settings.run_settings import RunSettings
from naturalist.sweeps.fidelity import name_round, plan_rounds, promoted
from naturalist.sweeps.program import check_sweep, command_line, load_program
from naturalist.sweeps.records import CUT_OFF
from naturalist.sweeps.report import report_runs
from naturalist.sweeps.space import SweepFile, read_sweep
from naturalist.sweeps.store import Store
from naturalist.sweeps.table import TrialTable
from naturalist.sweeps.trials import Trials
from naturalist.sweeps.workers import OUT_OF_MEMORY, STOP_SECONDS, Worker, folder_in_log

FAILURES_TO_GIVE_UP = 3
"""A sweep whose first so many trials all fail has a mistake that more trials will not mend."""

POLL_SECONDS = 0.5


@dataclass
class RunningTrial:
    """A trial in a worker."""

    trial: optuna.Trial
    log: Path
    start: float
    pruned: bool = False


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

    In ``out/name`` are then ``runs/`` (a folder per trial), ``logs/`` (what each trial printed), ``report/`` (pictures,
    tables, ``best.yaml``) and, without a database, ``journal.log``.

    Args:
        file: the sweep, in W&B's format.
        count: trials of the whole sweep, over all processes and restarts; ``run_cap`` holds too. With ``fidelity``,
            trials of the first round.
        workers: trials at once on this machine.
        storage: database URL, to share the sweep between machines; None for the journal.
        out: folder of all sweeps.
        name: of the sweep; by default its ``name``, else the file's.
        data: data set for every trial, as ``--data`` of the program.
        fixed: ``NAME=VALUE`` for every trial, as flags of the program.
        fidelity: ``NAME=VALUE,VALUE``: first run all trials with the first value, then the best tenth of them, but at
            least three, with the next, and the best tenth of those as they are; ``early_terminate`` is for the first
            round. Several settings make the same rounds cheaper.
        allow_repeats: whether settings that ran may be run again.
        seed: of the search.

    Returns:
        The sweep's folder.

    Raises:
        UserError: for a mistake in the sweep file, before the first trial; for a database that does not answer;
            when every one of the first trials failed.
        KeyboardInterrupt: after a clean stop.
    """
    sweep = read_sweep(file)
    sweep = replace(sweep, name=name or sweep.name)
    program = load_program(sweep.program)
    arguments = [f"--{item}" for item in fixed or []] + ([f"--data={data}"] if data else [])
    check_sweep(sweep, program, arguments)
    sweep = replace(sweep, given=tuple(arguments))
    rounds = plan_rounds(fidelity, sweep, program, arguments)
    target = min(limit for limit in (count, sweep.run_cap, math.inf) if limit is not None)
    if target < 1 or workers < 1:
        raise UserError("--count and --workers must be at least 1.")
    if target == math.inf and sweep.method != "grid":
        raise UserError(f"{file}: a {sweep.method} sweep never ends by itself; give --count N, or run_cap in the file.")
    folder = out / sweep.name.replace("/", "-")
    try:
        (folder / "logs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the sweep's folder {folder}: {error.strerror}; choose another with --out."
        ) from None
    store = Store(folder, storage)
    pool = _Pool(program.path, workers)
    is_lost = False
    try:
        trials = None
        for extra in rounds:
            chosen = promoted(trials) if trials else None
            label = name_round(extra)
            searched = replace(sweep, target=None) if extra else sweep  # a cheap trial cannot reach the target
            trials = Trials(
                store, sweep.name + label, searched, seed=seed, allow_repeats=allow_repeats, promoted=chosen
            )
            runs = folder / f"runs{label}"
            _Round(sweep, trials, pool, folder, label, [*_defaults(runs), *arguments], extra).run(target)
            target = math.inf
            _report(runs, folder / f"report{label}", sweep, trials, storage)
        _say_what_is_next(trials)
    except (StorageInternalError, SQLAlchemyError) as error:
        is_lost = True
        cause = error.__cause__ or error
        reason = " ".join(str(getattr(cause, "orig", None) or cause).split())
        raise UserError(
            f"the database stopped answering ({reason.rstrip('.')}); the same command goes on, and trials "
            "that were cut off are run again."
        ) from None
    finally:
        pool.close()
        store.close(trials_are_open=is_lost)
    return folder


class _Pool:
    """The workers, made when they are first needed and again when one died."""

    def __init__(self, program: Path, count: int):
        self._program, self._count = program, count
        self.workers: list[Worker] = []

    def idle(self) -> Worker | None:
        """A worker that could start a trial."""
        for worker in self.workers:
            if not worker.is_busy:
                return worker
        if len(self.workers) < self._count:
            free = next(i for i in range(self._count) if i not in [worker.index for worker in self.workers])
            self.workers.append(Worker(self._program, free, self._count))
            return self.workers[-1]
        return None

    def remove(self, worker: Worker) -> None:
        worker.close()
        self.workers.remove(worker)

    def close(self) -> None:
        for worker in self.workers:
            worker.close()
        self.workers = []


class _Round:
    """All trials of one study."""

    def __init__(
        self,
        sweep: SweepFile,
        trials: Trials,
        pool: _Pool,
        folder: Path,
        label: str,
        arguments: list[str],
        extra: list[str],
    ):
        self._sweep, self._trials, self._pool, self._folder, self._label = sweep, trials, pool, folder, label
        self._arguments, self._extra = arguments, extra
        self._running: dict[Worker, RunningTrial] = {}
        self._first_failures: list[str] | None = []

    def run(self, target: float) -> None:
        """Run trials until ``target`` are done, here or elsewhere."""
        with TrialTable(self._trials, min(target, self._trials.size), self._label) as self._table:
            try:
                while self._fill(target) or self._running or self._wait_for_others():
                    self._listen()
            except KeyboardInterrupt:
                self._table.say("Stopping; running trials save what they have …")
                self._stop()
                self._table.say("Stopped. The same command goes on; trials that were cut off are run again.")
                raise
            except BaseException:
                self._give_up()
                raise

    def _fill(self, target: float) -> bool:
        """Give every idle worker a trial; False when there is none to give."""
        self._trials.beat(running.trial for running in self._running.values())
        while (worker := self._pool.idle()) is not None:
            trial = self._trials.choose(target)
            if trial is None:
                return False
            log = self._folder / "logs" / f"trial{self._label}-{trial.number:04d}.log"
            command = command_line(self._sweep, self._trials.settings(trial))
            worker.start([*self._arguments, *command, *self._extra], log)
            self._running[worker] = RunningTrial(trial, log, time.monotonic())
            self._table.update(running=len(self._running))
        return True

    def _listen(self) -> None:
        """Take in what the workers say."""
        ready = wait([worker.connection for worker in self._running], timeout=POLL_SECONDS)
        for worker in [worker for worker in self._running if worker.connection in ready]:
            running = self._running[worker]
            kind, content = worker.read()
            if kind == "epoch":
                running.pruned = self._trials.report(running.trial, content)
                worker.answer(running.pruned)
            else:
                del self._running[worker]
                self._end(running, kind, content)
            if kind in ("died", "failed"):
                self._pool.remove(worker)  # after a failure nobody knows what the process still holds
        self._trials.beat(running.trial for running in self._running.values())
        self._table.update(running=len(self._running))

    def _end(self, running: RunningTrial, kind: str, content: object) -> None:
        seconds = time.monotonic() - running.start
        folder = content.get("folder") if kind == "done" else folder_in_log(running.log)
        if kind == "done" and content["status"] == "stopped":  # somebody stopped the worker, not the sweep
            self._cut_off(running, content)
            return
        failure = None if kind == "done" else f"{content.rstrip('.')}; see {running.log}"
        pruned = running.pruned and kind == "done" and content["status"] == "pruned"
        if not self._trials.finish(running.trial, seconds=seconds, folder=folder, pruned=pruned, failure=failure):
            self._table.say(f"Another machine gave trial {running.trial.number} up: this one was silent for too long.")
            return
        if failure and folder:
            _record_failure(Path(folder), failure)
        self._table.ended(running.trial.number)
        is_mistake = kind == "failed" and not failure.startswith(OUT_OF_MEMORY)  # others may need less
        if self._first_failures is not None:
            self._first_failures = [*self._first_failures, failure] if is_mistake else None
            if is_mistake and len(self._first_failures) == FAILURES_TO_GIVE_UP:
                raise UserError(f"the first {FAILURES_TO_GIVE_UP} trials all failed, the last because {failure}.")

    def _wait_for_others(self) -> bool:
        """Whether trials run elsewhere, which may be cut off and then be this process's to run."""
        if self._trials.counts().running == 0:
            return False
        time.sleep(POLL_SECONDS)
        return True

    def _stop(self) -> None:
        """Make the running trials save and end; they are run again later."""
        deadline = time.monotonic() + STOP_SECONDS
        told = set()
        try:
            while self._running and time.monotonic() < deadline:
                for worker in self._running:
                    worker.interrupt()
                for connection in wait([worker.connection for worker in self._running], timeout=2 * POLL_SECONDS):
                    worker = next(worker for worker in self._running if worker.connection is connection)
                    kind, content = worker.read()
                    if kind == "epoch":
                        told.add(worker)
                        worker.answer(True)
                        continue
                    running = self._running.pop(worker)
                    if kind == "done" and content["status"] != "stopped" and worker not in told:
                        self._end(running, kind, content)  # it had ended by itself
                    else:
                        self._cut_off(running, content if kind == "done" else {})
        finally:
            self._give_up()

    def _cut_off(self, running: RunningTrial, result: dict) -> None:
        """Give a trial up that is to be run again, and say so in its folder."""
        self._trials.cut_off(running.trial)
        folder = result.get("folder") or folder_in_log(running.log)
        if folder and Path(folder).is_dir():
            kept = {name: value for name, value in result.items() if name != "folder"}
            write_summary(Path(folder), {**kept, "status": CUT_OFF, "exit_code": 0})

    def _give_up(self) -> None:
        for running in self._running.values():
            self._trials.cut_off(running.trial)
        self._running.clear()


def _defaults(runs: Path) -> list[str]:
    """What a sweep sets unless its file or its command does; the cache is shared by all sweeps of a folder."""
    return [
        f"--runs_dir={runs}",
        f"--cache_dir={RunSettings().cache_folder}",
        "--wandb=disabled",
        "--no_validation_pictures",
    ]


def _record_failure(folder: Path, failure: str) -> None:
    """Leave the reason in a run folder whose process had no time to."""
    if not (folder / "summary.json").is_file():
        write_summary(folder, {"status": "failed", "reason": failure, "exit_code": 1})


def _say_what_is_next(trials: Trials) -> None:
    best = trials.best()
    run = best.user_attrs.get("folder") if best is not None else None
    if run is None:
        return
    if not Path(run).is_dir():
        print(f"The best trial, {best.number}, was run on another machine, in its folder {run}.")
    else:
        print(f"Look at the best:  python -m naturalist evaluate {shlex.quote(run)} --split val")
        print(f"Test it once with: python -m naturalist evaluate {shlex.quote(run)}")


def _report(runs: Path, target: Path, sweep: SweepFile, trials: Trials, storage: str | None) -> None:
    counts = trials.counts()
    print(f"{counts.finished} trials finished, {counts.pruned} pruned, {counts.failed} failed.")
    for trial in trials.shown():
        if "failure" in trial.user_attrs:
            print(f"  trial {trial.number}: {trial.user_attrs['failure']}")
    if storage is not None:
        print(f"The report is made of the runs in {runs}; those of other machines are in their folders.")
    try:
        report_runs([runs], target, metric=sweep.metric, maximize=sweep.maximize)
    except UserError as error:  # the trials are safe, and another machine may have more to report
        print(f"No report: {error}")
