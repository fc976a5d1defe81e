"""Compiled passes: the same numbers to rounding, and what cannot be compiled is said."""

import copy
import shutil

import pytest
import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException

from naturalist.errors import UserError
from naturalist.models import build_model
from naturalist.models.backbones import HEAD, StagedNetwork
from naturalist.training.compiled import Compiled, failures_told


def step(network, model: nn.Module, seed: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Outputs for the seed's batch and chance, and gradients."""
    torch.manual_seed(seed)
    outputs = network(torch.randn(4, 3, 32, 32))
    model.zero_grad()
    outputs.square().mean().backward()
    return outputs.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


def assert_alike(ours, theirs) -> None:
    for one, other in zip([ours[0], *ours[1]], [theirs[0], *theirs[1]], strict=True):
        # Biases before a normalisation have no gradient but rounding.
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.fixture
def needs_compiler() -> None:
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("needs a C++ compiler")


@pytest.mark.usefixtures("needs_compiler")
def test_compiled_passes_are_the_networks_own_to_rounding_dropout_and_statistics_included():
    model = nn.Sequential(nn.Conv2d(3, 2, 3, bias=False), nn.BatchNorm2d(2), nn.SiLU(), nn.Dropout(0.5), nn.Flatten())
    plain, passes = copy.deepcopy(model), Compiled(model, 4)
    for seed in range(2):
        assert_alike(step(passes, model, seed), step(plain, plain, seed))
    torch.testing.assert_close(model[1].running_var, plain[1].running_var)


@pytest.fixture
def traced():
    """Compiles without making kernels, which takes a compiler and long; tells how often each graph was made and run."""

    class Traced:
        def __init__(self) -> None:
            self.graphs: list[int] = []

        def __call__(self, graph, inputs):
            number = len(self.graphs)
            self.graphs.append(0)

            def run(*values):
                self.graphs[number] += 1
                return graph(*values)

            return run

    return Traced()


def test_smaller_batches_are_not_compiled_and_what_begins_to_learn_is_compiled_anew(traced):
    description = {"kind": "five_block_cnn", "num_classes": 3, "image_size": 32, "num_filters": 4, "dropout": 0.2}
    model = build_model(description)
    model.blocks.requires_grad_(False)
    plain, passes = copy.deepcopy(model), Compiled(model, 4, traced)
    assert_alike(step(passes, model, 0), step(plain, plain, 0))
    assert passes(torch.zeros(3, 3, 32, 32)).shape == (3, 3)
    assert traced.graphs == [1]
    for network in (model, plain):
        network.requires_grad_(True)
    ours, theirs = step(passes, model, 1), step(plain, plain, 1)
    assert len(ours[1]) == len(list(model.parameters()))
    assert_alike(ours, theirs)
    assert traced.graphs == [1, 1]


def test_more_stages_than_torch_remembers_are_all_compiled(traced):
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(10)))
    model.requires_grad_(False)
    passes = Compiled(model, 2, traced)
    for layer in reversed(model):
        layer.requires_grad_(True)
        for _ in range(2):
            passes(torch.ones(2, 4)).sum().backward()
    assert traced.graphs == [2] * 10


def test_a_backbone_is_one_graph_for_images_and_one_for_features(traced):
    model = StagedNetwork("squeezenet1_1", 2, 32).train()
    passes = Compiled(model, 2, traced)
    images = torch.randn(2, 3, 32, 32)
    model.start_at(HEAD)
    with torch.no_grad():
        features = model.prefix(images, HEAD)
    for inputs in (features, images):
        for _ in range(3):
            assert passes(inputs).shape == (2, 2)
    assert traced.graphs == [3, 3]


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_what_cannot_be_compiled_is_said_in_a_sentence_with_the_way_out(where):
    def fail(graph=None, inputs=None):
        raise RuntimeError("no compiler found\nlook here, and there")

    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx, inputs):
            return inputs.clone()

        @staticmethod
        def backward(ctx, gradients):
            raise TorchDynamoException("no compiler found\nlook here, and there")

    @failures_told()
    def learn() -> None:
        inputs = torch.ones(2, 4, requires_grad=True)
        outputs = Compiled(nn.Linear(4, 4), 2, fail)(inputs) if where == "forward" else Fails.apply(inputs)
        outputs.sum().backward()

    with pytest.raises(
        UserError, match=r"^the network cannot be compiled here \(.*no compiler found.*\); with --no_compile [^\n]*$"
    ):
        learn()


@pytest.mark.parametrize("error", [RuntimeError("shapes"), TorchDynamoException("out of memory")])
def test_other_failures_stay_what_they_are(error, monkeypatch):
    monkeypatch.setattr("naturalist.training.compiled.is_out_of_memory", lambda error: "memory" in str(error))
    with pytest.raises(RuntimeError) as raised, failures_told():
        raise error
    assert raised.value is error
