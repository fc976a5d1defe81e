"""The loop: what is trained, what is measured, what is kept, and what stops it."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from naturalist.data.augment import Augmentation
from naturalist.data.dataset import TrainingData
from naturalist.data.images import ImageCache
from naturalist.data.loader import BatchLoader
from naturalist.data.preprocessing import Preprocessing
from naturalist.data.share import Part
from naturalist.device import Compute
from naturalist.models import build_model
from naturalist.models.parameter_groups import parameter_groups
from naturalist.runs.checkpoint import BEST, LAST, load_checkpoint, restore_model
from naturalist.runs.tracking import Tracker
from naturalist.settings.part_a import CnnSettings
from naturalist.training import epoch as epoch_module
from naturalist.training.average import WeightAverage
from naturalist.training.compiled import Compiled
from naturalist.training.epoch import Learner, NonFiniteLoss, _Batch, _forward, evaluate, train_one_epoch
from naturalist.training.fit import fit
from naturalist.training.optim import Schedule, make_optimizer

pytestmark = pytest.mark.usefixtures("blank_pictures")

CPU = torch.device("cpu")
DESCRIPTION = {
    "kind": "five_block_cnn",
    "num_classes": 3,
    "image_size": 32,
    "num_filters": 8,
    "dense_units": 8,
    "filter_organization": "same",
    "dropout": 0.2,
}


def settings_for(**changes) -> CnnSettings:
    return CnnSettings.of(
        **{
            "image_size": 32,
            "batch_size": 8,
            "epochs": 3,
            "wandb": "disabled",
            "device": "cpu",
            "precision": "fp32",
            "learning_rate": 3e-3,
            "weight_decay": 0.0,
            "warmup_epochs": 0.0,
            **changes,
        }
    )


@pytest.fixture
def data() -> TrainingData:
    """Three classes of 32×32 noise, told apart by their colour."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    pixels = rng.integers(0, 120, (60, 32, 32, 3), dtype=np.uint8)
    pixels[np.arange(60), :, :, labels] += 100
    cache = ImageCache(pixels, np.arange(60), labels, tuple(f"{i}.jpg" for i in range(60)), ("a", "b", "c"), ())
    return TrainingData(
        cache,
        np.arange(45),
        cache,
        np.arange(45, 60),
        ("a", "b", "c"),
        Preprocessing(32, 32, "squash", (0.4,) * 3, (0.3,) * 3),
        "noise",
    )


@pytest.fixture
def run(tmp_path, data, monkeypatch):
    """Fit a small network; returns summary, folder and metrics."""
    monkeypatch.setattr(ImageCache, "release", lambda self: None)  # these pixels are no memory map

    def run(name: str = "run", should_stop=None, resume=False, **changes) -> tuple[dict, list[dict]]:
        settings = settings_for(**changes, **({"resume": str(tmp_path / name)} if resume else {}))
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        history = load_checkpoint(folder, LAST)["training"]["progress"]["history"] if resume else None
        torch.manual_seed(settings.training.seed)
        tracker = Tracker(folder, {}, "disabled", project="p", name=name, job_type="test", history=history)
        summary = fit(
            build_model(DESCRIPTION),
            data,
            settings.training,
            settings.augmentation,
            Compute(CPU, settings.machine.precision, compiles=settings.machine.compile),
            tracker,
            settings.origin(DESCRIPTION),
            resume=resume,
            should_stop=should_stop,
        )
        return summary, load_checkpoint(folder, LAST)["training"]["progress"]["history"]

    return run


def weights(folder, which=LAST):
    return load_checkpoint(folder, which)["state_dict"]


