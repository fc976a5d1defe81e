"""What batches promise: every image once per epoch, in an order that only (seed, epoch) decides."""

from pathlib import Path

import numpy as np
import pytest
import torch

from naturalist.data import loader as loader_module
from naturalist.data.feature_loader import FeatureLoader
from naturalist.data.images import ImageCache
from naturalist.data.loader import BatchLoader, batch_bounds
from naturalist.data.stream import RowFile

CPU = torch.device("cpu")
SIZE = 4
FIRST_BATCH = [11, 12, 30, 4, 19, 3, 49, 40, 25, 46]
"""The first ten of fifty images in epoch 0 under seed 0."""


@pytest.fixture
def cache(tmp_path) -> ImageCache:
    """50 readable images on 60 rows; the pixels of image ``i`` are all ``i``, and its label is ``i % 7``."""
    rows = np.setdiff1d(np.arange(60), np.arange(3, 60, 6))
    pixels = np.memmap(tmp_path / "pixels.bin", np.uint8, mode="w+", shape=(60, SIZE, SIZE, 3))
    pixels[:] = 255
    pixels[rows] = np.arange(50)[:, None, None, None]
    pixels.flush()
    pixels = np.memmap(tmp_path / "pixels.bin", np.uint8, mode="r", shape=(60, SIZE, SIZE, 3))
    with (tmp_path / "pixels.bin").open("rb") as file:
        row_file = RowFile(pixels.reshape(60, -1), file)
    names, class_names = tuple(map(str, range(50))), tuple("abcdefg")
    return ImageCache(pixels, rows, np.arange(50) % 7, names, class_names, (), file=row_file)


def read(loader: BatchLoader, epoch: int = 0) -> list[list[int]]:
    """Numbers of the images in each batch of an epoch."""
    return [images[:, 0, 0, 0].tolist() for images, _ in loader.epoch(epoch)]


@pytest.mark.parametrize("shuffle_seed", [None, 5])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 6, 8, 19, 20, 21, 100])
@pytest.mark.parametrize("count", [1, 2, 19, 20])
def test_every_image_comes_exactly_once_per_epoch(cache, count, batch_size, shuffle_seed):
    indices = np.arange(50)[::2][:count]
    loader = BatchLoader(cache, indices, batch_size, CPU, shuffle_seed=shuffle_seed)
    for epoch in range(3):
        batches = read(loader, epoch)
        assert sorted(sum(batches, [])) == indices.tolist()
        assert len(batches) == len(loader)
        assert loader.num_images == count


def test_last_batch_is_smaller_and_a_remainder_of_one_joins_the_batch_before():
    def sizes(num_images: int, batch_size: int) -> list[int]:
        return [stop - start for start, stop in batch_bounds(num_images, batch_size)]

    assert sizes(10, 4) == [4, 4, 2]
    assert sizes(8, 4) == [4, 4]
    assert sizes(9, 4) == [4, 5]
    assert sizes(5, 4) == [5]
    assert sizes(3, 4) == [3]
    assert sizes(1, 4) == [1]
    assert sizes(3, 1) == [1, 1, 1]
    assert sizes(3, 2) == [3]


def test_batches_are_uint8_channels_last_with_their_labels(cache):
    for images, labels in BatchLoader(cache, np.arange(50), 8, CPU, shuffle_seed=1).epoch():
        assert images.dtype == torch.uint8 and images.shape[1:] == (3, SIZE, SIZE)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert labels.dtype == torch.int64
        assert torch.equal(labels, images[:, 0, 0, 0].long() % 7)
        assert (images == images[:, :1, :1, :1]).all()


def test_without_a_seed_the_order_is_that_of_the_indices(cache):
    indices = np.array([9, 3, 49, 0, 17])
    assert sum(read(BatchLoader(cache, indices, 2, CPU), epoch=3), []) == indices.tolist()


def test_order_depends_on_seed_and_epoch_alone(cache):
    def orders(seed: int, epochs: tuple[int, ...]) -> dict[int, list[list[int]]]:
        loader = BatchLoader(cache, np.arange(50), 8, CPU, shuffle_seed=seed)
        return {epoch: read(loader, epoch) for epoch in epochs}

    first = orders(0, (0, 1, 2))
    torch.rand(17)
    assert orders(0, (2, 0, 1)) == first  # as after a restart in the middle
    assert len({str(order) for order in [*first.values(), *orders(1, (0, 1, 2)).values()]}) == 6


def test_epoch_broken_off_does_not_change_the_next(cache):
    loader = BatchLoader(cache, np.arange(50), 8, CPU, shuffle_seed=0)
    expected = read(loader, 1)
    next(loader.epoch(0))
    assert read(loader, 1) == expected


