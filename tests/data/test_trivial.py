"""What TrivialAugment promises."""

import math

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from naturalist.data.augment import Augmentation
from naturalist.data.preprocessing import Preprocessing
from naturalist.data.trivial import KINDS, Trivial, posterize, sharpen, solarize
from naturalist.settings.groups import AugmentationSettings

SIZE = 32
PLAIN = Preprocessing(SIZE, SIZE, "squash", (0.0,) * 3, (1.0,) * 3)
NOTHING = AugmentationSettings(
    crop_scale=1, horizontal_flip=0, rotation=0, brightness=0, contrast=0, saturation=0, random_erasing=0
)


class Fixed:
    """Draws of one kind, strength and sign; what follows has no effect."""

    def __init__(self, kind: str, strength: float, sign: float, batch: int) -> None:
        self._numbers = [(KINDS.index(kind) + 0.5) / len(KINDS), strength, sign]
        self._batch = batch

    def uniform(self, low: float, high: float) -> Tensor:
        number = self._numbers.pop(0) if self._numbers else 0.5
        return torch.full((self._batch,), low + (high - low) * number)

    def happens(self, probability: float) -> Tensor:
        return torch.zeros(self._batch)


@pytest.fixture
def images() -> Tensor:
    """Uint8 ``[4, 3, 32, 32]``: smooth, with noise, of few and of many values; channels last as from the loader."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, 3, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, SIZE, mode="bicubic").clamp(0, 1) * 160 + 40
    noise = torch.rand(4, 3, SIZE, SIZE, generator=generator) * torch.tensor([0, 50, 5, 20]).view(4, 1, 1, 1)
    return (smooth + noise).byte().contiguous(memory_format=torch.channels_last)


def change(images: Tensor, kind: str, strength: float, sign: float = 0.0) -> Tensor:
    augmentation = Augmentation(AugmentationSettings(**{**vars(NOTHING), "trivial_augment": True}), 0, PLAIN, 4)
    return augmentation.vary(images, Fixed(kind, strength, sign, len(images)))


THEIRS = {
    "identity": lambda images, _, __: images,
    "brightness": lambda images, _, signed: functional.adjust_brightness(images, 1 + 0.99 * signed),
    "contrast": lambda images, _, signed: functional.adjust_contrast(images, 1 + 0.99 * signed),
    "saturation": lambda images, _, signed: functional.adjust_saturation(images, 1 + 0.99 * signed),
    "sharpness": lambda images, _, signed: functional.adjust_sharpness(images, 1 + 0.99 * signed),
    "posterize": lambda images, strength, _: functional.posterize(images, 8 - round(6 * strength)),
    "solarize": lambda images, strength, _: functional.solarize(images, 255 * (1 - strength)),
    "autocontrast": lambda images, _, __: functional.autocontrast(images),
    "equalize": lambda images, _, __: functional.equalize(images),
}


@pytest.mark.parametrize("sign", [0.0, 0.5])
@pytest.mark.parametrize("strength", [0.0, 0.42, 0.99])
@pytest.mark.parametrize("kind", THEIRS)
def test_colours_change_as_torchvisions_do(images, kind, strength, sign):
    theirs = THEIRS[kind](images, strength, strength if sign < 0.5 else -strength)
    difference = (change(images, kind, strength, sign) - theirs.float() / 255).abs()
    assert difference.max() < 2.1 / 255  # torchvision rounds to whole values on its way


@pytest.mark.parametrize(("sign", "way"), [(0.2, 1), (0.8, -1)])
def test_geometry_goes_as_far_as_told_either_way(sign, way):
    def maps(kind: str) -> tuple[Tensor, Tensor]:
        numbers = (torch.tensor([(KINDS.index(kind) + 0.5) / len(KINDS)]), torch.tensor([0.5]), torch.tensor([sign]))
        trivial = Trivial(*numbers)
        return trivial.linear()[0], trivial.shift()[0, :, 0]

    still, nowhere = torch.eye(2), torch.zeros(2)
    cos, sin = math.cos(math.radians(67.5)), way * math.sin(math.radians(67.5))
    wanted = {
        "shear_x": (torch.tensor([[1, way * 0.495], [0, 1]]), nowhere),
        "shear_y": (torch.tensor([[1, 0], [way * 0.495, 1]]), nowhere),
        "rotation": (torch.tensor([[cos, -sin], [sin, cos]]), nowhere),
        "shift_x": (still, torch.tensor([way * 0.25, 0])),
        "shift_y": (still, torch.tensor([0, way * 0.25])),
        "equalize": (still, nowhere),
    }
    for kind, (linear, shift) in wanted.items():
        torch.testing.assert_close(maps(kind), (linear, shift), msg=kind)


@pytest.mark.parametrize(("kind", "axis"), [("shift_x", 3), ("shift_y", 2)])
def test_a_shifted_picture_is_the_same_an_eighth_of_the_side_further_on(images, kind, axis):
    shifted = change(images, kind, 0.5).roll(SIZE // 8, axis)
    kept = slice(SIZE // 8, SIZE)
    ours, theirs = (picture.transpose(axis, 3)[..., kept] for picture in (shifted, images.float() / 255))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_rotation_turns_as_torchvision_does(images):
    turned = functional.rotate(images[:1].float() / 255, 67.5, interpolation=functional.InterpolationMode.BILINEAR)
    middle = slice(8, 24)  # never outside of the image
    torch.testing.assert_close(
        change(images[:1], "rotation", 0.5)[..., middle, middle], turned[..., middle, middle], atol=0.01, rtol=0
    )


def test_every_image_gets_a_kind_of_its_own_and_all_are_equally_likely(images):
    numbers = torch.rand(3, 14_000, generator=torch.Generator().manual_seed(0))
    kinds = (numbers[0] * len(KINDS)).long().bincount(minlength=len(KINDS))
    assert kinds.min() > 850 and kinds.max() < 1150
    augmentation = Augmentation(AugmentationSettings(**{**vars(NOTHING), "trivial_augment": True}), 0, PLAIN, 4)
    pictures = augmentation(images[1:2].expand(64, -1, -1, -1), torch.zeros(64, dtype=torch.long), 0, 0)[0]
    different = (pictures - PLAIN(images[1:2])).abs().amax(dim=(1, 2, 3)) > 1 / 255
    assert 45 <= different.sum() < 64  # identity, and changes too small to be seen
    assert pictures.unique(dim=0).shape[0] >= 45
    assert pictures.min() >= 0 and pictures.max() <= 1


@pytest.mark.parametrize("change", [sharpen, posterize, solarize])
def test_a_whole_batch_gets_what_each_image_gets_alone(images, change):
    """As GPUs do it, which do not pick out the images of a kind."""
    values, amounts = images.float() / 255, torch.tensor([0.1, 2, 0.6, 7]).view(-1, 1, 1, 1)
    alone = [change(values[i : i + 1], amounts[i : i + 1]) for i in range(len(values))]
    torch.testing.assert_close(change(values, amounts), torch.cat(alone), atol=1e-6, rtol=0)


def test_pictures_without_contrast_stay_finite():
    flat = torch.full((64, 3, SIZE, SIZE), 90, dtype=torch.uint8)
    augmentation = Augmentation(AugmentationSettings(trivial_augment=True), 0, PLAIN, 4)
    pictures = augmentation(flat, torch.zeros(64, dtype=torch.long), 0, 0)[0]
    assert pictures.min() >= 0 and pictures.max() <= 1  # false for nan as well
