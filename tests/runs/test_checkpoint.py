"""Checkpoints describe themselves, are written whole or not at all, and cannot run code."""

import os
import pickle

import pytest
import torch

from naturalist.data.preprocessing import Preprocessing
from naturalist.errors import UserError
from naturalist.models import build_model
from naturalist.models.state_dict import plain_state_dict
from naturalist.runs.checkpoint import load_checkpoint, restore_model, save_checkpoint

DESCRIPTION = {
    "kind": "five_block_cnn",
    "num_classes": 3,
    "image_size": 32,
    "num_filters": [4, 4, 8, 8, 4],
    "activation": "Mish",
    "dense_units": 5,
    "pooling": "average",
}
PREPROCESSING = Preprocessing(32, 40, "crop", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


@pytest.fixture
def saved(tmp_path):
    model = build_model(DESCRIPTION).eval()
    path = tmp_path / "best.pt"
    save_checkpoint(
        path,
        model=model,
        description=DESCRIPTION,
        class_names=("a", "b", "c"),
        preprocessing=PREPROCESSING,
        data="sample",
        epoch=3,
    )
    return path, model


def test_a_checkpoint_alone_rebuilds_model_classes_and_preprocessing(saved):
    path, model = saved
    content = load_checkpoint(path)
    restored, preprocessing = restore_model(content)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(restored(images), model(images))
    assert not restored.training
    assert preprocessing == PREPROCESSING
    assert content["class_names"] == ["a", "b", "c"]


def test_a_run_folder_stands_for_its_best_checkpoint(saved):
    assert load_checkpoint(saved[0].parent)["epoch"] == 3


def test_wrappers_leave_no_prefix(saved):
    wrapped = torch.nn.Module()
    wrapped.module = torch.nn.Module()
    wrapped.module._orig_mod = saved[1]
    assert plain_state_dict(wrapped).keys() == saved[1].state_dict().keys()


def test_a_failed_write_keeps_the_old_checkpoint_and_leaves_nothing_behind(saved, monkeypatch):
    path, model = saved
    before = path.read_bytes()

    def fail(content, target):
        target.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(UserError, match="best.pt.*disk full"):
        save_checkpoint(
            path,
            model=model,
            description=DESCRIPTION,
            class_names=("a", "b", "c"),
            preprocessing=PREPROCESSING,
            data="sample",
            epoch=4,
        )
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_checkpoint_gets_its_name_only_when_it_is_on_the_disk(saved, monkeypatch):
    path, model = saved
    before, found = path.read_bytes(), []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: found.append(path.read_bytes() == before) or fsync(file))
    save_checkpoint(
        path,
        model=model,
        description=DESCRIPTION,
        class_names=("a", "b", "c"),
        preprocessing=PREPROCESSING,
        data="sample",
        epoch=4,
    )
    assert found == [True] and load_checkpoint(path)["epoch"] == 4


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path):
    target = tmp_path / "was_here"

    class Code:
        def __reduce__(self):
            return (os.system, (f"touch {target}",))

    for name, write in (
        ("torch.pt", lambda path: torch.save({"format": "naturalist-1", "x": Code()}, path)),
        ("pickle.pt", lambda path: path.write_bytes(pickle.dumps(Code()))),
    ):
        path = tmp_path / name
        write(path)
        with pytest.raises(UserError, match="nothing in it was run") as error:
            load_checkpoint(path)
        assert "weights_only" not in str(error.value)
    assert not target.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"text" * 99,
        lambda data: data[:100] + b"\0" * 50 + data[150:],
    ],
    ids=["truncated", "empty", "text", "overwritten"],
)
def test_a_damaged_checkpoint_is_refused_in_one_sentence(saved, damage):
    path = saved[0]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"best\.pt") as error:
        restore_model(load_checkpoint(path))
    assert "\n" not in str(error.value)


def test_what_is_no_checkpoint_of_this_package_is_refused(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="no checkpoint of this package"):
        load_checkpoint(tmp_path / "other.pt")
    with pytest.raises(UserError, match="there is no checkpoint"):
        load_checkpoint(tmp_path)


def test_weights_that_do_not_fit_their_description_are_refused(saved):
    content = load_checkpoint(saved[0])
    content["model"]["dense_units"] = 6
    with pytest.raises(UserError, match="do not fit"):
        restore_model(content)
    content["model"] = {"kind": "five_block_cnn", "wings": 2}
    with pytest.raises(UserError, match="do not fit"):
        restore_model(content)
