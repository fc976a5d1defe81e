"""What kept features promise; that training on them is the same, tests/models/test_strategies.py says."""

import json
import os
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from naturalist.data.dataset import load_training_data
from naturalist.data.features import FeatureData, Views, cache_features
from naturalist.device import Compute
from naturalist.settings.groups import AugmentationSettings, DataSettings

NO_VIEWS = Views(1, AugmentationSettings(data_augmentation=False), seed=0)


class Means:
    """A prefix that sees an image's mean colour, and counts how often it is asked."""

    name, stage, fingerprint = "means", "head", "0"

    def __init__(self, dtype: torch.dtype = torch.float32, values: int = 3) -> None:
        self.dtype, self.values, self.calls = dtype, values, 0

    def __call__(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        return inputs.mean((2, 3)).to(self.dtype).repeat(1, self.values // 3 + 1)[:, : self.values]


def features_of(photographs: Path, caches: Path, kept: Path, prefix: Means, views: Views = NO_VIEWS):
    data = load_training_data(DataSettings(data=str(photographs), image_size=16, val_fraction=0.25), caches)
    return cache_features(prefix, data, views, Compute(torch.device("cpu"), "fp32"), kept)


@pytest.fixture
def find(own_photographs, tmp_path):
    """Finds or computes the features of this test's photographs."""

    def find(prefix: Means, views: Views = NO_VIEWS, photographs: Path = own_photographs) -> FeatureData | None:
        return features_of(photographs, tmp_path / "caches", tmp_path / "features", prefix, views)

    return find


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_are_those_of_every_view_and_image_in_order(find, dtype):
    views = Views(3, AugmentationSettings(), seed=1)
    data = find(Means(dtype), views)
    assert data.train_features.shape == (3, 36, 3) and data.val_features.shape == (1, 12, 3)
    assert data.train_features.dtype == dtype
    pixels = torch.from_numpy(data.val_cache.read(data.val_indices)).permute(0, 3, 1, 2)
    assert torch.equal(data.val_features[0], Means(dtype)(data.preprocessing(pixels)))
    again = Means(dtype)
    assert torch.equal(find(again, views).train_features, data.train_features) and again.calls == 0


@pytest.mark.parametrize("augmented", [False, True])
def test_smaller_training_images_have_features_of_their_own_and_validation_sees_the_whole_size(find, augmented):
    class Sides(Means):
        def __call__(self, inputs: Tensor) -> Tensor:
            return torch.full((len(inputs), 1), float(inputs.shape[-1]))

    views = Views(2, AugmentationSettings(data_augmentation=augmented), seed=0)
    usual, smaller = find(Sides(), views), find(Sides(), replace(views, side=12))
    assert usual.train_features.unique().tolist() == usual.val_features.unique().tolist() == [16.0]
    assert smaller.train_features.unique().tolist() == [12.0] and smaller.val_features.unique().tolist() == [16.0]


@pytest.mark.parametrize("side", [1, 2])
def test_features_laid_out_channels_last_keep_their_order(find, side):
    class Corner(Means):
        def __call__(self, inputs: Tensor) -> Tensor:
            return inputs[:, :, :side, :side].contiguous(memory_format=torch.channels_last)

    data = find(Corner())
    pixels = torch.from_numpy(data.val_cache.read(data.val_indices)).permute(0, 3, 1, 2)
    assert torch.equal(data.val_features[0], data.preprocessing(pixels)[:, :, :side, :side])


def test_photographs_that_moved_or_were_touched_find_their_features(find, own_photographs, tmp_path):
    first = find(Means())
    moved = own_photographs.rename(tmp_path / "moved")
    for path in moved.glob("*/*/*.jpg"):
        os.utime(path)
    shutil.rmtree(tmp_path / "caches")
    prefix = Means()
    second = find(prefix, photographs=moved)
    assert prefix.calls == 0 and torch.equal(first.train_features, second.train_features)
    forms = [json.loads(path.read_text()) for path in (tmp_path / "features").glob("*/form.json")]
    assert {form["data"] for form in forms} == {str(moved / "train")}


def test_changed_photographs_have_other_features(find, own_photographs):
    find(Means())
    victim = next((own_photographs / "train").glob("*/*.jpg"))
    shutil.copy(own_photographs / "test" / victim.parent.name / "00.jpg", victim)
    prefix = Means()
    find(prefix)
    assert prefix.calls > 0


DAMAGE = {
    "numbers cut short": lambda folder: os.truncate(folder / "features.bin", 100),
    "numbers missing": lambda folder: (folder / "features.bin").unlink(),
    "form missing": lambda folder: (folder / "form.json").unlink(),
    "form empty": lambda folder: (folder / "form.json").write_text(""),
    "form of another kind": lambda folder: (folder / "form.json").write_text("[1, 2]"),
    "form nested": lambda folder: (folder / "form.json").write_text("[" * 10**5),
    **{
        f"{name} {value!r}": lambda folder, name=name, value=value: edit(folder / "form.json", name, value)
        for name in ("shape", "dtype", "seconds", "data")
        for value in (None, "load", -1, [-1, -36, 3], [36, 1, 3], "float16")
    },
}


def edit(path: Path, name: str, value: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_features_are_computed_again(find, tmp_path, damage):
    good = find(Means())
    before = good.train_features.clone()
    for folder in (tmp_path / "features").glob("*/"):
        if folder.is_dir():
            damage(folder)
    prefix = Means()
    assert torch.equal(find(prefix).train_features, before) and prefix.calls > 0
    find(prefix := Means())
    assert prefix.calls == 0


def test_too_small_a_disk_keeps_no_features_and_says_so(find, tmp_path, monkeypatch, capsys):
    find(Means())  # decodes
    shutil.rmtree(tmp_path / "features")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**6, 10**6 - 99, 99))
    assert find(Means()) is None
    printed = capsys.readouterr().out
    assert "Features are not kept, every epoch passes through the whole network: keeping them needs" in printed
    assert [path.suffix for path in (tmp_path / "features").iterdir()] == [".lock"]


@pytest.mark.parametrize("limit", [1000, 200])
def test_disk_that_fills_up_keeps_no_features_and_says_so(find, tmp_path, capsys, limit_files, limit):
    find(Means())  # decodes
    shutil.rmtree(tmp_path / "features")
    limit_files(limit)
    assert find(Means(values=300)) is None
    assert "Features are not kept" in (printed := capsys.readouterr().out) and "is full; free some space" in printed
    assert [path.suffix for path in (tmp_path / "features").iterdir()] == [".lock"]


def test_a_full_disk_costs_the_features_and_not_the_process(own_photographs, tmp_path, mount, monkeypatch, capsys):
    kept = mount("size=300k")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**12, 0, 10**12))  # another process takes the room
    assert features_of(own_photographs, tmp_path / "caches", kept, Means(values=20_000)) is None
    assert "is full; free some space" in capsys.readouterr().out
    assert not any(path.is_dir() for path in kept.iterdir())
