"""Progress of long work: a live bar on a terminal, a line now and then anywhere else."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from naturalist.ranks import this_rank
from naturalist.wording import roughly

BAR_WIDTH = 8
"""Leaves room for words in 80 columns."""

NARROW = 60
"""With fewer columns a table has no room for lines."""

WORDS = re.compile(r"\S+(?: %)?")
"""What the cells of a table are broken between."""

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
        words = [word for cell in column.cells if isinstance(cell, str) for word in WORDS.findall(cell)]
        longest = max(map(len, words), default=1)
        column.min_width = longest if column.justify == "right" else min(longest, SHORTEST_NAME)


def print_numbers(line: str) -> None:
    """Print a sentence with numbers, which a narrow terminal breaks between words; elsewhere it stays on one line."""
    console = plain_console()
    console.print(line, soft_wrap=not console.is_terminal)


class _Whole:
    """Words on one line, as many of them as there is room for: half a number is another number."""

    def __init__(self, words: Sequence[str]):
        self._words = list(words)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        words = self._words
        while words and cell_len("  ".join(words)) > options.max_width:
            words = words[:-1]
        yield Text("  ".join(words), no_wrap=True)


class _Notes(ProgressColumn):
    """What else there is to say of a task, the most needed first."""

    def render(self, task: Task) -> _Whole:
        """For the table that the bars are rows of."""
        return _Whole(task.fields["notes"])


class ProgressBar:
    """Counts finished units; made by :func:`progress_bar`."""

    def __init__(
        self,
        description: str,
        total: int,
        unit: str,
        live: Progress | None,
        plain_to: TextIO | None,
        ending: Callable[[], str] | None = None,
    ):
        self._description, self._total, self._unit, self._live = description, total, unit, live
        self._plain_to, self._ending = plain_to, ending
        self._done, self._note = 0, ""
        self._start = self._last_line = time.monotonic()
        self._task = live.add_task(description, total=total, notes=[]) if live else TaskID(0)

    def advance(self, amount: int = 1, note: str | None = None) -> None:
        """Count ``amount`` more units; ``note``, a few words, is shown until the next. Not thread-safe."""
        self._done, self._note = self._done + amount, note or self._note
        now = time.monotonic()
        rate = max(self._done, 1e-9) / max(now - self._start, 1e-9)
        if self._live:
            notes = (self._note, self._ending() if self._ending else "", f"{rate:,.0f} {self._unit}/s")
            self._live.update(self._task, advance=amount, notes=list(filter(None, notes)))
        elif now - self._last_line >= PLAIN_LINE_SECONDS and self._done < self._total:
            self._last_line = now
            left = self._ending() if self._ending else f"{roughly((self._total - self._done) / rate)} left"
            parts = (f"{self._done:,} of {self._total:,} {self._unit}", self._note, left)
            print(f"{self._description}: {', '.join(filter(None, parts))}", file=self._plain_to, flush=True)


@contextmanager
def progress_bar(
    description: str,
    total: int,
    unit: str = "images",
    *,
    plain_to: TextIO | None = None,
    ending: Callable[[], str] | None = None,
) -> Iterator[ProgressBar]:
    """Show how far ``total`` units of work have come.

    On a terminal a bar that vanishes when the work is done; elsewhere a plain line every ``PLAIN_LINE_SECONDS``
    seconds, so that a log stays readable; to ``plain_to``, by default standard output. ``ending`` says what else there
    is to say whenever it is asked; by default a line ends with how long this work will still take.
    """
    if not console.is_terminal or not this_rank().is_first:
        yield ProgressBar(description, total, unit, live=None, plain_to=plain_to, ending=ending)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=BAR_WIDTH),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        _Notes(table_column=Column(ratio=1)),  # the rest
    )
    with Progress(*columns, console=console, transient=True, refresh_per_second=4, expand=True) as live:
        yield ProgressBar(description, total, unit, live, plain_to=None, ending=ending)
