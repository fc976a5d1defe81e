"""Ranks share every batch: each image is somebody's, and is varied as one process would vary it."""

import numpy as np
import pytest
import torch

from naturalist.data.augment import Augmentation
from naturalist.data.feature_loader import FeatureLoader
from naturalist.data.images import ImageCache
from naturalist.data.loader import BatchLoader
from naturalist.data.preprocessing import Preprocessing
from naturalist.data.share import Share
from naturalist.ranks import Rank
from naturalist.settings.groups import AugmentationSettings

CPU = torch.device("cpu")


def shares(count: int, mixes: bool = False) -> list[Share]:
    return [Share(Rank(number, count), mixes) for number in range(count)]


@pytest.mark.parametrize("mixes", [False, True])
@pytest.mark.parametrize("count", [2, 3, 4, 7])
@pytest.mark.parametrize("batch", [1, 2, 3, 8, 64, 65])
def test_every_row_is_one_ranks_own_and_no_rank_works_on_a_single_one(batch, count, mixes):
    parts = [share.part(batch) for share in shares(count, mixes)]
    assert [row for part in parts for row in part.rows[: part.own]] == list(range(batch))
    assert max(part.own for part in parts) - min(part.own for part in parts) <= 1
    assert all(part.learnt >= max(2, part.own) for part in parts)
    assert all(set(part.rows) <= set(range(batch)) for part in parts)


def test_loaders_give_each_rank_its_rows_of_the_batches_that_one_process_has(monkeypatch):
    monkeypatch.setattr(ImageCache, "release", lambda self: None)  # these pixels are no memory map
    pixels = np.arange(23, dtype=np.uint8)[:, None, None, None].repeat(2, 1).repeat(2, 2).repeat(3, 3)
    paths = tuple(map(str, range(23)))
    cache = ImageCache(pixels, np.arange(23), np.arange(23), paths, tuple(map(chr, range(65, 88))), ())
    features = torch.arange(23.0)[None, :, None] + torch.tensor([0.0, 100.0])[:, None, None]

    def loaders(share=None):
        yield BatchLoader(cache, np.arange(23), 10, CPU, shuffle_seed=1, share=share)
        yield BatchLoader(cache, np.arange(23), 10, CPU, shuffle_seed=1, share=share, place="device")
        yield BatchLoader(cache, np.arange(23), 10, CPU, shuffle_seed=1, share=share, place="file")
        yield FeatureLoader(features, np.arange(23), 10, CPU, shuffle_seed=1, share=share)
        yield FeatureLoader(features, np.arange(23), 10, CPU, shuffle_seed=1, share=share, place="file")

    for whole, *of_ranks in zip(loaders(), *map(loaders, shares(3)), strict=True):
        for wanted, *parts in zip(whole.epoch(2, 1), *(loader.epoch(2, 1) for loader in of_ranks), strict=True):
            owns = [share.part(len(wanted[1])).own for share in shares(3)]
            for together, *pieces in zip(wanted, *parts, strict=True):
                assert torch.equal(together, torch.cat([piece[:own] for piece, own in zip(pieces, owns, strict=True)]))


@pytest.mark.parametrize(
    "mixes",
    [{}, {"mixup": 0.5}, {"cutmix": 1.0}, {"mixup": 0.5, "cutmix": 1.0}, {"trivial_augment": True}],
    ids=str,
)
@pytest.mark.parametrize("batch", [2, 9])
def test_a_part_is_varied_and_mixed_as_in_the_whole_batch(batch, mixes):
    images = torch.randint(0, 256, (batch, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(batch) % 4
    settings = AugmentationSettings(random_erasing=0.5, **mixes)
    augment = Augmentation(settings, 0, Preprocessing(16, 16, "squash", (0.5,) * 3, (0.5,) * 3), 4)
    for step in range(3):
        whole = augment(images, labels, 1, step)
        for share in shares(4, settings.mixes):
            part = share.part(batch)
            own = part.rows[: part.own]
            for piece, together in zip(
                augment(images[part.rows], labels[part.rows], 1, step, part), whole, strict=True
            ):
                torch.testing.assert_close(piece[: part.own], together[own])
