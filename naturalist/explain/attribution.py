"""What in an image a unit or a prediction depends on, for any network of convolutions.

A *unit* is one place of one channel of a layer's output.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from captum.attr import LayerGradCam, Occlusion
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.overrides import TorchFunctionMode

from naturalist.explain.layers import outputs_of

RECTIFIERS = ("relu", "relu_", "relu6", "hardtanh", "leaky_relu", "elu", "gelu", "silu", "mish", "hardswish")
"""Functions, as torch names them, that the guided rule applies to."""

CAPPED = ("relu6", "hardtanh")
"""Those that are flat above too."""

OCCLUSION_BATCH = 32
"""Occluded copies of an image per forward pass."""


def guided_backprop(model: nn.Module, layer: nn.Module, image: Tensor, channel: int, place: tuple[int, int]) -> Tensor:
    """Guided backpropagation from one unit to the pixels (Springenberg et al. 2015, "Striving for simplicity").

    Backpropagation from the unit itself, whose own gradient is 1, with one change: at every activation f only
    what argues *for* the unit passes, and only where the activation was switched on:

        R_in = [x > 0] · f'(x) · max(R_out, 0)

    For ReLU f' is [x > 0] and this is the paper's rule to the letter. GELU (Hendrycks & Gimpel 2016), SiLU
    (Ramachandran et al. 2017) and Mish (Misra 2019) have the sign of their input but are neither flat nor monotonic
    below zero; there the gate [x > 0] does what ReLU's flat half does, and above zero their true derivative is kept.
    ReLU6 counts as ReLU: its flat top would leave a unit that is fully on without any explanation.
    A unit that is not active (its value is not positive) gives zeros.

    The rule is put in the place of torch's activation *functions* while the model runs, so it holds for modules and
    functional calls, in place or not; the model is left as it was.

    Args:
        model: in evaluation mode.
        layer: whose output ``[1, C, H, W]`` the unit belongs to.
        image: ``[1, 3, S, S]``.
        channel: of the unit.
        place: row and column of the unit.

    Returns:
        ``[3, S, S]``, the guided gradient.
    """
    image = image.detach().clone().requires_grad_()
    with torch.enable_grad(), outputs_of(layer) as outputs, _GuidedActivations():
        model(image)
        unit = outputs[0][0, channel, place[0], place[1]]
        if unit <= 0:
            return torch.zeros_like(image[0])
        (gradient,) = torch.autograd.grad(unit, image)
    return gradient[0].detach()


def grad_cam(model: nn.Module, layer: nn.Module, image: Tensor, target: int) -> Tensor:
    """Where the evidence for a class lies (Selvaraju et al. 2017, "Grad-CAM"), by captum.

    Args:
        model: in evaluation mode.
        layer: its output ``[1, C, H, W]`` is weighted by the mean gradients of the class's logit.
        image: ``[1, 3, S, S]``.
        target: index of the class.

    Returns:
        ``[S, S]`` in [0, 1], the largest being 1 unless all is 0.
    """
    with torch.enable_grad():
        coarse: Tensor = LayerGradCam(model, layer).attribute(
            image.detach().clone().requires_grad_(), target=target, relu_attributions=True
        )
    heat = interpolate(coarse.detach(), image.shape[-2:], mode="bilinear", align_corners=False)[0, 0]
    return heat / heat.max().clamp(min=torch.finfo(heat.dtype).tiny)


@torch.no_grad()
def occlusion(model: nn.Module, image: Tensor, target: int, *, window: float = 0.25, stride: float = 0.0625) -> Tensor:
    """How much a class's logit falls when a part of the image is covered (Zeiler & Fergus 2014), by captum.

    The cover is a square of the mean colour, which is 0 after normalisation.

    Args:
        model: in evaluation mode.
        image: ``[1, 3, S, S]``.
        target: index of the class.
        window: side of the square, as a share of the image's.
        stride: step of the square, as a share of the image's side.

    Returns:
        ``[S, S]``: the mean fall over all squares that cover a pixel, negative where covering it helps, scaled so that
        the largest size is 1.
    """
    side, step = (max(1, round(share * image.shape[-1])) for share in (window, stride))
    falls: Tensor = Occlusion(model).attribute(
        image,
        sliding_window_shapes=(3, side, side),
        strides=(3, step, step),
        target=target,
        perturbations_per_eval=OCCLUSION_BATCH,
    )
    fall = falls[0].mean(dim=0)
    return fall / fall.abs().max().clamp(min=torch.finfo(fall.dtype).tiny)


class _GuidedActivations(TorchFunctionMode):
    """While it is active, every activation function is differentiated by the guided rule."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name not in RECTIFIERS:
            return func(*args, **kwargs)
        kwargs = {name: value for name, value in kwargs.items() if name != "inplace"}
        values, *rest = (kwargs.pop("input"), *args) if "input" in kwargs else args

        def activation(x: Tensor) -> Any:
            return func(x, *rest, **kwargs)

        return _GuidedActivation.apply(values, activation, torch.relu if name in CAPPED else activation)


class _GuidedActivation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, activation: Callable[[Tensor], Tensor], differentiated: Callable[[Tensor], Tensor]
    ) -> Tensor:
        ctx.save_for_backward(values)
        ctx.differentiated = differentiated
        return activation(values.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (values,) = ctx.saved_tensors
        with torch.enable_grad():
            values = values.detach().requires_grad_()
            (passed,) = torch.autograd.grad(ctx.differentiated(values.clone()), values, gradient.clamp(min=0))
        return passed * (values > 0), None, None
