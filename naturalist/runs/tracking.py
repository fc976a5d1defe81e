"""The record of a run: files in its folder and, alongside, Weights & Biases (W&B).

A run is a folder with ``config.yaml`` (the settings), ``environment.json`` (versions, hardware, commit,
command line), ``metrics.jsonl`` (one line per epoch; the truth) and ``summary.json`` (how it ended).

W&B gets the settings, the environment, the metrics, pictures and the summary, and collects by itself the list
of installed packages and the load of CPU, GPU, memory and disk. It gets no source code, no git patch, no
console output, no host or user name, and of paths below the home folder only what follows ``~``.
"""

import json
import math
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import yaml

import naturalist
from naturalist.errors import UserError
from naturalist.settings.config import IN_SWEEP

if TYPE_CHECKING:
    import wandb

INIT_TIMEOUT_SECONDS = 10
"""How long an online run may wait for the W&B server before it is recorded offline; W&B's default is 90."""

FINISH_TIMEOUT_SECONDS = 120
"""How long the end of a run may wait for uploads; W&B's default is for ever."""


def create_run_folder(runs_dir: Path, name: str) -> Path:
    """Make ``runs_dir/name``, or ``name-2``, ``name-3`` … when that is taken; two processes never share one.

    Characters that file systems or shells object to become ``-``. Raises :class:`UserError` when ``runs_dir``
    cannot be written.
    """
    name = re.sub(r"[^\w.=+-]+", "-", name)[:120].strip(".-") or "run"
    folder = runs_dir / name
    taken = 1
    while True:
        try:
            folder.mkdir(parents=True)  # one atomic step: checks and takes the name
            return folder
        except FileExistsError:
            taken += 1
            folder = runs_dir / f"{name}-{taken}"
        except OSError as error:
            raise UserError(
                f"Cannot make a run folder in {runs_dir}: {error.strerror}. Choose another one with --runs_dir."
            ) from error


def read_metrics(folder: Path) -> list[dict]:
    """Return the epochs recorded in ``folder/metrics.jsonl``, in order.

    A last line without its line end is what a killed process leaves; it counts only when it is whole.
    Raises :class:`UserError` when there is no such file, or another line is damaged.
    """
    path = folder / "metrics.jsonl"
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}. Is {folder} the folder of a run?") from error
    epochs = []
    for number, line in enumerate(lines, start=1):
        try:
            epochs.append(json.loads(line))
        except ValueError as error:
            if number == len(lines) and not line.endswith(b"\n"):
                break
            raise UserError(f"{path}, line {number} is not valid JSON; mend or delete that line.") from error
    return epochs


def write_summary(folder: Path, summary: dict) -> None:
    """Write how a run ended to ``folder/summary.json``."""
    _write_json(folder / "summary.json", summary)