def assert_same(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_fit_learns_and_logs_every_metric_once_per_epoch(run):
    summary, history = run(epochs=8)
    assert summary["status"] == "finished" and summary["best_val_accuracy"] > 0.9
    assert [row["epoch"] for row in history] == list(range(1, 9))
    assert set(history[0]) == {
        "epoch",
        "train_loss",
        "train_accuracy",
        "val_loss",
        "val_accuracy",
        "val_balanced_accuracy",
        "best_val_accuracy",
        "learning_rate",
        "images_per_second",
        "epoch_seconds",
    }
    assert [row["best_val_accuracy"] for row in history] == list(
        np.maximum.accumulate([row["val_accuracy"] for row in history])
    )


def test_the_same_seed_gives_the_same_weights_bit_for_bit(run, tmp_path):
    for name in ("one", "two"):
        run(name, random_erasing=0.5, mixup=0.2, cutmix=0.5)
    assert_same(weights(tmp_path / "one"), weights(tmp_path / "two"))
    run("three", random_erasing=0.5, mixup=0.2, cutmix=0.5, seed=1)
    assert not torch.equal(weights(tmp_path / "one")["output.weight"], weights(tmp_path / "three")["output.weight"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ema_decay": 0.9, "optimizer": "SGD", "schedule": "plateau", "plateau_patience": 0},
        {"accumulate": 2, "schedule": "one-cycle", "optimizer": "NAdam", "gradient_clip": 1.0, "mixup": 0.2},
    ],
    ids=str,
)
def test_a_resumed_fit_ends_with_the_weights_of_an_uninterrupted_one(run, tmp_path, changes):
    _, whole = run("whole", epochs=4, **changes)
    run("parts", epochs=4, should_stop=lambda metrics: metrics["epoch"] == 2, **changes)
    _, resumed = run("parts", epochs=4, resume=True, **changes)
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert_same(weights(tmp_path / "whole", BEST), weights(tmp_path / "parts", BEST))
    assert [row["val_loss"] for row in whole] == [row["val_loss"] for row in resumed]


def test_an_interrupted_epoch_is_done_again_on_resume(run, tmp_path, monkeypatch):
    run("whole", epochs=3)
    epochs = iter(range(10))

    def interrupt(*arguments, **options):
        if next(epochs) == 1:
            raise KeyboardInterrupt
        return train_one_epoch(*arguments, **options)

    monkeypatch.setattr("naturalist.training.fit.train_one_epoch", interrupt)
    summary, _ = run("parts", epochs=3)
    assert (summary["status"], summary["epochs"]) == ("stopped", 1)
    monkeypatch.undo()
    monkeypatch.setattr(ImageCache, "release", lambda self: None)
    run("parts", epochs=3, resume=True)
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


CLASS_OF_VAL = np.arange(45, 60) % 3


def pretend(monkeypatch, outcomes) -> None:
    """Have every validation come out as told: accuracy, loss, and of the three classes' images how many right."""

    def pretended(*arguments, **options):
        result, (accuracy, loss, *right) = evaluate(*arguments, **options), next(outcomes)
        logits = result.logits
        if right:
            first = np.arange(15) // 3 < np.array(right)[CLASS_OF_VAL]
            logits = torch.eye(3)[np.where(first, CLASS_OF_VAL, (CLASS_OF_VAL + 1) % 3)]
        return type(result)(loss, accuracy, logits, result.labels)

    monkeypatch.setattr("naturalist.training.fit.evaluate", pretended)


@pytest.mark.parametrize(
    ("select_by", "best"), [("val_accuracy", 3), ("val_balanced_accuracy", 2), ("val_loss", 5)], ids=lambda value: value
)
def test_the_best_checkpoint_is_what_it_is_selected_by_and_of_equals_the_lowest_loss(
    run, tmp_path, monkeypatch, capsys, select_by, best
):
    outcomes = [(0.5, math.nan, 0, 0, 0), (0.7, 0.84, 5, 5, 1), (0.7, 0.8, 5, 4, 1), (0.7, 0.85, 5, 4, 2), (0.6, 0.1)]
    outcomes[4] = (*outcomes[4], 1, 1, 1)
    pretend(monkeypatch, iter(outcomes))
    summary, history = run(epochs=5, select_by=select_by)
    expected = {name: history[best - 1][name] for name in ("val_accuracy", "val_balanced_accuracy", "val_loss")}
    assert {name: summary[f"best_{name}"] for name in expected} == expected
    assert [row["val_balanced_accuracy"] for row in history] == pytest.approx([0, 11 / 15, 10 / 15, 11 / 15, 3 / 15])
    assert summary["best_epoch"] == load_checkpoint(tmp_path / "run")["epoch"] == best
    stars = [line for line in capsys.readouterr().out.splitlines() if " * " in line]
    assert stars[-1].startswith(f"epoch {best}/5") and ("balanced 73.3 % *" in stars[-1]) == (best == 2)


@pytest.mark.parametrize(("select_by", "epochs"), [("val_accuracy", 3), ("val_loss", 5)])
def test_patience_stops_a_fit_that_gets_no_better_by_what_it_is_selected_by(run, monkeypatch, select_by, epochs):
    pretend(monkeypatch, iter([(0.5, 1.0), (0.5, 1.0), (0.4, 0.9), (0.4, 1.0), (0.4, 1.0)]))
    summary, _ = run(epochs=9, patience=2, select_by=select_by)
    assert (summary["status"], summary["epochs"], summary["best_epoch"]) == ("stopped early", epochs, epochs - 2)


def test_should_stop_ends_a_fit_as_pruned(run):
    summary, _ = run(epochs=9, should_stop=lambda metrics: metrics["epoch"] == 2)
    assert (summary["status"], summary["epochs"]) == ("pruned", 2)
    summary, _ = run("whole", epochs=2, should_stop=lambda metrics: metrics["epoch"] == 2)
    assert (summary["status"], summary["epochs"]) == ("finished", 2)  # nothing was left to be saved


def test_a_loss_that_is_not_finite_stops_the_run_naming_step_and_cause(run, tmp_path):
    with pytest.raises(NonFiniteLoss, match=r"step \d+ of epoch \d+.*learning rate \(1e\+20\).*gradient_clip"):
        run(learning_rate=1e20, optimizer="SGD", schedule="none", batch_norm=False, epochs=5)


def test_the_curves_are_drawn_however_a_fit_ends(run, tmp_path):
    def fail(metrics: dict) -> bool:
        raise RuntimeError("whatever happens")

    run("pruned", should_stop=lambda metrics: True)
    with pytest.raises(RuntimeError):
        run("failed", should_stop=fail)
    assert all((tmp_path / name / "curves.png").is_file() for name in ("pruned", "failed"))


def test_the_engine_never_waits_for_the_device_within_an_epoch(data, monkeypatch):
    monkeypatch.setattr(ImageCache, "release", lambda self: None)
    settings = settings_for().training
    model = build_model(DESCRIPTION)
    loader = BatchLoader(data.train_cache, data.train_indices, 8, CPU, shuffle_seed=0)
    optimizer = make_optimizer(parameter_groups(model, 0.0), settings, CPU)
    fetched = []
    for name in ("item", "tolist", "__float__", "__int__", "__bool__"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor,
            name,
            lambda tensor, *rest, original=original, name=name: fetched.append(name) or original(tensor, *rest),
        )
    batches_seen = []
    original_epoch = loader.epoch
    monkeypatch.setattr(
        loader, "epoch", lambda *place: (batches_seen.append(len(fetched)) or batch for batch in original_epoch(*place))
    )
    schedule = Schedule(optimizer, settings, len(loader), 1)
    learner = Learner(model, optimizer, schedule, settings, Compute(CPU, "fp32"))
    train_one_epoch(learner, loader, data.preprocessing, epoch=0)
    assert len(batches_seen) == len(loader) > 3
    assert batches_seen[1] == batches_seen[-1]


@pytest.mark.parametrize("weights", [None, torch.tensor([0.25, 1.0, 2.0])], ids=["alike", "weighted"])
def test_accumulated_batches_equal_one_large_batch(data, monkeypatch, weights):
    monkeypatch.setattr(ImageCache, "release", lambda self: None)
    results = []
    for batch_size, accumulate in ((15, 1), (5, 3)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))
        settings = settings_for(batch_size=batch_size, accumulate=accumulate, optimizer="SGD", momentum=0.0).training
        loader = BatchLoader(data.train_cache, data.train_indices, batch_size, CPU, shuffle_seed=0)
        optimizer = make_optimizer(parameter_groups(model, 0.0), settings, CPU)
        schedule = Schedule(optimizer, settings, 3, 1)
        learner = Learner(model, optimizer, schedule, settings, Compute(CPU, "fp32"), class_weights=weights)
        train_one_epoch(learner, loader, data.preprocessing, epoch=0)
        results.append(model[1].weight.detach().clone())
    torch.testing.assert_close(*results, atol=1e-6, rtol=1e-4)


