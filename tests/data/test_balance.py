"""What is done to classes of unequal size: weights, frequencies and orders, by hand."""

import numpy as np
import pytest

from naturalist.data.balance import balanced_order, class_weights, describe_balance, learnt_prior
from naturalist.data.loader import batch_order

COUNTS = (1, 4, 16, 0)


@pytest.mark.parametrize(
    ("kind", "weights"),
    [
        ("none", (1, 1, 1, 0)),
        ("balanced", (7, 7 / 4, 7 / 16, 0)),  # 21 / (3 · n_c)
        ("sqrt", (3, 3 / 2, 3 / 4, 0)),  # in the ratio of 4 : 2 : 1; 4 + 4 · 2 + 16 · 1 = 28 = 21 · 4/3
    ],
)
def test_weights_by_hand(kind, weights):
    assert class_weights(COUNTS, kind) == pytest.approx(weights)
    assert class_weights(COUNTS, kind) @ COUNTS == pytest.approx(21)  # 1 on average over the images


@pytest.mark.parametrize(
    ("kind", "sampling", "prior"),
    [
        ("none", "shuffle", (1 / 21, 4 / 21, 16 / 21, 0)),
        ("sqrt", "shuffle", (1 / 7, 2 / 7, 4 / 7, 0)),
        ("balanced", "shuffle", (1 / 3, 1 / 3, 1 / 3, 0)),
        ("none", "balanced", (1 / 3, 1 / 3, 1 / 3, 0)),
    ],
)
def test_the_frequencies_that_a_training_has_shown_by_hand(kind, sampling, prior):
    assert learnt_prior(COUNTS, kind, sampling) == pytest.approx(prior)


@pytest.mark.parametrize("counts", [(1, 4, 16), (5, 5, 5), (2, 30), (7,), (1, 1, 2)], ids=str)
def test_in_a_balanced_epoch_classes_come_equally_often_and_images_of_one_as_often_as_each_other(counts):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    extra = set()
    for epoch in range(4):
        order = balanced_order(labels, 0, epoch)
        assert len(order) == len(labels)
        times = np.bincount(labels[order])
        assert times.max() - times.min() <= 1
        extra.add(int(times.argmax()))
        for label in range(len(counts)):
            of_image = np.bincount(order, minlength=len(labels))[labels == label]
            assert of_image.max() - of_image.min() <= 1
    assert len(extra) > 1 or len(labels) % len(counts) == 0


def test_a_balanced_order_depends_on_seed_and_epoch_alone():
    labels = np.arange(30) % 4 // 2
    orders = [batch_order(labels, seed, epoch, "balanced").tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({str(order) for order in orders}) == 4
    assert batch_order(labels, 1, 1, "balanced").tolist() == orders[3]
    assert batch_order(labels, None, 1, "balanced").tolist() == list(range(30))


def test_what_is_done_is_told_with_its_numbers():
    assert describe_balance(COUNTS, "none", "shuffle") == ""
    assert "1 to 16 training images" in describe_balance(COUNTS, "sqrt", "shuffle")
    assert "weighs 0.75 to 3 (class_weights sqrt), in val_loss always 1" in describe_balance(COUNTS, "sqrt", "shuffle")
    assert "an image comes 0.44 to 7 times" in describe_balance(COUNTS, "none", "balanced")