class Tracker:
    """Records one run; made when training starts, finished when it ends."""

    def __init__(
        self,
        folder: Path,
        config: dict,
        mode: Literal["auto", "online", "offline", "disabled"],
        *,
        project: str,
        name: str,
        job_type: str,
        history: list[dict] | None = None,
    ):
        """Write the settings and the environment into ``folder`` and start the run at W&B.

        Raises :class:`UserError` when nobody is logged in though ``mode`` is ``online`` or an agent
        started this, when the server does not answer an agent's run, and when W&B refuses its settings.

        Args:
            folder: an existing folder, from :func:`create_run_folder` unless the run is resumed.
            config: the settings, as plain YAML values.
            mode: ``auto`` does what ``WANDB_MODE`` says, and without it is online when somebody is logged in,
                else offline. An online run whose server does not answer is recorded offline. ``disabled``
                does not even import wandb.
            project: the W&B project, where ``WANDB_PROJECT`` names no other.
            name: the name W&B shows.
            job_type: the W&B job type, such as ``train``.
            history: the metrics of the epochs that a resumed run goes on from, ``None`` for a new run. They
                replace what ``metrics.jsonl`` holds, and W&B goes on with the same run.
        """
        self.folder = folder
        self._summary: dict = {}
        environment = _environment()
        recorded = []
        if history is not None:
            recorded = read_metrics(folder)
            environment["resumed_from"] = _read_json(folder / "environment.json")
        id_file = folder / "wandb.json"
        earlier = _read_json(id_file) if id_file.exists() else {"id": None, "url": None}
        self._run = _start_wandb(
            folder,
            mode,
            project=project,
            name=name,
            job_type=job_type,
            run_id=earlier["id"],
            config={**_without_home(config), "environment": environment},
        )

        (folder / "summary.json").unlink(missing_ok=True)  # a resumed run is not finished any more
        _write_atomically(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        _write_json(folder / "environment.json", environment)
        _write_atomically(folder / "metrics.jsonl", "".join(map(_json_line, history or [])))

        self._sent_epoch = 0
        if self._run:
            _write_json(id_file, {"id": self._run.id, "url": self._run.url or earlier["url"]})
            self._run.define_metric("epoch")
            self._run.define_metric("*", step_metric="epoch", step_sync=False)
            if self._run.url:  # the server knows what it has: after a kill less or more than the checkpoint
                self._sent_epoch = self._run.summary.get("epoch", 0)
            elif recorded and (earlier["url"] or any(folder.glob("wandb/*/*.synced"))):
                self._sent_epoch = recorded[-1]["epoch"]
        for metrics in history or []:
            self._send_epoch(metrics)

    def log(self, metrics: dict) -> None:
        """Record an epoch: numbers by name, among them ``epoch``, counted from 1. NaN is null in the file."""
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(_json_line(metrics))
        self._send_epoch(metrics)

    def log_image(self, key: str, path: Path) -> None:
        """Show a picture file at W&B, beside the next epoch or at the end of the run."""

        def send(run: "wandb.Run") -> None:
            import wandb

            run.log({key: wandb.Image(str(path))}, commit=False)

        self._send(send)

    def log_grid(self, split: str, picture: Path, columns: list[str], rows: list[list]) -> None:
        """Show the prediction grid at W&B, as a picture and as a table whose first column is pixels."""
        self._send(lambda run: _log_grid(run, split, picture, columns, rows))

    def set_summary(self, values: dict) -> None:
        """Record facts about the whole run, such as the model's parameters; ``finish`` writes them down."""
        self._summary.update(values)
        self._send(lambda run: run.summary.update(_without_home(values)))

    def finish(self, summary: dict, exit_code: int = 0) -> None:
        """Write ``summary.json`` and end the run at W&B, as failed when ``exit_code`` is not 0.

        A run that failed says why in ``summary``.
        """
        self.set_summary(summary)
        write_summary(self.folder, {**self._summary, "exit_code": exit_code})
        try:
            self._send(lambda run: run.finish(exit_code=exit_code))
        except TimeoutError:
            print(
                f"W&B: the upload takes longer than {FINISH_TIMEOUT_SECONDS} s; finish it with: wandb sync "
                f"--include-online {_shell_path(self._run.settings.sync_dir)}",
                flush=True,
            )

    def _send_epoch(self, metrics: dict) -> None:
        if metrics["epoch"] > self._sent_epoch:
            self._send(lambda run: run.log(metrics))

    def _send(self, deliver: Callable[["wandb.Run"], None]) -> None:
        if self._run is None:
            return
        try:
            deliver(self._run)
        except ConnectionError:  # wandb's helper process is gone: no reason to lose hours of training
            self._run = None
            print(f"W&B: its process died; {self.folder} still records the run.", flush=True)


def log_grid_to_finished_run(
    folder: Path, split: str, picture: Path, columns: list[str], rows: list[list], summary: dict
) -> None:
    """Add the prediction grid and a few numbers to a run that W&B has.

    Nothing is sent, and wandb not even imported, for a run that is recorded offline or not at all, and under
    ``WANDB_MODE=offline`` or ``disabled``. A server that does not answer is told of in one line.

    Args:
        folder: run folder.
        split: names the entries: ``<split>_predictions`` and ``<split>_predictions_table``.
        picture: PNG file.
        columns: headings of the table.
        rows: its cells; the first of each row is an image, ``[H, W, 3]`` uint8.
        summary: numbers by name.
    """
    id_file = folder / "wandb.json"
    record = _read_json(id_file) if id_file.is_file() else {"url": None}
    if not record["url"] or os.environ.get("WANDB_MODE") in ("disabled", "offline", "dryrun"):
        return
    import wandb

    address = re.fullmatch(r".*/([^/]+)/([^/]+)/runs/[^/]+", record["url"])
    try:
        wandb.setup(wandb.Settings(silent=True))
        if not address or not wandb.login(prompt=False, verify=False):
            return
        run = wandb.init(
            mode="online",
            settings=_wandb_settings(folder, entity=address[1], project=address[2], run_id=record["id"], resume="must"),
        )
        _log_grid(run, split, picture, columns, rows)
        run.log({})  # sends what was logged without being committed
        run.summary.update(summary)
        run.finish()
    except (wandb.Error, ConnectionError, TimeoutError, ValueError) as error:
        print(f"W&B: the grid was not sent ({str(error).partition(chr(10))[0]}).", flush=True)
    else:
        print(f"W&B: the grid is at {record['url']}", flush=True)


def _log_grid(run: "wandb.Run", split: str, picture: Path, columns: list[str], rows: list[list]) -> None:
    import wandb

    table = wandb.Table(columns=columns, data=[[wandb.Image(row[0]), *row[1:]] for row in rows])
    run.log({f"{split}_predictions": wandb.Image(str(picture)), f"{split}_predictions_table": table}, commit=False)


def _wandb_settings(folder: Path, **more) -> "wandb.Settings":
    import wandb

    return wandb.Settings(
        root_dir=str(folder),
        init_timeout=INIT_TIMEOUT_SECONDS,
        finish_timeout=FINISH_TIMEOUT_SECONDS,
        finish_timeout_raises=True,
        silent=True,
        console="off",
        save_code=False,
        disable_git=True,
        x_disable_meta=True,
        host="",
        program=_without_home(sys.argv[0]),
        **more,
    )


def _start_wandb(
    folder: Path, mode: str, project: str, name: str, job_type: str, run_id: str | None, config: dict
) -> "wandb.Run | None":
    """Start or resume a run and say in one line where it is to be found; None when W&B is disabled."""
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or "auto"
    if mode == "disabled":
        return None
    import wandb  # half a second that a disabled run should not pay

    in_sweep = IN_SWEEP in os.environ
    try:
        session = wandb.setup(wandb.Settings(silent=True, **({} if mode == "auto" else {"mode": mode})))
        offline = session.settings.mode in ("offline", "dryrun")
        logged_in = not offline and wandb.login(prompt=False, verify=False)
        settings = _wandb_settings(
            folder,
            project=os.environ.get("WANDB_PROJECT") or project,
            run_name=name,
            run_job_type=job_type,
            run_id=run_id,
            resume="allow" if run_id else None,
        )
    except (wandb.errors.AuthenticationError, ValueError) as error:
        raise UserError(f"W&B refuses its settings: {' '.join(str(error).split())}") from error

    if not offline and not logged_in and (mode == "online" or in_sweep):
        raise UserError("Nobody is logged in to W&B: run `wandb login`, or choose --wandb offline.")
    for part in (folder / "wandb").glob("offline-run-*"):
        if not any(part.glob("*.synced")):
            shutil.rmtree(part)  # not uploaded before the run is resumed: the new record repeats its epochs
    if offline:
        reason = "recorded offline"
    elif not logged_in:
        reason = "nobody is logged in, so the run is recorded offline"
    else:
        try:
            run = wandb.init(mode="online", config=config, settings=settings)
            print(f"W&B: {run.url}", flush=True)
            return run
        except wandb.Error as error:
            cause = str(error).partition("\n")[0]
            if in_sweep:
                raise UserError(f"A sweep needs the W&B server, but it does not answer: {cause}") from error
            reason = f"the server does not answer ({cause}), so the run is recorded offline"
    run = wandb.init(mode="offline", config=config, settings=settings)
    print(f"W&B: {reason}; upload it with: wandb sync {_shell_path(run.settings.sync_dir)}", flush=True)
    return run


def _shell_path(path: str) -> str:
    return shlex.quote(os.path.relpath(path))


def _environment() -> dict:
    import torch  # here, so that reading a record does not cost its import

    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(["python", *map(_without_home, sys.argv)]),
        "naturalist": naturalist.__version__,
        "git": _git_state(),
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "torchvision", "numpy")},
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cpu_count": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _git_state() -> dict | None:
    """Return the commit of the checkout this code runs from; None without a checkout or without git."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        # Refuses a copy that was installed inside another project's checkout.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _cpu_name() -> str:
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:  # not Linux
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _without_home(value):
    """Shorten paths in text, alone or in a dict: the working directory to ``.``, the home folder to ``~``."""
    if isinstance(value, dict):
        return {key: _without_home(item) for key, item in value.items()}
    if not isinstance(value, str):
        return value
    short_names = {Path.home(): "~", Path.cwd(): "."}
    for folder in sorted(short_names, key=lambda folder: -len(folder.parts)):  # the inner one first
        if folder != folder.parent:  # "/" as a home would match every path
            value = re.sub(rf"(?<![\w.~-]){re.escape(str(folder))}(?![\w.-])", short_names[folder], value)
    return value


def _finite(value):
    """Replace NaN and infinities, which JSON does not know, by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _json_line(metrics: dict) -> str:
    return json.dumps(_finite(metrics), allow_nan=False) + "\n"


def _read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def _write_json(path: Path, content: dict) -> None:
    _write_atomically(path, json.dumps(_finite(content), indent=2, ensure_ascii=False) + "\n")


def _write_atomically(path: Path, text: str) -> None:
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
