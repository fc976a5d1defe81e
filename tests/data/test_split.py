"""What holding out a validation part promises."""

import numpy as np
import pytest

from naturalist.data.split import stratified_part, stratified_split
from naturalist.errors import UserError

NAMES = ("a", "b", "c", "d")
LABELS = np.array([0, 1, 2, 3, 3, 2, 1, 0] * 4 + [0] * 8)  # 16 of class 0, 8 of each other
EXPECTED = {0: [1, 8, 10, 15, 17, 18, 19, 20, 34, 35], 7: [3, 11, 14, 15, 18, 24, 26, 30, 32, 34]}
"""Validation indices of a quarter, by seed."""


def test_split_is_the_same_on_every_machine():
    _, val = stratified_split(LABELS, NAMES, 0.25, seed=0)
    assert val.tolist() == EXPECTED[0]
    _, val = stratified_split(LABELS, NAMES, 0.25, seed=7)
    assert val.tolist() == EXPECTED[7]


@pytest.mark.parametrize("seed", range(5))
def test_every_class_is_held_out_in_the_same_proportion_and_no_image_is_lost(seed):
    train, val = stratified_split(LABELS, NAMES, 0.25, seed)
    assert np.bincount(LABELS[val]).tolist() == [4, 2, 2, 2]
    assert np.array_equal(np.sort(np.concatenate([train, val])), np.arange(len(LABELS)))
    assert (np.diff(train) > 0).all() and (np.diff(val) > 0).all()


def test_a_fifth_of_nature_12k_leaves_7999_and_2000():
    labels = np.repeat(np.arange(10), [1000] * 4 + [999] + [1000] * 5)
    train, val = stratified_split(labels, tuple("abcdefghij"), 0.2, seed=0)
    assert (len(train), len(val)) == (7999, 2000)
    assert np.bincount(labels[val]).tolist() == [200] * 10


def test_seeds_give_different_splits():
    splits = {tuple(stratified_split(LABELS, NAMES, 0.25, seed)[1]) for seed in range(5)}
    assert len(splits) == 5


def test_split_does_not_disturb_numpys_random_numbers():
    np.random.seed(3)  # noqa: NPY002 - the global generator is what is tested
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    stratified_split(LABELS, NAMES, 0.25, seed=0)
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002


@pytest.mark.parametrize("per_class", [2, 3, 5, 10])
@pytest.mark.parametrize("val_fraction", [1e-9, 0.01, 0.2, 1 / 3, 0.5, 0.9, 0.99, 0.999999])
def test_any_fraction_gives_both_sides_every_class_or_is_refused(val_fraction, per_class):
    labels = np.repeat(np.arange(4), per_class)
    try:
        train, val = stratified_split(labels, NAMES, val_fraction, seed=1)
    except UserError as error:
        assert "val_fraction" in str(error)
    else:
        assert set(labels[train]) == set(labels[val]) == set(range(4))


def test_class_with_one_image_is_refused_by_name():
    with pytest.raises(UserError, match=r"class b has 1 readable image"):
        stratified_split(np.array([0, 0, 0, 1]), ("a", "b"), 0.5, seed=0)


def test_class_too_rare_for_the_fraction_is_refused_by_name():
    with pytest.raises(UserError, match=r"the class b would be missing from one side of the split; add images of it"):
        stratified_split(np.array([0] * 100 + [1] * 2), ("a", "b"), 0.2, seed=0)


def test_a_part_has_the_same_share_of_every_class_and_lies_within_a_larger_part():
    train, _ = stratified_split(LABELS, NAMES, 0.25, seed=0)
    half, quarter = (stratified_part(train, LABELS[train], fraction, seed=0) for fraction in (0.5, 0.25))
    assert np.bincount(LABELS[half]).tolist() == [6, 3, 3, 3]
    assert set(quarter) < set(half) < set(train)
    assert np.bincount(LABELS[stratified_part(train, LABELS[train], 0.001, seed=0)]).tolist() == [1, 1, 1, 1]