@pytest.mark.parametrize("start", [0, 1, 3, 6, 7])
@pytest.mark.parametrize("sampling", ["shuffle", "balanced"])
@pytest.mark.parametrize("place", ["device", "map", "file"])
def test_an_epoch_begun_later_has_the_batches_that_are_left_and_reads_no_other(
    cache, monkeypatch, place, sampling, start
):
    loader = BatchLoader(cache, np.arange(50), 8, CPU, shuffle_seed=0, place=place, sampling=sampling)
    expected = read(loader, 2)[start:]
    images, rows, read_images, read_rows = [], [], ImageCache.read, RowFile.read
    monkeypatch.setattr(ImageCache, "read", lambda self, which: images.extend(which) or read_images(self, which))
    monkeypatch.setattr(RowFile, "read", lambda self, which, out: rows.extend(which) or read_rows(self, which, out))
    assert [batch[:, 0, 0, 0].tolist() for batch, _ in loader.epoch(2, start)] == expected
    assert images == (sum(expected, []) if place == "map" else [])
    assert rows == (cache.rows[sum(expected, [])].tolist() if place == "file" else [])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("place", ["device", "file"])
def test_an_epoch_begun_later_is_the_same_on_the_gpu(cache, place):
    on_gpu = BatchLoader(cache, np.arange(50), 8, torch.device("cuda"), shuffle_seed=2, place=place)
    assert [images[:, 0, 0, 0].tolist() for images, _ in on_gpu.epoch(1, 3)] == read(on_gpu, 1)[3:]


@pytest.mark.parametrize("place", ["map", "file"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("shuffle_seed", "sampling"), [(None, "shuffle"), (0, "shuffle"), (0, "balanced")])
def test_features_begun_later_in_an_epoch_are_the_same_views_of_the_same_images(shuffle_seed, sampling, dtype, place):
    features, labels = torch.arange(3 * 20 * 2, dtype=dtype).view(3, 20, 2), np.arange(20) % 5 // 4
    whole = list(FeatureLoader(features, labels, 6, CPU, shuffle_seed=shuffle_seed, sampling=sampling).epoch(1))
    loader = FeatureLoader(features, labels, 6, CPU, shuffle_seed=shuffle_seed, place=place, sampling=sampling)
    whole = [(batch.tolist(), labels.tolist()) for batch, labels in whole]
    assert [(batch.tolist(), labels.tolist()) for batch, labels in loader.epoch(1, 2)] == whole[2:]


def test_order_is_the_same_on_every_machine(cache):
    assert read(BatchLoader(cache, np.arange(50), 10, CPU, shuffle_seed=0))[0] == FIRST_BATCH


def test_loading_does_not_disturb_the_global_random_numbers(cache):
    state = torch.get_rng_state()
    read(BatchLoader(cache, np.arange(50), 8, CPU, shuffle_seed=0))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("place", ["device", "file"])
def test_images_kept_on_the_device_or_streamed_come_as_those_read_from_the_map(cache, place):
    indices = np.arange(50)[1::3]
    mapped, other = (BatchLoader(cache, indices, 4, CPU, shuffle_seed=2, place=kept) for kept in ("map", place))
    assert_equal_batches(mapped, other)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("place", ["device", "file"])
def test_gpu_gets_the_same_batches_as_the_cpu(cache, place):
    on_gpu = BatchLoader(cache, np.arange(50), 8, torch.device("cuda"), shuffle_seed=2, place=place)
    assert_equal_batches(BatchLoader(cache, np.arange(50), 8, CPU, shuffle_seed=2), on_gpu)


def assert_equal_batches(expected: BatchLoader, actual: BatchLoader) -> None:
    for (images, labels), (other_images, other_labels) in zip(expected.epoch(3), actual.epoch(3), strict=True):
        assert other_images.device.type == other_labels.device.type == actual.device.type
        assert torch.equal(images, other_images.cpu()) and torch.equal(labels, other_labels.cpu())
        assert other_images.is_contiguous(memory_format=torch.channels_last)


def test_releasing_memory_in_the_middle_of_an_epoch_changes_no_batch(cache, monkeypatch):
    expected = read(BatchLoader(cache, np.arange(50), 8, CPU, shuffle_seed=0))
    monkeypatch.setattr(loader_module, "RELEASE_BYTES", 100)
    assert read(BatchLoader(cache, np.arange(50), 8, CPU, shuffle_seed=0)) == expected


def test_changing_a_batch_does_not_change_the_cache(cache):
    content = Path(cache.pixels.filename).read_bytes()
    for images, labels in BatchLoader(cache, np.arange(50), 50, CPU).epoch():
        images.zero_()
        labels.zero_()
    assert Path(cache.pixels.filename).read_bytes() == content
    assert np.array_equal(cache.labels, np.arange(50) % 7)
    assert sum(read(BatchLoader(cache, np.arange(50), 50, CPU)), []) == list(range(50))
