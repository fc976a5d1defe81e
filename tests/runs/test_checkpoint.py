"""Checkpoints describe themselves, are written whole or not at all, and cannot run code."""

import os
import pickle
import signal
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.mutations import mutate_bytes, mutate_checkpoint
from naturalist.data.preprocessing import Preprocessing
from naturalist.entry import forget_stop, obey
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
SHOWN = {**vars(PREPROCESSING), "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}


def save(path, model, epoch):
    save_checkpoint(
        path,
        state_dict=plain_state_dict(model),
        description=DESCRIPTION,
        class_names=("a", "b", "c"),
        preprocessing=PREPROCESSING,
        data="sample",
        epoch=epoch,
    )


@pytest.fixture
def saved(tmp_path):
    model = build_model(DESCRIPTION).eval()
    path = tmp_path / "best.pt"
    save(path, model, epoch=3)
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
            state_dict=plain_state_dict(model),
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
    save(path, model, epoch=4)
    assert found == [True] and load_checkpoint(path)["epoch"] == 4


def test_a_stop_waits_until_a_checkpoint_is_whole(saved, monkeypatch):
    path, model = saved
    torch_save, before = torch.save, signal.getsignal(signal.SIGTERM)

    def save_while_stopped(content, file):
        signal.raise_signal(signal.SIGTERM)
        torch_save(content, file)

    monkeypatch.setattr(torch, "save", save_while_stopped)
    obey(signal.SIGTERM)
    try:
        with pytest.raises(KeyboardInterrupt):
            save(path, model, epoch=4)
    finally:
        signal.signal(signal.SIGTERM, before)
        forget_stop()
    assert load_checkpoint(path)["epoch"] == 4
    assert list(path.parent.iterdir()) == [path]


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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"class_names": ["a", "b", "b"]}, "a name is there twice"),
        ({"class_names": ["a", "b"]}, "2 names for 3 outputs"),
        ({"class_names": ["a", "b", 3]}, r"class_names\[2\]: expected str, got int"),
        ({"class_names": None}, "class_names: expected array"),
        ({"epoch": -1}, "epoch: expected int >= 0"),
        ({"model": {**DESCRIPTION, "dropout": 5}}, "model.dropout: expected float < 1"),
        ({"model": {**DESCRIPTION, "num_filters": [4, 4]}}, "num_filters must be one number or a list of five"),
        ({"model": {**DESCRIPTION, "activation": "Wings"}}, "activation: invalid enum value 'Wings'"),
        ({"model": {**DESCRIPTION, "image_size": 10**9}}, "model.image_size: expected int <= 16384"),
        ({"model": {**DESCRIPTION, "dense_units": 10**12}}, "do not fit .* of another shape"),
        ({"model": {**DESCRIPTION, "kind": "torchvision"}}, "missing required field backbone"),
        ({"model": {**DESCRIPTION, "kind": "a newer one"}}, "which this version does not know"),
        ({"preprocessing": {**SHOWN, "std": ["0.5", 0.5, 0.5]}}, r"std\[0\]: expected float, got str"),
        ({"preprocessing": {**SHOWN, "std": [0.5, 0.0, 0.5]}}, r"std\[1\]: expected float >= 1e-06"),
        ({"preprocessing": {**SHOWN, "mean": [float("nan")] * 3}}, r"mean\[0\]: expected float"),
        ({"preprocessing": {**SHOWN, "mean": [0.5]}}, "mean: expected array of length 3"),
        ({"preprocessing": {**SHOWN, "cache_size": 10**9}}, "cache_size: expected int <= 16384"),
        ({"preprocessing": {**SHOWN, "cache_size": 16}}, "cache_size 16 is less than image_size 32"),
        ({"preprocessing": {**SHOWN, "image_size": 16}}, "its image_size is not the model's"),
        ({"preprocessing": {**SHOWN, "resize_mode": "fold"}}, "resize_mode: invalid enum value 'fold'"),
        ({"state_dict": {}}, "state_dict: it is empty"),
    ],
)
def test_what_no_training_writes_is_refused_by_name(saved, change, words):
    path = saved[0]
    torch.save({**torch.load(path, weights_only=True), **change}, path)
    with pytest.raises(UserError, match=words) as error:
        restore_model(load_checkpoint(path))
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "weights", "words"),
    [
        ("output.weight", lambda old: old * float("nan"), "output.weight: it holds NaN or infinity"),
        ("output.weight", lambda old: old / 0, "output.weight: it holds NaN or infinity"),
        ("output.weight", lambda old: old.half(), "do not fit .* of another type 1 .output.weight"),
        ("output.weight", lambda old: old.to(torch.complex64), "its numbers are complex"),
        ("output.weight", lambda old: old.T, "do not fit .* of another shape 1 .output.weight"),
        ("output.weight", lambda old: old.tolist(), "output.weight: it is no plain tensor"),
        ("output.weight", lambda old: old.to_sparse(), "output.weight: it is no plain tensor"),
        ("output.weight", lambda old: torch.zeros(1).expand(10**12), "output.weight: it is no plain tensor"),
        ("blocks.block1.batch_norm.running_var", lambda old: -old, "a variance is negative"),
        ("wings", lambda old: torch.zeros(2), "do not fit .* unexpected 1 .wings"),
    ],
)
def test_weights_that_no_training_writes_are_refused_by_name(saved, name, weights, words):
    content = torch.load(saved[0], weights_only=True)
    content["state_dict"][name] = weights(content["state_dict"].get(name))
    torch.save(content, saved[0])
    with pytest.raises(UserError, match=words):
        restore_model(load_checkpoint(saved[0]))


def test_a_missing_weight_and_a_missing_field_are_named(saved):
    content = torch.load(saved[0], weights_only=True)
    for name in ("model", "state_dict", "class_names", "preprocessing", "data", "epoch"):
        torch.save({key: value for key, value in content.items() if key != name}, saved[0])
        with pytest.raises(UserError, match=f"missing required field {name}"):
            load_checkpoint(saved[0])
    del content["state_dict"]["dense.bias"]
    torch.save(content, saved[0])
    with pytest.raises(UserError, match=r"missing 1 \(dense.bias\)"):
        restore_model(load_checkpoint(saved[0]))


def test_what_a_newer_version_adds_is_let_be(saved):
    content = torch.load(saved[0], weights_only=True)
    content["preprocessing"]["newer"] = content["newer"] = {"a": [1]}
    torch.save(content, saved[0])
    assert restore_model(load_checkpoint(saved[0]))[1] == PREPROCESSING


def test_a_checkpoint_that_was_mutated_is_a_network_or_one_sentence(saved):
    path = saved[0]
    content, data = torch.load(path, weights_only=True), path.read_bytes()

    @settings(max_examples=60, derandomize=True, deadline=None, database=None)
    @given(st.integers(0, 2**32), st.booleans())
    def check(seed: int, as_bytes: bool) -> None:
        if as_bytes:
            path.write_bytes(mutate_bytes(data, Random(seed)))
        else:
            torch.save(mutate_checkpoint(content, Random(seed)), path)
        try:
            restore_model(load_checkpoint(path))
        except UserError as error:
            assert len(str(error).splitlines()) == 1

    check()
