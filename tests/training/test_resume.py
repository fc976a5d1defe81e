"""A training that is killed, stopped or fails while it saves goes on to the same bits, and claims only what is kept."""

import itertools
import json
import math
import random
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import start_python

from benchmarks.mutations import mutate_checkpoint
from naturalist.data import loader, placing
from naturalist.data.dataset import TrainingData
from naturalist.data.images import ImageCache
from naturalist.data.preprocessing import Preprocessing
from naturalist.data.sources.sample import make_sample
from naturalist.data.stream import RowFile
from naturalist.device import Compute
from naturalist.errors import UserError
from naturalist.models import build_model
from naturalist.models.strategies import Strategy
from naturalist.runs.checkpoint import BEST, LAST, load_checkpoint, load_for_resume, save_checkpoint
from naturalist.runs.folder import read_metrics
from naturalist.runs.tracking import Tracker
from naturalist.settings.part_a import CnnSettings
from naturalist.settings.part_b import FinetuneSettings
from naturalist.training import epoch as epoch_module
from naturalist.training import fit as fit_module
from naturalist.training import keeping, telling
from naturalist.training.fit import fit

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("blank_pictures")]

ROOT = Path(__file__).parents[2]
TIMES = ("images_per_second", "epoch_seconds")
CNN = {
    "kind": "five_block_cnn",
    "num_classes": 3,
    "image_size": 32,
    "num_filters": 4,
    "filter_organization": "same",
    "dense_units": 8,
    "dropout": 0.2,
}
BACKBONE = {"kind": "torchvision", "backbone": "shufflenet_v2_x0_5", "num_classes": 3, "image_size": 32, "dropout": 0.2}
GRADUAL = {"strategy": "gradual", "gradual_share": 0.75, "backbone": BACKBONE["backbone"]}
SMALL = {
    "image_size": 32,
    "batch_size": 6,
    "epochs": 3,
    "learning_rate": 3e-3,
    "warmup_epochs": 0.5,
    "precision": "fp32",
    "checkpoint_seconds": 1e-9,  # after every step
}


class Killed(BaseException):
    """Ends a training as SIGKILL would: nothing handles it."""


@pytest.fixture(autouse=True)
def every_epoch_is_saved(monkeypatch):
    """However long it takes: these trainings are shorter than their saves."""
    monkeypatch.setattr(keeping, "SAVING_SHARE", math.inf)


@pytest.fixture
def data(monkeypatch, tmp_path) -> TrainingData:
    """Three classes of 32×32 noise, told apart by their colour: 45 images to train on, in 8 batches."""
    monkeypatch.setattr(ImageCache, "release", lambda self: None)  # these pixels are no memory map
    monkeypatch.setattr(telling, "plot_curves", lambda *arguments: None)  # takes longer than these trainings
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    pixels = rng.integers(0, 120, (60, 32, 32, 3), dtype=np.uint8)
    pixels[np.arange(60), :, :, labels] += 100
    (tmp_path / "pixels.bin").write_bytes(pixels.tobytes())
    with (tmp_path / "pixels.bin").open("rb") as file:
        rows = RowFile(pixels.reshape(60, -1), file)
    names = tuple(f"{i}.jpg" for i in range(60))
    cache = ImageCache(pixels, np.arange(60), labels, names, ("a", "b", "c"), (), file=rows)
    preprocessing = Preprocessing(32, 32, "squash", (0.4,) * 3, (0.3,) * 3)
    return TrainingData(cache, np.arange(45), cache, np.arange(45, 60), ("a", "b", "c"), preprocessing, "noise")


@pytest.fixture
def train(tmp_path, data):
    """Fit a small network in the folder of that name, going on where it has been begun; returns summary and folder."""

    def train(name: str, **changes) -> tuple[dict, Path]:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        resume = (folder / LAST).exists()
        content = load_for_resume(folder) if resume else {"training": {"progress": {"history": None}}}
        settings = (FinetuneSettings if "strategy" in changes else CnnSettings).of(**SMALL | changes)
        description = BACKBONE if "strategy" in changes else CNN
        torch.manual_seed(0)
        model, release = build_model(description), None
        if "strategy" in changes:
            planned = content["training"].get("planned_epochs")
            release = Strategy(model, settings.strategy, settings.training, planned).course
        history = content["training"]["progress"]["history"]
        summary = fit(
            model,
            data,
            settings.training,
            settings.augmentation,
            Compute(torch.device("cpu"), settings.machine.precision, device_memory=settings.machine.device_memory),
            Tracker(folder, {}, "disabled", project="p", name=name, job_type="test", history=history),
            settings.origin(description),
            resume=resume,
            checkpoint_seconds=settings.record.checkpoint_seconds,
            release=release,
        )
        return summary, folder

    return train


