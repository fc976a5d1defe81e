"""Parameters as an optimiser takes them: weights, which decay, apart from norms and biases, which do not."""

from collections.abc import Iterable
from typing import Any

from torch import nn

Group = dict[str, Any]
"""One parameter group of :class:`torch.optim.Optimizer`: ``params``, ``weight_decay`` and perhaps ``lr``."""

LATER = "later_lr"
"""Key of a group: its peak learning rate in a second course, where that is another."""


def parameter_groups(model: nn.Module, weight_decay: float) -> list[Group]:
    """A model's trainable parameters, see :func:`split_parameters`."""
    return split_parameters(model.parameters(), weight_decay)


def split_parameters(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[Group]:
    """Trainable parameters in two groups: weights, which decay, and norms and biases, which do not."""
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    groups: list[Group] = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
