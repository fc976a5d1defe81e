"""The journal of a sweep: a line for each thing that happened to a study or a trial, read from the beginning each time.

A process that is killed while it writes leaves a torn last line, to which the next would be glued.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from filelock import FileLock
from msgspec import Meta, Struct
from optuna.distributions import json_to_distribution
from optuna.exceptions import OptunaError
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from naturalist.reading import Count, Finite, damaged, read_json_lines

BEGIN_ANEW = (
    "mend it, or begin another sweep with --name: what its trials left is whole, and `naturalist sweep-report` reads it"
)
"""What to do with a damaged journal."""


class TrialAttributes(Struct):
    """What this package notes on a study or a trial."""

    owner: str | None = None
    folder: str | None = None
    failure: str | None = None
    seconds: Finite | None = None
    sweep: str | None = None


class Line(Struct):
    """A line of the journal; which of the fields it has depends on the operation."""

    op_code: Annotated[int, Meta(ge=0, le=99)]
    worker_id: str
    study_id: Count | None = None
    study_name: str | None = None
    directions: list[Annotated[int, Meta(ge=1, le=2)]] | None = None
    trial_id: Count | None = None
    state: Annotated[int, Meta(ge=0, le=4)] | None = None
    values: list[Finite] | None = None
    step: Count | None = None
    intermediate_value: Finite | None = None
    param_name: str | None = None
    param_value_internal: Finite | None = None
    distribution: str | None = None
    datetime_start: str | None = None
    datetime_complete: str | None = None
    user_attr: TrialAttributes | None = None
    system_attr: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a value that its distribution does not have."""
        if self.distribution is None or self.param_value_internal is None:
            return
        try:
            distribution = json_to_distribution(self.distribution)
            is_possible = distribution._contains(self.param_value_internal)
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, RecursionError):
            is_possible = False
        if not is_possible:
            raise ValueError("distribution: it does not have the value")


def open_journal(folder: Path) -> JournalStorage:
    """The storage in ``folder/journal.log``, of which a torn last line is cut off, which is said.

    Raises :class:`UserError`, naming the line, when another line is damaged.
    """
    path, lock = folder / "journal.log", _JournalLock(folder / "journal.lock")
    lock.acquire()  # nobody writes meanwhile
    try:
        if path.exists():
            _cut_torn_line(path)
            read_json_lines(path, Line, BEGIN_ANEW)
    finally:
        lock.release()
    backend = _CountingBackend(str(path), lock)
    try:
        return JournalStorage(backend)
    except (OptunaError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError) as error:
        problem = str(error) or "it does not follow from the lines before"
        damaged(f"{path}, line {backend.number},", problem, BEGIN_ANEW)


def _cut_torn_line(path: Path) -> None:
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole == len(content):
        return
    with path.open("rb+") as file:
        file.truncate(whole)
        os.fsync(file.fileno())
    number = content.count(b"\n") + 1
    print(
        f"{path}, line {number}, was torn when its process was killed; it is cut off, and the sweep goes on.",
        flush=True,
    )


class _CountingBackend(JournalFileBackend):
    """Knows which line was read last, as Optuna's errors do not tell."""

    number = 0

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        for self.number, log in enumerate(super().read_logs(log_number_from), start=log_number_from + 1):
            yield log


class _JournalLock(JournalFileOpenLock):
    """Unlike Optuna's own, a lock that the system frees when its holder is killed."""

    def __init__(self, path: Path):
        self._lock = FileLock(path)

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()
