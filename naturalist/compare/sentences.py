"""What the numbers of a comparison support, in words with the numbers; a function a thought."""

from collections.abc import Sequence

from naturalist.compare.differences import Difference, difference
from naturalist.runs.records import Group
from naturalist.wording import number, percent, points

CHEAP_ENOUGH = 0.02
"""How much less accurate than the best a group may be to be named as the cheap alternative."""
MUCH_LESS_BALANCED = 0.02
"""How much lower than the accuracy the balanced accuracy must be to be mentioned."""


def inferences(groups: Sequence[Group], emphasis: str = "") -> list[str]:
    """What the numbers support, in sentences with the numbers; ``emphasis`` stands around the name of the best.

    Validation chooses; test accuracies, where all groups have them, only measure what was chosen. What the numbers
    cannot tell from chance is not said.
    """
    tested = all(group.average("test_accuracy") is not None for group in groups)
    column = "test_accuracy" if tested else "val_accuracy"
    ranking = sorted(groups, key=lambda group: -_average(group, "val_accuracy"))
    if len(ranking) < 2:
        return [f"All runs share their settings: {_where(column)} accuracy {share(ranking[0], column)}."]
    return [
        _about_best(ranking, column, emphasis),
        *_about_pretraining(ranking, column),
        *_about_heads(ranking, column),
        *_about_time(ranking, column),
        _about_overfitting(groups),
        *(_about_balance(ranking[0]) if tested else []),
    ]


def share(group: Group, column: str) -> str:
    """Mean and, for several runs, standard deviation in per cent."""
    deviation = group.deviation(column)
    spread = "" if deviation is None else f" ± {number(100 * deviation)}"
    return f"{number(100 * _average(group, column))}{spread} %"


def _about_best(ranking: Sequence[Group], column: str, emphasis: str) -> str:
    """The best by validation, and how sure its lead over the second is."""
    best, second = ranking[:2]
    shares = [share(group, "val_accuracy") for group in (best, second)]
    sentence = (
        f"Best on validation is {emphasis}{best.label}{emphasis} with {shares[0]}, "
        f"{'level with' if shares[0] == shares[1] else 'before'} {second.label} with {shares[1]}."
    )
    where = f"On {_where(column)} "
    if column == "test_accuracy":
        where = f"On test, where they have {share(best, column)} and {share(second, column)}, "
    apart = difference(best, second, column)
    if apart is None:
        return f"{sentence} Whether that is more than chance these runs do not tell; several seeds of each would."
    order = "above" if apart.value >= 0 else "below"
    return (
        f"{sentence} {where}the first is {points(abs(apart.value))} {order} the second, which is "
        f"{'more than chance' if apart.is_sure else 'no sure difference'} ({apart})."
    )


def _about_pretraining(ranking: Sequence[Group], column: str) -> list[str]:
    """What pre-training is worth, if it is surely worth or costs something."""
    scratch = [group for group in ranking if group.label.startswith("CNN from scratch")]
    adapted = [group for group in ranking if group.runs[0].config.get("weights", "none") != "none"]
    if not scratch or not adapted:
        return []
    gain = difference(adapted[0], scratch[0], column)
    if gain is None or not gain.is_sure:
        return []
    size = f"is worth {points(gain.value)}" if gain.value > 0 else f"costs {points(-gain.value)}"
    sentence = (
        f"Pre-training {size} on {_where(column)} here: {adapted[0].label} with {share(adapted[0], column)} against "
        f"the CNN from scratch with {share(scratch[0], column)} ({gain if gain.value > 0 else _reversed(gain)})"
    )
    worst = difference(adapted[-1], scratch[0], column)
    if len(adapted) > 1 and worst is not None and worst.is_sure and worst.value > 0:
        sentence += f"; even {adapted[-1].label}, the last of the adapted networks on validation, is above it by "
        sentence += f"{points(worst.value)} ({worst})"
    return [f"{sentence}."]


