"""Progress of long work: a live bar on a terminal, a line now and then anywhere else."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from naturalist.ranks import this_rank

NARROW = 60
"""With fewer columns a table has no room for lines."""

SHORTEST_NAME = 8
"""Letters of a name that stand on one line."""

PLAIN_LINE_SECONDS = 15.0
"""How often work that has no terminal reports itself."""

console = Console(stderr=True, highlight=False)


def plain_console() -> Console:
    """Standard output for tables and sentences, in which no name is taken for markup; see also ``printable``."""
    return Console(highlight=False, markup=False, emoji=False)


def print_table(table: Table) -> None:
    """Print a table to standard output, its numbers whole however narrow the terminal is."""
    console = plain_console()
    keep_numbers(table, console.width)
    console.print(table, crop=False)


def keep_numbers(table: Table, width: int) -> None:
    """Have a table break names, and no number, where it has not enough columns; a narrow one loses its lines.

    Args:
        table: its numbers are in columns that are justified to the right.
        width: columns that there are.
    """
    if width < NARROW:
        table.box = None
    for column in table.columns:
        column.overflow = "fold"
        words = [word for cell in column.cells if isinstance(cell, str) for word in cell.split()]
        longest = max(map(len, words), default=1)
        column.min_width = longest if column.justify == "right" else min(longest, SHORTEST_NAME)


def print_numbers(line: str) -> None:
    """Print a sentence with numbers, which a narrow terminal breaks between words; elsewhere it stays on one line."""
    console = plain_console()
    console.print(line, soft_wrap=not console.is_terminal)


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
