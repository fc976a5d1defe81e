"""Networks, and how to rebuild one from what a checkpoint says about it."""

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
    arguments = dict(description)
    kind = arguments.pop("kind", None)
    if kind == "five_block_cnn":
        from naturalist.models.cnn import FiveBlockCNN

        return FiveBlockCNN(**arguments)
    if kind == "torchvision":
        from naturalist.models.backbones import StagedNetwork  # takes seconds, which the other kind should not pay

        return StagedNetwork(**arguments)
    raise UserError(f"the checkpoint's model is of kind {kind!r}, which this version does not know.")
