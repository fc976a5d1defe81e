"""Parameters and multiply–accumulates of a model, layer by layer."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn


@dataclass(frozen=True)
class Layer:
    """One layer that computes something, in the order of the forward pass."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    """Without the batch."""
    parameters: int
    multiply_accumulates: int
    """For one image; counted for convolutions and linear layers, where nearly all of the work is."""


@dataclass(frozen=True)
class Summary:
    """What a model consists of."""

    layers: tuple[Layer, ...]
    parameters: int
    trainable_parameters: int
    multiply_accumulates: int

    def __str__(self) -> str:
        """The layers as a table of text."""
        table = Table("layer", "kind", "output")
        for heading in ("parameters", "multiply–accumulates"):
            table.add_column(heading, justify="right")
        for layer in self.layers:
            table.add_row(
                layer.name,
                layer.kind,
                "×".join(map(str, layer.output_shape)),
                f"{layer.parameters:,}",
                f"{layer.multiply_accumulates:,}",
            )
        table.add_section()
        table.add_row("total", "", "", f"{self.parameters:,}", f"{self.multiply_accumulates:,}")
        console = Console(width=110)
        with console.capture() as capture:
            console.print(table)
        return capture.get().rstrip()


@torch.no_grad()
def summarize(model: nn.Module, image_size: int) -> Summary:
    """Count by one forward pass of a blank image ``[1, 3, image_size, image_size]``, in evaluation mode."""
    layers: list[Layer] = []

    def record(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            layers.append(
                Layer(
                    name,
                    type(module).__name__,
                    tuple(output.shape[1:]),
                    sum(p.numel() for p in module.parameters()),
                    _multiply_accumulates(module, output),
                )
            )

        return hook

    leaves = [
        (name, module)
        for name, module in model.named_modules()
        if not any(True for _ in module.children()) and not isinstance(module, nn.Identity)
    ]
    hooks = [module.register_forward_hook(record(name)) for name, module in leaves]
    was_training = model.training
    try:
        parameter = next(model.parameters())
        model.eval()(torch.zeros(1, 3, image_size, image_size, device=parameter.device, dtype=parameter.dtype))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return Summary(
        tuple(layers),
        sum(p.numel() for p in model.parameters()),
        sum(p.numel() for p in model.parameters() if p.requires_grad),
        sum(layer.multiply_accumulates for layer in layers),
    )


def _multiply_accumulates(module: nn.Module, output: Tensor) -> int:
    if isinstance(module, nn.Conv2d):
        kernel_height, kernel_width = module.kernel_size
        return output.numel() * module.in_channels // module.groups * kernel_height * kernel_width
    if isinstance(module, nn.Linear):
        return output.numel() * module.in_features
    return 0
