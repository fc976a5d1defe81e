"""Every classification model of torchvision as a chain of stages."""

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy
from torchvision import models

from naturalist.errors import UserError
from naturalist.models import build_model
from naturalist.models.backbones import HEAD, StagedNetwork, backbone_names, least_size
from naturalist.models.strategies import Strategy
from naturalist.models.weights import settings_from_weights
from naturalist.settings.part_b import FinetuneSettings

ONE_PER_FAMILY = {
    "alexnet": 63,
    "convnext_tiny": 32,
    "densenet121": 32,
    "efficientnet_b0": 32,
    "efficientnet_v2_s": 32,
    "googlenet": 32,
    "inception_v3": 75,
    "maxvit_t": 224,
    "mnasnet0_5": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "regnet_x_400mf": 32,
    "regnet_y_400mf": 32,
    "resnet18": 32,
    "resnet50": 32,
    "resnext50_32x4d": 32,
    "shufflenet_v2_x0_5": 32,
    "squeezenet1_0": 32,
    "squeezenet1_1": 32,
    "swin_t": 32,
    "swin_v2_t": 32,
    "vgg11": 32,
    "vgg11_bn": 32,
    "vit_b_32": 32,
}
"""A small model of every family and a small image size that it takes."""


@pytest.fixture
def on_meta(monkeypatch):
    """Build models without memory for their parameters; RegNet's, whose widths need some, get no values at least."""
    for name in ("uniform_", "normal_"):
        monkeypatch.setattr(torch.Tensor, name, lambda parameter, *_, **__: parameter)
    with torch.device("meta"):
        yield


LEAST = {"alexnet": 63, "googlenet": 15, "squeezenet1_1": 17, "vgg11": 32, "inception_v3": 75, "resnet18": 1}


@pytest.mark.parametrize(
    ("name", "least"), [*LEAST.items(), ("swin_t", 32), ("swin_v2_t", 32), ("efficientnet_v2_s", 1)]
)
def test_the_least_size_is_what_the_network_can_take_and_less_is_refused(name, least, on_meta):
    """Swin and EfficientNetV2 run far below what torchvision calls the least size of their weights."""
    assert least_size(name) == least
    model = StagedNetwork(name, 3, least).train()
    for size in (least, least + 32):
        assert model(torch.empty(2, 3, size, size)).shape == (2, 3)
    if least > 1:
        with pytest.raises(UserError, match=f"{name} needs an image_size of at least {least}, but it is {least - 1}"):
            StagedNetwork(name, 3, least - 1)
    if name in LEAST and least > 1:
        with pytest.raises(RuntimeError, match="too small|Kernel size can't be greater"):
            models.get_model(name).train()(torch.empty(2, 3, least - 1, least - 1))


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize("name", backbone_names())
def test_every_model_gets_a_new_head_and_stages_that_hold_every_parameter_once(name, on_meta):
    """All of torchvision's models, at the size of their weights, on the meta device: only shapes are computed."""
    settings = settings_from_weights(FinetuneSettings.of(backbone=name, strategy="head"))
    model = StagedNetwork(name, 7, settings.data.image_size, dropout=0.3)
    stages = model.parameters_by_stage()
    listed = [id(parameter) for parameters in stages.values() for parameter in parameters]
    assert sorted(listed) == sorted(map(id, model.parameters())) and len(set(listed)) == len(listed)
    assert all(stages.values()) and list(stages)[-1] == HEAD and len(stages) >= 5
    dropout, linear = model.network.get_submodule(model.steps[-1])
    assert dropout.p == 0.3 and linear.out_features == 7
    assert sum(p.numel() for p in stages[HEAD]) == linear.in_features * 7 + 7
    strategy = Strategy(model, settings.strategy, settings.training)
    strategy.release(0)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    assert strategy.frozen_parameters == frozen
    logits = model.train()(torch.empty(2, 3, settings.data.image_size, settings.data.image_size))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert {id(p) for p in model.parameters() if p.grad is not None} == {id(p) for p in stages[HEAD]}
    # What is frozen is the official model without its head of 1,000 classes; Inception's count has its auxiliary head.
    official = models.get_model_weights(name).DEFAULT.meta["num_params"]
    official_head = linear.in_features * 1000 + (0 if name == "maxvit_t" else 1000)
    auxiliary = official - official_head - frozen
    assert auxiliary == 0 or name == "inception_v3" and 0 < auxiliary < 4e6


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize(("name", "image_size"), ONE_PER_FAMILY.items())
def test_a_model_of_every_family_computes_what_torchvision_does_and_learns(name, image_size):
    """One or two small models of each family, random weights, two small images, forward and backward on the CPU.

    The chain's features must be those of torchvision's own forward pass, up to the head.
    """
    torch.manual_seed(0)
    model = StagedNetwork(name, 5, image_size, dropout=0.0).eval()
    images = torch.randn(2, 3, image_size, image_size)
    with torch.no_grad():
        chain = model(images)
        if name.startswith("squeezenet"):  # pooled before the last layer instead of after it
            torchvision = model.network.classifier[2](model.network.features(images).mean((2, 3)))
        else:
            torchvision = model.network(images)
        torch.testing.assert_close(chain, torchvision)
        stage = list(model.stages)[-2]
        features = model.prefix(images, stage)
    model.start_at(stage)
    torch.testing.assert_close(model(features), chain)
    model.first_step = 0
    cross_entropy(model.train()(images), torch.tensor([0, 1])).backward()
    assert all(parameter.grad is not None and torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "image_size"), ONE_PER_FAMILY.items())
