"""The sweep on the terminal: one live table of trials; elsewhere a line per trial."""

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from optuna.trial import FrozenTrial, TrialState
from rich.cells import cell_len
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from naturalist.printable import printable
from naturalist.progress import plain_console
from naturalist.runs.records import amount, is_number
from naturalist.sweeps.trials import Counts, Trials
from naturalist.wording import counted, roughly

STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.RUNNING: "running",
    TrialState.FAIL: "failed",
}
LINES_AROUND = 4
"""The title, the headings, a line on what is not shown, and the cursor's."""
FAILURES_SHOWN = 3
GAP = 1
"""Between two columns."""
PLAIN_LINE_SECONDS = 60.0
"""How often a sweep that has no terminal reports itself, if no trial ends."""


@dataclass(frozen=True)
class _Column:
    """Of every trial a cell."""

    name: str
    cells: list[str]
    heading: str
    is_number: bool = True

    @property
    def width(self) -> int:
        """Places on the terminal."""
        return max(map(cell_len, [self.heading, *self.cells]))


class TrialTable:
    """Shows how a sweep goes; a context manager."""

    def __init__(self, trials: Trials, target: float, label: str = ""):
        self._trials, self._target = trials, target
        self._title = f"sweep {printable(trials.sweep.name)}{label}"
        self._running, self._last_line = 1, time.monotonic()
        self._console = plain_console()
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None

    def __enter__(self) -> "TrialTable":
        counts = self._trials.counts()
        if counts.done or counts.cut_off:
            self.say(f"Going on with {self._title}: {counted(counts.done, 'trial')} done, {counts.cut_off} cut off.")
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.update(self._draw(), refresh=True)
            self._live.stop()

    def update(self, running: int) -> None:
        """Draw anew; ``running`` trials run on this machine."""
        self._running = max(running, 1)
        if self._live:
            self._live.update(self._draw(), refresh=True)
        elif time.monotonic() - self._last_line >= PLAIN_LINE_SECONDS:
            self._say_line(f"{self._title}: {self._trials.counts().running} running, {self._progress()}")

    def _say_line(self, text: str) -> None:
        self._last_line = time.monotonic()
        print(text, flush=True)

    def ended(self, number: int) -> None:
        """Say how a trial ended, where there is no live table."""
        if self._live:
            return
        trial = next(trial for trial in self._trials.shown() if trial.number == number)
        reason, value, best = trial.user_attrs.get("failure"), self._trials.value(trial), self._trials.best()
        self._say_line(
            f"trial {number} {STATES[trial.state]}"
            + (f": {printable(reason)}" if reason else "")
            + (f", {self._trials.sweep.metric} {self._amount(trial)}" if value is not None else "")
            + f"  [{self._describe(trial)}]"
            + (f"  best so far: trial {best.number}, {self._amount(best)}" if best else "")
            + f"  {self._progress()}"
        )

    def say(self, text: str) -> None:
        """Print a line above the table."""
        self._console.print(printable(text), soft_wrap=True)

    def _progress(self) -> str:
        counts = self._trials.counts()
        if math.isinf(self._target):
            return f"{counts.done} done"
        text = f"{counts.done} of {self._target:.0f} done"
        left = self._left(counts)
        return text if left is None else f"{text}, about {roughly(left)} left"

    def _left(self, counts: Counts) -> float | None:
        """Seconds to the end, if every trial takes what those that are done took on average; None before any is."""
        trials = self._trials.shown()
        took = [trial.user_attrs["seconds"] for trial in trials if "seconds" in trial.user_attrs]
        if not took or counts.done >= self._target:
            return None
        now, each = datetime.now(), float(statistics.mean(took))
        begun = [trial.datetime_start for trial in trials if trial.state == TrialState.RUNNING and trial.datetime_start]
        rests = [max(0.0, each - (now - start).total_seconds()) for start in begun]
        waiting = max(0.0, self._target - counts.done - counts.running)
        return max([(each * waiting + sum(rests)) / max(counts.running, self._running), *rests])

    def _draw(self) -> Group:
        trials, best, counts = self._trials.shown(), self._trials.best(), self._trials.counts()
        columns, notes = _fitted(self._about(trials, best), self._settings(trials), self._console.width)
        failed = [trial for trial in trials if "failure" in trial.user_attrs]
        notes += [f"trial {trial.number} failed: {trial.user_attrs['failure']}" for trial in failed[-FAILURES_SHOWN:]]
        ends = f"{counts.finished} finished, {counts.pruned} pruned, {counts.failed} failed, {counts.running} running"
        lines = [*(Text(printable(note), style="dim") for note in notes), Text(f"{ends}; {self._progress()}")]
        if best is not None:
            said = f"best so far: trial {best.number}, {self._trials.sweep.metric} {self._amount(best)}"
            lines.append(Text(f"{said}, {self._describe(best)}", style="bold"))
        room = self._console.height - LINES_AROUND - len(self._console.render_lines(Group(*lines)))
        hidden = max(0, len(trials) - max(3, room))
        table = Table(box=None, header_style="bold", padding=(0, GAP, 0, 0), pad_edge=False)
        table.title, table.title_justify = self._title, "left"
        for column in columns:
            table.add_column(column.heading, justify="right" if column.is_number else "left", no_wrap=True)
        for row, trial in list(enumerate(trials))[hidden:]:
            is_best = best is not None and trial.number == best.number
            style = "bold" if is_best else "dim" if trial.state == TrialState.PRUNED else None
            table.add_row(*(column.cells[row] for column in columns), style=style)
        if not hidden:
            return Group(table, *lines)
        left_out = counted(hidden, "earlier trial is", "earlier trials are")
        return Group(Text(f"({left_out} not shown)", style="dim"), table, *lines)

    def _about(self, trials: Sequence[FrozenTrial], best: FrozenTrial | None) -> list[_Column]:
        """What is shown of every trial beside its settings, the most needed first."""
        metric = self._trials.sweep.metric
        stars = [" *" if best is not None and trial.number == best.number else "" for trial in trials]
        values = ["–" if self._trials.value(trial) is None else self._amount(trial) for trial in trials]
        seconds = [trial.user_attrs.get("seconds") for trial in trials]
        return [
            _Column("trial", [str(trial.number) for trial in trials], "trial"),
            _Column("state", [STATES[trial.state] for trial in trials], "state", is_number=False),
            _Column(metric, [value + star for value, star in zip(values, stars, strict=True)], metric),
            _Column("epoch", [str(len(trial.intermediate_values)) for trial in trials], "epoch"),
            _Column("time", ["" if passed is None else roughly(passed) for passed in seconds], "time"),
        ]

    def _settings(self, trials: Sequence[FrozenTrial]) -> list[_Column]:
        """The settings in which trials differ, in the order of the sweep file."""
        columns, settings = [], [self._trials.settings(trial) for trial in trials]
        for name in self._differing():
            values = [one.get(name) for one in settings]
            columns.append(_Column(name, list(map(_shown, values)), name, is_number(values)))
        return columns

    def _describe(self, trial: FrozenTrial) -> str:
        """The settings of a trial in which trials differ, in a few words."""
        settings, names = self._trials.settings(trial), self._differing()
        shown = {name: f"{value:.3g}" if isinstance(value, float) else value for name, value in settings.items()}
        return printable(" ".join(f"{name}={value}" for name, value in shown.items() if name in names))

    def _differing(self) -> list[str]:
        """The settings in which trials differ; of a single trial all that are searched."""
        searched = list(self._trials.sweep.searched)
        all_settings = [self._trials.settings(trial) for trial in self._trials.shown()]
        return [name for name in searched if len({str(one.get(name)) for one in all_settings}) > 1] or searched

    def _amount(self, trial: FrozenTrial) -> str:
        """The metric of a trial that has one."""
        return amount(self._trials.value(trial) or 0.0, self._trials.sweep.metric)


