"""The sweep on the terminal: one live table of trials; elsewhere a line per trial."""

import math
import statistics
import time
from datetime import datetime

from optuna.trial import FrozenTrial, TrialState
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from naturalist.printable import printable
from naturalist.progress import keep_numbers, plain_console
from naturalist.runs.records import amount
from naturalist.sweeps.trials import Counts, Trials
from naturalist.wording import counted, duration, roughly

STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.RUNNING: "running",
    TrialState.FAIL: "failed",
}
LINES_AROUND = 8
PLAIN_LINE_SECONDS = 60.0
"""How often a sweep that has no terminal reports itself, if no trial ends."""


class _Words:
    """Text on one line, without the words that it has no room for: half a number is another number."""

    def __init__(self, text: str):
        self._text = text

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """As much as there is."""
        return Measurement(1, max(1, cell_len(self._text))).with_maximum(options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """As many words as there is room for."""
        words, shown = self._text.split(), self._text
        while words and cell_len(shown) > options.max_width:
            words.pop()
            shown = " ".join([*words, "…"])
        yield Text(shown, no_wrap=True, overflow="crop")


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
        metric = self._trials.sweep.metric
        table = Table(box=None, header_style="bold")
        for heading in ("trial", "state", "epochs", metric, "time", "settings"):
            table.add_column(heading, justify="left" if heading in ("state", "settings") else "right")
        table.title, table.title_justify = self._title, "left"
        hidden = max(0, len(trials) - max(3, self._console.height - LINES_AROUND))
        for trial in trials[hidden:]:
            value, seconds = self._trials.value(trial), trial.user_attrs.get("seconds")
            is_best = best is not None and trial.number == best.number
            said = trial.user_attrs.get("failure") or self._describe(trial)
            table.add_row(
                str(trial.number),
                STATES[trial.state],
                str(len(trial.intermediate_values)),
                "–" if value is None else f"{self._amount(trial)}{' *' if is_best else ''}",
                "" if seconds is None else duration(seconds),
                _Words(printable(said)),
                style="bold" if is_best else "dim" if trial.state == TrialState.PRUNED else None,
            )
        keep_numbers(table, self._console.width)
        ends = f"{counts.finished} finished, {counts.pruned} pruned, {counts.failed} failed, {counts.running} running"
        lines: list[RenderableType] = [Text(f"({hidden} earlier trials are not shown)", style="dim")] if hidden else []
        lines = [*lines, table, Text(f"{ends}; {self._progress()}")]
        if best is not None:
            said = f"best so far: trial {best.number}, {metric} {self._amount(best)}, {self._describe(best)}"
            lines.append(Text(said, style="bold"))
        return Group(*lines)

    def _describe(self, trial: FrozenTrial) -> str:
        """The settings of a trial in which trials differ, in a few words; of a single trial all that are searched."""
        settings, searched = self._trials.settings(trial), list(self._trials.sweep.searched)
        others = [self._trials.settings(other) for other in self._trials.shown()]
        searched = [name for name in searched if len({str(other.get(name)) for other in others}) > 1] or searched
        shown = {name: f"{value:.3g}" if isinstance(value, float) else value for name, value in settings.items()}
        return printable(" ".join(f"{name}={value}" for name, value in shown.items() if name in searched))

    def _amount(self, trial: FrozenTrial) -> str:
        """The metric of a trial that has one."""
        return amount(self._trials.value(trial) or 0.0, self._trials.sweep.metric)