def metrics_of(folder: Path) -> list[dict]:
    return [{name: value for name, value in row.items() if name not in TIMES} for row in read_metrics(folder)]


def plain(value):
    """A checkpoint's content with tensors as bytes, and without times."""
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), value.contiguous().numpy().tobytes()
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items() if name not in (*TIMES, "seconds")}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def assert_same_run(first: Path, second: Path) -> None:
    """The same bits in both checkpoints (weights, optimiser, progress), and the same metrics."""
    for which in (BEST, LAST):
        assert plain(load_checkpoint(first, which)) == plain(load_checkpoint(second, which)), which
    assert metrics_of(first) == metrics_of(second)


# ---- killed


@pytest.mark.parametrize(
    "changes",
    [
        {"mixup": 0.2, "cutmix": 1.0, "random_erasing": 0.5, "optimizer": "Muon", "alternating_flip": True},
        {"ema_decay": 0.9, "optimizer": "SGD", "schedule": "plateau", "plateau_patience": 0, "precision": "fp16"},
        {"accumulate": 3, "schedule": "one-cycle", "optimizer": "NAdam", "gradient_clip": 1.0},
        {**GRADUAL, "accumulate": 3, "epochs": 4, "ema_decay": 0.5, "class_weights": "sqrt"},
        {"sampling": "balanced", "select_by": "val_balanced_accuracy"},
    ],
    ids=["mixes, Muon", "average, plateau, fp16", "accumulation", "gradual release, weights", "balanced"],
)
def test_a_training_killed_at_random_steps_ends_with_the_same_bits(train, monkeypatch, changes):
    _, whole = train("whole", **changes)
    chance = random.Random(0)
    steps_left = [0]
    forward, evaluate = epoch_module._forward, fit_module.evaluate

    def count_down() -> None:
        steps_left[0] -= 1
        if steps_left[0] < 0:
            raise Killed

    monkeypatch.setattr(epoch_module, "_forward", lambda *arguments: count_down() or forward(*arguments))
    monkeypatch.setattr(fit_module, "evaluate", lambda *args, **options: count_down() or evaluate(*args, **options))
    kills = 0
    while True:
        steps_left[0] = chance.randint(1, 9)
        try:
            train("parts", **changes, checkpoint_seconds=chance.choice([1e-9, 1e-9, 0.02]))
            break
        except Killed:
            kills += 1
    assert kills >= 4
    assert_same_run(whole, train("parts", **changes)[1])


@pytest.mark.slow
def test_a_run_killed_at_twenty_random_moments_ends_with_the_same_bits(tmp_path):
    pictures = make_sample(tmp_path / "pictures", train_images=200, test_images=10)

    def start(*arguments: str) -> subprocess.Popen:
        return start_python(ROOT / "partA" / "train.py", *arguments, cwd=tmp_path, stdout=subprocess.DEVNULL)

    tiny = "--image_size 32 --num_filters 4 --filter_organization same --dense_units 8 --batch_size 4 --device cpu "
    tiny += "--wandb disabled --no_validation_pictures --epochs 15 --ema_decay 0.9 --mixup 0.2 --checkpoint_seconds "
    process = start("--data", str(pictures), "--name", "whole", *tiny.split(), "60")
    assert process.wait() == 0
    whole, parts = tmp_path / "runs" / "whole", tmp_path / "runs" / "parts"
    seconds = sum(row["epoch_seconds"] for row in read_metrics(whole))

    chance, places = random.Random(0), set()
    arguments = ("--data", str(pictures), "--name", "parts", *tiny.split(), "0.05")
    for _ in range(20):
        last = parts / LAST
        before = last.stat().st_mtime_ns if last.exists() else 0
        process = start(*arguments)
        while process.poll() is None and (last.stat().st_mtime_ns if last.exists() else 0) == before:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.05 * seconds))
        process.kill()
        assert process.wait() == -signal.SIGKILL, "it has come to its end before it was killed 20 times"
        so_far = load_for_resume(parts)["training"]["so_far"]
        places.add(so_far and so_far["batches"])
        arguments = ("--resume", "runs/parts")
    assert len(places) > 5  # in mid-epoch, not only at the ends
    process = start(*arguments)
    assert process.wait() == 0
    assert_same_run(whole, parts)
    assert json.loads((parts / "summary.json").read_text())["status"] == "finished"


