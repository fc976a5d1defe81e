"""Batches of kept features on the device, in the order in which the images would come."""

from collections.abc import Iterable, Iterator
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from naturalist.data.loader import batch_bounds, batch_order, places
from naturalist.data.placing import Place
from naturalist.data.share import Share
from naturalist.data.stream import RowFile, streamed
from naturalist.seeding import generator
from naturalist.settings.groups import Sampling


class FeatureLoader:
    """Iterates over features as :class:`naturalist.data.loader.BatchLoader` does over images, in the same order.

    Args:
        features: ``[views, N, …]``; in every epoch each image shows one of its views, drawn by chance.
        labels: int64 ``[N]``.
        batch_size: images per batch.
        device: where batches are wanted.
        shuffle_seed: seed of order and views; None keeps the order and takes the first view.
        place: where the features lie.
        file: a row for each image of each view, to be streamed.
        share: which rows of every batch are wanted, where several ranks work on each; None for all.
        sampling: see :func:`naturalist.data.loader.batch_order`.
    """

    def __init__(
        self,
        features: Tensor,
        labels: NDArray[np.int64],
        batch_size: int,
        device: torch.device,
        *,
        shuffle_seed: int | None = None,
        place: Place = "map",
        file: RowFile | None = None,
        share: Share | None = None,
        sampling: Sampling = "shuffle",
    ) -> None:
        self.device, self.shuffle_seed, self.share, self.sampling = device, shuffle_seed, share, sampling
        self.features = features.to(device) if place == "device" else features
        self.labels, self._order_by = torch.from_numpy(labels).to(device), labels
        self._file = (file or rows_of(features)) if place == "file" else None
        self._bounds = batch_bounds(len(labels), batch_size)

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self._bounds)

    @property
    def num_images(self) -> int:
        """Images per epoch."""
        return len(self.labels)

    @property
    def batches(self) -> list[int]:
        """Images of each batch of an epoch."""
        return [stop - start for start, stop in self._bounds]

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of one epoch, from batch ``start`` on: features ``[B, …]``, labels int64 ``[B]``, on the device."""
        order = torch.from_numpy(batch_order(self._order_by, self.shuffle_seed, epoch, self.sampling))
        views = torch.zeros(self.num_images, dtype=torch.int64)
        if self.shuffle_seed is not None and len(self.features) > 1:
            views = torch.randint(
                len(self.features), (self.num_images,), generator=generator(self.shuffle_seed, "views", epoch)
            )
        wanted = [places(self.share, first, stop) for first, stop in self._bounds[start:]]
        on_device = order.to(self.device)
        if self._file is not None:
            rows = (views * self.num_images + order).numpy()
            batches = self._stream(rows[batch] for batch in wanted)
        else:
            place = self.features.device
            order, views = order.to(place), views.to(place)
            batches = (self.features[views[batch], order[batch]].to(self.device) for batch in wanted)
        for batch, features in zip(wanted, batches, strict=True):
            yield features, self.labels[on_device[batch]]

    def _stream(self, batches: Iterable[NDArray[np.int64]]) -> Iterator[Tensor]:
        assert self._file is not None
        for rows in streamed(self._file, batches, self.device):
            yield rows.view(self.features.dtype).view(len(rows), *self.features.shape[2:])


def rows_of(features: Tensor, file: BinaryIO | None = None) -> RowFile:
    """Features ``[views, N, …]`` as rows of bytes, one view after the other."""
    return RowFile(features.flatten(0, 1).flatten(1).view(torch.uint8).numpy(), file)
