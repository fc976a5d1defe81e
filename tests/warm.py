"""Programs in processes of their own that need not import their libraries: torch and the like take seconds of each.

A server process imports them once and forks for every program. What a program has of its own: arguments, working
directory, environment, output, exit code. What it has not: a fresh interpreter, calls at its exit, and fresh
interpreters for the processes that it spawns: they are forked, too.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

LIBRARIES = ("torch._dynamo", "sympy", "jsonargparse", "scipy.stats", "sklearn.metrics", "matplotlib.pyplot")
ROOMS = ("cli", "training.start", "training.fit", "evaluation.closing", "evaluation.several", "evaluation.predict")
MORE_ROOMS = ("explain.explain", "compare.compare", "models.summary", "models.strategies", "data.prepare", "export")

CAN_RUN_WARM = "forkserver" in multiprocessing.get_all_start_methods()
"""Not on Windows, where nothing forks."""

get_context = multiprocessing.get_context
_server = get_context("forkserver" if CAN_RUN_WARM else None)
if CAN_RUN_WARM:
    _server.set_forkserver_preload([*LIBRARIES, *(f"naturalist.{room}" for room in (*ROOMS, *MORE_ROOMS))])


def run_warm(
    arguments: list[str], cwd: Path, environment: dict[str, str], timeout: float
) -> subprocess.CompletedProcess:
    """Run ``python arguments…``, a script or ``-m`` and a module, and wait for it."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("output", "errors")]
        process = _server.Process(target=_be, args=(arguments, str(cwd), environment, [str(path) for path in files]))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(arguments, timeout)
        output, errors = (path.read_text(encoding="utf-8") if path.exists() else "" for path in files)
    return subprocess.CompletedProcess(arguments, process.exitcode, output, errors)


def _be(arguments: list[str], cwd: str, environment: dict[str, str], files: list[str]) -> None:
    """Become the program."""
    for descriptor, path in enumerate(files, start=1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, descriptor)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    multiprocessing.get_context = lambda method=None: get_context("fork" if method == "spawn" else method)
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        if arguments[1] == "naturalist":
            import_module("naturalist.cli").console()
        else:
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path.insert(0, str(Path(arguments[0]).parent))
        runpy.run_path(arguments[0], run_name="__main__")
