"""Weights & Biases' rule for stopping hopeless runs, and Optuna's pruner made of it.

The rule is the one at https://docs.wandb.ai/guides/sweeps/sweep-config-keys#early_terminate, after Hyperband (Li et al.
2018, https://arxiv.org/abs/1603.06560): at certain numbers of epochs, the bands, a run must belong to the best 1/eta of
all the runs that came so far.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState

LONGEST_RUN = 10**6
"""Bands beyond so many epochs are of no use."""


@dataclass(frozen=True)
class HyperbandRule:
    """``early_terminate`` of a sweep: either ``min_iter``, or ``max_iter`` with ``s``."""

    min_iter: int | None = None
    max_iter: int | None = None
    s: int | None = None
    eta: float = 3
    strict: bool = True

    @property
    def bands(self) -> list[int]:
        """Numbers of epochs at which runs are judged, ascending."""
        if self.max_iter is not None:
            exact = [self.max_iter / self.eta**power for power in range(1, (self.s or 0) + 1)]
            return sorted(int(band) for band in exact if band >= 1)
        first = self.min_iter or 1
        steps = int(math.log(max(LONGEST_RUN / first, 1), self.eta))
        return [int(first * self.eta**power) for power in range(steps + 1)]

    def stops(self, own: Sequence[float], all_runs: Sequence[Sequence[float]]) -> bool:
        """Whether a run ends now.

        Args:
            own: the run's losses (lower is better), one per epoch.
            all_runs: the losses of every run of the sweep, this one among them.
        """
        band = max((band for band in self.bands if band <= len(own)), default=None)
        if band is None:
            return False
        rivals = sorted(losses[band - 1] for losses in all_runs if len(losses) >= band)
        threshold = rivals[int(1 / self.eta * len(rivals))]
        return (own[band - 1] if self.strict else min(own)) > threshold


class HyperbandPruner(BasePruner):
    """The rule among the trials of a study; a trial's n-th report is its n-th epoch."""

    def __init__(self, rule: HyperbandRule, maximize: bool):
        self._rule, self._sign = rule, -1 if maximize else 1

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether ``trial`` ends now; trials that were cut off have no say, for they are run again."""
        trials = [
            other
            for other in study.get_trials(deepcopy=False)
            if other.state != TrialState.FAIL or "failure" in other.user_attrs
        ]
        return self._rule.stops(self._losses(trial), [self._losses(other) for other in trials])

    def _losses(self, trial: FrozenTrial) -> list[float]:
        return [self._sign * value for _, value in sorted(trial.intermediate_values.items())]