def test_the_weighted_loss_is_the_sum_by_hand_over_the_images_whatever_is_smoothed_mixed_or_shared(data):
    weights, smoothing = torch.tensor([0.25, 1.0, 2.0]), 0.3
    logits, hard = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)), torch.arange(7) % 3
    model = nn.Linear(3, 3)
    with torch.no_grad():
        model.weight.copy_(torch.eye(3))
        model.bias.zero_()
    settings = settings_for(label_smoothing=smoothing).training
    optimizer = make_optimizer(parameter_groups(model, 0.0), settings, CPU)
    rules = (Schedule(optimizer, settings, 1, 1), settings, Compute(CPU, "fp32", channels_last=False))
    learner = Learner(model, optimizer, *rules, class_weights=weights)

    def mix(images, labels, epoch, step, part=None):
        soft = nn.functional.one_hot(labels, 3).float()
        return images, 0.6 * soft + 0.4 * soft.roll(1, 0)

    class Mixing(Augmentation):
        __init__, __call__ = (lambda self: None), staticmethod(mix)

    for augment in (lambda images: images, Mixing()):
        targets = mix(None, hard, 0, 0)[1] if isinstance(augment, Augmentation) else nn.functional.one_hot(hard, 3)
        smoothed = targets * (1 - smoothing) + smoothing / 3
        by_hand = float(-(weights * smoothed * logits.log_softmax(1)).sum() / 7)
        loss, *_ = _forward(learner, augment, _Batch(logits, hard, 0, 0, None))
        assert float(loss.detach()) == pytest.approx(by_hand)
    # Two ranks' parts of a batch, the larger of which has not half of the weight, are shares of one sum.
    parts = [
        _forward(learner, lambda x: x, _Batch(logits[rows], hard[rows], 0, 0, Part(7, rows, len(rows))))[0]
        for rows in (np.arange(4), np.arange(4, 7))
    ]
    whole = _forward(learner, lambda x: x, _Batch(logits, hard, 0, 0, None))[0]
    assert float(sum(parts).detach()) == pytest.approx(float(whole.detach()))


