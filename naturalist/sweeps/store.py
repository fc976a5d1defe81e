"""Where a sweep's trials are kept, and which of its processes are alive.

Without a database the store is a journal file in the sweep's folder. Any number of processes may share a store; only
one at a time chooses a trial, so that none is chosen twice.
"""

import contextlib
import json
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution
from optuna.exceptions import StorageInternalError
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage, RDBStorage, fail_stale_trials
from optuna.trial import TrialState

from naturalist.errors import UserError
from naturalist.reading import damaged, fit
from naturalist.sweeps.journal import BEGIN_ANEW, open_journal

BEAT_SECONDS = 10
"""How often a process tells a database that its trials are alive."""

DEAD_SECONDS = 60
"""After so long a silence a trial in a database counts as cut off."""

optuna.logging.set_verbosity(optuna.logging.ERROR)
# Optuna calls heartbeats experimental since version 2.9, and means them for its own loop.
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed to be used with Study.optimize")


class Store:
    """A journal file, or a database with several machines."""

    def __init__(self, folder: Path, url: str | None):
        """Open the store, making it if need be.

        Raises :class:`UserError` when the database does not answer or its driver is missing, or the journal is damaged.

        Args:
            folder: of the sweep; holds the journal and the lock files.
            url: database, as SQLAlchemy writes it; None for the journal.
        """
        self._last_beat = -float(BEAT_SECONDS)
        self.owner = uuid.uuid4().hex[:12]
        self._owners = folder / "processes"
        self._owners.mkdir(parents=True, exist_ok=True)
        self._alive = FileLock(self._owners / self.owner)
        self._alive.acquire()
        self._choosing: FileLock | sqlalchemy.Engine = FileLock(folder / "choosing.lock")
        self.storage: BaseStorage
        if url is None:
            self.storage = open_journal(folder)
        else:
            self.storage = database = _open_database(url)
            is_file = database.engine.dialect.name == "sqlite"
            self._choosing = FileLock(f"{database.engine.url.database}.lock") if is_file else database.engine

    @contextlib.contextmanager
    def choosing(self) -> Iterator[None]:
        """Keep the other processes of the sweep from choosing a trial at the same time."""
        if isinstance(self._choosing, FileLock):
            with self._choosing:
                yield
        else:
            with self._choosing.begin() as connection:  # locks a row until the end, or until this process dies
                # Optuna keeps its version in a table of one row, and writes it only when it makes the tables.
                connection.execute(sqlalchemy.text("UPDATE version_info SET schema_version = schema_version"))
                yield

    def open_study(self, name: str, fingerprint: str, maximize: bool, pruner: BasePruner) -> optuna.Study:
        """Make or join a study. Raises :class:`UserError` when it was started with another sweep file."""
        with self.choosing():
            study = optuna.create_study(
                storage=self.storage,
                study_name=name,
                load_if_exists=True,
                direction="maximize" if maximize else "minimize",
                pruner=pruner,
            )
            if "sweep" not in study.user_attrs:
                study.set_user_attr("sweep", fingerprint)
        old, new = _read_fingerprint(study), json.loads(fingerprint)
        changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        if changed:
            raise UserError(
                f"the sweep {name!r} was started with other {' and '.join(changed)}; give the changed one "
                "another name with --name, or undo the change."
            )
        return study

    def beat(self, trial_ids: list[int]) -> None:
        """Tell the database now and then that these trials are being run."""
        if isinstance(self.storage, RDBStorage) and time.monotonic() - self._last_beat >= BEAT_SECONDS:
            self._last_beat = time.monotonic()
            for trial_id in trial_ids:
                self.storage.record_heartbeat(trial_id)

    def begin(self, trial: optuna.Trial) -> None:
        """Sign a trial as run by this process."""
        trial.set_user_attr("owner", self.owner)
        if isinstance(self.storage, RDBStorage):
            self.storage.record_heartbeat(trial._trial_id)

    def end_cut_off(self, study: optuna.Study) -> None:
        """Mark the trials whose process is gone as failed; they have no "failure" that says why.

        To be called while choosing: then no living process has a trial that waits to be run.
        """
        if isinstance(self.storage, RDBStorage):
            fail_stale_trials(study)
        trials = study.get_trials(deepcopy=False, states=[TrialState.RUNNING, TrialState.WAITING])
        lives = {owner: self._lives(owner) for owner in {trial.user_attrs.get("owner") for trial in trials}}
        for trial in trials:
            if trial.state == TrialState.WAITING or not lives[trial.user_attrs.get("owner")]:
                with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
                    self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def close(self, trials_are_open: bool = False) -> None:
        """Say that this process is gone; a lock file that nobody holds gives its open trials up."""
        self._alive.release()
        if not trials_are_open:
            (self._owners / self.owner).unlink(missing_ok=True)

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        is_lost = isinstance(error, StorageInternalError | sqlalchemy.exc.SQLAlchemyError)
        self.close(trials_are_open=is_lost)
        if error is not None and is_lost:
            raise UserError(
                f"the database stopped answering ({_say_why(error.__cause__ or error)}); the same command goes on, and "
                "trials that were cut off are run again."
            ) from None

    @property
    def is_shared(self) -> bool:
        """Whether other machines may take part."""
        return isinstance(self.storage, RDBStorage)

    def _lives(self, owner: str | None) -> bool:
        """Whether the process with this name lives: nobody else can hold its lock, and the system frees it.

        Of a process whose lock file is not in this folder, a database's heartbeat must tell.
        """
        if owner == self.owner:
            return True
        if owner is None or not (self._owners / owner).exists():
            return isinstance(self.storage, RDBStorage)
        try:
            with FileLock(self._owners / owner, timeout=0):
                return False
        except Timeout:
            return True


