"""What learns, when, how fast; and what is frozen stays as it was, bit for bit."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from naturalist.data.dataset import TrainingData
from naturalist.data.images import ImageCache
from naturalist.data.preprocessing import Preprocessing
from naturalist.data.stream import streamed
from naturalist.device import Compute
from naturalist.errors import UserError
from naturalist.models import build_model
from naturalist.models.backbones import HEAD, StagedNetwork
from naturalist.models.parameter_groups import LATER
from naturalist.models.strategies import Strategy, release_epochs
from naturalist.runs.checkpoint import LAST, fill_model, load_checkpoint, restore_model
from naturalist.runs.tracking import Tracker
from naturalist.settings.part_b import FinetuneSettings
from naturalist.training import telling
from naturalist.training.fit import fit
from naturalist.training.kept import with_features
from naturalist.training.start import Start

pytestmark = pytest.mark.usefixtures("blank_pictures")

CPU = torch.device("cpu")
STAGES = ["conv1", "layer1", "layer2", "layer3", "layer4", HEAD]
RESNET = {"kind": "torchvision", "backbone": "resnet18", "num_classes": 3, "image_size": 32, "dropout": 0.2}
SHUFFLENET = {**RESNET, "backbone": "shufflenet_v2_x0_5"}


def settings_for(**changes) -> FinetuneSettings:
    return FinetuneSettings.of(
        **{
            "image_size": 32,
            "batch_size": 8,
            "epochs": 2,
            "wandb": "disabled",
            "device": "cpu",
            "precision": "fp32",
            "warmup_epochs": 0.0,
            "backbone": "shufflenet_v2_x0_5",
            **changes,
        }
    )


def strategy_of(model, **changes) -> Strategy:
    settings = settings_for(**changes)
    return Strategy(model, settings.strategy, settings.training)


@pytest.mark.parametrize(
    ("size", "strategy", "refused"),
    [(32, "full", True), (32, "gradual", True), (64, "full", False), (32, "head", False)],
)
def test_batches_of_one_image_are_refused_where_they_leave_nothing_to_normalise_over(size, strategy, refused):
    model = build_model({**RESNET, "image_size": size})
    with pytest.raises(UserError, match="batch_size must be at least 2") if refused else nullcontext():
        strategy_of(model, image_size=size, strategy=strategy, batch_size=1)


def test_batches_of_one_are_judged_by_the_training_images_side():
    settings = settings_for(image_size=64, strategy="full", batch_size=1)
    with pytest.raises(UserError, match="a single image of 32 px"):
        Strategy(build_model({**RESNET, "image_size": 64}), settings.strategy, settings.training, side=32)


@pytest.fixture
def data(tmp_path, monkeypatch) -> TrainingData:
    """Three classes of 32×32 noise, told apart by their colour, in a memory map."""
    monkeypatch.setattr(telling, "plot_curves", lambda *arguments: None)  # takes longer than these trainings
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    (tmp_path / "pixels").mkdir()
    pixels = np.memmap(tmp_path / "pixels" / "pixels.bin", np.uint8, mode="w+", shape=(60, 32, 32, 3))
    pixels[:] = rng.integers(0, 120, pixels.shape)
    pixels[np.arange(60), :, :, labels] += 100
    paths, hashes = tuple(f"{i}.jpg" for i in range(60)), tuple(map(str, range(60)))
    cache = ImageCache(pixels, np.arange(60), labels, paths, ("a", "b", "c"), (), hashes=hashes)
    return TrainingData(
        cache,
        np.arange(45),
        cache,
        np.arange(45, 60),
        ("a", "b", "c"),
        Preprocessing(32, 32, "crop", (0.4,) * 3, (0.3,) * 3),
        "noise",
    )


@pytest.fixture
def train(data, tmp_path):
    """Fit a small network under a strategy; returns the model, its state before, and the run's folder."""

    def train(name: str = "run", resume: bool = False, should_stop=None, **changes):
        settings = settings_for(
            **changes, cache_dir=str(tmp_path / "cache"), **({"resume": str(tmp_path / name)} if resume else {})
        )
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        history = load_checkpoint(folder, LAST)["training"]["progress"]["history"] if resume else None
        torch.manual_seed(settings.training.seed)
        model = build_model(SHUFFLENET)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        if resume:
            fill_model(model, load_checkpoint(folder, LAST)["state_dict"])
        compute = Compute(CPU, "fp32", device_memory=settings.machine.device_memory)
        strategy = Strategy(model, settings.strategy, settings.training)
        used, *_ = with_features(model, strategy, settings, Start(compute, data.plan, data, ""), len(history or []))
        tracker = Tracker(folder, {}, "disabled", project="p", name=name, job_type="test", history=history)
        fit(
            model,
            used,
            settings.training,
            settings.augmentation,
            compute,
            tracker,
            settings.origin(SHUFFLENET),
            resume=resume,
            should_stop=should_stop,
            release=strategy.course,
        )
        return model, before, folder

    return train