def test_evaluation_is_the_mean_over_every_image_without_dropout(data, monkeypatch):
    monkeypatch.setattr(ImageCache, "release", lambda self: None)
    model = build_model(DESCRIPTION).train()
    results = [
        evaluate(
            model,
            BatchLoader(data.val_cache, data.val_indices, batch_size, CPU),
            data.preprocessing,
            Compute(CPU, "fp32"),
        )
        for batch_size in (4, 15)
    ]
    assert torch.allclose(results[0].logits, results[1].logits, atol=1e-5)
    expected = nn.functional.cross_entropy(results[0].logits, torch.from_numpy(data.val_cache.labels[45:60]))
    assert math.isclose(results[0].loss, float(expected), rel_tol=1e-5)
    assert results[0].accuracy == pytest.approx(
        float((results[0].logits.argmax(1).numpy() == data.val_cache.labels[45:60]).mean())
    )


def test_the_average_of_constant_weights_is_those_weights_and_lags_behind_changes():
    model = nn.BatchNorm1d(2)
    average = WeightAverage(model, decay=0.5)
    for _ in range(3):
        average.update(model)
    assert torch.equal(average.model.weight, model.weight)
    with torch.no_grad():
        model.weight.add_(1.0)
    average.update(model)
    # At the fourth update the decay is min(0.5, 4/13).
    torch.testing.assert_close(average.model.weight, torch.full((2,), 1 + 9 / 13))


def test_running_statistics_are_averaged_as_the_weights_that_they_belong_to_and_counters_are_not():
    model = nn.BatchNorm1d(2)
    average = WeightAverage(model, decay=0.5)
    model(torch.randn(8, 2) + 5)
    average.update(model)  # at the first update the decay is 1/10
    torch.testing.assert_close(average.model.running_mean, 0.9 * model.running_mean)
    torch.testing.assert_close(average.model.running_var, 0.1 + 0.9 * model.running_var)
    assert average.model.num_batches_tracked == 1


