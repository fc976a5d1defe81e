"""What a unit or a prediction depends on, checked where the answer is known."""

import math

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.functional import relu

from naturalist.errors import UserError
from naturalist.explain.attribution import grad_cam, guided_backprop, occlusion
from naturalist.explain.layers import first_convolution, last_feature_layer, layer_output, named_layer
from naturalist.models.cnn import ACTIVATIONS, FiveBlockCNN


class Wrapped(nn.Module):
    """A torchvision model inside another module, as fine-tuning holds it."""

    def __init__(self, name: str):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = getattr(torchvision.models, name)(weights=None)

    def forward(self, images):
        return self.backbone(images)


def gaussian_cdf(x):
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def derivative(name: str, x: float) -> float:
    """The textbook's derivative of the activation, by pocket calculator."""
    if name == "ReLU":
        return float(x > 0)
    if name == "GELU":
        return gaussian_cdf(x) + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    if name == "SiLU":
        return sigmoid(x) * (1 + x * (1 - sigmoid(x)))
    softplus = math.log1p(math.exp(x))
    return math.tanh(softplus) + x * (1 - math.tanh(softplus) ** 2) * sigmoid(x)


@pytest.fixture(scope="module")
def image():
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_guided_backprop_equals_a_hand_computed_tiny_network(name):
    """Three hidden units feed one: one argues for it, one against it, one is switched off."""
    first, second = nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 1, 1, bias=False)
    first.weight.data = torch.diag(torch.tensor([2.0, 3.0, -1.0])).view(3, 3, 1, 1)
    second.weight.data = torch.tensor([0.5, -0.1, 0.7]).view(1, 3, 1, 1)
    model = nn.Sequential(first, ACTIVATIONS[name](), second, ACTIVATIONS[name](), nn.Flatten())
    pixels = torch.tensor([1.0, 0.5, 0.8]).view(1, 3, 1, 1)

    gradient = guided_backprop(model, model[3], pixels, channel=0, place=(0, 0))

    hidden = [2.0, 1.5, -0.8]
    activated = ACTIVATIONS[name]()(torch.tensor(hidden)).tolist()
    unit = 0.5 * activated[0] - 0.1 * activated[1] + 0.7 * activated[2]
    assert unit > 0
    at_unit = derivative(name, unit)  # the unit's own gradient is 1
    # Second hidden unit: its gradient is negative. Third: it is switched off, though SiLU's slope there is not 0.
    expected = [2.0 * derivative(name, hidden[0]) * 0.5 * at_unit, 0.0, 0.0]
    assert gradient.flatten().tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_guided_backprop_differs_between_units_and_vanishes_where_a_unit_is_not_active(name, image):
    torch.manual_seed(3)
    model = FiveBlockCNN(10, 64, num_filters=8, filter_organization="same", activation=name).eval()
    _, layer = last_feature_layer(model, image)
    maps = layer_output(model, layer, image)[0]
    active = [tuple(place) for place in (maps > 0).nonzero().tolist()]
    inactive = [tuple(place) for place in (maps <= 0).nonzero().tolist()]
    gradients = [guided_backprop(model, layer, image, c, (y, x)) for c, y, x in active[:3]]
    assert all(gradient.abs().max() > 0 for gradient in gradients)
    directions = [gradient.flatten() / gradient.norm() for gradient in gradients]
    assert max(directions[i] @ directions[j] for i, j in ((0, 1), (0, 2), (1, 2))) < 0.99
    c, y, x = inactive[0]
    assert guided_backprop(model, layer, image, c, (y, x)).abs().max() == 0


def test_guided_backprop_of_relu_equals_captums():
    from captum.attr import GuidedBackprop

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU()).eval()
    pixels = torch.randn(1, 3, 8, 8)
    channel, row, column = (model(pixels)[0] > 0.1).nonzero()[0].tolist()
    theirs = GuidedBackprop(nn.Sequential(model, nn.Flatten())).attribute(
        pixels.clone().requires_grad_(), target=channel * 16 + row * 4 + column
    )
    assert torch.allclose(guided_backprop(model, model[3], pixels, channel, (row, column)), theirs[0])


