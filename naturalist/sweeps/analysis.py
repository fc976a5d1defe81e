"""Which settings mattered: correlations, importance, and the sentences that the numbers support."""

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from naturalist.runs.records import Influence, Influences, RunRecord, amount, as_numbers, is_number, level_name
from naturalist.sweeps.read_runs import searched_settings
from naturalist.wording import counted, number, p_value

LEAST_RUNS = 10
"""Below so many runs nothing is said about settings."""

LEAST_PER_LEVEL = 4
"""Below so many runs a level of a setting is not compared."""

LEAST_FAILED = 3
SIGNIFICANT = 0.05

MARGIN = 0.02
"""A setting whose levels surely differ by less accuracy than this does not matter: 2 points."""

MANY_VALUES = 5
"""A number with more values than this is compared below and above its median."""

Numbers = NDArray[np.float64]


def judged(runs: list[RunRecord]) -> list[RunRecord]:
    """The runs whose value says something: finished or pruned."""
    return [run for run in runs if run.state in ("finished", "pruned") and run.value is not None]


def varied_settings(runs: list[RunRecord]) -> dict[str, list[Any]]:
    """Every setting that differs between the runs, with its value in each (None where a run has none)."""
    names = dict.fromkeys(name for run in runs for name in searched_settings(run.settings))
    columns = {name: [run.settings.get(name) for run in runs] for name in names}
    return {name: values for name, values in columns.items() if len(set(map(str, values))) > 1}


def influences(runs: list[RunRecord]) -> Influences:
    """Correlation with the value, and importance in a random forest, of every setting that differs.

    Settings that are no numbers are split into levels. The forest is scikit-learn's with 500 trees; its importance is
    the mean decrease in impurity, as in W&B's table.
    """
    from sklearn.ensemble import RandomForestRegressor

    runs = judged(runs)
    target = _values(runs)
    columns: list[tuple[str, str | None, Numbers]] = []
    for name, values in varied_settings(runs).items():
        if is_number(values):
            columns.append((name, None, as_numbers(values)))
        else:
            levels = [(name, level, has.astype(float)) for level, has in _split(values).items()]
            columns += levels[1:] if len(levels) == 2 else levels  # one column says all about two levels
    if not columns or np.ptp(target) == 0:
        return Influences([], None)
    enough = len(runs) >= LEAST_RUNS
    forest = RandomForestRegressor(500, random_state=0, oob_score=enough)
    forest.fit(np.column_stack([column for _, _, column in columns]), target)
    rows = []
    for (name, level, column), importance in zip(columns, forest.feature_importances_, strict=True):
        correlation = float(np.corrcoef(column, target)[0, 1])
        n = len(runs) if level is None else int(column.sum())
        rows.append(Influence(name, level, correlation, float(importance), n))
    return Influences(sorted(rows, key=lambda row: -row.importance), float(forest.oob_score_) if enough else None)


def sentences(runs: list[RunRecord], metric: str) -> list[str]:
    """What the runs support, each with its figures; the last says about which settings they say nothing.

    A setting matters when its levels' averages differ (Welch's t-test, or an analysis of variance for more than two
    levels, p below 0.05 after Holm's correction). It does not when the 95 % intervals of all differences lie within two
    points.
    """
    good = judged(runs)
    if len(good) < LEAST_RUNS:
        return [too_few(len(good)), *_what_failed_runs_share(runs)]
    varied = varied_settings(good)
    compared = {name: groups for name, values in varied.items() if (groups := _groups(values, _values(good)))}
    corrected = _holm({name: _p_value(list(groups.values())) for name, groups in compared.items()})
    ordered = sorted(corrected.items(), key=lambda item: item[1])
    said = {name: _sentence(name, compared[name], metric, p, len(compared)) for name, p in ordered}
    silent = [name for name in dict.fromkeys([*said, *varied]) if not said.get(name)]
    found = [sentence for sentence in said.values() if sentence]
    if silent:
        found.append(f"{len(good)} runs are too few to say anything about {', '.join(silent)}.")
    return found + _what_failed_runs_share(runs)


def caution(runs: int) -> str:
    """What stands below the picture of influences, whose bars say nothing of chance."""
    return too_few(runs) if runs < LEAST_RUNS else "a bar may be chance: the findings say which settings matter"


def too_few(runs: int) -> str:
    """What is said where there are not enough runs to say more."""
    return f"{counted(runs, 'run')} {'is' if runs == 1 else 'are'} too few to say which settings matter."


