"""Batches of cached images on the device, in an order that (seed, epoch) decides; no worker processes."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from naturalist.data.balance import balanced_order
from naturalist.data.images import ImageCache
from naturalist.data.share import Share
from naturalist.seeding import generator
from naturalist.settings.groups import Sampling

RESIDENT_SHARE = 0.5
"""Share of the GPU's free memory that images may take; a larger set is streamed."""

RELEASE_BYTES = 32 * 2**20
"""Bytes read from the map between two releases of its pages."""


class BatchLoader:
    """Iterates over a part of a cache, epoch by epoch.

    On a GPU with room the images are copied there once; otherwise a thread copies the next batch, through pinned
    memory, while the device works on this one. On the CPU a batch is a plain copy out of the map.

    No image is dropped: the last batch is smaller, and a remainder of a single image joins the batch before, because
    batch normalisation cannot train on one.

    Args:
        cache: decoded images.
        indices: which images of the cache, int64 ``[N]``.
        batch_size: images per batch.
        device: where batches are wanted.
        shuffle_seed: seed of the order; None keeps the order of ``indices``.
        resident: keep the images on the device; None decides by free memory.
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
        resident: bool | None = None,
        share: Share | None = None,
        sampling: Sampling = "shuffle",
    ):
        self.cache, self.indices, self.batch_size, self.device = cache, indices, batch_size, device
        self.shuffle_seed, self.share, self.sampling = shuffle_seed, share, sampling
        self._bounds = batch_bounds(len(indices), batch_size)
        if resident is None:
            image_bytes = 3 * cache.size**2
            resident = (
                device.type == "cuda"
                and len(indices) * image_bytes < RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]
            )
        self._resident = self._load_all() if resident else None

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
        bounds = self._bounds[start:]
        if self._resident is not None:
            yield from self._from_device(*self._resident, order, bounds)
        elif self.device.type == "cuda":
            yield from self._prefetch(order, bounds)
        else:
            for first, stop in bounds:
                images, labels = self._read(order[places(self.share, first, stop)])
                yield images.to(self.device), labels.to(self.device)
                self._release_after(first, stop)

    def _read(self, positions: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        indices = self.indices[positions]
        images = torch.from_numpy(self.cache.read(indices)).permute(0, 3, 1, 2)
        return images, torch.from_numpy(self.cache.labels[indices])

    def _load_all(self) -> tuple[Tensor, Tensor]:
        size = self.cache.size
        images = torch.empty((len(self.indices), size, size, 3), dtype=torch.uint8, device=self.device)
        for start, stop in self._bounds:
            images[start:stop] = self._read(np.arange(start, stop))[0].permute(0, 2, 3, 1).to(self.device)
            self._release_after(start, stop)
        self.cache.release()
        return images.permute(0, 3, 1, 2), torch.from_numpy(self.cache.labels[self.indices]).to(self.device)

    def _from_device(
        self, images: Tensor, labels: Tensor, order: NDArray[np.int64], bounds: list[tuple[int, int]]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        order_on_device = torch.from_numpy(order).to(self.device)
        for start, stop in bounds:
            chosen = order_on_device[places(self.share, start, stop)]
            # Indexing the permuted view would give a channels-first copy.
            yield images.permute(0, 2, 3, 1)[chosen].permute(0, 3, 1, 2), labels[chosen]

    def _prefetch(self, order: NDArray[np.int64], bounds: list[tuple[int, int]]) -> Iterator[tuple[Tensor, Tensor]]:
        def read_pinned(start: int, stop: int) -> tuple[Tensor, Tensor]:
            images, labels = self._read(order[places(self.share, start, stop)])
            self._release_after(start, stop)
            return images.pin_memory(), labels.pin_memory()

        with ThreadPoolExecutor(1) as pool:
            upcoming = [pool.submit(read_pinned, *batch) for batch in bounds[:2]]
            for step in range(len(bounds)):
                images, labels = upcoming.pop(0).result()
                if step + 2 < len(bounds):
                    upcoming.append(pool.submit(read_pinned, *bounds[step + 2]))
                yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)

    def _release_after(self, start: int, stop: int) -> None:
        image_bytes = 3 * self.cache.size**2
        if start * image_bytes // RELEASE_BYTES != stop * image_bytes // RELEASE_BYTES or stop == len(self.indices):
            self.cache.release()


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
