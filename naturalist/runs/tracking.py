"""The record of a run: files in its folder and, alongside, Weights & Biases (W&B).

A run is a folder with ``config.yaml`` (the settings), ``environment.json`` (versions, hardware, commit,
command line), ``metrics.jsonl`` (one line per epoch; the truth) and ``summary.json`` (how it ended).
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from naturalist.entry import IN_SWEEP
from naturalist.errors import UserError, describe_error
from naturalist.files import append_line, write_atomically
from naturalist.printable import printable
from naturalist.reading import DamagedRecord, read_json
from naturalist.runs.environment import describe_environment, shell_path, without_private
from naturalist.runs.folder import json_line, read_metrics, write_json, write_summary
from naturalist.runs.weights_and_biases import (
    FINISH_TIMEOUT_SECONDS,
    log_grid,
    lost_helper,
    read_wandb_record,
    start_wandb,
    uploaded,
)

if TYPE_CHECKING:
    import wandb


class Tracker:
    """Records one run; made when training starts, finished when it ends."""

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        mode: Literal["auto", "online", "offline", "disabled"],
        *,
        project: str,
        name: str,
        job_type: str,
        history: list[dict[str, Any]] | None = None,
    ) -> None:
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
        self._summary: dict[str, Any] = {}
        self._is_concluded = False
        self._exit_code = 0
        environment = describe_environment()
        recorded: list[dict[str, Any]] = []
        if history is not None:
            recorded = read_metrics(folder)
            environment["resumed_from"] = without_private(_environment_before(folder / "environment.json"))
        id_file = folder / "wandb.json"
        earlier = read_wandb_record(id_file, "the run begins anew at W&B, with all of its epochs")
        self._run = start_wandb(
            folder,
            mode,
            project=project,
            name=name,
            job_type=job_type,
            run_id=earlier.id,
            config={**without_private(config), "environment": environment},
        )

        (folder / "summary.json").unlink(missing_ok=True)  # a resumed run is not finished any more
        write_atomically(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        write_json(folder / "environment.json", environment)
        write_atomically(folder / "metrics.jsonl", "".join(map(json_line, history or [])))

        self._sent_epoch = self._announce(id_file, earlier.url, recorded) if self._run else 0
        for metrics in history or []:
            self._send_epoch(metrics)

    def _announce(self, id_file: Path, earlier_url: str | None, recorded: list[dict[str, Any]]) -> int:
        """Note which run it is at W&B, and prepare it; returns the last epoch that it has."""
        run = self._run
        assert run is not None
        write_json(id_file, {"id": run.id, "url": run.url or earlier_url})
        run.define_metric("epoch")
        run.define_metric("*", step_metric="epoch", step_sync=False)
        if run.url:  # the server knows what it has: after a kill less or more than the checkpoint
            return int(run.summary.get("epoch", 0))  # type: ignore[no-untyped-call]  # of wandb
        if recorded and (earlier_url or uploaded(run)):
            return int(recorded[-1]["epoch"])
        return 0

    def log(self, metrics: dict[str, Any]) -> None:
        """Record an epoch: numbers by name, among them ``epoch``, counted from 1. NaN is null in the file."""
        path = self.folder / "metrics.jsonl"
        try:
            append_line(path, json_line(metrics))
        except OSError as error:
            raise UserError(f"cannot write {str(path)!r}: {error.strerror or error}; is the disk full?") from None
        self._send_epoch(metrics)

    def write(self, name: str, text: str) -> None:
        """Keep a text file in the run's folder; raises OSError when it cannot be written."""
        write_atomically(self.folder / name, text)

    def log_image(self, key: str, path: Path) -> None:
        """Show a picture file at W&B, beside the next epoch or at the end of the run."""

        def send(run: "wandb.Run") -> None:
            import wandb

            run.log({key: wandb.Image(str(path))}, commit=False)

        self._send(send)

    def log_grid(self, split: str, picture: Path, columns: list[str], rows: list[list[Any]]) -> None:
        """Show the prediction grid at W&B, as a picture and as a table whose first column is pixels."""
        self._send(lambda run: log_grid(run, split, picture, columns, rows))

    def set_summary(self, values: dict[str, Any]) -> None:
        """Record facts about the whole run, such as the model's parameters; ``conclude`` writes them down."""
        self._summary.update(values)
        self._send(lambda run: run.summary.update(without_private(values)))

    def conclude(self, summary: dict[str, Any], exit_code: int = 0) -> None:
        """Write ``summary.json``: how the run ended. The first word stands, whatever goes wrong after it.

        A run that failed says why in ``summary``. Raises :class:`UserError` when it cannot be written.
        """
        if self._is_concluded:
            return
        if summary.get("status") == "stopped" and IN_SWEEP in os.environ:
            summary = {**summary, "sweep": os.environ[IN_SWEEP]}
        self._is_concluded, self._exit_code = True, exit_code
        self._summary.update(summary)
        try:
            write_summary(self.folder, {**self._summary, "exit_code": exit_code})
        except OSError as error:
            raise UserError(
                f"the run is {summary.get('status')}, but its summary cannot be written: {error.strerror or error}; "
                f"mend that and write it with --resume {shell_path(self.folder)}."
            ) from None

    def finish(self, summary: dict[str, Any], exit_code: int = 0) -> None:
        """End the run, unless :meth:`conclude` has said how, and then at W&B: as failed when its exit code is not 0."""
        try:
            self.conclude(summary, exit_code)
        finally:
            self._send(lambda run: run.summary.update(without_private(self._summary)))
            self._finish_wandb()

    def _finish_wandb(self) -> None:
        if self._run is None:
            return
        run, self._run = self._run, None
        try:
            run.finish(exit_code=self._exit_code)
        except TimeoutError:
            reason = f"the upload takes longer than {FINISH_TIMEOUT_SECONDS} s"
        except Exception as error:  # of many kinds: its process was killed, its disk is full; the run is in its folder
            lost_helper(error)
            reason = f"the upload did not end well ({describe_error(error)})"
        else:
            return
        command = f"wandb sync --include-online {shell_path(run.settings.sync_dir)}"
        print(f"W&B: {reason}; finish it with: {command}", flush=True)

    def _send_epoch(self, metrics: dict[str, Any]) -> None:
        if metrics["epoch"] > self._sent_epoch:
            self._send(lambda run: run.log(metrics))

    def _send(self, deliver: Callable[["wandb.Run"], None]) -> None:
        if self._run is None:
            return
        try:
            deliver(self._run)
        except Exception as error:  # of many kinds: no reason to lose hours of training
            if lost_helper(error):
                self._run, reason = None, "its process died"
            else:
                reason = f"something was not sent ({describe_error(error)})"
            print(f"W&B: {reason}; {printable(self.folder)} still records the run.", flush=True)


def _environment_before(path: Path) -> dict[str, Any] | None:
    """What a run was made with before it was resumed; None, and a line, when that is not to be read."""
    try:
        return read_json(path, dict[str, Any], "the run goes on, but what it was begun with is not known any more")
    except DamagedRecord as damage:
        print(damage, flush=True)
        return None