def _values(runs: list[RunRecord]) -> Numbers:
    return np.array([run.value for run in runs], dtype=float)


def _split(values: list[Any]) -> dict[str, NDArray[np.bool_]]:
    """Which runs have each level of a setting, by the level's name."""
    names = np.array([level_name(value) for value in values])
    return {str(level): names == level for level in np.unique(names)}


def _groups(values: list[Any], target: Numbers) -> dict[str, Numbers] | None:
    """The values of the runs by level of one setting; None when they cannot be compared."""
    if is_number(values) and len(set(values)) > MANY_VALUES:
        middle = float(np.median(values))
        values = [f"above {middle:.3g}" if value > middle else f"up to {middle:.3g}" for value in values]
    groups = {level: target[has] for level, has in _split(values).items() if has.sum() >= LEAST_PER_LEVEL}
    return groups if len(groups) > 1 and all(np.ptp(group) for group in groups.values()) else None


def _p_value(groups: list[Numbers]) -> float:
    test = stats.f_oneway(*groups) if len(groups) > 2 else stats.ttest_ind(*groups, equal_var=False)
    return float(test.pvalue)


def _sentence(name: str, groups: dict[str, Numbers], metric: str, p: float, settings: int) -> str | None:
    """What the groups tell of a setting; None when that is nothing."""
    ordered = sorted(groups, key=lambda level: -groups[level].mean())
    best, worst = groups[ordered[0]], groups[ordered[-1]]
    low, high = _interval(best, worst)
    averages = [
        f"{amount(groups[level].mean(), metric)} where it is {level} ({counted(len(groups[level]), 'run')})"
        for level in ordered
    ]
    difference = f"the first is {_points(best.mean() - worst.mean(), metric)} above the last"
    interval = f"95 % interval {_points(low, metric, '')} to {_points(high, metric)}"
    figures = f"average best {metric} is {', '.join(averages)}; {difference} ({interval})"
    if p < SIGNIFICANT:
        return f"{name} matters: {figures}, {p_value(p)} after Holm's correction for {settings} settings."
    widest = max(abs(bound) for pair in combinations(groups.values(), 2) for bound in _interval(*pair))
    if metric.endswith("accuracy") and widest <= MARGIN:
        return f"{name} does not matter by more than {100 * MARGIN:g} points: {figures}."
    return None


def _interval(first: Numbers, second: Numbers) -> tuple[float, float]:
    """Welch's 95 % interval of the difference of two averages."""
    interval = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    return float(interval.low), float(interval.high)


def _holm(p_values: dict[str, float]) -> dict[str, float]:
    """Holm (1979): the smallest p times the number of tests, the next times one less, never descending.

    Unlike SciPy's false_discovery_control it bounds the chance that any of the sentences is wrong.
    """
    corrected, highest = dict(p_values), 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        highest = max(highest, min(1.0, p_values[name] * (len(p_values) - rank)))
        corrected[name] = highest
    return corrected


def _what_failed_runs_share(runs: list[RunRecord]) -> list[str]:
    """Levels that failed runs have more often than the others (Fisher's exact test, Holm's correction)."""
    ended = [run for run in runs if run.state in ("finished", "pruned", "failed")]
    failed = np.array([run.state == "failed" for run in ended])
    if failed.sum() < LEAST_FAILED or failed.all():
        if not failed.any():
            return []
        return [f"{failed.sum()} of {counted(len(failed), 'run')} failed, too few to say what they share."]
    tables = {
        f"{name} = {level}": np.array([[(has & group).sum(), (~has & group).sum()] for group in (failed, ~failed)])
        for name, values in varied_settings(ended).items()
        for level, has in _split(values).items()
    }
    tests = {label: stats.fisher_exact(table, alternative="greater") for label, table in tables.items()}
    corrected = _holm({label: float(test.pvalue) for label, test in tests.items()})
    shared = [
        f"{label}: {table[0, 0]} of {failed.sum()} failed runs have it, and {table[1, 0]} of "
        f"{counted(int((~failed).sum()), 'other')} ({p_value(corrected[label])})"
        for label, table in tables.items()
        if corrected[label] < SIGNIFICANT
    ]
    if not shared:
        others = counted(int((~failed).sum()), "other lacks", "others lack")
        return [f"The {failed.sum()} failed runs share no setting that the {others}."]
    return [f"What failed runs share: {'; '.join(shared)}."]


def _points(value: float, metric: str, unit: str = " points") -> str:
    return f"{number(100 * value)}{unit}" if metric.endswith("accuracy") else f"{value:.3g}".replace("-", "−")
