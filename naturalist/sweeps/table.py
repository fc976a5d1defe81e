"""The sweep on the terminal: one live table of trials; elsewhere a line per trial."""

import math
import statistics

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from naturalist.sweeps.trials import Trials

STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.RUNNING: "running",
    TrialState.FAIL: "failed",
}
LINES_AROUND = 8


class TrialTable:
    """Shows how a sweep goes; a context manager."""

    def __init__(self, trials: Trials, target: float, label: str = ""):
        self._trials, self._target, self._label = trials, target, label
        self._running = 1
        self._console = Console(highlight=False)
        self._live = (
            Live(console=self._console, auto_refresh=False, transient=False) if self._console.is_terminal else None
        )

    def __enter__(self) -> "TrialTable":
        counts = self._trials.counts()
        if counts.done or counts.cut_off:
            self.say(f"Going on with {self._title()}: {counts.done} trials are done, {counts.cut_off} were cut off.")
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

    def ended(self, number: int) -> None:
        """Say how a trial ended, where there is no live table."""
        if self._live:
            return
        trial = next(trial for trial in self._trials.shown() if trial.number == number)
        value = self._trials.value(trial)
        best = self._trials.best()
        reason = trial.user_attrs.get("failure")
        print(
            f"trial {number} {STATES[trial.state]}"
            + (f": {reason}" if reason else "")
            + (f", {self._trials.sweep.metric} {value:.4f}" if value is not None else "")
            + f"  [{describe(self._trials, trial)}]"
            + (f"  best so far: trial {best.number}, {self._trials.value(best):.4f}" if best else "")
            + f"  {self._progress()}",
            flush=True,
        )

    def say(self, text: str) -> None:
        """Print a line above the table."""
        self._console.print(text, soft_wrap=True)

    def _title(self) -> str:
        return f"sweep {self._trials.sweep.name}{self._label}"

    def _progress(self) -> str:
        counts = self._trials.counts()
        of = "" if math.isinf(self._target) else f" of {self._target:.0f}"
        text = f"{counts.done}{of} done"
        seconds = [trial.user_attrs["seconds"] for trial in self._trials.shown() if "seconds" in trial.user_attrs]
        if seconds and of and counts.done < self._target:
            left = statistics.mean(seconds) * (self._target - counts.done) / max(counts.running, self._running)
            text += f", about {_duration(left)} left"
        return text

    def _draw(self) -> Group:
        trials, best = self._trials.shown(), self._trials.best()
        counts = self._trials.counts()
        metric = self._trials.sweep.metric
        table = Table(
            "trial",
            "state",
            "epochs",
            metric,
            "time",
            "settings",
            title=self._title(),
            title_justify="left",
            box=None,
            padding=(0, 1),
            header_style="bold",
        )
        hidden = max(0, len(trials) - max(3, self._console.height - LINES_AROUND))
        for trial in trials[hidden:]:
            value, seconds = self._trials.value(trial), trial.user_attrs.get("seconds")
            is_best = best is not None and trial.number == best.number
            table.add_row(
                str(trial.number),
                STATES[trial.state],
                str(len(trial.intermediate_values)),
                "–" if value is None else f"{value:.4f}{' *' if is_best else ''}",
                "" if seconds is None else _duration(seconds),
                Text(
                    trial.user_attrs.get("failure") or describe(self._trials, trial), overflow="ellipsis", no_wrap=True
                ),
                style="bold" if is_best else "dim" if trial.state == TrialState.PRUNED else None,
            )
        lines = [
            table,
            Text(
                f"{counts.finished} finished, {counts.pruned} pruned, {counts.failed} failed, "
                f"{counts.running} running; {self._progress()}"
            ),
        ]
        if hidden:
            lines.insert(0, Text(f"({hidden} earlier trials are not shown)", style="dim"))
        if best is not None:
            lines.append(
                Text(
                    f"best so far: trial {best.number}, {metric} {self._trials.value(best):.4f}, "
                    f"{describe(self._trials, best)}",
                    style="bold",
                )
            )
        return Group(*lines)


def describe(trials: Trials, trial: FrozenTrial) -> str:
    """The searched settings of a trial in a few words."""
    settings = trials.settings(trial)
    return " ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in settings.items()
        if name in trials.sweep.searched
    )


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