def test_every_family_can_be_cut_at_every_stage(name, image_size, on_meta):
    """Passing the images through stage by stage, each sees only what the one before it made."""
    model = StagedNetwork(name, 5, image_size).eval()
    values = torch.empty(2, 3, image_size, image_size)
    starts = [len(model.steps_before(stage)) for stage in model.stages]
    for start, stop in zip(starts, [*starts[1:], len(model.steps)], strict=True):
        values = model._run(start, stop, values)
    assert values.shape == (2, 5)


@pytest.mark.slow
def test_a_copy_shares_nothing_with_its_original_once_it_has_run():
    model = StagedNetwork("vit_b_32", 3, 32).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = model(images)
        copied = copy.deepcopy(model)
        assert torch.equal(copied(images), before)
        for parameter in copied.parameters():
            parameter.zero_()
        assert torch.equal(copied(images), torch.zeros(2, 3)) and torch.equal(model(images), before)


def test_normalisation_and_interpolation_of_all_official_weights_are_known():
    for name in backbone_names():
        for weights in models.get_model_weights(name):
            transforms = weights.transforms()
            if str(weights) == "VGG16_Weights.IMAGENET1K_FEATURES":  # no classifier; refused
                continue
            settings = settings_from_weights(FinetuneSettings.of(backbone=name, weights=weights.name)).data
            mean = (0.5,) * 3 if settings.normalization == "half" else (0.485, 0.456, 0.406)
            std = (0.5,) * 3 if settings.normalization == "half" else (0.229, 0.224, 0.225)
            assert (tuple(transforms.mean), tuple(transforms.std)) == (mean, std)
            assert [settings.image_size] == transforms.crop_size
            assert [settings.cache_size] == transforms.resize_size
            assert (
                settings.resize_mode == {"bilinear": "crop", "bicubic": "crop-bicubic"}[transforms.interpolation.value]
            )


def test_weights_that_are_no_classifier_are_refused():
    with pytest.raises(UserError, match="IMAGENET1K_FEATURES of vgg16 are no classifier.*use IMAGENET1K_V1"):
        settings_from_weights(FinetuneSettings.of(backbone="vgg16", weights="IMAGENET1K_FEATURES"))


def test_another_image_size_keeps_the_proportion_of_resize_and_crop():
    settings = settings_from_weights(FinetuneSettings.of(backbone="mobilenet_v2", image_size=112))
    assert (settings.data.image_size, settings.data.cache_size) == (112, 116)  # 224 and 232 halved


def test_an_unknown_backbone_is_refused_with_the_list():
    with pytest.raises(UserError, match=r"no backbone 'resnet51'; did you mean resnet50\?.*alexnet.*wide_resnet50_2"):
        build_model({"kind": "torchvision", "backbone": "resnet51", "num_classes": 3, "image_size": 32})


@pytest.mark.parametrize(("name", "size"), [("inception_v3", 64), ("vit_b_16", 50), ("maxvit_t", 230)])
def test_a_size_that_the_model_cannot_take_is_refused(name, size):
    with pytest.raises(UserError, match=name):
        StagedNetwork(name, 3, size)


def test_the_model_can_be_rebuilt_from_its_description():
    description = {
        "kind": "torchvision",
        "backbone": "shufflenet_v2_x0_5",
        "num_classes": 3,
        "image_size": 32,
        "dropout": 0.1,
    }
    first, second = build_model(description), build_model(description)
    second.load_state_dict(first.state_dict())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(first.eval()(images), second.eval()(images))
