"""Which settings mattered: correlations, importance, and the sentences that the numbers support."""

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

from naturalist.runs.records import Influence, Influences, RunRecord, as_numbers, is_number, level_name
from naturalist.sweeps.read_runs import searched_settings

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


def judged(runs: list[RunRecord]) -> list[RunRecord]:
    """The runs whose value says something: finished or pruned."""
    return [run for run in runs if run.state in ("finished", "pruned") and run.value is not None]


def varied_settings(runs: list[RunRecord]) -> dict[str, list]:
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
    target = np.array([run.value for run in runs])
    columns: list[tuple[str, str | None, np.ndarray]] = []
    for name, values in varied_settings(runs).items():
        if is_number(values):
            columns.append((name, None, as_numbers(values)))
        else:
            names = [level_name(value) for value in values]
            levels = sorted(set(names))
            # One column says all about two levels.
            for level in levels[1:] if len(levels) == 2 else levels:
                columns.append((name, level, np.array([other == level for other in names], dtype=float)))
    if not columns or np.ptp(target) == 0:
        return Influences([], None)
    features = np.column_stack([column for _, _, column in columns])
    enough = len(runs) >= LEAST_RUNS
    forest = RandomForestRegressor(500, random_state=0, oob_score=enough).fit(features, target)
    rows = [
        Influence(
            name,
            level,
            float(np.corrcoef(column, target)[0, 1]),
            float(importance),
            len(runs) if level is None else int(column.sum()),
        )
        for (name, level, column), importance in zip(columns, forest.feature_importances_, strict=True)
    ]
    return Influences(sorted(rows, key=lambda row: -row.importance), float(forest.oob_score_) if enough else None)


def sentences(runs: list[RunRecord], metric: str) -> list[str]:
    """What the runs support, each with its figures; the last says about which settings they say nothing.

    A setting matters when its levels' averages differ (Welch's t-test, or an analysis of variance for more than two
    levels, p below 0.05 after Holm's correction). It does not when the 95 % intervals of all differences lie within two
    points.
    """
    good = judged(runs)
    found = []
    if len(good) < LEAST_RUNS:
        found.append(f"{len(good)} runs are too few to say which settings matter.")
    else:
        comparisons = {
            name: comparison
            for name, values in varied_settings(good).items()
            if (comparison := _compare(values, np.array([run.value for run in good]))) is not None
        }
        corrected = _holm({name: comparison.p for name, comparison in comparisons.items()})
        silent = []
        for name in sorted(comparisons, key=lambda name: corrected[name]):
            text = comparisons[name].sentence(name, metric, corrected[name], len(comparisons))
            if text:
                found.append(text)
            else:
                silent.append(name)
        silent += [name for name in varied_settings(good) if name not in comparisons]
        if silent:
            found.append(f"{len(good)} runs are too few to say anything about {', '.join(silent)}.")
    return found + _what_failed_runs_share(runs)


@dataclass(frozen=True)
class _Comparison:
    """The values of the runs by level of one setting."""

    groups: dict[str, np.ndarray]
    p: float

    def sentence(self, name: str, metric: str, corrected: float, settings: int) -> str | None:
        ordered = sorted(self.groups, key=lambda level: -self.groups[level].mean())
        accuracy = metric.endswith("accuracy")
        averages = ", ".join(
            f"{level} {_amount(self.groups[level].mean(), accuracy)} (n = {len(self.groups[level])})"
            for level in ordered
        )
        low, difference, high = _difference(self.groups[ordered[0]], self.groups[ordered[-1]])
        figures = (
            f"average best {metric} is {averages}; {ordered[0]} is {_points(difference, accuracy)} above "
            f"{ordered[-1]}, 95 % interval {_points(low, accuracy, '')} to {_points(high, accuracy)}"
        )
        if corrected < SIGNIFICANT:
            return f"{name} matters: {figures}, {_p(corrected)} after Holm's correction for {settings} settings."
        widest = max(abs(bound) for pair in combinations(self.groups.values(), 2) for bound in _difference(*pair)[::2])
        if accuracy and widest <= MARGIN:
            return f"{name} does not matter by more than {100 * MARGIN:g} points: {figures}."
        return None


def _compare(values: list, target: np.ndarray) -> _Comparison | None:
    if is_number(values) and len(set(values)) > MANY_VALUES:
        numbers = np.array(values, dtype=float)
        middle = float(np.median(numbers))
        names = np.where(numbers > middle, f"above {middle:.3g}", f"up to {middle:.3g}")
    else:
        names = np.array([level_name(value) for value in values])
    groups = {str(level): target[names == level] for level in sorted(set(names))}
    groups = {level: group for level, group in groups.items() if len(group) >= LEAST_PER_LEVEL}
    if len(groups) < 2 or any(np.ptp(group) == 0 for group in groups.values()):
        return None
    if len(groups) == 2:
        p = stats.ttest_ind(*groups.values(), equal_var=False).pvalue
    else:
        p = stats.f_oneway(*groups.values()).pvalue
    return _Comparison(groups, float(p))


def _difference(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """The difference of two averages between the ends of Welch's 95 % interval."""
    variances = first.var(ddof=1) / len(first), second.var(ddof=1) / len(second)
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / (len(first) - 1) + variances[1] ** 2 / (len(second) - 1))
    half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(variances))
    difference = first.mean() - second.mean()
    return difference - half, difference, difference + half


def _holm(p_values: dict[str, float]) -> dict[str, float]:
    """Holm (1979): the smallest p times the number of tests, the next times one less, never descending."""
    corrected, highest = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.get)):
        highest = max(highest, min(1.0, p_values[name] * (len(p_values) - rank)))
        corrected[name] = highest
    return corrected


def _what_failed_runs_share(runs: list[RunRecord]) -> list[str]:
    """Levels that failed runs have more often than the others (Fisher's exact test, Holm's correction)."""
    ended = [run for run in runs if run.state in ("finished", "pruned", "failed")]
    failed = np.array([run.state == "failed" for run in ended])
    if failed.sum() < LEAST_FAILED or failed.all():
        return [f"{failed.sum()} of {len(failed)} runs failed, too few to say what they share."] if failed.any() else []
    tests = {}
    for name, values in varied_settings(ended).items():
        names = np.array([level_name(value) for value in values])
        for level in sorted(set(names)):
            has = names == level
            table = [[(has & failed).sum(), (~has & failed).sum()], [(has & ~failed).sum(), (~has & ~failed).sum()]]
            tests[f"{name} = {level}"] = (stats.fisher_exact(table, alternative="greater").pvalue, table)
    corrected = _holm({label: p for label, (p, _) in tests.items()})
    shared = [
        f"{label}: {table[0][0]} of {failed.sum()} failed runs have it, and {table[1][0]} of {(~failed).sum()} "
        f"others ({_p(corrected[label])})"
        for label, (_, table) in tests.items()
        if corrected[label] < SIGNIFICANT
    ]
    if not shared:
        return [f"The {failed.sum()} failed runs share no setting that the {(~failed).sum()} others lack."]
    return [f"What failed runs share: {'; '.join(shared)}."]


def _amount(value: float, accuracy: bool) -> str:
    return f"{100 * value:.1f} %" if accuracy else f"{value:.4g}"


def _points(value: float, accuracy: bool, unit: str = " points") -> str:
    return f"{100 * value:.1f}{unit}" if accuracy else f"{value:.3g}"


def _p(value: float) -> str:
    return "p less than 0.0001" if value < 0.0001 else f"p = {value:.2g}"
