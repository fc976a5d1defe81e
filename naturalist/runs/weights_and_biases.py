"""Weights & Biases (W&B): a run there beside the one in the folder.

W&B's environment variables mean what they mean to W&B: ``WANDB_PROJECT``, ``ENTITY``, ``NAME``, ``NOTES``, ``TAGS``,
``RUN_GROUP``, ``JOB_TYPE``, ``MODE``, ``DIR``, and all others that nothing here sets.

W&B gets the settings, the environment, the metrics, pictures and the summary, and collects by itself the list
of installed packages and the load of CPU, GPU, memory and disk. It gets no source code, no git patch, no
console output, no host or user name, and of paths below the home folder only what follows ``~``.
"""

import glob
import os
import re
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naturalist.entry import IN_SWEEP
from naturalist.errors import UserError, describe_error
from naturalist.reading import DamagedRecord, read_json
from naturalist.runs.environment import shell_path, without_private
from naturalist.runs.schemas import WandbRecord
from naturalist.settings.places import from_home
from naturalist.settings.rules import require_project

if TYPE_CHECKING:
    import wandb

VARIABLES = {"run_name": "name", "run_notes": "notes", "run_tags": "tags", "run_job_type": "job_type"}
"""What follows ``WANDB_`` in the variables of W&B's settings, where that is not the setting's name."""

INIT_TIMEOUT_SECONDS = 10
"""How long an online run may wait for the W&B server before it is recorded offline; W&B's default is 90."""

CONNECT_TIMEOUT_SECONDS = 3
"""How long each of three tries to reach the W&B server may take, before anything is started for it."""

FINISH_TIMEOUT_SECONDS = 120
"""How long the end of a run may wait for uploads; W&B's default is for ever."""


def start_wandb(
    folder: Path, mode: str, project: str, name: str, job_type: str, run_id: str | None, config: dict[str, Any]
) -> "wandb.Run | None":
    """Start or resume a run and say in one line where it is to be found; None when W&B is disabled."""
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or "auto"
    if mode == "disabled":
        return None
    import wandb  # half a second that a disabled run should not pay

    in_sweep = IN_SWEEP in os.environ
    require_project("WANDB_PROJECT", os.environ.get("WANDB_PROJECT", ""))
    asked: dict[str, Any] = {"silent": True} if mode == "auto" else {"silent": True, "mode": mode}
    try:
        session = wandb.setup(wandb.Settings(**asked))
        offline = session.settings.mode in ("offline", "dryrun")
        logged_in = not offline and wandb.login(prompt=False, verify=False)
        settings = _settings(
            folder,
            project=os.environ.get("WANDB_PROJECT") or project,
            run_name=os.environ.get("WANDB_NAME") or name,
            run_job_type=os.environ.get("WANDB_JOB_TYPE") or job_type,
            run_id=run_id,
            resume="allow" if run_id else None,
        )
    except (wandb.errors.AuthenticationError, wandb.errors.UsageError, ValueError) as error:
        raise UserError(explain_refusal(error)) from error

    if not offline and not logged_in and (mode == "online" or in_sweep):
        raise UserError("Nobody is logged in to W&B: run `wandb login`, or choose --wandb offline.")
    _remove_earlier(folder, Path(settings.wandb_dir), run_id)
    if offline:
        reason = "recorded offline"
    elif not logged_in:
        reason = "nobody is logged in, so the run is recorded offline"
    elif not in_sweep and (cause := why_unreachable(session.settings.base_url)):
        reason = f"the server does not answer ({cause}), so the run is recorded offline"
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
    try:
        run = wandb.init(mode="offline", config=config, settings=settings)
    except wandb.Error as error:
        cause = " ".join(str(error).split())
        raise UserError(f"W&B cannot record the run ({cause}); --wandb disabled leaves W&B out.") from error
    print(f"W&B: {reason}; upload it with: wandb sync {shell_path(run.settings.sync_dir)}", flush=True)
    return run


def why_unreachable(address: str) -> str | None:
    """Why nothing can be sent to ``address`` now; None when it can, or when only W&B itself can find out.

    W&B tries for as long as it may, whatever the reason; who works without a network should not wait for that.
    """
    import requests
    from urllib3.util import Retry

    adapter = requests.adapters.HTTPAdapter(max_retries=Retry(connect=2, read=False, redirect=0, backoff_factor=0.5))
    try:
        with requests.Session() as session:
            for scheme in ("http://", "https://"):
                session.mount(scheme, adapter)
            session.head(address, timeout=CONNECT_TIMEOUT_SECONDS, allow_redirects=False)
    except (requests.exceptions.SSLError, requests.exceptions.ProxyError):
        return None  # W&B may have been told of other certificates, or another proxy
    except requests.ConnectionError as error:
        first: BaseException = error
        while first.__context__:
            first = first.__context__
        return describe_error(first)
    except requests.RequestException:
        return None
    return None