def require_same_distributions(study: optuna.Study, searched: Mapping[str, BaseDistribution]) -> None:
    """Raise :class:`UserError` when a trial drew a setting otherwise than the same sweep file says."""
    for trial in study.get_trials(deepcopy=False):
        for name, distribution in trial.distributions.items():
            if distribution != searched.get(name):
                damaged(f"trial {trial.number} of the sweep's record", f"it drew another kind of {name}", BEGIN_ANEW)


def _read_fingerprint(study: optuna.Study) -> dict[str, Any]:
    try:
        return fit(json.loads(study.user_attrs["sweep"]), dict[str, Any], "the sweep's record", BEGIN_ANEW)
    except (ValueError, TypeError, RecursionError):
        damaged("the sweep's record", "it does not say what is searched", BEGIN_ANEW)


def _open_database(url: str) -> RDBStorage:
    try:
        parsed = sqlalchemy.make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        shown = parsed.render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        raise UserError("--storage must be a database URL such as postgresql://user@host/database.") from None
    engine = {"connect_args": {"timeout": 60}} if parsed.get_backend_name() == "sqlite" else {"pool_pre_ping": True}
    full = parsed.render_as_string(hide_password=False)
    try:
        for _ in range(2):
            with contextlib.suppress(sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError):
                return RDBStorage(full, engine, heartbeat_interval=BEAT_SECONDS, grace_period=DEAD_SECONDS)
            time.sleep(1)  # two machines that make the tables at once stand in each other's way
        return RDBStorage(full, engine, heartbeat_interval=BEAT_SECONDS, grace_period=DEAD_SECONDS)
    except ImportError as error:
        driver = "psycopg[binary]" if "psycopg" in str(error) else error.name or str(error)
        raise UserError(f"the database {shown} needs a driver: pip install '{driver}'.") from None
    except (sqlalchemy.exc.SQLAlchemyError, ValueError) as error:
        raise UserError(f"the database {shown} cannot be used: {_say_why(error)}.") from None


def _say_why(error: BaseException) -> str:
    """What a database said, on one line."""
    return " ".join(str(getattr(error, "orig", None) or error).split()).rstrip(".")
