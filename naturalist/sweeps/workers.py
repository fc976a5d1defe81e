"""Processes that train one trial after the other, so that imports, caches and the device are set up once.

What a trial prints goes to its own log file. A worker never outlives the process that started it.
"""

import contextlib
import functools
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from naturalist.data.catalog import scan
from naturalist.data.dataset import Scan
from naturalist.entry import forget_stop, obey, stops_wait
from naturalist.errors import UserError, reason_of
from naturalist.memory import give_memory_back
from naturalist.output import forgiving_text, output_may_fail
from naturalist.printable import without_secrets
from naturalist.runs.folder import read_config, write_summary
from naturalist.settings.agent import name_of, require_same
from naturalist.sweeps.program import Program, load_program

SENDS_SIGNALS = sys.platform != "win32"
"""On Windows what asks a process to end ends it at once, with all that it has not saved."""

STOP_SECONDS = 60
"""How long a trial may take to save and finish after it was told to stop."""


class Worker:
    """A training process, seen from the sweep. ``connection`` can be waited for."""

    def __init__(self, program: Path, index: int, count: int):
        context = multiprocessing.get_context("spawn")
        self.connection, remote = context.Pipe()
        self._bell, heard = context.Pipe()
        self._process = context.Process(target=_work, args=(remote, heard, program, index, count), daemon=False)
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the child inherits that, until it has its own handlers
        try:
            self._process.start()
        finally:
            signal.signal(signal.SIGINT, before)
        remote.close()
        heard.close()
        self.index = index
        self.is_busy = False

    def start(self, arguments: list[str], shown: list[str], log: Path, label: str = "") -> None:
        """Begin a trial; :meth:`read` tells how it goes.

        Args:
            arguments: the program's.
            shown: flags for the settings that the sweep shows of the trial, which fails when it has others.
            log: where to what it prints goes.
            label: what the name of its run begins with, unless it is given a name.
        """
        self.is_busy = True
        with contextlib.suppress(BrokenPipeError):  # died idle: read() says so
            self.connection.send((arguments, shown, str(log), label))

    def answer(self, stop: bool) -> None:
        """Say whether the trial ends after the epoch that :meth:`read` gave."""
        with contextlib.suppress(BrokenPipeError):
            self.connection.send(stop)

    def read(self) -> tuple[str, Any]:
        """What happened: ``("epoch", metrics)``, ``("done", result)`` or ``("failed", message)``.

        After ``("died", message)`` the worker is of no more use.
        """
        try:
            kind, content = self.connection.recv()
        except (EOFError, OSError):
            self._process.join(STOP_SECONDS)
            kind, content = "died", _explain_exit(self._process.exitcode)
        self.is_busy = kind == "epoch"
        return kind, content

    def interrupt(self) -> None:
        """Make a trial save, finish and end now."""
        if SENDS_SIGNALS:
            self._process.terminate()
            return
        with contextlib.suppress(BrokenPipeError):  # died
            self._bell.send(True)

    def close(self) -> None:
        """End the process at once: an idle one has nothing to save."""
        self.connection.close()
        self._bell.close()
        self._process.kill()
        self._process.join()


class Pool:
    """The workers, made when they are first needed and again when one died."""

    def __init__(self, program: Path, count: int):
        self._program, self._count = program, count
        self._workers: list[Worker] = []

    def idle(self) -> Worker | None:
        """A worker that could start a trial."""
        for worker in self._workers:
            if not worker.is_busy:
                return worker
        free = set(range(self._count)) - {worker.index for worker in self._workers}
        if not free:
            return None
        self._workers.append(Worker(self._program, min(free), self._count))
        return self._workers[-1]

    def remove(self, worker: Worker) -> None:
        """End a worker that is of no more use."""
        worker.close()
        self._workers.remove(worker)

    def close(self) -> None:
        """End all workers."""
        while self._workers:
            self.remove(self._workers[-1])


def folder_in_log(log: Path) -> str | None:
    """The run folder that a trial said it records in; None where there is none, whatever the log holds."""
    try:
        found = re.search(r"^Run: (.+)$", log.read_text(encoding="utf-8", errors="surrogateescape"), re.MULTILINE)
        return found[1] if found and Path(found[1]).is_dir() else None
    except (OSError, ValueError):
        return None