# ---- stopped


def request_stop_after(monkeypatch, calls: int) -> None:
    """Have the fit find a request to stop when it asks for the ``calls``-th time."""
    asked = iter(range(1, 1000))
    monkeypatch.setattr(fit_module, "stop_requested", lambda: next(asked) >= calls)


@pytest.mark.parametrize(("batches", "memory"), [(1, "auto"), (5, "stream"), (8, "small")])
def test_a_requested_stop_saves_in_mid_epoch_and_resuming_goes_on_from_there(
    train, monkeypatch, capsys, batches, memory
):
    changes = {"checkpoint_seconds": 0.0}
    _, whole = train("whole", **changes, device_memory="resident")
    streams, streamed = [], loader.streamed
    monkeypatch.setattr(loader, "streamed", lambda *rest: streams.append(rest) or streamed(*rest))
    if memory == "small":
        monkeypatch.setattr(placing, "machine_memory", lambda: 60 * 32 * 32 * 3)
    changes["device_memory"] = "stream" if memory == "stream" else "auto"
    # Asked before each epoch and after each of its 8 batches and 3 of validation: here in the second epoch.
    request_stop_after(monkeypatch, 12 + 1 + batches)
    summary, parts = train("parts", **changes)
    assert (summary["status"], summary["epochs"]) == ("stopped", 1)
    assert load_for_resume(parts)["training"]["so_far"]["batches"] == batches
    assert len(read_metrics(parts)) == 1
    monkeypatch.setattr(fit_module, "stop_requested", lambda: False)
    capsys.readouterr()
    train("parts", **changes)
    place = "the validation" if batches == 8 else f"batch {batches + 1} of 8"
    assert f"Going on with {place} of epoch 2/3." in capsys.readouterr().out
    assert bool(streams) == (memory != "auto")
    assert_same_run(whole, parts)


def test_a_stop_in_the_first_epoch_is_resumed_too(train, monkeypatch):
    _, whole = train("whole")
    request_stop_after(monkeypatch, 4)
    summary, parts = train("parts")
    assert (summary["status"], summary["epochs"], summary["best_val_accuracy"]) == ("stopped", 0, None)
    assert not (parts / BEST).exists() and metrics_of(parts) == []
    monkeypatch.setattr(fit_module, "stop_requested", lambda: False)
    assert_same_run(whole, train("parts")[1])


def test_a_stop_within_a_group_of_accumulated_batches_waits_for_its_step(train, monkeypatch):
    request_stop_after(monkeypatch, 2)
    _, folder = train("run", accumulate=3)
    assert load_for_resume(folder)["training"]["so_far"]["batches"] == 3


def test_a_stop_while_validating_keeps_the_training_of_the_epoch(train, monkeypatch):
    _, whole = train("whole")
    request_stop_after(monkeypatch, 1 + 8 + 2)
    _, parts = train("parts")
    assert load_for_resume(parts)["training"]["so_far"]["batches"] == 8
    monkeypatch.setattr(fit_module, "stop_requested", lambda: False)
    assert_same_run(whole, train("parts")[1])


def test_time_spent_before_a_kill_counts(train, monkeypatch):
    request_stop_after(monkeypatch, 4)
    _, folder = train("run")
    content = load_for_resume(folder)
    content["training"]["so_far"]["seconds"] += 1000
    content["training"]["seconds"] += 1000
    torch.save(content, folder / LAST)
    monkeypatch.setattr(fit_module, "stop_requested", lambda: False)
    summary, _ = train("run")
    first = read_metrics(folder)[0]
    assert first["epoch_seconds"] > 1000 and first["images_per_second"] < 45 / 1000
    assert summary["seconds"] > 1000


