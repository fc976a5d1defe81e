"""Part B's networks: any torchvision classification model with a new head, seen as a chain of stages."""

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision import models

from naturalist.errors import UserError
from naturalist.settings.spelling import guess

HEAD = "head"
"""Name of the last stage: dropout and the new linear layer."""

OPENED = ("features", "blocks", "layers", "trunk_output", "encoder", "encoder.layers", "classifier", "heads")
"""Modules of torchvision's networks whose children are steps of their own; any other module is one step."""

LEAST_SIZES = {"swin_": 32, "efficientnet_v2_": 1, "vit_": 1}
"""Pixels, by the beginning of a name, where torchvision's ``min_size`` is that of the weights, not the network's."""

PATCH_EMBEDDING = "conv_proj"
"""The module of a ViT that, with class token and positions, belongs to the first stage."""

AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
"""Parameters of GoogLeNet's and Inception's auxiliary heads, which fine-tuning does without."""


class StagedNetwork(nn.Module):
    """A torchvision classification model with a new head, as a chain of stages that can be frozen.

    ``steps`` are what torchvision's own forward pass does, as torch.fx records it: names of modules, and ``name()`` for
    what is done without a module. A stage begins at every step that has parameters and is no normalisation; steps
    without parameters, and normalisations, belong to the stage before. The last stage, ``"head"``, is dropout and a new
    linear layer; everything else is pre-trained. ``network`` is the torchvision model, with its parameter names.

    Args:
        backbone: a name of :func:`backbone_names`.
        num_classes: number of outputs.
        image_size: side of the square input, in pixels; a ViT's or MaxViT's parameters depend on it.
        dropout: probability of dropping an input of the new linear layer, in [0, 1).

    Raises:
        UserError: for a name that torchvision does not list, or a size that the model cannot take.
    """

    def __init__(self, backbone: str, num_classes: int, image_size: int, dropout: float = 0.0):
        super().__init__()
        self.backbone, self.image_size = backbone, image_size
        self.network = _torchvision_model(backbone, image_size)
        self.graph = _StepTracer().trace(self.network)
        self.steps = _steps(self.graph)
        self._parts: dict[tuple[int, int], fx.GraphModule] = {}
        _replace_head(self.network, self.steps, num_classes, dropout)
        self.stages = _stages(self.network, self.steps)
        self.first_step = 0
        self.frozen: frozenset[str] = frozenset()
        self._part(0, len(self.steps))  # not within a pass: torch.compile would compile the next one again

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalised images ``[B, 3, image_size, image_size]`` → logits ``[B, num_classes]``.

        After :meth:`start_at`, ``inputs`` may as well be what :meth:`prefix` makes of such images, which has another
        shape.
        """
        is_image = inputs.ndim == 4 and inputs.shape[1] == 3 and inputs.shape[2] == inputs.shape[3]
        return self._run(0 if is_image else self.first_step, len(self.steps), inputs)

    def prefix(self, images: Tensor, stage: str) -> Tensor:
        """Normalised images → the input of ``stage``."""
        return self._run(0, len(self.steps_before(stage)), images)

    def start_at(self, stage: str) -> None:
        """Have :meth:`forward` take the inputs of ``stage``, too, from now on."""
        self.first_step = len(self.steps_before(stage))
        self._part(self.first_step, len(self.steps))

    def steps_before(self, stage: str) -> list[str]:
        """Steps of all stages below ``stage``."""
        return self.steps[: self.steps.index(self.stages[stage][0])]

    def require_side(self, side: int | None) -> None:
        """Raise :class:`UserError` when it cannot take square images of this side, as well; None is its own."""
        if side is None:
            return
        with torch.device("meta"), torch.no_grad():
            try:
                blank = StagedNetwork(self.backbone, 2, self.image_size).eval()
                blank(torch.empty(1, 3, side, side))
            except (AssertionError, ValueError, RuntimeError):
                raise UserError(
                    f"{self.backbone} for images of {self.image_size} px cannot take training images of {side} px; "
                    "give another train_image_size, or none."
                ) from None

    def freeze(self, stages: frozenset[str]) -> None:
        """Freeze these stages and no others: no gradients, and evaluation mode whatever :meth:`train` says."""
        self.frozen = stages
        for stage, parameters in self.parameters_by_stage().items():
            for parameter in parameters:
                parameter.requires_grad_(stage not in stages)
        self.train(self.training)

    def train(self, mode: bool = True) -> "StagedNetwork":
        """Training mode for what is not frozen.

        So BatchNorm's statistics, dropout and stochastic depth of frozen stages stay as in evaluation.
        """
        super().train(mode)
        for stage in self.frozen:
            for step in self.stages[stage]:
                if not step.endswith("()"):
                    self.network.get_submodule(step).eval()
        return self

    def parameters_by_stage(self) -> dict[str, list[nn.Parameter]]:
        """Parameters of every stage, from the image to the head.

        Those outside the chain's modules (a ViT's class token, positions and patch embedding) are the first stage's.
        """
        stage_of_step = {step: stage for stage, steps in self.stages.items() for step in steps}
        first = next(iter(self.stages))
        parameters: dict[str, list[nn.Parameter]] = {stage: [] for stage in self.stages}
        for name, parameter in self.network.named_parameters():
            stage = next((stage for step, stage in stage_of_step.items() if name.startswith(f"{step}.")), first)
            parameters[stage].append(parameter)
        return parameters

    def _run(self, start: int, stop: int, values: Tensor) -> Tensor:
        """Pass ``values`` through the steps from ``start`` on, ``stop`` not included."""
        outputs: Tensor = self._part(start, stop)(values)
        return outputs

    def _part(self, start: int, stop: int) -> fx.GraphModule:
        """What does these steps."""
        if (start, stop) not in self._parts:
            nodes = list(self.graph.nodes)  # the input, the steps, the output
            part = fx.Graph()
            copies = {nodes[start]: part.placeholder("values")}
            for node in nodes[start + 1 : stop + 1]:
                copies[node] = part.node_copy(node, copies.__getitem__)
            part.output(copies[nodes[stop]])
            # In a dict, where it is no submodule: its modules and parameters are the network's own.
            self._parts[start, stop] = fx.GraphModule(self.network, part)
        return self._parts[start, stop]


class _StepTracer(fx.Tracer):
    """Records a network's forward pass without looking into what is one step."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return name not in OPENED or not any(True for _ in module.children())