def test_with_an_average_it_is_the_average_that_is_kept(run, tmp_path):
    run(ema_decay=0.9, epochs=2)
    content = load_checkpoint(tmp_path / "run", LAST)
    assert not torch.equal(content["state_dict"]["output.weight"], content["training"]["weights"]["output.weight"])
    restore_model(content)


@pytest.mark.parametrize("wanted", [True, False])
def test_augmentation_reaches_every_training_image_and_never_a_validation_image(run, monkeypatch, wanted):
    augmented = []

    class Recorded(Augmentation):
        def __call__(self, images, labels, epoch, step):
            augmented.append(len(images))
            return super().__call__(images, labels, epoch, step)

    monkeypatch.setattr("naturalist.data.dataset.Augmentation", Recorded)
    run(epochs=2, data_augmentation=wanted)
    assert sum(augmented) == (2 * 45 if wanted else 0)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_trains_and_keeps_full_precision_weights(run, tmp_path, precision):
    summary, _ = run(precision=precision, epochs=2)
    assert summary["precision"] == precision
    assert weights(tmp_path / "run")["output.weight"].dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_fit_on_the_gpu_learns_whether_images_are_resident_or_streamed(data, tmp_path, monkeypatch):
    monkeypatch.setattr(ImageCache, "release", lambda self: None)
    for share in (0.0, 0.5):
        monkeypatch.setattr("naturalist.data.placing.RESIDENT_SHARE", share)
        folder = tmp_path / str(share)
        folder.mkdir()
        tracker = Tracker(folder, {}, "disabled", project="p", name="gpu", job_type="test")
        settings = settings_for(epochs=16)  # in bf16
        summary = fit(
            build_model(DESCRIPTION),
            data,
            settings.training,
            settings.augmentation,
            Compute(torch.device("cuda")),
            tracker,
            settings.origin(DESCRIPTION),
        )
        assert summary["best_val_accuracy"] > 0.9


def test_a_compiled_training_is_the_plain_one_to_rounding(run, tmp_path, monkeypatch):
    run("plain")
    passes = []

    def trace(graph, inputs):  # makes no kernels, which takes a compiler and long
        return lambda *values: passes.append(0) or graph(*values)

    monkeypatch.setattr(epoch_module, "Compiled", partial(Compiled, compiler=trace))
    run("compiled", compile=True)
    assert len(passes) == 3 * (45 // 8)  # epochs and whole batches
    plain = weights(tmp_path / "plain")
    for name, values in weights(tmp_path / "compiled").items():
        torch.testing.assert_close(values, plain[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("place", ["device", "file"])
@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_no_step_waits_for_the_gpu(data, monkeypatch, place, cuda_graphs):
    monkeypatch.setattr(ImageCache, "release", lambda self: None)
    device = torch.device("cuda")
    settings = settings_for(mixup=0.2, cutmix=1.0, random_erasing=0.5, gradient_clip=1.0)
    compute = Compute(device, cuda_graphs=cuda_graphs)
    model = compute.place(build_model(DESCRIPTION))
    optimizer = make_optimizer(parameter_groups(model, 0.0), settings.training, device)
    augment = Augmentation(settings.augmentation, settings.training.seed, data.preprocessing, 3)
    loader = BatchLoader(data.train_cache, data.train_indices, 8, device, shuffle_seed=0, place=place)
    original = loader.epoch

    def watched(*place):
        for step, batch in enumerate(original(*place)):
            if step == 1:  # the first step may set things up
                torch.cuda.set_sync_debug_mode("error")
            yield batch
        torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(loader, "epoch", watched)
    try:
        schedule = Schedule(optimizer, settings.training, len(loader), 1)
        learner = Learner(model, optimizer, schedule, settings.training, compute)
        captured = learner.captured_step()
        train_one_epoch(learner, loader, augment, epoch=0, captured=captured)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (captured is not None) is cuda_graphs
