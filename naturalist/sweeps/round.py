"""One round of a sweep: the trials of one study, given to the workers until enough are done."""

import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import optuna

from naturalist.entry import stop_requested, stops_held
from naturalist.errors import OUT_OF_MEMORY, UserError
from naturalist.runs.folder import write_summary
from naturalist.runs.records import trial_label
from naturalist.settings.agent import flags, name_of
from naturalist.sweeps.program import command_line
from naturalist.sweeps.read_runs import CUT_OFF
from naturalist.sweeps.table import TrialTable
from naturalist.sweeps.trials import Trials
from naturalist.sweeps.workers import STOP_SECONDS, Pool, Worker, folder_in_log

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
    told_to_stop: bool = False


class Round:
    """All trials of one study."""

    def __init__(self, trials: Trials, pool: Pool, logs: Path, label: str, before: list[str], after: list[str]):
        """Prepare a round.

        Args:
            trials: the study.
            pool: the workers.
            logs: folder of what the trials print.
            label: of the round, in the names of its logs.
            before: flags of every trial that its settings override.
            after: flags that override its settings.
        """
        self._trials, self._pool, self._logs, self._label = trials, pool, logs, label
        self._before, self._after = before, after
        self._running: dict[Worker, RunningTrial] = {}
        self._first_failures: int | None = 0
        """How many of the first trials failed; None as soon as one did not."""

    def run(self, target: float) -> None:
        """Run trials until ``target`` are done, here or elsewhere."""
        with TrialTable(self._trials, min(target, self._trials.size), self._label) as self._table:
            try:
                with stops_held():  # a worker whose message was read must get its answer, else it waits for it
                    while not stop_requested() and (self._fill(target) or self._running or self._wait_for_others()):
                        self._listen()
                    if stop_requested():
                        self._table.say("Stopping; running trials save what they have …")
                        self._stop()
                        self._table.say("Stopped. The same command goes on; trials that were cut off are run again.")
                        raise KeyboardInterrupt
            finally:
                for running in self._running.values():
                    self._trials.cut_off(running.trial)

    def _fill(self, target: float) -> bool:
        """Give every idle worker a trial; False when there is none to give."""
        self._beat()
        while (worker := self._pool.idle()) is not None:
            trial = self._trials.choose(target)
            if trial is None:
                return False
            log = self._logs / f"trial{self._label}-{trial.number:04d}.log"
            settings = self._trials.settings(trial)
            command = command_line(self._trials.sweep, settings)
            arguments = [*self._before, *command, *self._after]
            worker.start(arguments, self._shown(settings), log, trial_label(trial.number))
            self._running[worker] = RunningTrial(trial, log, time.monotonic())
            self._table.update(running=len(self._running))
        return True

    def _shown(self, settings: dict[str, Any]) -> list[str]:
        """The flags of a trial's settings, but for those that its round overrides."""
        overridden = [name_of(flag) for flag in self._after]
        return [flag for flag in flags(settings) if name_of(flag) not in overridden]

    def _listen(self, stopping: bool = False) -> None:
        """Take in what the workers say; while ``stopping``, trials end and are run again later."""
        ready = wait([worker.connection for worker in self._running], POLL_SECONDS)
        for worker in [worker for worker in self._running if worker.connection in ready]:
            running = self._running[worker]
            kind, content = worker.read()
            if kind == "epoch":
                running.told_to_stop |= stopping
                running.pruned = not stopping and self._trials.report(running.trial, content)
                worker.answer(stopping or running.pruned)
                continue
            del self._running[worker]
            if stopping and (kind != "done" or running.told_to_stop):
                self._cut_off(running, content if kind == "done" else {})
            else:
                self._end(running, kind, content)
            if kind in ("died", "failed"):
                self._pool.remove(worker)  # after a failure nobody knows what the process still holds
        self._beat()
        self._table.update(running=len(self._running))

    def _beat(self) -> None:
        self._trials.beat(running.trial for running in self._running.values())

    def _end(self, running: RunningTrial, kind: str, content: Any) -> None:
        """Record how a trial ended."""
        if kind == "done" and content["status"] == "stopped":  # somebody stopped the worker, not the sweep
            self._cut_off(running, content)
            return
        folder = content.get("folder") if kind == "done" else folder_in_log(running.log)
        failure = None if kind == "done" else f"{content.rstrip('.')}; see {running.log}"
        is_recorded = self._trials.finish(
            running.trial,
            seconds=time.monotonic() - running.start,
            folder=folder,
            pruned=running.pruned and kind == "done" and content["status"] == "pruned",
            failure=failure,
        )
        if not is_recorded:
            self._table.say(f"Another machine gave trial {running.trial.number} up: this one was silent for too long.")
            return
        if failure and folder and not (Path(folder) / "summary.json").is_file():  # its process had no time to
            with suppress(OSError):  # the sweep's own record has it; a full disk must not end the other trials
                write_summary(Path(folder), {"status": "failed", "reason": failure, "exit_code": 1})
        self._table.ended(running.trial.number)
        is_mistake = kind == "failed" and not content.startswith(OUT_OF_MEMORY)  # others may need less
        if self._first_failures is not None:
            self._first_failures = self._first_failures + 1 if is_mistake else None
            if self._first_failures == FAILURES_TO_GIVE_UP:
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
        while self._running and time.monotonic() < deadline:
            for worker in self._running:
                worker.interrupt()
            self._listen(stopping=True)

    def _cut_off(self, running: RunningTrial, result: dict[str, Any]) -> None:
        """Give a trial up that is to be run again, and say so in its folder."""
        self._trials.cut_off(running.trial)
        folder = result.get("folder") or folder_in_log(running.log)
        if folder and Path(folder).is_dir():
            kept = {name: value for name, value in result.items() if name != "folder"}
            with suppress(OSError):
                write_summary(Path(folder), {**kept, "status": CUT_OFF, "exit_code": 0})
