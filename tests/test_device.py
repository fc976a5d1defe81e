"""What is said about the machine is true of the run at hand, and a device that computes wrongly is told of."""

import sys

import pytest
import torch

from naturalist import device
from naturalist.device import forget_peak_memory, peak_memory_mb, tell_difference

CPU = torch.device("cpu")
LARGE_MB = 400


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets")
def test_peak_memory_is_that_of_one_run_among_several_in_a_process():
    forget_peak_memory(CPU)
    before = peak_memory_mb(CPU)
    large = torch.ones(LARGE_MB * 250_000)
    assert peak_memory_mb(CPU) > before + 0.9 * LARGE_MB
    del large
    forget_peak_memory(CPU)
    assert peak_memory_mb(CPU) < before + 0.5 * LARGE_MB


class _Wrong(torch.nn.Linear):
    """Computes something else on the device than its copy on the CPU does."""

    def __deepcopy__(self, memo):
        copy = torch.nn.Linear(self.in_features, self.out_features)
        copy.load_state_dict(self.state_dict())
        with torch.no_grad():
            copy.weight[0, 0] += self.wrong_by
        return copy.requires_grad_(self.weight.requires_grad)


@pytest.mark.parametrize(
    ("wrong_by", "trainable", "said"),
    [
        (0.0, True, ""),
        (1e-6, True, ""),
        (0.05, True, "the network's outputs differ from the CPU's by"),
        (0.05, False, "the network's outputs differ from the CPU's by"),
        (float("nan"), False, "the network's outputs differ from the CPU's by nan %"),
    ],
)
def test_a_device_that_computes_wrong_numbers_is_told_of_in_one_line(wrong_by, trainable, said, monkeypatch, capsys):
    monkeypatch.setattr(device, "COMPARED", ("cpu",))  # as if this were Metal
    torch.manual_seed(0)
    model = _Wrong(4, 3).requires_grad_(trainable)
    model.wrong_by = wrong_by
    tell_difference(model, torch.randn(20, 4))
    output = capsys.readouterr().out
    assert (said in output) if said else output == ""
    assert output.count("\n") == bool(said)


class _WrongBackwards(torch.autograd.Function):
    factor = 1.0

    @staticmethod
    def forward(context, inputs):
        return inputs.clone()

    @staticmethod
    def backward(context, gradient):
        _WrongBackwards.factor += 0.1  # the device comes first, the CPU after it
        return gradient * _WrongBackwards.factor


def test_wrong_gradients_are_told_of_though_the_outputs_are_right(monkeypatch, capsys):
    monkeypatch.setattr(device, "COMPARED", ("cpu",))

    class Model(torch.nn.Linear):
        def forward(self, inputs):
            return _WrongBackwards.apply(super().forward(inputs))

    tell_difference(Model(4, 3), torch.randn(2, 4))
    assert "the network's gradients differ from the CPU's by" in capsys.readouterr().out


def test_other_devices_are_not_compared(capsys):
    model = _Wrong(4, 3)
    model.wrong_by = 1.0
    tell_difference(model, torch.randn(2, 4))
    assert capsys.readouterr().out == ""
