"""``python -m naturalist sweep``: search settings with several persistent workers, here, without a server."""

import math
import time
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path

import optuna

from naturalist.config import RunSettings
from naturalist.errors import UserError
from naturalist.sweeps.program import Program, check_sweep, command_line, load_program
from naturalist.sweeps.records import CUT_OFF
from naturalist.sweeps.report import report_runs
from naturalist.sweeps.space import SweepFile, read_sweep
from naturalist.sweeps.store import Store
from naturalist.sweeps.table import TrialTable
from naturalist.sweeps.trials import Trials
from naturalist.sweeps.workers import STOP_SECONDS, Worker, folder_in_log
from naturalist.tracking import write_summary

PROMOTED_SHARE = 3
"""One in so many settings goes on from a cheap round to the next, as in Hyperband."""

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


def run_sweep(file: Path, *, count: int | None = None, workers: int = 1, storage: str | None = None,
              out: Path = Path("sweeps"), name: str | None = None, data: str | None = None,
              fixed: list[str] | None = None, fidelity: str | None = None, allow_repeats: bool = False,
              seed: int = 0) -> Path:
    """Run ``sweep.yaml`` until ``count`` trials are done, or go on with a sweep that was stopped.

    In ``out/name`` are then ``runs/`` (a folder per trial), ``logs/`` (what each trial printed), ``report/`` (pictures,
    tables, ``best.yaml``) and, without a database, ``journal.log``.

    Args:
        file: the sweep, in W&B's format.
        count: trials of the whole sweep, over all processes and restarts; ``run_cap`` holds too.
        workers: trials at once on this machine.
        storage: database URL, to share the sweep between machines; None for the journal.
        out: folder of all sweeps.
        name: of the sweep; by default its ``name``, else the file's.
        data: data set for every trial, as ``--data`` of the program.
        fixed: ``NAME=VALUE`` for every trial, as flags of the program.
        fidelity: ``NAME=VALUE,VALUE``: first run all trials with the first value, then the best third of them with
            the next, and the best third of those as they are.
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
    for item in arguments:
        if (setting := item[2:].partition("=")[0]) in [parameter.name for parameter in sweep.parameters]:
            raise UserError(f"{setting} is set by {file}, so it cannot be set for every trial as well.")
    check_sweep(sweep, program, arguments)
    rounds = _fidelity(fidelity, sweep, program, arguments)
    target = min(limit for limit in (count, sweep.run_cap, math.inf) if limit is not None)
    if target < 1 or workers < 1:
        raise UserError("--count and --workers must be at least 1.")
    if target == math.inf and sweep.method != "grid":
        raise UserError(f"{file}: a {sweep.method} sweep never ends by itself; give --count N, or run_cap in the file.")
    folder = out / sweep.name.replace("/", "-")
    try:
        (folder / "logs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the sweep's folder {folder}: {error.strerror}; choose another with "
                        "--out.") from None
    store = Store(folder, storage)
    pool = _Pool(program.path, workers)
    try:
        trials = None
        for extra in rounds:
            chosen = _promoted(trials) if trials else None
            label = f"@{extra[0][2:]}" if extra else ""
            trials = Trials(store, sweep.name + label, sweep, seed=seed, allow_repeats=allow_repeats, fixed=chosen)
            runs = folder / f"runs{label}"
            _Round(sweep, trials, pool, folder, label, [*_defaults(runs), *arguments], extra).run(target)
            target = math.inf
            _report(runs, folder / f"report{label}", sweep, trials, storage)
    finally:
        pool.close()
        store.close()
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

    def __init__(self, sweep: SweepFile, trials: Trials, pool: _Pool, folder: Path, label: str,
                 arguments: list[str], extra: list[str]):
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
            self._trials.cut_off(running.trial)
            return
        failure = None if kind == "done" else f"{content.rstrip('.')}; see {running.log}"
        self._trials.finish(running.trial, seconds=seconds, folder=folder, pruned=running.pruned, failure=failure)
        if failure and folder:
            _record_failure(Path(folder), failure)
        self._table.ended(running.trial.number)
        if self._first_failures is not None:
            self._first_failures = [*self._first_failures, failure] if failure else None
            if failure and len(self._first_failures) == FAILURES_TO_GIVE_UP:
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
        try:
            while self._running and time.monotonic() < deadline:
                for worker in self._running:
                    worker.interrupt()
                for connection in wait([worker.connection for worker in self._running], timeout=2 * POLL_SECONDS):
                    worker = next(worker for worker in self._running if worker.connection is connection)
                    kind, content = worker.read()
                    if kind == "epoch":
                        worker.answer(True)
                        continue
                    self._trials.cut_off(self._running.pop(worker).trial)
                    if kind == "done" and "folder" in content:
                        folder = Path(content.pop("folder"))
                        write_summary(folder, {**content, "status": CUT_OFF, "exit_code": 0})
        finally:
            self._give_up()

    def _give_up(self) -> None:
        for running in self._running.values():
            self._trials.cut_off(running.trial)
        self._running.clear()


def _fidelity(text: str | None, sweep: SweepFile, program: Program, arguments: list[str]) -> list[list[str]]:
    """The flags of every round; the last has none."""
    if text is None:
        return [[]]
    setting, _, values = text.partition("=")
    if not values:
        raise UserError("--fidelity must be NAME=VALUE,VALUE …, such as image_size=32,64.")
    if setting in [parameter.name for parameter in sweep.parameters if not parameter.is_constant]:
        raise UserError(f"--fidelity {setting}: the sweep searches that setting itself.")
    constants = {item.name: item.value(None) for item in sweep.parameters if item.is_constant}
    base = [*arguments, *command_line(sweep, constants)]
    rounds = [[f"--{setting}={value}"] for value in values.split(",")]
    for flags in rounds:
        program.parse([*base, *flags])
    return [*rounds, []]


def _promoted(trials: Trials) -> list[dict]:
    """What the best third of a round searched, best first."""
    candidates = [trial for trial in trials.shown() if trials.value(trial) is not None
                  and "failure" not in trial.user_attrs]
    keep = math.ceil(len(candidates) / PROMOTED_SHARE)
    if not candidates:
        raise UserError("no trial of the round ended well, so none can be promoted.")
    return [trial.params for trial in sorted(candidates, key=trials.value, reverse=trials.sweep.maximize)[:keep]]


def _defaults(runs: Path) -> list[str]:
    """What a sweep sets unless its file or its command does; the cache is shared by all sweeps of a folder."""
    return [f"--runs_dir={runs}", f"--cache_dir={RunSettings().cache_folder}", "--wandb=disabled"]


def _record_failure(folder: Path, failure: str) -> None:
    """Leave the reason in a run folder whose process had no time to."""
    if not (folder / "summary.json").is_file():
        write_summary(folder, {"status": "failed", "reason": failure, "exit_code": 1})


def _report(runs: Path, target: Path, sweep: SweepFile, trials: Trials, storage: str | None) -> None:
    counts = trials.counts()
    print(f"{counts.finished} trials finished, {counts.pruned} pruned, {counts.failed} failed.")
    for trial in trials.shown():
        if "failure" in trial.user_attrs:
            print(f"  trial {trial.number}: {trial.user_attrs['failure']}")
    if storage is not None:
        print(f"The report is made of the runs in {runs}; those of other machines are in their folders.")
    if counts.finished + counts.pruned:
        report_runs([runs], target, metric=sweep.metric, maximize=sweep.maximize)