@pytest.mark.parametrize(
    ("strategy", "learning"),
    [
        ({"strategy": "head"}, {HEAD: 0}),
        ({"strategy": "partial"}, {"layer3": 0, "layer4": 0, HEAD: 0}),
        ({"strategy": "partial", "unfreeze_from": "layer4"}, {"layer4": 0, HEAD: 0}),
        (
            {"strategy": "partial", "freeze_stages": 2, "head_epochs": 1},
            {"layer2": 1, "layer3": 1, "layer4": 1, HEAD: 0},
        ),
        ({"strategy": "partial", "freeze_fraction": 0.2}, dict.fromkeys(STAGES[1:], 0)),
        ({"strategy": "full"}, dict.fromkeys(STAGES, 0)),
        ({"strategy": "full", "head_epochs": 2}, {**dict.fromkeys(STAGES, 2), HEAD: 0}),
        (
            {"strategy": "gradual", "epochs": 10},
            {HEAD: 0, "layer4": 1, "layer3": 2, "layer2": 3, "layer1": 4, "conv1": 5},
        ),
        ({"strategy": "probe-then-full", "epochs": 10}, {**dict.fromkeys(STAGES, 3), HEAD: 0}),
        ({"strategy": "probe-then-full", "head_epochs": 1}, {**dict.fromkeys(STAGES, 1), HEAD: 0}),
    ],
)
def test_a_strategy_releases_the_stages_that_it_says_when_it_says(strategy, learning):
    settings = settings_for(backbone="resnet18", **strategy)
    releases = release_epochs(STAGES, settings.strategy, settings.training.epochs, "resnet18")
    assert {stage: epoch for stage, epoch in releases.items() if epoch is not None} == learning


def test_what_does_not_learn_has_no_gradient_and_is_not_in_the_optimiser():
    model = build_model(RESNET)
    strategy = strategy_of(model, backbone="resnet18", strategy="gradual", epochs=4)
    seen: set[int] = set()
    for epoch in range(4):
        seen |= {id(parameter) for group in strategy.release(epoch) for parameter in group["params"]}
        assert seen == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
        if epoch == 0:
            assert len(seen) == 2
    assert len(seen) == len(list(model.parameters()))


def test_learning_rates_fall_from_the_head_down():
    model = build_model(RESNET)
    strategy = strategy_of(
        model, backbone="resnet18", strategy="full", learning_rate=1.0, backbone_lr_scale=0.5, layer_decay=0.1
    )
    rates = [group["lr"] for group in strategy.release(0)]
    assert rates == pytest.approx([1, 1, 0.5, 0.5, 0.05, 0.05, 5e-3, 5e-3, 5e-4, 5e-4, 5e-5, 5e-5])
    assert rates[0] == 1  # the head's comes first, which is the one that is logged


@pytest.mark.parametrize(
    "backbone",
    ["alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "maxvit_t",
     "mnasnet0_5", "mobilenet_v3_small", "regnet_x_400mf", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t",
     "vgg11", "vit_b_32"],
)  # fmt: skip
def test_every_parameter_of_every_family_has_one_rate_which_falls_stage_by_stage(backbone):
    with torch.device("meta"):
        model = build_model({**RESNET, "backbone": backbone, "image_size": 224})
    rates = {"backbone": backbone, "learning_rate": 1.0, "backbone_lr_scale": 0.5, "layer_decay": 0.8}
    groups = strategy_of(model, strategy="full", **rates).release(0)
    rate_of = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert len(rate_of) == sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    head, *below = reversed(model.parameters_by_stage().values())
    assert {rate_of[id(parameter)] for parameter in head} == {1.0}
    for depth, parameters in enumerate(below):
        assert {rate_of[id(parameter)] for parameter in parameters} == {0.5 * 0.8**depth}


