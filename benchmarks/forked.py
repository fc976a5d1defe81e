"""Commands of this repository in processes that need not import their libraries: hundreds of them in minutes.

The process that forks has imported torch and the rooms, and computes nothing itself, so that its children find no
thread of a library missing.
"""

import os
import runpy
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO

for library in ("OMP", "OPENBLAS", "MKL"):  # before they are imported: a process with threads may not fork, or unshare
    os.environ[f"{library}_NUM_THREADS"] = "1"

ROOT = Path(__file__).resolve().parent.parent
ROOMS = [
    "cli",
    "training.start",
    "training.fit",
    "training.state",
    "evaluation.closing",
    "evaluation.several",
    "evaluation.predict",
    "explain.explain",
    "compare.compare",
    "sweeps.sweep",
    "sweeps.report",
    "models.summary",
    "data.prepare",
    "settings.part_b",
]
SCRIPTS = ("partA/train.py", "partB/finetune.py", "partB/compare.py")


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    command: tuple[str, ...]
    code: int | None
    """Exit code, negative for a signal; None for one that did not end in time."""
    output: str
    errors: str
    seconds: float

    @property
    def fault(self) -> str | None:
        """What no user should see: a traceback, a signal, a hang, an error without its one sentence."""
        if self.code is None:
            return f"did not end in {self.seconds:.0f} s"
        if "Traceback" in self.errors + self.output:
            return "traceback: " + (self.errors.strip().splitlines() or ["?"])[-1]
        is_partial = self.code == 1 and self.command[0] == "predict"  # some photographs could not be read
        if self.code not in (0, 2) and not is_partial:
            return f"exit code {self.code}: {self.errors.strip()[-200:]}"
        lines = [line for line in self.errors.splitlines() if line.startswith("error: ")]
        if self.code == 2 and len(lines) != 1:
            return f"{len(lines)} sentences: {self.errors.strip()[-200:]!r}"
        return None


class Running:
    """A command in a process of its own."""

    def __init__(self, command: Sequence[object], folder: Path, stdin: bytes, environment: Mapping[str, str]) -> None:
        self.command = tuple(map(str, command))
        self._files = [tempfile.TemporaryFile() for _ in range(3)]  # noqa: SIM115 - open as long as the command runs
        self._files[0].write(stdin)
        self._files[0].seek(0)
        self._start = time.perf_counter()
        sys.stdout.flush()
        sys.stderr.flush()
        self.process_id = os.fork()
        if not self.process_id:
            _become(self.command, folder, self._files, environment)

    def wait(self, timeout: float = 120.0) -> Outcome:
        """Wait for the end; one that takes longer is killed."""
        code: int | None = None
        while time.perf_counter() - self._start < timeout:
            process_id, status = os.waitpid(self.process_id, os.WNOHANG)
            if process_id:
                code = os.waitstatus_to_exitcode(status)
                break
            time.sleep(0.003)
        else:
            self.kill()
        seconds = time.perf_counter() - self._start
        texts = []
        for file in self._files[1:]:
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
        return Outcome(self.command, code, texts[0], texts[1], seconds)

    def kill(self) -> None:
        """SIGKILL, unless it has ended."""
        os.kill(self.process_id, signal.SIGKILL)
        os.waitpid(self.process_id, 0)

    def has_ended(self) -> bool:
        """Whether there is nothing left to kill; the outcome is then lost."""
        return os.waitpid(self.process_id, os.WNOHANG)[0] != 0


def warm_up() -> None:
    """Import what commands import; to be called once, before anything is started."""
    sys.path.insert(0, str(ROOT))
    import torch
    import torch._dynamo  # what optimisers ask for

    torch.set_num_threads(1)
    for room in ROOMS:
        import_module(f"naturalist.{room}")


def start(*command: object, folder: Path, stdin: bytes = b"", environment: Mapping[str, str] | None = None) -> Running:
    """Start ``partA/train.py …``, another script, or a verb of ``naturalist``."""
    return Running(command, folder, stdin, environment or {})


def run(*command: object, folder: Path, timeout: float = 120.0, stdin: bytes = b"") -> Outcome:
    """The same, to its end."""
    return start(*command, folder=folder, stdin=stdin).wait(timeout)


def prepare(*command: object, folder: Path) -> Outcome:
    """The same, for what has to end well before anything can be tried; raises SystemExit when it does not."""
    outcome = run(*command, folder=folder)
    if outcome.code:
        raise SystemExit(f"{' '.join(outcome.command)} failed: {outcome.errors}")
    return outcome


def _become(command: tuple[str, ...], folder: Path, files: Sequence[IO[bytes]], environment: Mapping[str, str]) -> None:
    code = 1
    try:
        os.environ.update({"WANDB_MODE": "disabled", **environment})
        os.chdir(folder)
        for descriptor, file in enumerate(files):
            os.dup2(file.fileno(), descriptor)
        is_script = command[0] in SCRIPTS
        sys.argv = [str(ROOT / command[0]), *command[1:]] if is_script else ["naturalist", *command]
        if is_script:
            sys.path.insert(0, str((ROOT / command[0]).parent))
            runpy.run_path(sys.argv[0], run_name="__main__")
        else:
            import_module("naturalist.cli").console()
        code = 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                code = code or 1
        os._exit(code)