def test_guided_backprop_sees_functional_and_in_place_activations_and_leaves_the_model_as_it_was(image):
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

        def forward(self, images):
            return self.second(relu(self.first(images), inplace=True))

    torch.manual_seed(0)
    functional = Functional().eval()
    modules = nn.Sequential(functional.first, nn.ReLU(inplace=True), functional.second)
    before = functional(image)
    channel, row, column = (before[0] > 0.1).nonzero()[0].tolist()
    unit = (channel, (row, column))
    first, second = (
        guided_backprop(model, layer, image, *unit)
        for model, layer in ((functional, functional.second), (modules, modules[2]))
    )
    assert first.abs().max() > 0
    assert torch.equal(first, second)
    assert torch.equal(functional(image), before)


def test_a_unit_at_the_top_of_relu6_is_explained_as_by_relu(image):
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 4, 3)
    convolution.weight.data *= 50
    capped, free = nn.Sequential(convolution, nn.ReLU6(inplace=True)), nn.Sequential(convolution, nn.ReLU())
    channel, row, column = (capped(image)[0] == 6).nonzero()[0].tolist()
    first, second = (guided_backprop(model, model[1], image, channel, (row, column)) for model in (capped, free))
    assert first.abs().max() > 0
    assert torch.equal(first, second)


def test_grad_cam_and_occlusion_peak_on_a_planted_object():
    """Class 1 is wherever there is red; a network of fixed weights looks for it."""
    model = nn.Sequential(
        nn.Conv2d(3, 2, 3, padding=1, bias=False),
        nn.SiLU(),
        nn.Conv2d(2, 2, 1, bias=False),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2, 2, bias=False),
    ).eval()
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].weight[0, 0] = 1  # red
        model[0].weight[1, 2] = 1  # blue
        model[2].weight.copy_(torch.eye(2).view(2, 2, 1, 1))
        model[6].weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    pixels = torch.zeros(1, 3, 64, 64)
    pixels[0, 0, 8:20, 40:52] = 2.0  # the object
    pixels[0, 2, 40:52, 8:20] = 2.0  # something else
    name, layer = last_feature_layer(model, pixels)
    assert name == "3"
    for heat in (grad_cam(model, layer, pixels, target=1), occlusion(model, pixels, target=1)):
        assert heat.shape == (64, 64)
        assert float(heat.max()) == pytest.approx(1, abs=0.01)
        row, column = divmod(int(heat.argmax()), 64)
        assert 6 <= row < 22
        assert 38 <= column < 54
        assert heat[40:52, 8:20].abs().max() < 0.05


@pytest.mark.parametrize(
    ("name", "layer", "channels"),
    [
        ("resnet18", "backbone.layer4", 512),
        ("vgg11", "backbone.features.19", 512),
        ("densenet121", "backbone.features", 1024),
        ("mobilenet_v3_small", "backbone.features", 576),
        ("efficientnet_b0", "backbone.features", 1280),
        ("convnext_tiny", "backbone.features", 768),
        ("googlenet", "backbone.inception5b", 1024),
        ("regnet_y_400mf", "backbone.trunk_output", 440),
    ],
)
def test_the_last_feature_maps_of_torchvision_models_are_found_and_explained(name, layer, channels, image):
    model = Wrapped(name).eval()
    assert first_convolution(model)[1].in_channels == 3
    found, module = last_feature_layer(model, image)
    assert found == layer
    maps = layer_output(model, module, image)[0]
    assert len(maps) == channels
    place = divmod(int(maps[0].argmax()), maps.shape[2])
    gradient = guided_backprop(model, module, image, int(maps.amax(dim=(1, 2)).argmax()), place)
    assert torch.isfinite(gradient).all()
    assert grad_cam(model, module, image, target=3).shape == (64, 64)


def test_a_vision_transformer_is_refused_where_feature_maps_are_needed_and_explained_by_occlusion():
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(
        64, 16, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8, num_classes=10
    ).eval()
    pixels = torch.rand(1, 3, 64, 64)
    with pytest.raises(UserError, match="vision transformer") as error:
        last_feature_layer(model, pixels)
    assert "\n" not in str(error.value)
    assert first_convolution(model)[0] == "conv_proj"
    assert torch.isfinite(occlusion(model, pixels, target=0, stride=0.25)).all()


def test_a_layer_is_taken_by_name_and_a_misspelt_one_gets_a_suggestion(image):
    model = FiveBlockCNN(10, 64, num_filters=4, filter_organization="same").eval()
    assert named_layer(model, image, "blocks.block3.activation") is model.blocks.block3.activation
    with pytest.raises(UserError, match="did you mean blocks.block3.activation"):
        named_layer(model, image, "blocks.block3.activaton")
