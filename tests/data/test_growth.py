"""Training images that grow from epoch to epoch."""

import pytest
import torch

from naturalist.data.augment import Augmentation
from naturalist.data.growth import Growing, Growth
from naturalist.data.preprocessing import Preprocessing
from naturalist.settings.groups import AugmentationSettings

PLAIN = Preprocessing(64, 64, "squash", (0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize(
    ("growth", "sides"),
    [
        (Growth(64, 128, 4), [64, 80, 96, 112, 128, 128]),
        (Growth(36, 100, 2.5), [36, 64, 80, 100, 100]),
        (Growth(96, 96, 3), [96, 96, 96, 96]),
        (Growth(32, 64, 0.5), [32, 64, 64]),
    ],
    ids=str,
)
def test_images_grow_in_steps_and_then_stay(growth, sides):
    assert [growth.side(epoch) for epoch in range(len(sides))] == sides


@pytest.mark.parametrize("augmented", [False, True])
def test_images_have_the_side_of_their_epoch_and_in_the_end_are_as_without_growth(augmented):
    images, labels = torch.randint(256, (4, 3, 64, 64), dtype=torch.uint8), torch.arange(4)
    vary = Augmentation(AugmentationSettings(cutmix=1.0), 0, PLAIN, 4) if augmented else PLAIN
    growing = Growing(vary, Growth(32, 64, 2))
    assert [growing(images, labels, epoch, 0)[0].shape[2:] for epoch in range(3)] == [(32, 32), (48, 48), (64, 64)]
    last, targets = growing(images, labels, 2, 1)
    expected, truth = vary(images, labels, 2, 1) if augmented else (PLAIN(images), labels)
    assert torch.equal(last, expected) and torch.equal(targets, truth)


def test_smaller_images_are_averages_and_not_every_other_pixel():
    stripes = (255 * (torch.arange(64) % 2)).byte().expand(1, 3, 64, 64)
    small, _ = Growing(PLAIN, Growth(32, 32, 1))(stripes, torch.zeros(1).long(), 0, 0)
    torch.testing.assert_close(small[..., 1:-1], torch.full((1, 3, 32, 30), 0.5), atol=0.01, rtol=0)


def test_features_have_no_side_to_change():
    features = torch.rand(2, 3, 48, 48)
    same, _ = Growing(lambda inputs: inputs, Growth(32, 32, 0))(features, torch.arange(2), 0, 0)
    assert same is features