# ---- what is written when


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 3600.0])
def test_within_an_epoch_it_is_saved_as_often_as_asked(train, monkeypatch, seconds):
    saved = []
    monkeypatch.setattr(
        keeping,
        "save_checkpoint",
        lambda path, **content: saved.append(path.name) or save_checkpoint(path, **content),
    )
    train("run", epochs=2, checkpoint_seconds=seconds)
    assert saved.count(LAST) == 2 * (1 if seconds != 1e-9 else 1 + 8 + 3)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, OSError(28, "No space left on device")], ids=["stop", "full disk"]
)
@pytest.mark.parametrize("write", range(1, 7))
def test_a_fit_claims_only_what_a_checkpoint_holds_whichever_write_fails(train, monkeypatch, write, error):
    changes = {"checkpoint_seconds": 0.0}  # so two or one write an epoch
    _, whole = train("whole", **changes)
    writes, torch_save = iter(range(1, 1000)), torch.save

    def save(content, path):
        if next(writes) == write:
            path.write(b"half")
            raise error
        torch_save(content, path)

    folder = whole.with_name("parts")
    monkeypatch.setattr(torch, "save", save)
    try:
        summary, _ = train("parts", **changes)
        epochs, best = summary["epochs"], summary["best_epoch"]
        assert len(read_metrics(folder)) == epochs
        if (folder / LAST).exists():
            assert load_checkpoint(folder, LAST)["epoch"] == epochs and load_checkpoint(folder, BEST)["epoch"] == best
        else:
            assert (epochs, best) == (0, 0)
    except UserError as problem:
        assert "is the disk full?" in str(problem)
    assert not list(folder.glob("*.unfinished"))
    monkeypatch.setattr(torch, "save", torch_save)
    train("parts", **changes)
    assert_same_run(whole, folder)


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"half"), None])
def test_a_best_checkpoint_that_a_kill_prevented_is_written_on_resume(train, monkeypatch, damage):
    _, whole = train("whole")

    def kill_before_best(path, **content):
        if path.name == BEST and content["epoch"] > 1:
            raise Killed
        save_checkpoint(path, **content)

    monkeypatch.setattr(keeping, "save_checkpoint", kill_before_best)
    with pytest.raises(Killed):
        train("parts")
    monkeypatch.setattr(keeping, "save_checkpoint", save_checkpoint)
    parts = whole.with_name("parts")
    if damage:
        damage(parts / BEST)
    last = load_for_resume(parts)
    assert last["training"]["progress"]["best_epoch"] == last["epoch"] > 1 == len(read_metrics(parts))
    train("parts")
    assert_same_run(whole, parts)


def test_short_epochs_wait_for_one_that_may_be_saved_and_lose_nothing_in_the_end(train, monkeypatch):
    _, whole = train("whole", epochs=8, checkpoint_seconds=0.0)
    saved = []

    def save_slowly(path, **content):
        saved.append(path.name)
        time.sleep(0.3)
        save_checkpoint(path, **content)

    monkeypatch.setattr(keeping, "save_checkpoint", save_slowly)
    monkeypatch.setattr(keeping, "SAVING_SHARE", 0.5)
    summary, parts = train("parts", epochs=8, checkpoint_seconds=0.0)
    assert saved.count(LAST) < 5
    assert summary["saving_seconds"] > 0.3 * len(saved)
    assert_same_run(whole, parts)


@pytest.mark.parametrize("changes", [{}, {**GRADUAL, "ema_decay": 0.5}], ids=["all learns", "gradual release"])
def test_a_training_killed_between_saves_goes_on_from_the_one_before_to_the_same_bits(train, monkeypatch, changes):
    changes = {"epochs": 6, "checkpoint_seconds": 0.0, **changes}
    _, whole = train("whole", **changes)
    turns = itertools.count()
    monkeypatch.setattr(keeping.Keeper, "may_save", lambda self: next(turns) % 4 == 3)
    update = epoch_module._update
    for steps in (13, 29, 30, 1000):
        done = itertools.count()

        def update_or_die(learner, done=done, steps=steps):
            if next(done) == steps:
                raise Killed
            update(learner)

        monkeypatch.setattr(epoch_module, "_update", update_or_die)
        try:
            _, parts = train("parts", **changes)
        except Killed:
            parts = whole.with_name("parts")
            if (parts / LAST).exists():
                last = load_for_resume(parts)
                assert len(read_metrics(parts)) == last["epoch"]
    assert_same_run(whole, parts)


