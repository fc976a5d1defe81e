"""The trials of one study: which settings come next, what became of the earlier ones."""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.pruners import NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from naturalist.sweeps.hyperband import HyperbandPruner
from naturalist.sweeps.space import SweepFile
from naturalist.sweeps.store import Store, require_same_distributions

SUGGESTIONS = 50
"""After TPE suggested so many settings that ran before, they are drawn blindly."""

BLIND_DRAWS = 1000
"""After so many draws of settings that ran before, none are left."""

ENDED_WELL = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Counts:
    """How many trials there are."""

    finished: int = 0
    pruned: int = 0
    failed: int = 0
    running: int = 0
    cut_off: int = 0
    """Not counted: these settings are run again."""

    @property
    def done(self) -> int:
        """Trials that need not be run any more."""
        return self.finished + self.pruned + self.failed


class Trials:
    """A search that may be shared with other processes and gone on with later."""

    def __init__(
        self,
        store: Store,
        name: str,
        sweep: SweepFile,
        *,
        seed: int = 0,
        allow_repeats: bool = False,
        promoted: list[dict[str, Any]] | None = None,
    ):
        """Open the study ``name``, or join it.

        Where ``promoted`` is given, exactly these (what Optuna could search) are run to their end, instead of asking
        the method and ending trials early. ``seed`` is the sampler's; with ``allow_repeats`` settings that ran may be
        run again.
        """
        self.sweep, self._store, self._seed, self._allow_repeats = sweep, store, seed, allow_repeats
        self._fixed = list(sweep.grid()) if promoted is None and sweep.method == "grid" else promoted
        rule = sweep.rule if promoted is None else None
        pruner = HyperbandPruner(rule, sweep.maximize) if rule else NopPruner()
        self.study = store.open_study(name, sweep.fingerprint(), sweep.maximize, pruner)
        require_same_distributions(self.study, sweep.searched)

    @property
    def size(self) -> float:
        """How many trials there can be without repeating any, those that ran among them."""
        if self._fixed is not None:
            known = {self._key(trial.params) for trial in self.shown()}
            return len(known | {self._key(item) for item in self._fixed})
        size = self.sweep.size()
        return math.inf if size is None or self._allow_repeats else size

    def choose(self, target: float) -> optuna.Trial | None:
        """Start the next trial; None when ``target`` trials are done or running, or nothing is left to try.

        Settings of trials that were cut off come first.
        """
        with self._store.choosing():
            self._store.end_cut_off(self.study)
            trials = self._all()
            counts = count(trials)
            limit = target if self._fixed is not None else min(target, self.size)
            if counts.done + counts.running >= limit or self._reached_target(trials):
                return None
            used = {self._key(trial.params) for trial in trials if is_counted(trial)}
            candidates = self._fixed if self._fixed is not None else [t.params for t in trials if is_cut_off(t)]
            searched = next((item for item in candidates if self._key(item) not in used), None)
            if searched is None and self._fixed is None:
                searched = self._suggest(trials, used)
            if searched is None:
                return None
            self.study.enqueue_trial(searched)
            trial = self.study.ask(self.sweep.searched)
            self._store.begin(trial)
            return trial

    def settings(self, trial: optuna.Trial | FrozenTrial) -> dict[str, Any]:
        """What a trial sets."""
        return self.sweep.settings(trial.params)

    def report(self, trial: optuna.Trial, metrics: dict[str, Any]) -> bool:
        """Take in an epoch; returns whether the trial ends, by early_terminate or because others gave it up."""
        value = metrics.get(self.sweep.metric)
        if value is None or not math.isfinite(value):
            return False  # W&B's rule does not see such values either
        try:
            trial.report(float(value), step=len(self._frozen(trial).intermediate_values) + 1)
        except optuna.exceptions.UpdateFinishedTrialError:  # another machine gave it up
            return True
        return trial.should_prune()

    def finish(
        self,
        trial: optuna.Trial,
        *,
        seconds: float,
        folder: str | None = None,
        pruned: bool = False,
        failure: str | None = None,
    ) -> bool:
        """Record how a trial ended: well, pruned, or with the message ``failure``.

        Returns whether it was recorded: not when another machine has given the trial up, because this one was silent.
        """
        frozen = self._frozen(trial)
        if frozen.state.is_finished():
            return False
        value = self.value(frozen)
        if failure is None and value is None:
            failure = f"it logged no {self.sweep.metric} that is a number"
        for name, content in (("seconds", seconds), ("folder", folder), ("failure", failure)):
            if content is not None:
                trial.set_user_attr(name, content)
        if failure is not None:
            self.study.tell(trial, state=TrialState.FAIL)
        elif pruned:
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, value)
        return True

    def cut_off(self, trial: optuna.Trial) -> None:
        """Give a trial up; its settings are run again later."""
        self.study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)

    def beat(self, running: Iterable[optuna.Trial]) -> None:
        """Say that these trials are being run."""
        self._store.beat([trial._trial_id for trial in running])

    def shown(self) -> list[FrozenTrial]:
        """The trials that count or run, in the order in which they were started."""
        return [trial for trial in self._all() if is_counted(trial)]

    def counts(self) -> Counts:
        """How many trials ended how."""
        return count(self._all())

    def ranked(self) -> list[FrozenTrial]:
        """The trials that ended well, pruned or not, by their best epochs, best first."""
        trials = [(value, t) for t in self._all() if t.state in ENDED_WELL and (value := self.value(t)) is not None]
        return [t for _, t in sorted(trials, key=lambda pair: pair[0], reverse=self.sweep.maximize)]

    def best(self) -> FrozenTrial | None:
        """The trial with the best epoch, pruned or not."""
        return next(iter(self.ranked()), None)

    def value(self, trial: FrozenTrial) -> float | None:
        """A trial's best epoch so far."""
        values = trial.intermediate_values.values()
        return None if not values else max(values) if self.sweep.maximize else min(values)

    def _reached_target(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether some epoch was as good as the metric's target."""
        target, sign = self.sweep.target, 1 if self.sweep.maximize else -1
        values = [self.value(trial) for trial in trials if trial.state != TrialState.FAIL]
        return target is not None and any(value is not None and sign * value >= sign * target for value in values)

    def _all(self) -> list[FrozenTrial]:
        """The trials that have all their settings: not those that are being made, or whose maker was killed."""
        names = self.sweep.searched.keys()
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.params.keys() == names]

    def _frozen(self, trial: optuna.Trial) -> FrozenTrial:
        return self._store.storage.get_trial(trial._trial_id)

    def _key(self, searched: dict[str, Any]) -> str:
        return json.dumps(self.sweep.settings(searched), sort_keys=True, default=str)

    def _suggest(self, trials: list[FrozenTrial], used: set[str]) -> dict[str, Any] | None:
        """Ask the method until it suggests something new, then draw blindly; None when nothing new is found.

        Done in a copy of the study, where a suggestion that ran before stays open: TPE takes open trials for bad ones
        and so moves on. Chance depends on the number of trials only, not on restarts.
        """
        digest = hashlib.sha256(f"{self._seed}/{self.study.study_name}/{len(trials)}".encode()).digest()
        seed = int.from_bytes(digest[:4], "big")
        samplers: list[tuple[BaseSampler, int]] = [(RandomSampler(seed), BLIND_DRAWS)]
        if self.sweep.method == "bayes":
            samplers.insert(0, (TPESampler(seed=seed, multivariate=True, constant_liar=True), SUGGESTIONS))
        for sampler, tries in samplers:
            copy = optuna.create_study(direction=self.study.direction, sampler=sampler)
            copy.add_trials([trial for trial in trials if is_counted(trial)])
            for _ in range(tries):
                searched = copy.ask(self.sweep.searched).params
                if self._allow_repeats or self._key(searched) not in used:
                    return searched
        return None


def count(trials: Sequence[FrozenTrial]) -> Counts:
    """Sort trials by their end."""
    states = [trial.state for trial in trials]
    return Counts(
        finished=states.count(TrialState.COMPLETE),
        pruned=states.count(TrialState.PRUNED),
        failed=sum("failure" in trial.user_attrs for trial in trials),
        running=states.count(TrialState.RUNNING),
        cut_off=sum(map(is_cut_off, trials)),
    )


def is_cut_off(trial: FrozenTrial) -> bool:
    """Whether a trial ended without a result and without a failure of its own."""
    return trial.state == TrialState.FAIL and "failure" not in trial.user_attrs


def is_counted(trial: FrozenTrial) -> bool:
    """Whether a trial ended by itself or runs."""
    return trial.state in (*ENDED_WELL, TrialState.RUNNING) or "failure" in trial.user_attrs
