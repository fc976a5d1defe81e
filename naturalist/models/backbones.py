"""Part B's networks: any torchvision classification model with a new head, seen as a chain of stages."""

from difflib import get_close_matches

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, relu
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision import models

from naturalist.errors import UserError

HEAD = "head"
"""Name of the last stage: dropout and the new linear layer."""

CHAINS = {
    "AlexNet": "features.* avgpool flatten() classifier.*",
    "ConvNeXt": "features.* avgpool classifier.*",
    "DenseNet": "features.* relu() pool() flatten() classifier",
    "EfficientNet": "features.* avgpool flatten() classifier.*",
    "GoogLeNet": "transform_input() conv1 maxpool1 conv2 conv3 maxpool2 inception3a inception3b maxpool3 inception4a "
    "inception4b inception4c inception4d inception4e maxpool4 inception5a inception5b avgpool flatten() "
    "dropout fc",
    "Inception3": "transform_input() Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 maxpool1 Conv2d_3b_1x1 Conv2d_4a_3x3 "
    "maxpool2 Mixed_5b Mixed_5c Mixed_5d Mixed_6a Mixed_6b Mixed_6c Mixed_6d Mixed_6e Mixed_7a Mixed_7b "
    "Mixed_7c avgpool flatten() dropout fc",
    "MaxVit": "stem blocks.* classifier.*",
    "MNASNet": "layers.* pool() flatten() classifier.*",
    "MobileNetV2": "features.* pool() flatten() classifier.*",
    "MobileNetV3": "features.* avgpool flatten() classifier.*",
    "RegNet": "stem trunk_output.* avgpool flatten() fc",
    "ResNet": "conv1 bn1 relu maxpool layer1 layer2 layer3 layer4 avgpool flatten() fc",
    "ShuffleNetV2": "conv1 maxpool stage2 stage3 stage4 conv5 pool() flatten() fc",
    "SqueezeNet": "features.* classifier.*",
    "SwinTransformer": "features.* norm permute avgpool flatten head",
    "VGG": "features.* avgpool flatten() classifier.*",
    "VisionTransformer": "tokens() encoder.dropout encoder.layers.* encoder.ln class_token() heads.*",
}
"""The forward pass of every family, step by step: names of modules, ``name.*`` for each child of one, and
``name()`` for what the family's forward does without a module. The last step is the family's own output layer."""

AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
"""Parameters of GoogLeNet's and Inception's auxiliary heads, which fine-tuning does without."""


class StagedNetwork(nn.Module):
    """A torchvision classification model with a new head, as a chain of stages that can be frozen.

    A stage begins at every step of the family's chain that has parameters and is no normalisation; steps without
    parameters, and normalisations, belong to the stage before. The last stage, ``"head"``, is dropout and a new linear
    layer; everything else is pre-trained. ``network`` is the torchvision model, with torchvision's parameter names.

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
        self.backbone = backbone
        self.network = _torchvision_model(backbone, image_size)
        self.steps = _steps(self.network)
        _replace_head(self.network, self.steps, num_classes, dropout)
        self.stages = _stages(self.network, self.steps)
        self.first_step = 0
        self.frozen: frozenset[str] = frozenset()

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalised images ``[B, 3, image_size, image_size]`` → logits ``[B, num_classes]``.

        After :meth:`start_at`, ``inputs`` are what :meth:`prefix` makes of such images.
        """
        return self._run(self.steps[self.first_step :], inputs)

    def prefix(self, images: Tensor, stage: str) -> Tensor:
        """Normalised images → the input of ``stage``."""
        return self._run(self.steps_before(stage), images)

    def start_at(self, stage: str) -> None:
        """Have :meth:`forward` take the inputs of ``stage`` from now on."""
        self.first_step = len(self.steps_before(stage))

    def steps_before(self, stage: str) -> list[str]:
        """Steps of all stages below ``stage``."""
        return self.steps[: self.steps.index(self.stages[stage][0])]

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

    def _run(self, steps: list[str], values: Tensor) -> Tensor:
        for step in steps:
            if step.endswith("()"):
                values = FUNCTIONS[step](self.network, values)
            else:
                values = self.network.get_submodule(step)(values)
        return values


