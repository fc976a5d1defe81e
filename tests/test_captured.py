"""Replayed steps: what a GPU replays is what it computes kernel by kernel, and what cannot be replayed is said."""

import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from naturalist import captured as captured_module
from naturalist.captured import KEPT, WARM_UPS, Captured, no_collection
from naturalist.data.augment import Augmentation
from naturalist.data.dataset import TrainingData
from naturalist.data.images import ImageCache
from naturalist.data.preprocessing import Preprocessing
from naturalist.device import Compute
from naturalist.errors import UserError
from naturalist.models import build_model
from naturalist.models.parameter_groups import Release, split_parameters
from naturalist.runs.checkpoint import LAST, load_checkpoint
from naturalist.runs.tracking import Tracker
from naturalist.settings.part_a import CnnSettings
from naturalist.training.captured import CapturedStep, rates_on_device
from naturalist.training.epoch import Learner
from naturalist.training.fit import fit

pytestmark = pytest.mark.usefixtures("blank_pictures")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_a_gpu_records_when_told_to_and_other_devices_never_do():
    assert Compute(torch.device("cuda"), "fp32", cuda_graphs=True).captures
    assert not Compute(torch.device("cuda"), "fp32").captures
    assert not Compute(torch.device("cpu"), "fp32", cuda_graphs=True).captures


@pytest.mark.parametrize(
    ("changes", "taught", "reason"),
    [
        ({"optimizer": "NAdam"}, False, "NAdam's depend on their number"),
        ({"accumulate": 2}, False, "batches of accumulate wait for each other"),
        ({}, True, "a teacher's lessons change from epoch to epoch"),
    ],
)
def test_steps_that_are_not_replayed_though_asked_for_are_said_to_be_not(capsys, changes, taught, reason):
    compute, training = Compute(torch.device("cpu"), "fp32"), CnnSettings.of(**changes).training
    learner = Learner(nn.Linear(1, 1), None, None, training, compute)
    assert learner.captured_step(is_taught=taught) is None and not capsys.readouterr().out
    compute.captures = True
    assert learner.captured_step(is_taught=taught) is None
    assert capsys.readouterr().out == f"--cuda_graphs has no effect: steps cannot be replayed, for {reason}.\n"