def test_after_its_probe_a_head_learns_as_slowly_as_the_stage_below_it():
    rates = {"learning_rate": 1.0, "backbone_lr_scale": 0.5, "layer_decay": 0.1, "epochs": 2}
    strategy = strategy_of(build_model(RESNET), backbone="resnet18", strategy="probe-then-full", **rates)
    assert [(group["lr"], group[LATER]) for group in strategy.release(0)] == [(1.0, 0.5)] * 2
    assert [group["lr"] for group in strategy.release(1)][:4] == [0.5, 0.5, 0.05, 0.05]
    assert "1, then 0.5" in str(strategy) and strategy.summary()["probe_epochs"] == 1


def test_a_probe_learns_from_features_and_what_follows_from_images(train, monkeypatch):
    seen = []
    run = StagedNetwork._run
    monkeypatch.setattr(StagedNetwork, "_run", lambda *given: seen.append((given[1], given[3].ndim)) or run(*given))
    model, before, folder = train(strategy="probe-then-full", epochs=3, head_epochs=2, ema_decay=0.5, views=4)
    passes = [beginning for beginning, _ in seen]
    assert passes.index(model.first_step) < (last := max(i for i, b in enumerate(passes) if b == model.first_step))
    assert set(passes[last + 1 :]) == {0} and {ndim for b, ndim in seen if b} == {2}
    rates = [epoch["learning_rate"] for epoch in load_checkpoint(folder, LAST)["training"]["progress"]["history"]]
    assert len(rates) == 3
    features = [load for load in (folder.parent / "cache").glob("features-*") if load.is_dir()]
    assert sorted(json.loads((kept / "form.json").read_text())["shape"][0] for kept in features) == [1, 2]
    assert all(not torch.equal(value, before[name]) for name, value in model.state_dict().items() if "conv" in name)


@pytest.mark.parametrize(("strategy", "mixing"), [("partial", "mixup"), ("probe-then-full", "cutmix")])
def test_mixed_images_take_the_slow_way_under_every_strategy(train, strategy, mixing):
    model, _, folder = train(strategy=strategy, **{mixing: 0.5}, ema_decay=0.5)
    assert model.first_step == 0 and not list((folder.parent / "cache").glob("features-*"))


def test_patience_waits_until_all_has_learnt_that_ever_does(train):
    """The head's rate is nothing, so that no epoch of the probe brings anything better."""
    changes = {"strategy": "probe-then-full", "epochs": 6, "head_epochs": 4, "patience": 1, "learning_rate": 1e-30}
    _, _, folder = train(**changes)
    assert load_checkpoint(folder, LAST)["epoch"] == 5


def test_training_mode_leaves_frozen_stages_in_evaluation_mode():
    model = build_model({**RESNET, "backbone": "efficientnet_b0"})
    strategy_of(model, backbone="efficientnet_b0", strategy="partial", freeze_stages=7).release(0)
    model.train()
    modes = {name: module.training for name, module in model.network.named_modules()}
    assert not modes["features.6.0.stochastic_depth"] and not modes["features.0.1"]
    assert modes["features.7.0.stochastic_depth"] and modes["features.8.1"] and modes["classifier.1.0"]


