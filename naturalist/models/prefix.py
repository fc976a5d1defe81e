"""The frozen part of a network, whose outputs can be computed once per image."""

import hashlib
import json

import torch
from torch import Tensor

from naturalist.models.backbones import StagedNetwork


class FrozenPrefix:
    """What the stages before ``stage`` make of normalised images.

    Args:
        model: with its weights, on the device where it computes; it is put in evaluation mode.
        stage: the first that learns.
    """

    def __init__(self, model: StagedNetwork, stage: str) -> None:
        self._model = model.eval()
        self.name, self.stage = f"{model.backbone}-{stage}", stage
        self.fingerprint = _fingerprint(model, stage)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Normalised images ``[B, 3, S, S]`` → the input ``[B, …]`` of the first stage that learns."""
        return self._model.prefix(inputs, self.stage)


def _fingerprint(model: StagedNetwork, stage: str) -> str:
    """A hash of everything that the prefix computes with: its steps, parameters and buffers."""
    digest = hashlib.sha256()
    steps = model.steps_before(stage)
    digest.update(json.dumps([type(model.network).__name__, steps]).encode())
    later = [f"{step}." for step in model.steps[len(steps) :]]
    for name, value in model.network.state_dict().items():
        if not name.startswith(tuple(later)):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
