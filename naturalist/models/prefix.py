"""The frozen part of a network, whose outputs can be computed once per image."""

import json

from torch import Tensor

from naturalist.models.backbones import StagedNetwork
from naturalist.models.state_dict import digest_of


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
    steps = model.steps_before(stage)
    later = [f"{step}." for step in model.steps[len(steps) :]]
    state = model.network.state_dict()
    earlier = {name: value for name, value in state.items() if not name.startswith(tuple(later))}
    return digest_of(earlier, json.dumps([type(model.network).__name__, steps]))
