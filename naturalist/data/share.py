"""Which rows of a batch are whose, where several ranks work on each."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from naturalist.ranks import Rank, gather

FEWEST = 2
"""Rows that a rank works on at least: batch normalisation cannot train on one."""


@dataclass(frozen=True)
class Part:
    """A rank's rows of one batch."""

    batch: int
    """Images of the whole batch."""
    rows: NDArray[np.int64]
    """Positions in the batch. The rank's own come first. Others follow where they are too few, or where images are
    mixed: no metric and no gradient counts them. As MixUp and CutMix go round in a batch, the last is the one before
    the first, so that every own row is mixed with its neighbour in the whole batch."""
    own: int

    @property
    def learnt(self) -> int:
        """The first so many rows go through the network."""
        return max(self.own, min(FEWEST, len(self.rows)))


@dataclass(frozen=True)
class Share:
    """What one rank does of every batch: about as much as each other one, and every image is somebody's.

    Args:
        rank: whose.
        mixes: whether images of a batch are mixed with each other.
    """

    rank: Rank
    mixes: bool = False

    def part(self, batch: int) -> Part:
        """The rank's rows of a batch of so many images; those of all ranks follow each other."""
        first, stop = _bounds(batch, self.rank.number, self.rank.count)
        more = max(FEWEST - (stop - first), int(self.mixes))
        rows = np.concatenate([np.arange(first, stop), np.arange(first - more, first) % batch])
        return Part(batch, rows, stop - first)

    def positions(self, start: int, stop: int) -> NDArray[np.int64]:
        """The rank's rows of the batch from ``start`` to ``stop``, as places in the epoch."""
        return start + self.part(stop - start).rows

    def gather(self, values: Tensor, batches: list[int]) -> Tensor:
        """What all ranks made of a whole epoch, in the order of its images.

        Args:
            values: of the rank's own rows of every batch, ``[n, …]``.
            batches: images of every batch.
        """
        starts = np.cumsum([0, *batches[:-1]])
        positions = [
            np.concatenate(
                [
                    start + np.arange(*_bounds(batch, number, self.rank.count))
                    for start, batch in zip(starts, batches, strict=True)
                ]
            )
            for number in range(self.rank.count)
        ]
        gathered = torch.cat(gather(values, [len(of_rank) for of_rank in positions]))
        return gathered[torch.from_numpy(np.argsort(np.concatenate(positions))).to(values.device)]


def _bounds(batch: int, number: int, count: int) -> tuple[int, int]:
    return batch * number // count, batch * (number + 1) // count