def _fitted(about: list[_Column], settings: list[_Column], width: int) -> tuple[list[_Column], list[str]]:
    """What there is room for: with short headings, and without the last columns or the widest settings, if need be.

    Returns:
        The columns, and lines that say what headings mean and what was left out.
    """
    if _width([*about, *settings]) > width:
        short = _abbreviated([column.name for column in settings])
        about = [_shortened(column, column.name.removeprefix("val_")) for column in about]
        settings = [_shortened(column, short[column.name]) for column in settings]
    columns, left_out = [*about, *settings], list[str]()
    for column in (*reversed(about[3:]), *sorted(settings, key=lambda column: -column.width)):
        if _width(columns) <= width:
            break
        columns.remove(column)
        left_out.append(column.name)
    meanings = [f"{column.heading}={column.name}" for column in columns if column.heading != column.name]
    notes = [", ".join(meanings), f"no room for {', '.join(left_out)}" if left_out else ""]
    return columns, [note for note in notes if note]


def _shortened(column: _Column, heading: str) -> _Column:
    """The column below another heading, where it is narrower so."""
    other = replace(column, heading=heading)
    return other if other.width < column.width else column


def _width(columns: list[_Column]) -> int:
    return sum(column.width + GAP for column in columns) - GAP


def _abbreviated(names: Sequence[str]) -> dict[str, str]:
    """Initials, as lr for learning_rate, or ac for activation; more letters where another name has these."""
    short: dict[str, str] = {}
    for name in names:
        words = name.split("_")
        least = 1 if len(words) > 1 else 2
        longer = ("".join(word[:letters] for word in words) for letters in range(least, len(name)))
        short[name] = next((initials for initials in longer if initials not in short.values()), name)
    return short


def _shown(value: object) -> str:
    """The value of a setting, in few letters."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return printable(f"{value:.3g}" if isinstance(value, float) else value)
