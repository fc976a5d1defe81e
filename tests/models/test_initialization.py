"""First weights: what a network passes on, and what its first filters answer to."""

import pytest
import torch

from naturalist.models.cnn import FiveBlockCNN
from naturalist.models.initialization import PATCHES, SCALE, _random_patches, begin_with_identity, begin_with_patches
from naturalist.seeding import generator

IMAGES = torch.nn.functional.avg_pool2d(torch.randn(40, 3, 66, 66, generator=generator(0, "test")), 3, 2, 1)
"""Of neighbouring pixels that are alike, as in photographs."""


def network(**changes) -> FiveBlockCNN:
    torch.manual_seed(0)
    return FiveBlockCNN(3, 80, **{"num_filters": 4, "dense_units": 8, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"filter_organization": "halving", "num_filters": 16},
        {"kernel_size": [3, 5, 3, 1, 3], "num_filters": [4, 6, 6, 2, 9]},
        {"kernel_size": [2, 2, 1, 1, 1], "padding": "valid", "batch_norm": False},
    ],
    ids=str,
)
def test_blocks_pass_on_as_many_channels_as_they_have_filters(changes):
    model, plain = network(**changes), network(**changes)
    begin_with_identity(model)
    assert torch.equal(model.blocks.block1.convolution.weight, plain.blocks.block1.convolution.weight)
    for block, unchanged in zip(list(model.blocks)[1:], list(plain.blocks)[1:], strict=True):
        convolution = block.convolution
        inputs = torch.randn(2, convolution.in_channels, 9, 9)
        passed, middle = min(convolution.weight.shape[:2]), convolution.kernel_size[0] // 2
        outputs = torch.nn.functional.conv2d(inputs, convolution.weight, padding=middle)
        assert torch.equal(outputs[:, :passed, :9, :9], inputs[:, :passed])
        assert torch.equal(convolution.weight[passed:], unchanged.convolution.weight[passed:])


@pytest.mark.parametrize("changes", [{}, {"kernel_size": 5}, {"num_filters": 7}, {"num_filters": 60}], ids=str)
def test_first_filters_are_pairs_that_answer_to_patches_alike_and_each_for_itself(changes):
    model, plain, again = (network(**{"num_filters": 16, **changes}) for _ in range(3))
    begin_with_patches(model, [IMAGES[:25], IMAGES[25:]], seed=1)
    begin_with_patches(again, [IMAGES[:25], IMAGES[25:]], seed=1)
    first, kernel = model.blocks.block1.convolution.weight, model.blocks.block1.convolution.kernel_size[0]
    assert torch.equal(first, again.blocks.block1.convolution.weight)
    patterned = min(len(first), 2 * 3 * kernel**2)
    assert torch.equal(first[0 : patterned - 1 : 2], -first[1:patterned:2])
    assert torch.equal(first[patterned:], plain.blocks.block1.convolution.weight[patterned:])
    answers = _random_patches(IMAGES, kernel, generator(2, "others")) @ first[0:patterned:2].flatten(1).T
    expected = SCALE**2 * torch.eye(answers.shape[1])
    torch.testing.assert_close(torch.cov(answers.T), expected, atol=0.2 * SCALE**2, rtol=0)


def test_grey_images_and_single_colours_give_finite_filters():
    for images in (IMAGES[:, :1].expand(-1, 3, -1, -1), torch.ones(4, 3, 33, 33)):
        model = network(num_filters=64)
        begin_with_patches(model, [images], seed=0)
        assert model.blocks.block1.convolution.weight.isfinite().all()


def test_patches_are_pieces_of_their_images():
    plane = torch.arange(64.0).view(1, 1, 8, 8).expand(2, 3, 8, 8) + torch.tensor([0.0, 100.0]).view(2, 1, 1, 1)
    patches = _random_patches(plane, 3, generator(0, "test")).view(2, PATCHES, 3, 3, 3)
    corner = patches[..., :1, :1]
    steps = 8 * torch.arange(3.0)[:, None] + torch.arange(3.0)
    assert torch.equal(patches - corner, steps.expand_as(patches))
    assert patches[0].max() < 64 and patches[1].min() >= 100 and len(corner[0, :, 0].unique()) > 20