def backbone_names() -> list[str]:
    """Every classification model that torchvision lists."""
    return models.list_models(module=models)


def check_backbone(name: str) -> None:
    """Raise :class:`UserError`, with the names that there are, unless torchvision lists ``name``."""
    names = backbone_names()
    if name not in names:
        guess = get_close_matches(name.lower(), names, n=1)
        raise UserError(
            f"there is no backbone {name!r}{f'; did you mean {guess[0]}?' if guess else '.'} "
            f"torchvision has {', '.join(names)}."
        )


def _torchvision_model(name: str, image_size: int) -> nn.Module:
    """The model with random weights and its original head, auxiliary heads left out."""
    check_backbone(name)
    options = {}
    if name in ("googlenet", "inception_v3"):
        # The project normalises for ImageNet, as the weights' transforms say; these two models expect to undo that.
        options = {"aux_logits": False, "transform_input": True, "init_weights": True}
    elif name.startswith("vit_"):
        options = {"image_size": image_size}
    elif name.startswith("maxvit"):
        options = {"input_size": (image_size, image_size)}
    smallest = max(models.get_model_weights(name).DEFAULT.meta.get("min_size", (1, 1)))
    if image_size < smallest and not name.startswith("vit_"):
        raise UserError(f"{name} needs an image_size of at least {smallest}, but it is {image_size}.")
    try:
        return models.get_model(name, weights=None, **options)
    except (AssertionError, ValueError) as error:
        raise UserError(f"{name} cannot take an image_size of {image_size}: {error}") from None


def _steps(network: nn.Module) -> list[str]:
    steps = []
    for part in CHAINS[type(network).__name__].split():
        if part.endswith(".*"):
            steps += [f"{part[:-1]}{child}" for child, _ in network.get_submodule(part[:-2]).named_children()]
        else:
            steps.append(part)
    return steps


def _replace_head(network: nn.Module, steps: list[str], num_classes: int, dropout: float) -> None:
    """Put dropout and a new linear layer in the place of the output layer and of a dropout before it."""
    if type(network).__name__ == "SqueezeNet":
        # Its own head ends in a ReLU on the logits, so a class whose map is negative everywhere gets no gradient.
        # Pooling first and leaving the ReLU out is the same network otherwise.
        features = network.classifier[1].in_channels
        network.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Identity())
        steps[:] = [step for step in steps if not step.startswith("classifier.")] + [
            "classifier.0",
            "classifier.1",
            "classifier.2",
        ]
    else:
        features = network.get_submodule(steps[-1]).in_features
        if isinstance(network.get_submodule(steps[-2]) if not steps[-2].endswith("()") else None, nn.Dropout):
            network.set_submodule(steps.pop(-2), nn.Identity())
    network.set_submodule(steps[-1], nn.Sequential(nn.Dropout(dropout), nn.Linear(features, num_classes)))


def _stages(network: nn.Module, steps: list[str]) -> dict[str, list[str]]:
    """Names of stages and their steps, in order."""
    stages: dict[str, list[str]] = {}
    waiting = []
    for step in steps[:-1]:
        module = None if step.endswith("()") else network.get_submodule(step)
        opens = (
            module is not None
            and any(True for _ in module.parameters())
            and not isinstance(module, _BatchNorm | nn.LayerNorm)
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


def _vit_tokens(network: nn.Module, images: Tensor) -> Tensor:
    patches = network._process_input(images)
    tokens = torch.cat([network.class_token.expand(len(patches), -1, -1), patches], dim=1)
    return tokens + network.encoder.pos_embedding


FUNCTIONS = {
    "class_token()": lambda network, tokens: tokens[:, 0],
    "flatten()": lambda network, maps: maps.flatten(1),
    "pool()": lambda network, maps: adaptive_avg_pool2d(maps, 1),
    "relu()": lambda network, maps: relu(maps),
    "tokens()": _vit_tokens,
    "transform_input()": lambda network, images: network._transform_input(images),
}
"""Steps without a module, see :data:`CHAINS`."""
