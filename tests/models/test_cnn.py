"""The five-block CNN and its summary."""

import itertools

import pytest
import torch

from naturalist.errors import UserError
from naturalist.models import build_model
from naturalist.models.cnn import ACTIVATIONS, FiveBlockCNN, closed_form_totals, filters_per_block
from naturalist.models.summary import summarize


@pytest.mark.parametrize(
    ("activation", "pooling", "padding"), itertools.product(ACTIVATIONS, ("flatten", "average"), ("valid", "same"))
)
def test_every_combination_gives_logits_and_gradients_to_every_weight(activation, pooling, padding):
    model = FiveBlockCNN(7, 96, num_filters=4, activation=activation, pooling=pooling, padding=padding, dense_units=8)
    logits = model(torch.randn(2, 3, 96, 96))
    assert logits.shape == (2, 7)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_activation_follows_every_convolution_and_the_dense_layer():
    model = FiveBlockCNN(10, 64, activation="Mish")
    kinds = [type(module).__name__ for module in model.modules() if not any(True for _ in module.children())]
    assert kinds.count("Mish") == 6
    assert kinds[-3:] == ["Linear", "Mish", "Linear"]
    assert "Softmax" not in kinds


@pytest.mark.parametrize(
    ("organization", "expected"),
    [("same", [32, 32, 32, 32, 32]), ("doubling", [32, 64, 128, 256, 512]), ("halving", [32, 16, 8, 4, 2])],
)
def test_filters_are_organised_as_named(organization, expected):
    assert filters_per_block(32, organization) == expected
    model = FiveBlockCNN(10, 64, num_filters=32, filter_organization=organization)
    assert [block.convolution.out_channels for block in model.blocks] == expected


def test_lists_set_filters_and_kernels_of_each_block():
    model = FiveBlockCNN(10, 64, num_filters=[4, 8, 8, 16, 2], kernel_size=[7, 5, 3, 3, 1])
    assert [block.convolution.out_channels for block in model.blocks] == [4, 8, 8, 16, 2]
    assert [block.convolution.kernel_size[0] for block in model.blocks] == [7, 5, 3, 3, 1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"image_size": 60, "padding": "valid"}, ["block 5", "1×1"]),
        ({"image_size": 16, "padding": "same"}, ["block 5"]),
        ({"image_size": 64, "padding": "valid", "kernel_size": [3, 3, 31, 3, 3]}, ["block 3", "31×31"]),
        ({"image_size": 64, "padding": "same", "kernel_size": 4}, ["block 1", "odd"]),
        ({"image_size": 64, "num_filters": 8, "filter_organization": "halving"}, ["block 5", "without filters", "16"]),
    ],
)
def test_settings_that_leave_nothing_are_refused_naming_the_block(arguments, words):
    with pytest.raises(UserError) as error:
        FiveBlockCNN(10, **arguments)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("filters", "kernel", "units", "padding", "size"),
    [(32, 3, 128, "valid", 224), (64, 5, 64, "same", 96), (7, 1, 3, "valid", 50), (16, 3, 10, "same", 33)],
)
def test_closed_form_totals_equal_the_counted_ones(filters, kernel, units, padding, size):
    model = FiveBlockCNN(
        10,
        size,
        num_filters=filters,
        filter_organization="same",
        kernel_size=kernel,
        padding=padding,
        batch_norm=False,
        dense_units=units,
    )
    counted = summarize(model, size)
    assert counted.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (counted.parameters, counted.multiply_accumulates) == closed_form_totals(
        filters, kernel, units, padding=padding, image_size=size
    )


def test_the_summary_names_every_layer_and_leaves_the_model_as_it_was():
    model = FiveBlockCNN(10, 64, num_filters=4).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    text = str(summarize(model, 64))
    assert "blocks.block3.convolution" in text and "output" in text and "total" in text
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_description_of_an_unknown_kind_is_refused():
    with pytest.raises(UserError, match="'capsules'"):
        build_model({"kind": "capsules"})


@pytest.mark.parametrize(
    "sizes", [{"num_filters": 100_000}, {"dense_units": 10**18}, {"num_filters": [10**30] * 5}, {"dense_units": 10**20}]
)
def test_a_network_that_no_memory_holds_is_refused_before_any_is_asked_for(sizes):
    with pytest.raises(UserError, match="GB of memory"):
        FiveBlockCNN(10, 128, **sizes)


def test_a_kernel_larger_than_the_image_is_refused():
    with pytest.raises(UserError, match="999×999 kernel is larger than the 128×128 image"):
        FiveBlockCNN(10, 128, kernel_size=999)


def test_one_image_of_the_smallest_size_can_be_trained_on():
    model = FiveBlockCNN(3, 32, num_filters=2, pooling="average").train()
    assert model(torch.rand(1, 3, 32, 32)).isfinite().all()
    with pytest.raises(UserError, match="left without pixels"):
        FiveBlockCNN(3, 31, num_filters=2)
