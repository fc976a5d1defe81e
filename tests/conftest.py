"""What several tests need: a small data set of real JPEG files, and a way to run programs as users do."""

import gc
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from warm import CAN_RUN_WARM, WarmPopen, warm_server

from naturalist.data.sources.sample import CLASSES, draw

# The networks of the tests are tiny: more threads would only wait for each other. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Programs that tests stop inherit what is ignored: by a shell without job control, such as a CI's, or by nohup.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):  # not on Windows
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

REPOSITORY = Path(__file__).parent.parent
SMALL_CLASSES = CLASSES[:4]
TIMEOUT = 300
"""Seconds after which a program hangs rather than being slow, also on a busy machine."""
IMAGES_PER_CLASS = {"train": 12, "test": 4}
SLOW = {
    *("subprocess", "WarmPopen", "fit", "evaluate_run", "evaluate_runs", "explain_run", "export_run"),
    *("report_all", "report_runs", "make_sample", "create_sweep_command_args"),  # imports more than all the rest
}
"""Names whose use makes a test slow: programs, whole trainings, a long verb's pages; `make test-fast` leaves it out."""
FOR_INTERPRETERS = re.compile("PYTHON[A-Z]|OMP_|LC_|LANG")
"""Variables that Python and the libraries read when they begin."""


def pytest_configure(config: pytest.Config) -> None:
    """Start the server of warm programs, before the processes that share it."""
    if CAN_RUN_WARM and not hasattr(config, "workerinput"):
        session = ExitStack()
        session.enter_context(warm_server())
        config.add_cleanup(session.close)


@pytest.hookimpl(tryfirst=True)  # before -m chooses by the mark
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Mark tests that start programs or do all of a long verb's work as slow: few have to say so themselves."""
    for item in items:
        fixtures = [definition.func for found in item._fixtureinfo.name2fixturedefs.values() for definition in found]
        if any(map(is_slow, (item.function, *fixtures))):
            item.add_marker(pytest.mark.slow)
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])  # a long file that begins last would be waited for


def pytest_collection_finish() -> None:
    """Leave what was imported to itself: the collector would look through all of it again and again."""
    gc.collect()
    gc.freeze()


@cache  # a test has many cases
def is_slow(thing: object) -> bool:
    """Whether a function or class of the tests names one of :data:`SLOW`, or another one of them that does."""
    return names_slow(thing, set())


def names_slow(thing: object, seen: set[object]) -> bool:
    """The same, without those that were seen on the way."""
    module = sys.modules.get(getattr(thing, "__module__", None) or "")
    of_the_tests = Path(getattr(module, "__file__", None) or "/").is_relative_to(REPOSITORY / "tests")
    if not of_the_tests or not isinstance(thing, FunctionType | type) or thing in seen:
        return False
    seen.add(thing)
    if isinstance(thing, type):
        return any(names_slow(member, seen) for member in vars(thing).values())
    names = set(names_in(thing.__code__))
    return bool(names & SLOW) or any(names_slow(thing.__globals__.get(name), seen) for name in names)


def names_in(code: CodeType) -> Iterator[str]:
    """Names that a function's code and the code within it use, its own variables left out."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from names_in(constant)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory) -> Path:
    """A folder with ``train/`` and ``test/``, shared by all tests; change :func:`own_photographs` instead.

    4 classes of 12 and 4 JPEGs, drawn, mixed in size and orientation, one of each class's twelve greyscale.
    """
    folder = tmp_path_factory.mktemp("photographs")
    for split, count in IMAGES_PER_CLASS.items():
        for label, name in enumerate(SMALL_CLASSES):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                image = draw(name, np.random.default_rng([split == "test", label, number]))
                image = image.convert("L" if split == "train" and number == label else "RGB")
                image.save(folder / split / name / f"{number:02}.jpg", quality=90)
    return folder


@pytest.fixture
def own_photographs(photographs, tmp_path) -> Path:
    """A copy of :func:`photographs` for one test to change."""
    return Path(shutil.copytree(photographs, tmp_path / "own photographs"))


def make_classes(folder: Path, *names: str) -> Path:
    """Class folders with one file each; scanning opens no file, so any content will do."""
    for name in names or ("Aves", "Fungi"):
        (folder / name).mkdir(parents=True)
        (folder / name / "photo.jpg").write_bytes(os.fsencode(name))
    return folder


@pytest.fixture
def blank_pictures(monkeypatch):
    """Figures of this process end as blank files, for tests that look at something else: drawing takes seconds."""

    def save_blank(_: Figure, path: Path, format: str, **__: object) -> None:
        if format == "png":
            Image.new("RGB", (8, 8)).save(path, format)
        else:
            Path(path).write_bytes(b"")

    monkeypatch.setattr(Figure, "savefig", save_blank)


@pytest.fixture
def mount(tmp_path):
    """Mounts file systems in memory, where the system lets this user."""
    folder = tmp_path / "mounted"

    def mount(*options: str) -> Path:
        folder.mkdir(exist_ok=True)
        try:
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)], check=True, capture_output=True
            )
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("this user cannot mount a file system in memory")
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def limit_files():
    """Limits how large a file may get: what goes beyond is written in part, and then refused."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def start_python(
    *arguments: object, cwd: Path, env: dict[str, str] | None = None, fresh: bool = False, **options: object
) -> subprocess.Popen:
    """Start ``python arguments…`` in ``cwd`` as a user without a W&B account would.

    In a process that has imported the libraries already, unless ``env`` changes what an interpreter begins with.

    Args:
        arguments: a script, ``-m`` and a module, or ``-c`` and code, with their own; or options for a new interpreter.
        cwd: the working directory.
        env: what the environment has besides.
        fresh: have an interpreter of its own, as what measures memory needs.
        options: of :class:`subprocess.Popen`, where output and errors should not come as one text.
    """
    changed = {name for name, value in (env or {}).items() if value != os.environ.get(name)}
    has_options = str(arguments[0]).startswith("-") and arguments[0] not in ("-c", "-m")
    is_warm = CAN_RUN_WARM and not fresh and not has_options and not any(map(FOR_INTERPRETERS.match, changed))
    return (WarmPopen if is_warm else subprocess.Popen)(
        [sys.executable, *map(str, arguments)],
        **{
            "cwd": cwd,
            "env": environment(env),
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "encoding": "utf-8",
            **options,
        },
    )


def run_python(*arguments: object, timeout: float = TIMEOUT, **options: object) -> subprocess.CompletedProcess:
    """As :func:`start_python`, wait for it, with errors apart."""
    with start_python(*arguments, **{"stderr": subprocess.PIPE, **options}) as process:
        try:
            output, errors = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def environment(changes: dict[str, str] | None = None) -> dict[str, str]:
    """This process's environment with the package importable, ``changes``, and nothing else that programs go by."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "PYTHONUNBUFFERED"))}
    return {**kept, "PYTHONPATH": str(REPOSITORY), "PYTHONIOENCODING": "utf-8", **(changes or {})}
