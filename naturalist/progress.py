"""Progress of long work: a live bar on a terminal, a line now and then anywhere else."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from naturalist.ranks import this_rank

PLAIN_LINE_SECONDS = 15.0
"""How often work that has no terminal reports itself."""

console = Console(stderr=True, highlight=False)


def plain_console() -> Console:
    """Standard output for tables and sentences, in which no name is taken for markup; see also ``printable``."""
    return Console(highlight=False, markup=False, emoji=False)


class ProgressBar:
    """Counts finished units; made by :func:`progress_bar`."""

    def __init__(self, description: str, total: int, unit: str, live: Progress | None, plain_to: TextIO | None):
        self._description, self._total, self._unit, self._live = description, total, unit, live
        self._plain_to = plain_to
        self._done = 0
        self._start = self._last_line = time.monotonic()
        self._task = live.add_task(description, total=total, note="") if live else TaskID(0)

    def advance(self, amount: int = 1, note: str | None = None) -> None:
        """Count ``amount`` more units; ``note`` is a few words shown behind the bar. Not thread-safe."""
        self._done += amount
        now = time.monotonic()
        if self._live:
            rate = f"{self._done / max(now - self._start, 1e-9):,.0f} {self._unit}/s"
            self._live.update(self._task, advance=amount, note=f"{rate}  {note}" if note else rate)
        elif now - self._last_line >= PLAIN_LINE_SECONDS and self._done < self._total:
            self._last_line = now
            print(
                f"{self._description}: {self._done:,} of {self._total:,} {self._unit}" + (f", {note}" if note else ""),
                file=self._plain_to,
                flush=True,
            )


@contextmanager
def progress_bar(
    description: str, total: int, unit: str = "images", *, plain_to: TextIO | None = None
) -> Iterator[ProgressBar]:
    """Show how far ``total`` units of work have come.

    On a terminal a bar that vanishes when the work is done; elsewhere a plain line every
    ``PLAIN_LINE_SECONDS`` seconds, so that a log stays readable; to ``plain_to``, by default standard output.
    """
    if not console.is_terminal or not this_rank().is_first:
        yield ProgressBar(description, total, unit, live=None, plain_to=plain_to)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True, refresh_per_second=4) as live:
        yield ProgressBar(description, total, unit, live, plain_to=None)