def test_what_cannot_be_recorded_is_said_with_the_way_out(monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    monkeypatch.setattr(captured_module._Recording, "_beside", lambda self, inputs: self._work(*inputs))
    monkeypatch.setattr(captured_module._Recording, "record", fail)
    double = Captured(lambda values: (2 * values,), "doublings")
    for number in range(WARM_UPS):
        assert double(torch.tensor([number]))[0] == 2 * number
    with pytest.raises(UserError, match=r"^doublings cannot .*permitted when stream.*; with --no_cuda_graphs [^\n]*$"):
        double(torch.tensor([0]))


def test_what_an_earlier_recording_left_is_collected_before_the_next_and_nothing_within():
    class Earlier:
        def __init__(self) -> None:
            self.own, ended[:] = self, []

        def __del__(self) -> None:
            ended.append(gc.isenabled())

    ended: list[bool] = []
    Earlier()
    with no_collection():
        assert ended == [True]
        Earlier()
        assert not gc.isenabled() and not ended
    assert gc.isenabled()


def test_what_was_recorded_ends_with_what_it_is_of():
    preprocessing = Preprocessing(32, 32, "squash", (0.4,) * 3, (0.3,) * 3)
    augment = Augmentation(CnnSettings().augmentation, 0, preprocessing, 3)
    augment.capture()
    step = CapturedStep(lambda inputs, targets: (inputs, targets), torch.optim.SGD([torch.ones(1)]))
    left = [weakref.ref(augment), weakref.ref(augment._captured), weakref.ref(step), weakref.ref(step._captured)]
    gc.disable()
    try:
        del augment, step
        assert [reference() for reference in left] == [None] * 4
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_learning_rates_are_on_the_device_only_while_a_step_is_recorded(kind):
    groups = [{"params": [torch.ones(2, requires_grad=True)], "lr": rate} for rate in (0.5, 0.25)]
    optimizer = kind(groups)
    before = [dict(group) for group in optimizer.param_groups]
    with pytest.raises(KeyError), rates_on_device(optimizer, torch.tensor([0.5, 0.25])):
        assert [float(group["lr"]) for group in optimizer.param_groups] == [0.5, 0.25]
        assert all(isinstance(group["lr"], torch.Tensor) for group in optimizer.param_groups)
        assert all(group.get("capturable", True) for group in optimizer.param_groups)
        raise KeyError  # whatever goes wrong
    assert [{**group, "params": 0} for group in optimizer.param_groups] == [{**group, "params": 0} for group in before]


@pytest.mark.gpu
@needs_cuda
def test_a_recording_follows_its_inputs_and_each_shape_has_its_own():
    calls = []

    def work(values):
        calls.append(len(values))
        return values * 2, values.sum()

    captured = Captured(work, "Doublings")
    for number in range(3 * WARM_UPS):
        for size in (4, 3):
            values = torch.full((size,), float(number), device="cuda")
            doubled, total = captured(values)
            assert doubled.tolist() == [2.0 * number] * size and float(total) == size * number
    assert len(calls) == 2 * (WARM_UPS + 1)
    for size in range(5, 9):
        captured(torch.zeros(size, device="cuda"))
    assert len(captured._recordings) == KEPT


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Train on 69 pictures of three colours, two of which make a last small batch; returns weights and history."""
    monkeypatch.setattr(ImageCache, "release", lambda self: None)
    rng, labels = np.random.default_rng(0), np.arange(90) % 3
    pixels = rng.integers(0, 120, (90, 32, 32, 3), dtype=np.uint8)
    pixels[np.arange(90), :, :, labels] += 100
    cache = ImageCache(pixels, np.arange(90), labels, tuple(f"{i}.jpg" for i in range(90)), ("a", "b", "c"), ())
    preprocessing = Preprocessing(32, 32, "squash", (0.4,) * 3, (0.3,) * 3)
    data = TrainingData(cache, np.arange(66), cache, np.arange(66, 90), ("a", "b", "c"), preprocessing, "noise")

    def train(name: str, gradual: bool = False, **changes):
        usual = {"image_size": 32, "batch_size": 8, "epochs": 5, "wandb": "disabled", "learning_rate": 2e-3}
        settings = CnnSettings.of(**{**usual, "precision": "fp32", **changes})
        description = {"kind": "five_block_cnn", "num_classes": 3, "image_size": 32, "num_filters": 8, "dropout": 0.2}
        torch.manual_seed(0)
        model = build_model(description)

        def groups(epoch: int):
            begins = {0: model.output, 2: model.dense, 3: model.blocks}.get(epoch)
            return [] if begins is None else learning(begins)

        def learning(part: nn.Module):
            part.requires_grad_(True)
            return split_parameters(part.parameters(), 0.01)

        if gradual:
            model.requires_grad_(False)
        (tmp_path / name).mkdir()
        fit(
            model,
            data,
            settings.training,
            settings.augmentation,
            Compute(
                torch.device("cuda"),
                settings.machine.precision,
                cuda_graphs=settings.machine.cuda_graphs,
                compiles=settings.machine.compile,
            ),
            Tracker(tmp_path / name, {}, "disabled", project="p", name=name, job_type="test"),
            settings.origin(description),
            release=Release(groups) if gradual else None,
        )
        kept = load_checkpoint(tmp_path / name, LAST)
        return kept["state_dict"], kept["training"]["progress"]["history"]

    return train


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "AdamW", "ema_decay": 0.9, "crop_scale": 0.4, "brightness": 0.2, "random_erasing": 0.5},
        {"optimizer": "SGD", "learning_rate": 0.02, "gradient_clip": 0.5, "class_weights": "balanced"},
        {"optimizer": "Adam", "mixup": 0.2, "cutmix": 1.0, "alternating_flip": False},
        {"optimizer": "AdamW", "trivial_augment": True},
        {"optimizer": "NAdam"},
        {"optimizer": "AdamW", "data_augmentation": False, "accumulate": 2},
        {"optimizer": "AdamW", "device_memory": "stream"},
        {"optimizer": "AdamW", "gradual": True},
        {"optimizer": "AdamW", "compile": True},
    ],
    ids=lambda changes: " ".join(changes) or "defaults",
)
def test_a_replayed_training_is_the_one_that_runs_kernel_by_kernel(train, changes):
    state, history = train("replayed", cuda_graphs=True, **changes)
    expected, plain = train("plain", **changes | {"compile": False})
    for ours, theirs in zip(history, plain, strict=True):
        assert ours["learning_rate"] == pytest.approx(theirs["learning_rate"], rel=1e-5)
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], abs=0.02)
    for name, values in state.items():
        if values.is_floating_point() and "running" not in name:
            difference = (values - expected[name]).norm() / expected[name].norm().clamp(min=0.1)
            assert difference < 0.25, name  # the order of sums is another each time, and Muon's are in bf16
        elif not values.is_floating_point():
            assert torch.equal(values, expected[name]), name
