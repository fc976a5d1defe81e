"""Muon, for networks of convolutions."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from naturalist.device import multiplies_bf16

COEFFICIENTS, ITERATIONS = (3.4445, -4.7750, 2.0315), 5
"""Of the Newton–Schulz iteration (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks")."""
MATCH = 0.2
"""An orthogonal step times this and the root of its longer side is about as long as a step of AdamW, so that one
learning rate and one weight decay do for both (Liu et al. 2025, "Muon is scalable for LLM training")."""


class Muon(torch.optim.AdamW):
    """Orthogonal steps for filters of convolutions, and AdamW's for all else: norms, biases, the two dense layers.

    ``torch.optim.Muon`` takes matrices alone. Here a convolution's filters ``[out, in, k, k]`` are one,
    ``[out, in·k·k]``, those of the first layer too.

    Args:
        params: groups of parameters.
        lr: learning rate of both kinds of steps.
        momentum: Nesterov's, of the orthogonal steps.
        fused: whether AdamW's steps are one kernel.
    """

    def __init__(self, params: Any, lr: float, momentum: float, *, fused: bool = False) -> None:
        super().__init__(params, lr=lr, fused=fused)
        self.momentum = momentum

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step; the gradients of filters are used up."""
        for group in self.param_groups:
            for weight in group["params"]:
                if not is_orthogonal(weight) or weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:  # AdamW takes up no state without a step
                    state["step"] = torch.zeros((), device=weight.device)
                    state["momentum_buffer"] = torch.zeros_like(weight)
                state["step"] += 1
                average = state["momentum_buffer"]
                average.lerp_(weight.grad, 1 - self.momentum)
                step = orthogonal(weight.grad.lerp(average, self.momentum).flatten(1))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                length = MATCH * math.sqrt(max(step.shape))
                weight.sub_(step.reshape(weight.shape) * (group["lr"] * length))  # the rate may be a tensor
                weight.grad = None  # AdamW passes over it
        return super().step(closure)


def is_orthogonal(parameter: Tensor) -> bool:
    """Whether a parameter is one of filters of a convolution, whose steps are orthogonal."""
    return parameter.ndim == 4


def orthogonal(matrix: Tensor) -> Tensor:
    """The nearest matrix whose singular values are equal, to a good half: they come to lie between 0.5 and 1.5."""
    a, b, c = COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide.bfloat16() if multiplies_bf16(matrix.device) else wide
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(ITERATIONS):
        square = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(square, square, square, beta=b, alpha=c), wide, beta=a)
    return (wide if matrix.shape[0] <= matrix.shape[1] else wide.T).to(matrix.dtype)