@output_may_fail()
def _work(connection: Connection, bell: Connection, program_path: Path, index: int, count: int) -> None:
    """The process: wait for arguments, train, send what came out."""
    # Logs are UTF-8 whatever the terminal is; a console of Windows would not follow its descriptor to them.
    sys.stdout, sys.stderr = (
        forgiving_text(number, "utf-8", "backslashreplace", line_buffering=True) for number in (1, 2)
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the sweep decides what it means
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    threading.Thread(target=_stop_when_told, args=(bell,), daemon=True).start()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // count)))  # torch asks when it is imported
    program, scan_once = None, functools.cache(scan)
    while True:
        try:
            told = connection.recv()
        except (EOFError, OSError):
            return
        if isinstance(told, bool):  # the answer to a trial that was stopped before it came
            continue
        arguments, shown, log, label = told
        _print_to(Path(log))
        try:
            if program is None:
                program = load_program(program_path)
            message: tuple[str, Any] = "done", _train(connection, program, arguments, shown, label, index, scan_once)
        except Exception as error:  # whatever happens in a trial costs that trial only
            message = "failed", reason_of(error)
            if not isinstance(error, UserError):
                print(without_secrets(traceback.format_exc()), file=sys.stderr)
        except KeyboardInterrupt:
            message = "done", {"status": "stopped"}
        give_memory_back()  # the trials of other workers may need it
        sys.stdout.flush()
        try:
            connection.send(message)
        except (BrokenPipeError, OSError):
            return


def _train(
    connection: Connection,
    program: Program,
    arguments: list[str],
    shown: list[str],
    label: str,
    index: int,
    scan_once: Scan,
) -> dict[str, Any]:
    settings = program.parse(arguments)
    meant = program.parse([*arguments, *shown]).flat()
    meant = {name: meant[name] for name in map(name_of, shown)}
    require_same(meant, settings.flat(), "by its command")
    if label and settings.record.name is None:
        settings = settings.changed(name=f"{label}_{settings.describe()}")
    if settings.machine.device == "auto":
        import torch

        if torch.cuda.device_count() > 1:
            settings = settings.changed(device=f"cuda:{index % torch.cuda.device_count()}")

    def should_stop(metrics: dict[str, Any]) -> bool:
        try:
            with stops_wait():  # a message of which only half was read would be the end of this process
                connection.send(("epoch", metrics))
                return bool(connection.recv())
        except (EOFError, OSError):  # the sweep was killed: this trial did not fail, it will be run again
            os._exit(1)

    forget_stop()
    obey(signal.SIGTERM)
    try:
        more = {"scan": scan_once} if program.takes_scan else {}
        result = program.train(settings, should_stop, **more)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    require_recorded(meant, result)
    return result


def require_recorded(meant: dict[str, Any], result: dict[str, Any]) -> None:
    """Make a trial one that failed, and raise :class:`UserError`, when its folder says that it had other settings."""
    folder = Path(result.get("folder") or "")
    if not (folder / "config.yaml").is_file():
        return
    try:
        require_same(meant, read_config(folder), f"in {folder / 'config.yaml'}")
    except UserError as error:
        kept = {name: value for name, value in result.items() if name != "folder"}
        write_summary(folder, {**kept, "status": "failed", "reason": str(error), "exit_code": 1})
        raise


def _explain_exit(code: int | None) -> str:
    if code is None or code >= 0:
        return f"its process ended with code {code}"
    name = signal.Signals(-code).name
    cause = ", as systems do when memory runs out; fewer --workers take less" if name == "SIGKILL" else ""
    return f"its process was killed by {name}{cause}"


def _print_to(log: Path) -> None:
    """Send everything that is printed from now on, also by libraries and child processes, to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    with log.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def _stop_when_told(bell: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        while bell.recv():
            signal.raise_signal(signal.SIGTERM)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    wait([parent.sentinel] if parent else [])
    time.sleep(1)  # a sweep that ends in good order closes the connection first
    os._exit(1)