def test_an_error_between_saves_costs_neither_the_best_weights_nor_what_was_measured(train, monkeypatch):
    _, whole = train("whole", epochs=2, checkpoint_seconds=0.0, schedule="none")
    monkeypatch.setattr(keeping.Keeper, "may_save", lambda self: False)

    def fail(label, progress, select_by):
        if progress.epoch == 2:
            raise RuntimeError("of some kind")
        return ""

    monkeypatch.setattr(telling, "epoch_line", fail)
    with pytest.raises(RuntimeError):
        train("parts", epochs=3, checkpoint_seconds=0.0, schedule="none")
    parts = whole.with_name("parts")
    assert metrics_of(parts) == metrics_of(whole)
    assert plain(load_checkpoint(parts, BEST)) == plain(load_checkpoint(whole, BEST))
    assert not (parts / LAST).exists()


def test_the_best_checkpoint_has_no_training_state(train):
    assert "training" not in load_checkpoint(train("run")[1])


# ---- what resuming says


def test_resuming_a_finished_run_says_so_and_changes_no_checkpoint(train, capsys):
    _, folder = train("run")
    before = [(folder / which).read_bytes() for which in (BEST, LAST)]
    capsys.readouterr()
    summary, _ = train("run")
    assert "Nothing is left to train after 3 epochs" in capsys.readouterr().out
    assert (summary["status"], summary["epochs"]) == ("finished", 3)
    assert [(folder / which).read_bytes() for which in (BEST, LAST)] == before


def test_a_run_that_stopped_early_says_so_and_goes_on_with_more_patience(train, monkeypatch, capsys):
    def evaluate(*arguments, **options):
        result = epoch_module.evaluate(*arguments, **options)
        return epoch_module.Evaluation(1.0, 0.5, result.logits, result.labels)

    monkeypatch.setattr(fit_module, "evaluate", evaluate)
    assert train("run", patience=1)[0]["status"] == "stopped early"
    assert train("run", patience=1)[0]["status"] == "stopped early"
    assert "nothing better (--patience)" in capsys.readouterr().out
    assert train("run", patience=0)[0]["status"] == "finished"


@pytest.mark.parametrize("changes", [{}, GRADUAL], ids=["cnn", "gradual"])
def test_a_finished_run_goes_on_when_it_gets_more_epochs(train, changes):
    train("run", **changes)
    summary, folder = train("run", **changes, epochs=6)
    assert (summary["status"], summary["epochs"]) == ("finished", 6)
    assert [row["epoch"] for row in read_metrics(folder)] == [1, 2, 3, 4, 5, 6]


def test_a_checkpoint_without_training_state_is_refused_in_one_sentence(train):
    _, folder = train("run")
    (folder / LAST).write_bytes((folder / BEST).read_bytes())
    with pytest.raises(UserError, match=r"last\.pt' cannot be resumed: it holds no training state"):
        load_for_resume(folder)


def test_a_state_that_does_not_fit_is_refused_in_one_sentence(train):
    _, folder = train("run")
    with pytest.raises(UserError, match="with another ema_decay"):
        train("run", ema_decay=0.5)
    content = load_for_resume(folder)
    del content["training"]["optimizer"]["param_groups"][0]
    torch.save(content, folder / LAST)
    with pytest.raises(UserError, match=r"does not fit the run's settings \(.*parameter groups"):
        train("run")


@pytest.mark.parametrize("changes", [{}, {"optimizer": "SGD", "ema_decay": 0.9}], ids=["AdamW", "SGD, average"])
def test_a_training_state_that_was_mutated_is_gone_on_with_or_refused_in_one_sentence(
    train, tmp_path, monkeypatch, changes
):
    save = keeping.save_checkpoint

    def save_once(path: Path, **content: object) -> None:
        save(path, **content)
        if content["training"]["so_far"] is not None and content["training"]["so_far"]["batches"] == 5:
            raise Killed

    monkeypatch.setattr(keeping, "save_checkpoint", save_once)
    with pytest.raises(Killed):
        train("run", epochs=1, **changes)
    monkeypatch.setattr(keeping, "save_checkpoint", save)
    folder = tmp_path / "run"
    content = torch.load(folder / LAST, weights_only=True)
    for seed in range(10):
        mutated = mutate_checkpoint({"training": content["training"]}, random.Random(seed))
        torch.save({**content, **mutated}, folder / LAST)
        try:
            train("run", epochs=1, checkpoint_seconds=0, **changes)
        except UserError as error:
            assert len(str(error).splitlines()) == 1
