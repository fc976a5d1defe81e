"""Programs that need not import their libraries: torch and the like take seconds of each.

A server, one for all processes of a test session, imports them when it is first asked, and forks for every program.
What a program has of its own: arguments, working directory, environment, standard streams, session, signals, calls at
its exit, and exit code. What it has not: a fresh interpreter, and fresh interpreters for the processes that it spawns:
they are forked, too.

    with warm_server():
        WarmPopen([sys.executable, "partA/train.py", "--help"])  # as subprocess.Popen
"""

import atexit
import gc
import json
import multiprocessing
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import NoReturn

LIBRARIES = ("torch._dynamo", "sympy", "jsonargparse", "scipy.stats", "sklearn.ensemble", "matplotlib.pyplot", "optuna")
ROOMS = ("cli", "training.start", "training.fit", "evaluation.closing", "evaluation.several", "evaluation.predict")
ROOMS += ("explain.explain", "compare.compare", "models.summary", "models.strategies", "data.prepare", "export")
ROOMS += ("sweeps.sweep", "sweeps.workers", "report.report")

CAN_RUN_WARM = hasattr(os, "fork")
"""Not on Windows, where nothing forks."""

ADDRESS = "WARM_SERVER"
"""Environment variable that names the server's socket."""


@contextmanager
def warm_server() -> Iterator[None]:
    """A server for this process and those that it starts."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        os.environ[ADDRESS] = str(Path(folder, "socket"))
        listener.bind(os.environ[ADDRESS])
        listener.listen(64)
        server = subprocess.Popen([sys.executable, __file__, "--serve"], stdin=listener)
        try:
            yield
        finally:
            server.terminate()
            server.wait()
            del os.environ[ADDRESS]


class WarmPopen(subprocess.Popen):
    """A program of ``[sys.executable, arguments…]``, forked by the server."""

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *more):
        """In place of fork and exec."""
        pipes, starts_session = more[3:9], more[14]
        handles = [own if given == -1 else given for own, given in enumerate((pipes[0], pipes[3], pipes[5]))]
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(os.environ[ADDRESS])
        socket.send_fds(self._server, [b"."], handles)
        program = {"arguments": args[1:], "cwd": str(cwd or Path.cwd()), "environment": dict(env or os.environ)}
        self._server.sendall(json.dumps({**program, "starts_session": starts_session}).encode())
        self._server.shutdown(socket.SHUT_WR)
        self._close_pipe_fds(*pipes)
        self._answers = self._server.makefile()
        self.pid = int(self._answers.readline())
        self._child_created = True

    def _internal_poll(self, *_, **__):
        if self.returncode is None and select.select([self._server], [], [], 0)[0]:
            self.returncode = int(self._answers.readline())
            self._answers.close()
            self._server.close()
        return self.returncode

    def _wait(self, timeout):
        if self.returncode is None and not select.select([self._server], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self._internal_poll()


def write_stand_in(folder: Path) -> Path:
    """A program ``python`` in that folder, for those who start Python by this name: it runs scripts warm."""
    folder.mkdir()
    stand_in = folder / "python"
    stand_in.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{__file__}" "$@"\n')
    stand_in.chmod(0o755)
    return stand_in


def _stand_in(arguments: list[str]) -> NoReturn:
    """Hand on the streams, the signals and the exit code of the program."""
    program = WarmPopen([sys.executable, *arguments[arguments[0] == "-u" :]])  # whose output waits a little
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: program.send_signal(number))
    code = program.wait()
    os._exit(code if code >= 0 else 128 - code)


# ---- the server


def _serve() -> dict:
    """Fork for every program that is asked for; returns in a process that is to become one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the programs and for who started the server
    started_by = os.getppid()
    listener = socket.socket(fileno=os.dup(0))
    listener.settimeout(5)
    is_warm = False
    while os.getppid() == started_by:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        if not is_warm:
            for name in (*LIBRARIES, "wandb", *(f"naturalist.{room}" for room in ROOMS)):
                import_module(name)
            for name in [name for name in sys.modules if name.partition(".")[0] == "wandb"]:
                del sys.modules[name]  # it makes a folder when it is imported; what it imports may stay
            gc.collect()
            gc.freeze()  # what a program's collector does not touch need not be copied for it
            is_warm = True
        if os.fork() == 0:
            listener.close()
            return _guard(connection)
        connection.close()
    sys.exit()


def _guard(connection: socket.socket) -> dict:
    """Fork a program, tell its pid, wait for it, and tell its exit code; returns in the program."""
    streams = socket.recv_fds(connection, 1, 3)[1]
    program = json.load(connection.makefile())
    pid = os.fork()
    if pid:
        for stream in streams:
            os.close(stream)
        connection.sendall(f"{pid}\n".encode())
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with suppress(OSError):  # nobody waits for it
            connection.sendall(f"{code}\n".encode())
        os._exit(0)
    connection.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    return program


def _become(arguments: list[str], cwd: str, environment: dict[str, str], starts_session: bool) -> None:
    """Run the program."""
    if starts_session:
        os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdin = sys.__stdin__ = os.fdopen(0, closefd=False)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)
    os.register_at_fork(after_in_child=_forget_handlers)
    get_context = multiprocessing.get_context
    multiprocessing.get_context = lambda method=None: get_context("fork" if method == "spawn" else method)
    try:
        _run(arguments, cwd)
        code = None
    except SystemExit as end:
        code = end.code
        if not isinstance(code, int | None):
            raise
    _leave(code or 0)


def _forget_handlers() -> None:
    """A process that is forked in place of one that is spawned answers signals as that would."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _run(arguments: list[str], cwd: str) -> None:
    first, *rest = arguments
    if first == "-c":
        sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif first == "-m":
        sys.argv, sys.path[0] = rest, cwd
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = arguments, str(Path(first).parent)
        runpy.run_path(first, run_name="__main__")


def _leave(code: int) -> None:
    """End as an interpreter does, without taking apart what was never its own, which takes two seconds."""
    threading._shutdown()
    atexit._run_exitfuncs()
    try:
        for stream in {sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__} - {None}:
            stream.flush()
    except (OSError, ValueError):
        sys.exit(code)  # an interpreter has words and a code of its own for that
    os._exit(code)


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        _become(**_serve())
    else:
        _stand_in(sys.argv[1:])
