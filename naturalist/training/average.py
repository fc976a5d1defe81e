"""A moving average of the weights, which is what is evaluated and kept."""

import copy

import torch
from torch import nn


class WeightAverage:
    """Exponential moving average of weights and buffers (Polyak & Juditsky 1992).

    The decay is ``min(decay, (1 + t) / (10 + t))`` at update t, so that the first weights are soon forgotten. That
    torch's own ``swa_utils.AveragedModel`` can do only with a copy from the host, or a wait for the device, in every
    step: it counts its updates in a tensor.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay, self.updates = copy.deepcopy(model).eval(), decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after one step of the optimiser."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        averages, values = self.model.state_dict().values(), model.state_dict().values()
        for average, value in zip(averages, values, strict=True):
            if average.is_floating_point():
                average.lerp_(value, 1 - decay)
            else:
                average.copy_(value)
