"""Networks, and how to rebuild one from what a checkpoint says about it."""

from collections.abc import Callable
from typing import Any

from torch import nn

from naturalist.errors import UserError


def build_model(description: dict[str, Any]) -> nn.Module:
    """Build a network with fresh weights.

    Args:
        description: ``{"kind": "five_block_cnn", **arguments of FiveBlockCNN}`` or ``{"kind": "torchvision",
            **arguments of StagedNetwork}``, plain numbers, strings and lists.

    Raises:
        UserError: for a kind that this version does not know, or arguments that make no network.
    """
    from naturalist.models.backbones import StagedNetwork
    from naturalist.models.cnn import FiveBlockCNN

    kinds: dict[str, Callable[..., nn.Module]] = {"five_block_cnn": FiveBlockCNN, "torchvision": StagedNetwork}
    arguments = dict(description)
    kind = arguments.pop("kind", None)
    if kind not in kinds:
        raise UserError(f"the checkpoint's model is of kind {kind!r}, which this version does not know.")
    return kinds[kind](**arguments)
