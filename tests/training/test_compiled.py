"""Compiled passes: the same numbers to rounding, and what cannot be compiled is said."""

import copy
import shutil
from functools import partial

import pytest
import torch
from torch import nn

from naturalist.errors import UserError
from naturalist.models import build_model
from naturalist.training.compiled import Compiled

TRACED = partial(Compiled, compiler="aot_eager")
"""All that torch.compile does but for making kernels, which takes a compiler and half a minute."""


def step(network, model: nn.Module, seed: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Outputs for the seed's batch and chance, and gradients."""
    torch.manual_seed(seed)
    outputs = network(torch.randn(4, 3, 32, 32))
    model.zero_grad()
    outputs.square().mean().backward()
    return outputs.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


def assert_alike(ours, theirs) -> None:
    for one, other in zip([ours[0], *ours[1]], [theirs[0], *theirs[1]], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("needs_compiler")
def test_compiled_passes_are_the_networks_own_to_rounding_dropout_and_statistics_included():
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.SiLU(), nn.Dropout(0.5), nn.Flatten())
    plain, passes = copy.deepcopy(model), Compiled(model, 4)
    for seed in range(2):
        assert_alike(step(passes, model, seed), step(plain, plain, seed))
    torch.testing.assert_close(model[1].running_var, plain[1].running_var)


@pytest.fixture
def needs_compiler() -> None:
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("needs a C++ compiler")


def test_smaller_batches_are_not_compiled_and_what_begins_to_learn_is_compiled_anew(capsys):
    description = {"kind": "five_block_cnn", "num_classes": 3, "image_size": 32, "num_filters": 4, "dropout": 0.2}
    model = build_model(description)
    for parameter in model.blocks.parameters():
        parameter.requires_grad_(False)
    plain, passes = copy.deepcopy(model), TRACED(model, 4)
    assert_alike(step(passes, model, 0), step(plain, plain, 0))
    assert passes(torch.zeros(3, 3, 32, 32)).shape == (3, 3)
    assert capsys.readouterr().out.count("Compiling") == 1
    for network in (model, plain):
        network.requires_grad_(True)
    ours, theirs = step(passes, model, 1), step(plain, plain, 1)
    assert len(ours[1]) == len(list(model.parameters()))
    assert_alike(ours, theirs)
    assert capsys.readouterr().out.count("Compiling") == 1


def test_more_stages_than_torch_remembers_are_all_compiled(capsys, recwarn):
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(10)))
    model.requires_grad_(False)
    passes = TRACED(model, 2)
    for layer in reversed(model):
        layer.requires_grad_(True)
        passes(torch.ones(2, 4)).sum().backward()
        assert layer.weight.grad is not None
    assert capsys.readouterr().out.count("Compiling") == 10
    assert not any("recompile" in str(warning.message) for warning in recwarn)


def test_what_cannot_be_compiled_is_said_in_a_sentence_with_the_way_out():
    def fail(graph, inputs):
        raise RuntimeError("no compiler found\nlook here, and there")

    with pytest.raises(
        UserError, match=r"^the network cannot be compiled here \(.*no compiler found.*\); leave out --compile, [^\n]*$"
    ):
        Compiled(nn.Linear(4, 4), 2, compiler=fail)(torch.ones(2, 4))