def backbone_names() -> list[str]:
    """Every classification model that torchvision lists."""
    names: list[str] = models.list_models(module=models)
    return names


def check_backbone(name: str) -> None:
    """Raise :class:`UserError`, with the names that there are, unless torchvision lists ``name``."""
    names = backbone_names()
    if name not in names:
        meant = guess(name, names)
        raise UserError(
            f"there is no backbone {name!r}{f'; did you mean {meant}?' if meant else '.'} "
            f"torchvision has {', '.join(names)}."
        )


def least_size(name: str) -> int:
    """Side, in pixels, of the smallest image that a network can take; some want multiples of a size, too."""
    declared: int = max(models.get_model_weights(name).DEFAULT.meta.get("min_size", (1, 1)))
    return next((size for beginning, size in LEAST_SIZES.items() if name.startswith(beginning)), declared)


def _torchvision_model(name: str, image_size: int) -> nn.Module:
    """The model with random weights and its original head, auxiliary heads left out."""
    check_backbone(name)
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        # The project normalises for ImageNet, as the weights' transforms say; these two models expect to undo that.
        options = {"aux_logits": False, "transform_input": True, "init_weights": True}
    elif name.startswith("vit_"):
        options = {"image_size": image_size}
    elif name.startswith("maxvit"):
        options = {"input_size": (image_size, image_size)}
    if image_size < least_size(name):
        raise UserError(f"{name} needs an image_size of at least {least_size(name)}, but it is {image_size}.")
    wanted = torch.get_default_device()
    # RegNet's widths are computed with tensors, which a device without memory cannot do.
    device = torch.device("cpu") if name.startswith("regnet") else wanted
    try:
        with device:
            network: nn.Module = models.get_model(name, weights=None, **options).to(wanted)
    except (AssertionError, ValueError) as error:
        raise UserError(f"{name} cannot take an image_size of {image_size}: {error}") from None
    if isinstance(network, models.SqueezeNet):
        # Its own head ends in a ReLU on the logits, so a class whose map is negative everywhere gets no gradient.
        # Pooling first and leaving the ReLU out is the same network otherwise.
        output = nn.Linear(network.classifier[1].in_channels, 1000, device="meta")
        network.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), output)
    return network


def _steps(graph: fx.Graph) -> list[str]:
    """Names of the steps, up to the output layer."""
    nodes = list(graph.nodes)[1:-1]  # without the input and the output
    steps = [str(node.target) if node.op == "call_module" else f"{node.name}()" for node in nodes]
    while steps[-1].endswith("()"):  # SqueezeNet ends by flattening what is flat by now
        steps.pop()
    return steps


def _replace_head(network: nn.Module, steps: list[str], num_classes: int, dropout: float) -> None:
    """Put dropout and a new linear layer in the place of the output layer and of a dropout before it."""
    output = network.get_submodule(steps[-1])
    assert isinstance(output, nn.Linear), "what every classification model of torchvision ends in"
    if not steps[-2].endswith("()") and isinstance(network.get_submodule(steps[-2]), nn.Dropout):
        network.set_submodule(steps[-2], nn.Identity())
    network.set_submodule(steps[-1], nn.Sequential(nn.Dropout(dropout), nn.Linear(output.in_features, num_classes)))


def _stages(network: nn.Module, steps: list[str]) -> dict[str, list[str]]:
    """Names of stages and their steps, in order."""
    stages: dict[str, list[str]] = {}
    waiting: list[str] = []
    for step in steps[:-1]:
        module = None if step.endswith("()") else network.get_submodule(step)
        opens = (
            module is not None
            and any(True for _ in module.parameters())
            and not isinstance(module, _BatchNorm | nn.LayerNorm)
            and step != PATCH_EMBEDDING
        )
        if opens:
            stages[step] = [*waiting, step]
            waiting = []
        elif stages:
            stages[next(reversed(stages))].append(step)
        else:
            waiting.append(step)
    stages[HEAD] = [steps[-1]]
    return stages
