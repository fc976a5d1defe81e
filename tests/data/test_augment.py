"""What preprocessing and augmentation promise."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, interpolate

from naturalist.data.augment import Augmentation, sampling_grid
from naturalist.data.decode import decode_file
from naturalist.data.preprocessing import Preprocessing, channel_statistics
from naturalist.settings.groups import AugmentationSettings

SIZE = 48
NOTHING = {
    "crop_scale": 1.0,
    "horizontal_flip": 0.0,
    "rotation": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "saturation": 0.0,
    "random_erasing": 0.0,
}
AMOUNTS = {
    "crop_scale": 0.3,
    "horizontal_flip": 0.5,
    "rotation": 30.0,
    "brightness": 0.5,
    "contrast": 0.5,
    "saturation": 0.5,
    "random_erasing": 0.5,
}
PLAIN = Preprocessing(SIZE, SIZE, "squash", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
NORMALIZED = Preprocessing(SIZE, SIZE, "squash", (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


@pytest.fixture(scope="module")
def batch(photographs) -> Tensor:
    """Sixteen different photographs, uint8 ``[16, 3, 48, 48]``, channels last as from the loader."""
    paths = sorted((photographs / "train").glob("*/*.jpg"))[::3]
    pixels = np.stack([decode_file(path, SIZE, "squash") for path in paths])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def augment(
    images: Tensor,
    preprocessing: Preprocessing = PLAIN,
    *,
    seed: int = 0,
    epoch: int = 0,
    step: int = 0,
    **settings: float,
) -> Tensor:
    labels = torch.arange(len(images)) % 4
    augmentation = Augmentation(AugmentationSettings(**{**NOTHING, **settings}), seed, preprocessing, 4)
    return augmentation(images, labels, epoch, step)[0]


def same_picture(images: Tensor, count: int = 16) -> Tensor:
    return images[1:2].expand(count, -1, -1, -1)  # image 0 is grey


@pytest.mark.parametrize("preprocessing", [PLAIN, NORMALIZED])
def test_all_amounts_zero_is_the_plain_preprocessing(batch, preprocessing):
    torch.testing.assert_close(augment(batch, preprocessing), preprocessing(batch), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", AMOUNTS)
def test_every_setting_has_an_effect_of_its_own(batch, name):
    changed = (augment(batch, **{name: AMOUNTS[name]}) - PLAIN(batch)).abs().amax(dim=(1, 2, 3)) > 0.02
    assert changed.sum() >= 4


@pytest.mark.parametrize("name", AMOUNTS)
def test_parameters_differ_within_a_batch(batch, name):
    pictures = augment(same_picture(batch), **{name: AMOUNTS[name]})
    distinct = {picture.numpy().tobytes() for picture in pictures}
    assert len(distinct) == 2 if name == "horizontal_flip" else len(distinct) > 5


def test_equal_seed_epoch_and_step_give_equal_pictures_whatever_ran_before(batch):
    expected = augment(batch, epoch=2, step=5, seed=3, mixup=0.2, cutmix=1.0, **AMOUNTS)
    torch.rand(7)
    augment(batch, epoch=2, step=4, seed=3, **AMOUNTS)
    assert torch.equal(augment(batch, epoch=2, step=5, seed=3, mixup=0.2, cutmix=1.0, **AMOUNTS), expected)


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 1}, {"step": 1}])
def test_another_seed_epoch_or_step_gives_other_pictures(batch, other):
    difference = augment(batch, **AMOUNTS) - augment(batch, **AMOUNTS, **other)
    assert (difference.abs().amax(dim=(1, 2, 3)) > 0.02).all()


def test_augmentation_of_an_image_does_not_depend_on_its_neighbours(batch):
    with_others = augment(batch, **AMOUNTS)
    alone = augment(torch.cat([batch[:1], torch.zeros_like(batch[1:])]), **AMOUNTS)
    torch.testing.assert_close(with_others[0], alone[0])


def test_neither_the_batch_nor_the_global_random_numbers_are_changed(batch):
    before, state = batch.clone(), torch.get_rng_state()
    augment(batch, mixup=0.2, cutmix=1.0, **AMOUNTS)
    assert torch.equal(batch, before) and torch.equal(torch.get_rng_state(), state)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_gets_the_pictures_of_the_cpu_and_keeps_its_random_numbers(batch):
    state = torch.cuda.get_rng_state()
    pictures = augment(batch.cuda(), mixup=0.2, **AMOUNTS)
    assert torch.equal(torch.cuda.get_rng_state(), state)
    torch.testing.assert_close(pictures.cpu(), augment(batch, mixup=0.2, **AMOUNTS), atol=1e-3, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_gets_the_trivially_augmented_pictures_of_the_cpu(batch):
    far = (augment(batch.cuda(), trivial_augment=True).cpu() - augment(batch, trivial_augment=True)).abs() > 1e-3
    assert far.float().mean() < 0.01  # a value at a threshold falls on either side of it


def test_mirror_images_are_exact_and_as_frequent_as_asked(batch):
    torch.testing.assert_close(augment(batch, horizontal_flip=1.0), PLAIN(batch).flip(3), atol=1e-5, rtol=0)
    many = augment(same_picture(batch, 1000), horizontal_flip=0.3)
    mirrored = (many - PLAIN(batch[1:2]).flip(3)).abs().amax(dim=(1, 2, 3)) < 1e-4
    assert 250 < mirrored.sum() < 350


def test_with_alternating_flip_every_image_is_seen_from_both_sides_in_two_epochs_wherever_it_stands(batch):
    def mirrored(images: Tensor, **position: int) -> Tensor:
        pictures = augment(images, alternating_flip=True, horizontal_flip=1.0, **position)
        return (pictures - PLAIN(images).flip(3)).abs().amax(dim=(1, 2, 3)) < 1e-4

    first = mirrored(batch)
    assert 2 <= first.sum() <= 14 and not torch.equal(first, mirrored(batch, seed=1))
    assert torch.equal(mirrored(batch.flip(0), epoch=4, step=7).flip(0), first)
    assert torch.equal(mirrored(batch, epoch=1), ~first)


def test_rotation_keeps_pictures_the_right_way_up():
    lit_from_above = torch.linspace(255, 0, SIZE).byte().view(1, 1, SIZE, 1).expand(200, 3, SIZE, SIZE)
    centre = augment(lit_from_above, rotation=20.0, horizontal_flip=0.5)[:, :, 12:36, 12:36]
    down = centre[..., 1:, :].mean(dim=(1, 2, 3)) - centre[..., :-1, :].mean(dim=(1, 2, 3))
    across = centre[..., 1:].mean(dim=(1, 2, 3)) - centre[..., :-1].mean(dim=(1, 2, 3))
    angles = torch.rad2deg(torch.atan2(across, -down))
    assert angles.abs().max() < 21
    assert angles.min() < -12 and angles.max() > 12 and angles.mean().abs() < 3


def test_rotation_turns_without_stretching():
    coordinates = torch.arange(SIZE) - (SIZE - 1) / 2
    disc = (coordinates[:, None] ** 2 + coordinates**2 < 15**2).byte() * 255
    pictures = augment(disc.expand(20, 3, SIZE, SIZE), rotation=180.0)
    assert (pictures - disc.float() / 255).abs().mean() < 0.02


@pytest.mark.parametrize("size", [7, 32])
def test_places_to_sample_are_those_of_torchs_affine_grid(size):
    maps = torch.randn(5, 2, 3)
    theirs = affine_grid(maps, [5, 3, size, size], align_corners=False)
    torch.testing.assert_close(sampling_grid(maps, size), theirs)


def test_what_a_rotation_uncovers_is_filled_from_the_picture():
    white = torch.full((50, 3, SIZE, SIZE), 255, dtype=torch.uint8)
    torch.testing.assert_close(augment(white, rotation=180.0, crop_scale=0.5), torch.ones(50, 3, SIZE, SIZE))


def test_crops_lie_within_the_picture_and_keep_the_share_of_area_that_was_asked_for():
    # Red tells the column, green the row, of the place that a pixel came from.
    ramp = torch.linspace(0, 255, SIZE).byte()
    plane = torch.stack([ramp.expand(SIZE, SIZE), ramp[:, None].expand(SIZE, SIZE), torch.zeros(SIZE, SIZE).byte()])
    crops = augment(plane.expand(500, 3, SIZE, SIZE), crop_scale=0.25)
    width, height = (crops[:, axis].amax(dim=(1, 2)) - crops[:, axis].amin(dim=(1, 2)) for axis in (0, 1))
    area, ratio = width * height, width / height
    assert 0.24 < area.min() < 0.3 and 0.93 < area.max() <= 1.01
    assert 0.7 < ratio.min() < 0.8 and 1.25 < ratio.max() < 1.4
    assert (crops[:, 0, :, 0] < crops[:, 0, :, -1]).all() and (crops[:, 1, 0] < crops[:, 1, -1]).all()
    left = crops[:, 0].amin(dim=(1, 2))
    assert left.min() < 0.02 and left.max() > 0.3


@pytest.mark.parametrize(
    "amounts",
    [
        {**AMOUNTS, "brightness": 1.0, "contrast": 1.0, "saturation": 1.0},
        {**AMOUNTS, "crop_scale": 1e-4, "rotation": 180.0, "random_erasing": 1.0},
    ],
)
def test_colours_stay_within_their_range(batch, amounts):
    for step in range(20):
        pictures = augment(batch, step=step, **amounts)
        assert pictures.shape == batch.shape and pictures.dtype == torch.float32
        assert pictures.min() >= 0 and pictures.max() <= 1  # false for nan as well


def test_saturation_keeps_brightness_and_grey_pictures_grey(batch):
    luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    muted = batch // 4 + 96  # far from the ends of the range, where nothing is clipped
    changed = augment(muted, saturation=0.9)
    torch.testing.assert_close((changed * luma).sum(1), (PLAIN(muted) * luma).sum(1), atol=1e-4, rtol=0)
    grey = batch[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(augment(grey, saturation=0.9), PLAIN(grey), atol=1e-4, rtol=0)


def test_brightness_and_contrast_change_as_far_as_asked(batch):
    grey = torch.full((300, 3, SIZE, SIZE), 100, dtype=torch.uint8)
    factors = augment(grey, brightness=0.3).mean(dim=(1, 2, 3)) * 255 / 100
    assert 0.69 < factors.min() < 0.75 and 1.25 < factors.max() < 1.31
    muted = same_picture(batch, 300) // 4 + 96
    spread = augment(muted, contrast=0.3).std(dim=(1, 2, 3)) / PLAIN(muted).std(dim=(1, 2, 3))
    assert 0.69 < spread.min() < 0.75 and 1.25 < spread.max() < 1.31


def test_erased_rectangles_hold_the_mean_colour_and_a_fitting_share_of_the_picture():
    white = torch.full((400, 3, SIZE, SIZE), 255, dtype=torch.uint8)
    pictures = augment(white, NORMALIZED, random_erasing=0.5)
    hole = (pictures == 0).all(dim=1)
    kept = NORMALIZED(white[:1]).expand_as(pictures)
    assert torch.equal(torch.where(hole[:, None], kept, pictures), kept)
    share = hole.float().mean(dim=(1, 2))
    assert 150 < (share > 0).sum() < 250
    assert share[share > 0].min() > 0.005 and share.max() < 0.22
    rows, columns = hole.any(2).sum(1), hole.any(1).sum(1)
    assert torch.equal(rows * columns, hole.sum(dim=(1, 2)))  # one full rectangle each


@pytest.mark.parametrize("mixes", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_mixed_targets_tell_the_shares_of_the_pictures(batch, mixes):
    labels = torch.arange(16) % 4
    # Each class is one grey, so a picture's mean tells the shares of the two classes in it.
    pictures = (labels * 60).byte().view(-1, 1, 1, 1).expand(-1, 3, SIZE, SIZE)
    augmentation = Augmentation(AugmentationSettings(**NOTHING, **mixes), 0, PLAIN, 4)
    for step in range(10):
        mixed, targets = augmentation(pictures, labels, 0, step)
        assert targets.shape == (16, 4) and (targets >= 0).all()
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(16))
        shares = (targets * torch.arange(4)).sum(dim=1) * 60 / 255
        torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), shares, atol=1e-4, rtol=0)


def test_mixup_and_cutmix_take_turns():
    labels = torch.arange(16) % 4
    pictures = (labels * 60).byte().view(-1, 1, 1, 1).expand(-1, 3, SIZE, SIZE)
    augmentation = Augmentation(AugmentationSettings(**NOTHING, mixup=1.0, cutmix=1.0), 0, PLAIN, 4)
    uniform = [
        bool((mixed.std(dim=(2, 3)) < 1e-6).all())
        for mixed, _ in (augmentation(pictures, labels, 0, step) for step in range(30))
    ]
    assert 5 < sum(uniform) < 25


def test_without_mixing_the_labels_are_untouched(batch):
    labels = torch.arange(16) % 4
    assert Augmentation(AugmentationSettings(), 0, PLAIN, 4)(batch, labels, 0, 0)[1] is labels


def test_crop_preprocessing_cuts_the_centre_of_a_larger_cache(batch):
    preprocessing = Preprocessing(32, SIZE, "crop", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert torch.equal(preprocessing(batch), batch[..., 8:40, 8:40].float() / 255)


def test_squash_preprocessing_scales_a_larger_cache_down(batch):
    preprocessing = Preprocessing(16, SIZE, "squash", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    expected = interpolate(batch.float() / 255, (16, 16), mode="bilinear", antialias=True)
    torch.testing.assert_close(preprocessing(batch), expected)
    assert augment(batch, preprocessing, **AMOUNTS).shape == (16, 3, 16, 16)


def test_preprocessing_normalizes_by_mean_and_deviation(batch):
    mean, std = channel_statistics(batch.permute(0, 2, 3, 1))
    pictures = Preprocessing(SIZE, SIZE, "squash", mean, std)(batch)
    torch.testing.assert_close(pictures.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(pictures.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)


def test_channel_statistics_equal_numpys(batch):
    pixels = batch.permute(0, 2, 3, 1)
    mean, std = channel_statistics(pixels)
    scaled = pixels.numpy() / 255
    np.testing.assert_allclose(mean, scaled.mean(axis=(0, 1, 2)), atol=1e-9)
    np.testing.assert_allclose(std, scaled.std(axis=(0, 1, 2)), atol=1e-9)


def test_pictures_of_one_colour_do_not_divide_by_zero():
    mean, std = channel_statistics(torch.full((2, 8, 8, 3), 51, dtype=torch.uint8))
    assert mean == pytest.approx((0.2, 0.2, 0.2)) and min(std) > 0
