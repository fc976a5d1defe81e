"""A difference is called sure only where the numbers carry it, and its sentences say which way it goes."""

import re

import pytest

from naturalist.compare.differences import difference
from naturalist.compare.sentences import inferences
from naturalist.runs.records import COLUMNS, Group, Run


def group(label: str, *accuracies: float, val: float = 0.6, gap: float = 0.1, seconds: float = 10.0, **more) -> Group:
    """Runs of these test accuracies; of 200 images the first are right, or those of ``right``."""
    config = {"weights": "none"}
    if label != "CNN from scratch":
        config = {"weights": "DEFAULT", "backbone": "resnet18", "strategy": label}
    runs = []
    for seed, accuracy in enumerate(accuracies):
        values = {**dict.fromkeys(COLUMNS, 1.0), "total_seconds": seconds, "val_accuracy": val, "gap": gap}
        values |= {"test_accuracy": accuracy, "test_balanced_accuracy": accuracy}
        right = more.get("right", {f"{i}.jpg": i < 200 * accuracy for i in range(200)})
        runs.append(Run(f"{label}-{seed}", label, seed, config, [], 0.0, values, right=right))
    return Group(label, tuple(runs))


@pytest.mark.parametrize(
    ("first", "second", "is_sure", "grounds"),
    [
        # 16 of 200 images apart, all in one direction.
        (
            group("full", 0.58),
            group("head", 0.50),
            True,
            r"paired over 200 test images, McNemar's test p less than 0.0001",
        ),
        (group("full", 0.51), group("head", 0.50), False, r"McNemar's test p = 0.5; other seeds may differ"),
        (group("full", 0.50), group("head", 0.58), True, r"McNemar's test"),
        # A mean of several runs against a single one has no seeds to compare, but images.
        (group("full", 0.57, 0.59), group("head", 0.50), True, r"paired over 200 test images; other seeds"),
        (group("full", 0.57, 0.58, 0.59), group("head", 0.50, 0.51, 0.52), True, "from the spread between seeds"),
        (group("full", 0.57, 0.58), group("head", 0.50, 0.58), False, "from the spread between seeds"),
    ],
)
def test_seeds_or_else_images_tell_a_difference_from_chance(first, second, is_sure, grounds):
    apart = difference(first, second, "test_accuracy")
    assert apart.is_sure is is_sure and re.search(grounds, str(apart)), str(apart)
    assert apart.low < apart.value < apart.high
    assert apart.value == pytest.approx(first.average("test_accuracy") - second.average("test_accuracy"))
    assert is_sure == (apart.low > 0 or apart.high < 0)


@pytest.mark.parametrize(
    ("first", "second", "column"),
    [
        (group("full", 0.58), group("head", 0.50), "val_accuracy"),  # single runs, no image's prediction
        (group("full", 0.58, right={}), group("head", 0.50, right={}), "test_accuracy"),
        (group("full", 0.58, right={"other.jpg": True}), group("head", 0.50), "test_accuracy"),
        (group("full", 0.58, 0.58), group("head", 0.50, 0.50), "test_accuracy"),  # no spread to measure by
    ],
)
def test_where_nothing_tells_it_from_chance_nothing_is_said(first, second, column):
    assert difference(first, second, column) is None


def test_validation_ranks_and_test_measures():
    said = inferences([group("full", 0.50, val=0.7), group("head", 0.60, val=0.6)])[0]
    assert said.startswith("Best on validation is full with 70.0 %, before head with 60.0 %. On test, where they have ")
    assert "50.0 % and 60.0 %, the first is 10.0 points below the second, which is more than chance (95 % int" in said
    assert "interval −14." in said


@pytest.mark.parametrize(
    ("adapted", "scratch", "words"),
    [
        (0.60, 0.50, "Pre-training is worth 10.0 points on test here: head with 60.0 % against"),
        (0.50, 0.60, "Pre-training costs 10.0 points on test here: head with 50.0 % against"),
        (0.51, 0.50, None),
    ],
)
def test_pre_training_is_judged_only_where_it_is_sure(adapted, scratch, words):
    said = "\n".join(inferences([group("head", adapted, val=0.7), group("CNN from scratch", scratch)]))
    assert words in said if words else "Pre-training" not in said


def test_the_cheap_alternative_is_not_one_that_is_surely_behind():
    best = group("full", 0.52, val=0.7, seconds=90.0)
    said = "\n".join(inferences([best, group("head", 0.515, seconds=9.0), group("partial", 0.40, seconds=1.0)]))
    assert "Cheapest of those that are not surely behind full is head, 0.5 points below it on test: 9 s ins" in said


@pytest.mark.parametrize(
    ("gaps", "words"),
    [
        ((0.10, 0.02), "exceeds validation accuracy most for full (10.0 points) and least for head (2.0 points)"),
        ((0.10, -0.112), "exceeds validation accuracy most for full (10.0 points); for head it is 11.2 points below."),
        ((0.10, 0.0), "exceeds validation accuracy most for full (10.0 points); for head it is equal."),
        ((-0.01, -0.112), "is nowhere above validation accuracy, but 1.0 to 11.2 points below it."),
        ((0.05, 0.05), "exceeds validation accuracy by 5.0 points for all."),
    ],
)
def test_the_gap_is_said_the_way_it_goes(gaps, words):
    said = inferences([group("full", 0.5, gap=gaps[0]), group("head", 0.5, gap=gaps[1])])
    assert any(words in sentence for sentence in said), said
