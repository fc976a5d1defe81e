"""Parameters as an optimiser takes them: weights, which decay, apart from norms and biases, which do not."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

Group = dict[str, Any]
"""One parameter group of :class:`torch.optim.Optimizer`: ``params``, ``weight_decay`` and perhaps ``lr``."""

LATER = "later_lr"
"""Key of a group: its peak learning rate in a second course, where that is another."""


@dataclass(frozen=True)
class Release:
    """What begins to learn when."""

    groups: Callable[[int], list[Group]]
    """Epoch, counted from 0 → the groups that begin to learn in it."""
    first_epochs: int = 0
    """Epochs of a first course of the learning rate, where a second follows; 0 for one course."""
    complete: int = 0
    """Epoch, counted from 0, from which on all learns that ever does."""


def parameter_groups(model: nn.Module, weight_decay: float, norm_bias_rate: float | None = None) -> list[Group]:
    """A model's trainable parameters, see :func:`split_parameters`.

    Args:
        model: any network.
        weight_decay: of the weights.
        norm_bias_rate: learning rate of batch normalisation's biases, a group of their own; None for that of the rest.
    """
    if norm_bias_rate is None:
        return split_parameters(model.parameters(), weight_decay)
    biases = [module.bias for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    apart = set(map(id, biases))
    groups = split_parameters((p for p in model.parameters() if id(p) not in apart), weight_decay)
    return [*groups, {"params": biases, "weight_decay": 0.0, "lr": norm_bias_rate}]


def split_parameters(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[Group]:
    """Trainable parameters in two groups: weights, which decay, and norms and biases, which do not."""
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    groups: list[Group] = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
