"""What figures show comes from the photographs themselves, cut out as the model sees them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from naturalist.data.catalog import scan
from naturalist.data.images import open_cache
from naturalist.data.photographs import SIDE, describe_missing, shown_photograph, shown_photographs
from naturalist.data.preprocessing import Preprocessing


def preprocessing_of(resize_mode: str, cache_size: int = 40) -> Preprocessing:
    return Preprocessing(32, cache_size, resize_mode, (0.0,) * 3, (1.0,) * 3)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A fine chequered pattern, and a broad picture of large patches; a class each."""
    pattern = np.indices((SIDE, SIDE)).sum(axis=0) % 2 * 255
    patches = np.random.default_rng(0).integers(0, 256, (9, 15, 3)).repeat(50, axis=0).repeat(50, axis=1)
    for name, pixels in (("pattern", pattern), ("patches", patches)):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "train" / name / "é.png")
    return tmp_path / "train"


def test_a_pattern_finer_than_the_models_pixels_is_shown(folder, tmp_path):
    cache = open_cache(scan(folder), 40, "squash", tmp_path / "cache")
    pattern = np.array([i for i, path in enumerate(cache.paths) if path.startswith("pattern")])
    assert cache.read(pattern).std() < 5
    pictures, missing = shown_photographs(cache, pattern, preprocessing_of("squash"))
    assert pictures.shape == (1, SIDE, SIDE, 3) and missing == 0
    assert np.unique(pictures).tolist() == [0, 255]


@pytest.mark.parametrize("resize_mode", ["squash", "crop", "crop-bicubic"])
def test_what_is_shown_is_what_the_model_sees(folder, tmp_path, resize_mode):
    preprocessing = preprocessing_of(resize_mode)
    cache = open_cache(scan(folder), 40, resize_mode, tmp_path / "cache")
    patches = np.array([i for i, path in enumerate(cache.paths) if path.startswith("patches")])
    seen = preprocessing(torch.from_numpy(cache.read(patches)).permute(0, 3, 1, 2))[0].permute(1, 2, 0).numpy()
    pictures, _ = shown_photographs(cache, patches, preprocessing)
    small = np.asarray(Image.fromarray(pictures[0]).resize((32, 32), Image.Resampling.BILINEAR)) / 255
    assert abs(small - seen).mean() < 0.02
    assert (shown_photograph(folder / cache.paths[patches[0]], preprocessing) == pictures[0]).all()


@pytest.mark.parametrize("resize_mode", ["squash", "crop"])
@pytest.mark.parametrize("what_happened", ["gone", "changed"])
def test_of_a_file_that_is_gone_or_changed_the_models_pixels_are_shown_and_counted(
    folder, tmp_path, resize_mode, what_happened
):
    preprocessing = preprocessing_of(resize_mode)
    cache = open_cache(scan(folder), 40, resize_mode, tmp_path / "cache")
    seen = preprocessing(torch.from_numpy(cache.read(np.arange(2))).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    for path in folder.glob("*/*"):
        path.unlink()
        if what_happened == "changed":
            Image.new("RGB", (50, 50)).save(path)
    pictures, missing = shown_photographs(cache, np.arange(2), preprocessing)
    assert missing == 2 and pictures.shape == (2, SIDE, SIDE, 3)
    small = np.stack([np.asarray(Image.fromarray(picture).resize((32, 32))) / 255 for picture in pictures])
    assert abs(small - seen).mean() < 0.02
    assert describe_missing(missing).startswith("2 of the files cannot be read any more") and not describe_missing(0)