def log_grid_to_finished_run(
    folder: Path, split: str, picture: Path, columns: list[str], rows: list[list[Any]], summary: dict[str, Any]
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
    record = read_wandb_record(id_file, "the grid is not sent to W&B")
    if not record.id or not record.url or os.environ.get("WANDB_MODE") in ("disabled", "offline", "dryrun"):
        return
    import wandb

    address = re.fullmatch(r".*/([^/]+)/([^/]+)/runs/[^/]+", record.url)
    try:
        wandb.setup(wandb.Settings(silent=True))
        if not address or not wandb.login(prompt=False, verify=False):
            return
        run = wandb.init(
            mode="online",
            settings=_settings(folder, entity=address[1], project=address[2], run_id=record.id, resume="must"),
        )
        log_grid(run, split, picture, columns, rows)
        run.log({})  # sends what was logged without being committed
        run.summary.update(summary)
        run.finish()
    except Exception as error:  # of many kinds: of W&B's library, its process, the server; the grid is in its folder
        print(f"W&B: the grid was not sent ({describe_error(error)}).", flush=True)
    else:
        print(f"W&B: the grid is at {record.url}", flush=True)


def read_wandb_record(path: Path, meaning: str) -> WandbRecord:
    """Which run it is at W&B: an empty record when it is none, or when ``wandb.json`` is damaged, which is said.

    Args:
        path: the file.
        meaning: what follows from its being damaged; ends the line.
    """
    if not path.exists():
        return WandbRecord()
    try:
        return read_json(path, WandbRecord, meaning)
    except DamagedRecord as damage:
        print(damage, flush=True)
        return WandbRecord()


def log_grid(run: "wandb.Run", split: str, picture: Path, columns: list[str], rows: list[list[Any]]) -> None:
    """Show the prediction grid, as a picture and as a table whose first column is pixels."""
    import wandb

    table = wandb.Table(columns=list(columns), data=[[wandb.Image(row[0]), *row[1:]] for row in rows])
    run.log({f"{split}_predictions": wandb.Image(str(picture)), f"{split}_predictions_table": table}, commit=False)


def lost_helper(error: Exception) -> bool:
    """Whether an error says that W&B's own process is gone; then nothing asks it again: no later run, and no exit."""
    names = ("HandleAbandonedError", "MailboxClosedError")  # of a package that is W&B's own business
    if not isinstance(error, ConnectionError) and type(error).__name__ not in names:
        return False
    import wandb

    with suppress(Exception, SystemExit):  # it finds the process gone, but no longer when Python ends
        wandb.teardown()
    return True


def uploaded(run: "wandb.Run") -> bool:
    """Whether an offline part of the run was uploaded by ``wandb sync``."""
    return any(Path(run.settings.wandb_dir).glob(f"*-{glob.escape(run.id)}/*.synced"))


def _root(folder: Path) -> Path:
    """Where W&B's own files go: to ``WANDB_DIR``, else to the run's folder.

    Raises :class:`UserError` when ``WANDB_DIR`` cannot be used, where W&B would take the system's temporary folder.
    """
    named = os.environ.get("WANDB_DIR", "").strip()
    if not named or (IN_SWEEP in os.environ and Path(named) == Path.cwd()):  # an agent sets it for those that do not
        return folder
    root = Path(from_home("WANDB_DIR", named))
    with suppress(OSError):
        root.mkdir(parents=True, exist_ok=True)
    if not os.access(root, os.W_OK | os.X_OK):
        raise UserError(f"WANDB_DIR names {named!r}, which cannot be written to; name another folder, or unset it.")
    return root


def _remove_earlier(folder: Path, wandb_dir: Path, run_id: str | None) -> None:
    """Remove what was not uploaded of a run before it is resumed: the new record repeats its epochs."""
    if wandb_dir.parent == folder:
        parts = wandb_dir.glob("offline-run-*")
    elif run_id:  # the folder is that of other runs, too
        parts = wandb_dir.glob(f"offline-run-*-{glob.escape(run_id)}")
    else:
        return
    for part in list(parts):
        if not any(part.glob("*.synced")):
            shutil.rmtree(part)


def explain_refusal(error: Exception) -> str:
    """The sentence for a setting that W&B does not take, which comes from its environment variables or files."""
    problems = error.errors() if hasattr(error, "errors") else []  # pydantic's, whose own words are many lines
    if not problems:
        return f"W&B refuses its settings: {' '.join(str(error).split())}"
    name = str(problems[0]["loc"][0])
    variable = f"WANDB_{VARIABLES.get(name, name).upper()}"
    setting = variable if variable in os.environ else f"its setting {name}"
    value = os.environ.get(variable, problems[0]["input"])
    choices = problems[0].get("ctx", {}).get("expected")
    advice = f"; it may be {choices}" if choices else "; change it, or unset it"
    return f"W&B cannot take {value!r} for {setting}{advice}."


def _settings(folder: Path, **more: Any) -> "wandb.Settings":
    import wandb

    return wandb.Settings(
        root_dir=str(_root(folder)),
        init_timeout=INIT_TIMEOUT_SECONDS,
        finish_timeout=FINISH_TIMEOUT_SECONDS,
        finish_timeout_raises=True,
        silent=True,
        console="off",
        save_code=False,
        disable_git=True,
        x_disable_meta=True,
        host="",
        program=without_private(sys.argv[0]),
        **more,
    )
