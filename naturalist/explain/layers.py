"""The layers of a network that give feature maps: which there are, which is the last, and what one gives."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from naturalist.errors import UserError
from naturalist.settings.spelling import guess


class Layer(NamedTuple):
    """A layer, and how the model calls it."""

    name: str
    module: nn.Module


def first_convolution(model: nn.Module) -> tuple[str, nn.Conv2d]:
    """Name and module of the first convolution; raises :class:`UserError` when there is none."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            return name, module
    raise UserError("the model has no convolution, so there are no filters to show.")


def last_feature_layer(model: nn.Module, image: Tensor) -> Layer:
    """The layer that gives the last feature map that still has places: the deepest look at *where* things are.

    Of the layers that are finished after the last convolution over more than one place, it is the last whose output has
    that convolution's height and width: the fifth block's activation, a residual network's last stage, a DenseNet's
    last norm.

    Args:
        model: in evaluation mode.
        image: an input, ``[1, 3, S, S]``.

    Raises:
        UserError: for models without feature maps made by convolutions, such as vision transformers.
    """
    layer = _last(_feature_maps(model, image))
    if layer is None:
        raise UserError(
            "the model makes no feature maps by convolutions (as a vision transformer does not), so there "
            "are no units or Grad-CAM to show; the filters and occlusion can be: "
            "--only filters,feature_maps,occlusion."
        )
    return layer


def named_layer(model: nn.Module, image: Tensor, name: str) -> nn.Module:
    """The layer called ``name``; raises :class:`UserError` when it is none or its output is no feature map."""
    names = [layer.name for layer, _ in _feature_maps(model, image)]
    if name not in names:
        meant = guess(name, names)
        hint = f"did you mean {meant}? " if meant else ""
        raise UserError(f"there is no layer {name!r} with feature maps; {hint}--layer list shows all.")
    return model.get_submodule(name)


def describe_layers(model: nn.Module, image: Tensor) -> str:
    """A table of the layers that give feature maps, in the order they finish; the last feature layer is marked.

    Args:
        model: in evaluation mode.
        image: an input, ``[1, 3, S, S]``; the sizes of the maps are those for its size.
    """
    calls = _feature_maps(model, image)
    default = _last(calls)
    rows = {"layer": ("kind", "channels × height × width")}
    for layer, shape in calls:
        if layer.name not in rows:  # a module that is called again is looked at in its first call
            size = " × ".join(map(str, shape)) + (" (default)" if layer == default else "")
            rows[layer.name] = type(layer.module).__name__, size
    names, kinds = max(map(len, rows)), max(len(kind) for kind, _ in rows.values())
    return "\n".join(f"{name:<{names}}  {kind:<{kinds}}  {size}" for name, (kind, size) in rows.items())


@torch.no_grad()
def layer_output(model: nn.Module, layer: nn.Module, images: Tensor) -> Tensor:
    """What ``layer`` gives, ``[B, C, H, W]``, when the model sees ``images``."""
    with outputs_of(layer) as outputs:
        model(images)
    return outputs[0].clone()


@contextmanager
def outputs_of(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Collects the layer's outputs; views, so that an activation in place after it does not count as its own."""
    outputs: list[Tensor] = []
    hook = layer.register_forward_hook(lambda module, inputs, output: outputs.append(output.clone()))
    try:
        yield outputs
    finally:
        hook.remove()


@torch.no_grad()
def _feature_maps(model: nn.Module, image: Tensor) -> list[tuple[Layer, torch.Size]]:
    """Every layer with an output ``[1, C, H, W]`` of more than one place, and C × H × W, in the order they finish."""
    calls: list[tuple[Layer, torch.Size]] = []

    def record(layer: Layer) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2:].numel() > 1:
                calls.append((layer, output.shape[1:]))

        return hook

    hooks = [
        module.register_forward_hook(record(Layer(name, module))) for name, module in model.named_modules() if name
    ]
    try:
        model(image)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _last(calls: list[tuple[Layer, torch.Size]]) -> Layer | None:
    """See :func:`last_feature_layer`; None where convolutions make no feature maps."""
    convolutions = [i for i, (layer, _) in enumerate(calls) if isinstance(layer.module, nn.Conv2d)]
    if len(convolutions) < 2:
        return None
    size = calls[convolutions[-1]][1][1:]
    return [layer for layer, shape in calls[convolutions[-1] :] if shape[1:] == size][-1]
