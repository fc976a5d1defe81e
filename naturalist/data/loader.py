"""Batches of cached images on the device, in an order that (seed, epoch) decides; no worker processes."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from naturalist.data.balance import balanced_order
from naturalist.data.images import ImageCache
from naturalist.data.placing import Place, choose_place
from naturalist.data.share import Share
from naturalist.data.stream import RowFile, streamed
from naturalist.seeding import generator
from naturalist.settings.groups import Sampling

RELEASE_BYTES = 32 * 2**20
"""Bytes read from the map between two releases of its pages."""


class BatchLoader:
    """Iterates over a part of a cache, epoch by epoch.

    On a GPU with room the images are copied there once; otherwise a thread reads the next batches while the device
    works on this one. On the CPU a batch is a plain copy out of the map, if memory can hold all images.

    No image is dropped: the last batch is smaller, and a remainder of a single image joins the batch before, because
    batch normalisation cannot train on one.

    Args:
        cache: decoded images.
        indices: which images of the cache, int64 ``[N]``.
        batch_size: images per batch.
        device: where batches are wanted.
        shuffle_seed: seed of the order; None keeps the order of ``indices``.
        place: where the images lie; None decides by how much memory there is.
        share: which rows of every batch are wanted, where several ranks work on each; None for all.
        sampling: see :func:`batch_order`.
    """

    def __init__(
        self,
        cache: ImageCache,
        indices: NDArray[np.int64],
        batch_size: int,
        device: torch.device,
        *,
        shuffle_seed: int | None = None,
        place: Place | None = None,
        share: Share | None = None,
        sampling: Sampling = "shuffle",
    ):
        self.cache, self.indices, self.batch_size, self.device = cache, indices, batch_size, device
        self.shuffle_seed, self.share, self.sampling = shuffle_seed, share, sampling
        self.place = place or choose_place("auto", cache.bytes_of(indices), device)
        self._bounds = batch_bounds(len(indices), batch_size)
        self._labels = torch.from_numpy(cache.labels[indices]).to(device)
        self._images = self._load_all() if self.place == "device" else None

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self._bounds)

    @property
    def num_images(self) -> int:
        """Images per epoch."""
        return len(self.indices)

    @property
    def batches(self) -> list[int]:
        """Images of each batch of an epoch."""
        return [stop - start for start, stop in self._bounds]

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of one epoch: images uint8 ``[B, 3, S, S]`` channels last, labels int64 ``[B]``, on the device.

        Args:
            epoch: which one, for the order.
            start: the first batch wanted; the images of those before it are not read.
        """
        order = batch_order(self.cache.labels[self.indices], self.shuffle_seed, epoch, self.sampling)
        wanted = [places(self.share, first, stop) for first, stop in self._bounds[start:]]
        on_device = torch.from_numpy(order).to(self.device)
        batches: Iterator[Tensor]
        if self._images is not None:
            batches = (self._images[on_device[batch]] for batch in wanted)
        else:
            batches = (self._stream if self.place == "file" else self._from_map)(order[batch] for batch in wanted)
        for batch, images in zip(wanted, batches, strict=True):
            yield images.permute(0, 3, 1, 2), self._labels[on_device[batch]]

    def give_places(self) -> None:
        """Have batches say where among ``indices`` each image is, instead of its label."""
        self._labels = torch.arange(len(self.indices), device=self.device)

    def _from_map(self, batches: Iterable[NDArray[np.int64]]) -> Iterator[Tensor]:
        """The images at these places among the indices, batch by batch: uint8 ``[B, S, S, 3]`` on the device."""
        read = 0
        for batch in batches:
            images = torch.from_numpy(self.cache.read(self.indices[batch]))
            yield images.to(self.device)
            read += images.nbytes
            if read >= RELEASE_BYTES:
                self.cache.release()
                read = 0
        self.cache.release()

    def _stream(self, batches: Iterable[NDArray[np.int64]]) -> Iterator[Tensor]:
        """The same as :meth:`_from_map`, read ahead."""
        cache, size = self.cache, self.cache.size
        file = cache.file or RowFile(cache.pixels.reshape(len(cache.pixels), -1))
        for rows in streamed(file, (cache.rows[self.indices[batch]] for batch in batches), self.device):
            yield rows.view(-1, size, size, 3)

    def _load_all(self) -> Tensor:
        size, count = self.cache.size, len(self.indices)
        images = torch.empty((count, size, size, 3), dtype=torch.uint8, device=self.device)
        batches = self._stream(np.arange(start, stop) for start, stop in self._bounds)
        for (start, stop), batch in zip(self._bounds, batches, strict=True):
            images[start:stop] = batch
        return images


def batch_order(
    labels: NDArray[np.int64], shuffle_seed: int | None, epoch: int, sampling: Sampling = "shuffle"
) -> NDArray[np.int64]:
    """Positions of the images in the order of an epoch, int64 ``[N]``; without a seed as they are.

    Args:
        labels: of the images, int64 ``[N]``.
        shuffle_seed: of the order.
        epoch: which one.
        sampling: every image once, or every class equally often.
    """
    if shuffle_seed is None:
        return np.arange(len(labels))
    if sampling == "balanced":
        return balanced_order(labels, shuffle_seed, epoch)
    order: NDArray[np.int64] = torch.randperm(len(labels), generator=generator(shuffle_seed, "order", epoch)).numpy()
    return order


def places(share: Share | None, start: int, stop: int) -> slice | NDArray[np.int64]:
    """Where in an epoch's order the wanted rows of the batch from ``start`` to ``stop`` are."""
    return slice(start, stop) if share is None else share.positions(start, stop)


def batch_bounds(num_images: int, batch_size: int) -> list[tuple[int, int]]:
    """Start and stop of each batch; a remainder of one image joins the batch before it."""
    starts = list(range(0, num_images, batch_size))
    if len(starts) > 1 and num_images - starts[-1] == 1 < batch_size:
        starts.pop()
    return list(zip(starts, [*starts[1:], num_images], strict=True))