def _about_heads(ranking: Sequence[Group], column: str) -> list[str]:
    """For each backbone that has a head run, what its best other strategy surely adds."""
    sentences = []
    for probe in ranking:
        config = probe.runs[0].config
        if config.get("strategy") != "head":
            continue
        others = [
            group
            for group in ranking
            if group.runs[0].config.get("backbone") == config["backbone"] and group.runs[0].config["strategy"] != "head"
        ]
        gain = difference(others[0], probe, column) if others else None
        if gain is not None and gain.is_sure:
            times = _average(others[0], "total_seconds") / _average(probe, "total_seconds")
            sentences.append(
                f"With {config['backbone']}, {others[0].runs[0].config['strategy']} "
                f"{'adds' if gain.value > 0 else 'loses'} {points(abs(gain.value))} on {_where(column)} to the head "
                f"alone ({gain if gain.value > 0 else _reversed(gain)}) and takes {times:.1f} times as long."
            )
    return sentences


def _about_time(ranking: Sequence[Group], column: str) -> list[str]:
    """Which group is not surely less accurate than the best, and takes less time."""
    best = ranking[0]
    good = [(best, 0.0)]
    for group in ranking[1:]:
        behind = difference(best, group, column)
        if behind is not None and behind.value <= CHEAP_ENOUGH and not (behind.is_sure and behind.value > 0):
            good.append((group, behind.value))
    cheapest, behind_by = min(good, key=lambda pair: _average(pair[0], "total_seconds"))
    if cheapest is best:
        return []
    seconds = [_average(group, "total_seconds") for group in (cheapest, best)]
    distance = f"{points(abs(behind_by))} {'below' if behind_by > 0 else 'above'} it on {_where(column)}"
    return [
        f"Cheapest of those that are not surely behind {best.label} is {cheapest.label}, {distance}: "
        f"{number(seconds[0], 0)} s instead of {number(seconds[1], 0)} s."
    ]


def _about_overfitting(groups: Sequence[Group]) -> str:
    """How training accuracies lie to those of validation."""
    gaps = {group.label: round(_average(group, "gap"), 3) for group in groups}
    least, most = min(gaps, key=gaps.__getitem__), max(gaps, key=gaps.__getitem__)
    note = "It is measured while training, with whatever augmentation and dropout there is, which lower it."
    if gaps[most] <= 0:
        lowest = f"{number(-100 * gaps[most])} to " if gaps[least] < gaps[most] else ""
        said = f"Training accuracy is nowhere above validation accuracy, but {lowest}{points(-gaps[least])} below it"
    elif gaps[least] == gaps[most]:
        said = f"Training accuracy exceeds validation accuracy by {points(gaps[most])} for all"
    elif gaps[least] > 0:
        said = (
            f"Training accuracy exceeds validation accuracy most for {most} ({points(gaps[most])}) and least for "
            f"{least} ({points(gaps[least])})"
        )
    else:
        other = f"{points(-gaps[least])} below" if gaps[least] < 0 else "equal"
        said = (
            f"Training accuracy exceeds validation accuracy most for {most} ({points(gaps[most])}); for {least} it is "
            f"{other}"
        )
    return f"{said}. {note}"


def _about_balance(best: Group) -> list[str]:
    tilt = _average(best, "test_accuracy") - _average(best, "test_balanced_accuracy")
    if tilt <= MUCH_LESS_BALANCED:
        return []
    return [
        f"The balanced accuracy of {best.label} on test is {points(tilt)} lower than its accuracy, "
        f"{percent(_average(best, 'test_balanced_accuracy'))}: frequent classes are recognised better than rare ones."
    ]


def _reversed(apart: Difference) -> Difference:
    """Of the second over the first."""
    return Difference(-apart.value, -apart.high, -apart.low, apart.is_sure, apart.grounds)


def _where(column: str) -> str:
    return "test" if column == "test_accuracy" else "validation"


def _average(group: Group, column: str) -> float:
    """The mean of a column that every finished run has."""
    average = group.average(column)
    assert average is not None, f"{group.label} has no {column}"
    return average
