"""A step of learning as a CUDA graph."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.optim import Optimizer

from naturalist.captured import Captured


class CapturedStep:
    """A step of learning, from inputs to new weights; its learning rates lie on the GPU, where they can change.

    Args:
        learn: inputs and targets to loss and logits, and the optimiser's step.
        optimizer: takes that step.
    """

    def __init__(self, learn: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], optimizer: Optimizer) -> None:
        groups = optimizer.param_groups
        rates = torch.zeros(len(groups), device=groups[0]["params"][0].device)

        def step(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            is_recorded = torch.cuda.is_current_stream_capturing()
            with rates_on_device(optimizer, rates) if is_recorded else contextlib.nullcontext():
                return learn(inputs, targets)

        self._optimizer, self._rates, self._captured = optimizer, rates, Captured(step, "the training's steps")

    def __call__(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and logits, which the next step overwrites."""
        rates = torch.tensor([group["lr"] for group in self._optimizer.param_groups])
        self._rates.copy_(rates, non_blocking=True)
        loss, logits = self._captured(inputs, targets)
        return loss, logits


@contextlib.contextmanager
def rates_on_device(optimizer: Optimizer, rates: Tensor) -> Iterator[None]:
    """The groups' learning rates are these, ``[groups]``, and their steps can be recorded."""
    changed = ("lr", "capturable")
    kept = [{name: value for name, value in group.items() if name in changed} for group in optimizer.param_groups]
    for group, own, rate in zip(optimizer.param_groups, kept, rates.unbind(), strict=True):
        group.update(dict.fromkeys(own, True) | {"lr": rate})
    try:
        yield
    finally:
        for group, own in zip(optimizer.param_groups, kept, strict=True):
            group.update(own)
