"""What the numbers of a comparison support, in words with the numbers; a function a thought."""

from collections.abc import Sequence
from math import sqrt

from naturalist.runs.records import Group

CHEAP_ENOUGH = 0.02
"""How much less accurate than the best a strategy may be to be named as the cheap alternative."""
MUCH_LESS_BALANCED = 0.02
"""How much lower than the accuracy the balanced accuracy must be to be mentioned."""


def inferences(groups: Sequence[Group], emphasis: str = "") -> list[str]:
    """What the numbers support, in sentences with the numbers; ``emphasis`` stands around the name of the best."""
    tested = all(group.average("test_accuracy") is not None for group in groups)
    column, where = ("test_accuracy", "test") if tested else ("val_accuracy", "validation")
    ranking = sorted(groups, key=lambda group: -_average(group, column))
    if len(ranking) < 2:
        return [f"All runs share their settings: {where} accuracy {share(ranking[0], column)}."]
    best, second = ranking[:2]
    return [
        f"Best on {where} is {emphasis}{best.label}{emphasis} with {share(best, column)}, ahead of {second.label} with "
        f"{share(second, column)}; the {_points(_average(best, column) - _average(second, column))} between them "
        f"are {_verdict(best, second, column)}.",
        *_about_pretraining(ranking, column),
        *_about_heads(groups, column),
        *_about_time(groups, best, column),
        _about_overfitting(groups),
        *(_about_balance(best) if tested else []),
    ]


def share(group: Group, column: str) -> str:
    """Mean and, for several runs, standard deviation in per cent."""
    deviation = group.deviation(column)
    spread = "" if deviation is None else f" ± {100 * deviation:.1f}"
    return f"{100 * _average(group, column):.1f}{spread} %"


def _about_pretraining(ranking: Sequence[Group], column: str) -> list[str]:
    scratch = [group for group in ranking if group.label.startswith("CNN from scratch")]
    adapted = [group for group in ranking if group.runs[0].config.get("weights", "none") != "none"]
    if not scratch or not adapted:
        return []
    gain, worst_gain = (_average(adapted[rank], column) - _average(scratch[0], column) for rank in (0, -1))
    return [
        f"Pre-training {'is worth' if gain > 0 else 'costs'} {_points(abs(gain))} here: {adapted[0].label} against "
        f"the CNN from scratch ({share(scratch[0], column)}); even the weakest adapted network, "
        f"{adapted[-1].label}, is {_points(abs(worst_gain))} {'above' if worst_gain > 0 else 'below'} it."
    ]


def _about_heads(groups: Sequence[Group], column: str) -> list[str]:
    """For each backbone that has a head run, what its best other strategy adds."""
    sentences = []
    for probe in groups:
        config = probe.runs[0].config
        if config.get("strategy") != "head":
            continue
        others = [
            group
            for group in groups
            if group.runs[0].config.get("backbone") == config["backbone"] and group.runs[0].config["strategy"] != "head"
        ]
        if others:
            best = max(others, key=lambda group: _average(group, column))
            gain = _average(best, column) - _average(probe, column)
            times = _average(best, "total_seconds") / _average(probe, "total_seconds")
            verdict = _verdict(best, probe, column) if gain > 0 else _verdict(probe, best, column)
            sentences.append(
                f"With {config['backbone']}, {best.runs[0].config['strategy']} "
                f"{'adds' if gain > 0 else 'loses'} {_points(abs(gain))} to the head alone and takes "
                f"{times:.1f} times as long; that is {verdict}."
            )
    return sentences


def _about_time(groups: Sequence[Group], best: Group, column: str) -> list[str]:
    """Which group is nearly as good as the best for less time."""
    good = [group for group in groups if _average(group, column) >= _average(best, column) - CHEAP_ENOUGH]
    cheapest = min(good, key=lambda group: _average(group, "total_seconds"))
    if cheapest is best:
        return []
    return [
        f"Cheapest within {_points(CHEAP_ENOUGH)} of the best is {cheapest.label}: "
        f"{_average(cheapest, 'total_seconds'):.0f} s instead of {_average(best, 'total_seconds'):.0f} s."
    ]


def _about_overfitting(groups: Sequence[Group]) -> str:
    least, *_, most = sorted(groups, key=lambda group: _average(group, "gap"))
    return (
        f"Training accuracy exceeds validation accuracy most for {most.label} "
        f"({_points(_average(most, 'gap'))}) and least for {least.label} "
        f"({_points(_average(least, 'gap'))}); it is measured on augmented images and with dropout, so "
        "the gap understates overfitting."
    )


def _about_balance(best: Group) -> list[str]:
    tilt = _average(best, "test_accuracy") - _average(best, "test_balanced_accuracy")
    if tilt <= MUCH_LESS_BALANCED:
        return []
    return [
        f"The balanced accuracy of {best.label} is {_points(tilt)} lower than its accuracy: "
        "frequent classes are recognised better than rare ones."
    ]


def _verdict(better: Group, worse: Group, column: str) -> str:
    """Whether the difference of two groups is more than chance between seeds."""
    spreads = better.deviation(column), worse.deviation(column)
    if spreads[0] is None or spreads[1] is None:
        return "from single runs, so the order may be chance"
    error = sqrt(spreads[0] ** 2 / len(better.runs) + spreads[1] ** 2 / len(worse.runs))
    if _average(better, column) - _average(worse, column) > 2 * error:
        return f"more than two standard errors ({_points(2 * error)}) between seeds"
    return f"within two standard errors ({_points(2 * error)}) between seeds, so no sure difference"


def _points(difference: float) -> str:
    return f"{100 * difference:.1f} points"


def _average(group: Group, column: str) -> float:
    """The mean of a column that every finished run has."""
    average = group.average(column)
    assert average is not None, f"{group.label} has no {column}"
    return average