@pytest.mark.parametrize(
    "changes",
    [
        {"strategy": "head", "data_augmentation": False},
        {"strategy": "head", "views": 0},
        {"strategy": "partial", "freeze_stages": 3, "views": 2},
        {"strategy": "partial", "freeze_stages": 3, "cache_features": False, "ema_decay": 0.9},
    ],
)
def test_frozen_parameters_and_batch_norm_buffers_do_not_move(train, changes):
    model, before, folder = train(**changes)
    frozen_steps = tuple(f"network.{step}." for stage in model.frozen for step in model.stages[stage])
    kept = load_checkpoint(folder)["state_dict"]
    assert any("running_mean" in name for name in before if name.startswith(frozen_steps))
    for name, value in before.items():
        if name.startswith(frozen_steps):
            assert torch.equal(model.state_dict()[name], value) and torch.equal(kept[name], value), name
    assert any(not torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_batch_norm_buffers_of_what_learns_do_move(train):
    model, before, _ = train(strategy="full")
    assert all(
        not torch.equal(value, before[name]) for name, value in model.state_dict().items() if "running_mean" in name
    )


@pytest.mark.parametrize("changes", [{"strategy": "head"}, {"strategy": "partial", "freeze_stages": 3}])
def test_training_on_kept_features_gives_the_weights_and_logits_of_the_slow_way(train, data, changes):
    fast, _, fast_folder = train("fast", data_augmentation=False, **changes)
    slow, _, _ = train("slow", data_augmentation=False, cache_features=False, **changes)
    assert fast.first_step > 0 == slow.first_step
    images = data.preprocessing(torch.from_numpy(data.val_cache.read(data.val_indices)).permute(0, 3, 1, 2))
    rebuilt, _ = restore_model(load_checkpoint(fast_folder, LAST))
    with torch.no_grad():
        torch.testing.assert_close(rebuilt(images), slow.eval()(images), rtol=1e-3, atol=1e-4)


def test_features_are_computed_once_and_again_for_other_weights_or_settings(train, tmp_path):
    def files() -> int:
        return len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()])

    train("a", strategy="head", views=1)
    assert files() == 2  # training and validation images
    train("b", strategy="head", views=1, epochs=3, learning_rate=0.01)
    assert files() == 2
    train("c", strategy="head", views=1, rotation=5.0)
    assert files() == 3  # other training views, the same validation images
    train("d", strategy="head", views=1, seed=1)  # other weights
    assert files() == 5


def test_streamed_features_train_to_the_bits_of_those_in_memory(train, monkeypatch):
    folders, streams = [], []
    noted = "naturalist.data.feature_loader.streamed"
    monkeypatch.setattr(noted, lambda *rest: streams.append(rest) or streamed(*rest))
    for name in ("resident", "stream"):
        assert not streams
        folders.append(train(name, strategy="head", views=2, epochs=2, device_memory=name)[2])
    assert len(streams) == 4  # training and validation images of two epochs
    first, second = (load_checkpoint(folder, LAST)["state_dict"] for folder in folders)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"strategy": "gradual", "epochs": 4, "ema_decay": 0.5},
        {"strategy": "partial", "freeze_stages": 3, "head_epochs": 1, "epochs": 4},
        {"strategy": "probe-then-full", "head_epochs": 3, "epochs": 4, "ema_decay": 0.5},
        {"strategy": "probe-then-full", "head_epochs": 2, "epochs": 4},
        {"strategy": "probe-then-full", "head_epochs": 1, "epochs": 4, "schedule": "plateau"},
    ],
)
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(train, changes):
    _, _, whole = train("whole", **changes)
    train("parts", should_stop=lambda metrics: metrics["epoch"] == 2, **changes)
    _, _, parts = train("parts", resume=True, **changes)
    first, second = (load_checkpoint(folder, LAST)["state_dict"] for folder in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unfreeze_from": "layer5"}, "no stage 'layer5'.*conv1, layer1, layer2, layer3, layer4"),
        ({"freeze_stages": 6}, "only 5 stages before the head: conv1, layer1"),
    ],
)
def test_a_stage_that_there_is_not_is_refused_with_the_list(changes, message):
    with pytest.raises(UserError, match=message):
        settings = settings_for(backbone="resnet18", strategy="partial", **changes)
        release_epochs(STAGES, settings.strategy, settings.training.epochs, "resnet18")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unfreeze_from": "layer3"}, "unfreeze_from belongs to --strategy partial"),
        ({"strategy": "partial", "unfreeze_from": "layer3", "freeze_stages": 1}, "same thing twice"),
        ({"strategy": "partial", "freeze_fraction": 1.2}, "freeze_fraction must lie between 0 and 1"),
        ({"layer_decay": 0.0}, "layer_decay must be greater than 0"),
        ({"views": -1}, "views must not be negative"),
        ({"strategy": "probe-then-full", "head_epochs": 2}, "leaves nothing; give it more epochs"),
        ({"strategy": "probe-then-full", "epochs": 1}, "leaves nothing; give it more epochs"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        settings_for(**changes).validate()
