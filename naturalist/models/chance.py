"""Dropout for several ranks that work on one batch: each drops what one process would drop in its rows."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from naturalist.data.share import Part


@dataclass
class Place:
    """The part of a batch that a network is shown next."""

    part: Part | None = None


class OfWholeBatch(nn.Module):
    """Draws for every row of the batch, as one process would, and takes the rank's own.

    Args:
        chance: a module that multiplies its input with what it draws.
        place: is told before every pass which rows the input has.
        by_row: one draw for each row, instead of each number.
    """

    def __init__(self, chance: nn.Module, place: Place, *, by_row: bool) -> None:
        super().__init__()
        self.chance, self._place, self._by_row = chance, place, by_row

    def forward(self, inputs: Tensor) -> Tensor:
        """The input with some of it dropped; in evaluation mode as it is."""
        part = self._place.part
        if not self.training or part is None:
            return inputs
        shape = [1] * (inputs.ndim - 1) if self._by_row else inputs.shape[1:]
        drawn: Tensor = self.chance(inputs.new_ones(part.batch, *shape))
        return inputs * drawn[torch.from_numpy(part.rows[: len(inputs)]).to(inputs.device, non_blocking=True)]


def draw_for_whole_batches(model: nn.Module, place: Place) -> None:
    """Replace what drops by chance in a network."""
    from torchvision.ops import StochasticDepth  # takes as long to import as torch, and one process does without it

    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Dropout | StochasticDepth):
            by_row = isinstance(module, StochasticDepth) and module.mode == "row"
            model.set_submodule(name, OfWholeBatch(module, place, by_row=by_row))
