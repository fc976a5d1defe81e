"""What a training says of itself while it goes."""

from types import SimpleNamespace

import pytest
import torch

from naturalist.device import Compute
from naturalist.training import telling
from naturalist.training.state import EpochSoFar, Progress
from naturalist.training.telling import Telling, epoch_line

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes when it is told to."""
    clock = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(telling, "time", SimpleNamespace(perf_counter=lambda: clock.seconds))
    return clock


def tells(tmp_path, epochs: int) -> Telling:
    """Of 100 images to train on, and 30 to validate on, each a third of one in cost."""
    return Telling(tmp_path, epochs, SimpleNamespace(num_images=100), SimpleNamespace(num_images=30))


def so_far(images: int) -> EpochSoFar:
    state = EpochSoFar(CPU)
    state.images = images
    return state


def after(progress: Progress, *, loss: float = 1.5, accuracy: float = 0.5, seconds: float = 20.0) -> Progress:
    measured = {"train_loss": loss, "train_accuracy": accuracy, "val_loss": loss, "val_accuracy": accuracy}
    measured["val_balanced_accuracy"] = accuracy / 2
    return progress.after({**measured, "learning_rate": 0.1, "images_per_second": 5.0, "epoch_seconds": seconds})


@pytest.mark.parametrize("loss", [0.000123456, 98.7654321, 123.456, 12345.678, float("nan")])
@pytest.mark.parametrize(("accuracy", "seconds"), [(0.0, 0.04), (1.0, 99.96), (0.999, 12345.6)])
def test_the_line_of_an_epoch_fits_80_columns_whatever_is_in_it(loss, accuracy, seconds, tmp_path, capsys):
    progress = after(Progress(epoch=98), loss=loss, accuracy=accuracy, seconds=seconds)
    tells(tmp_path, 1000).epoch("epoch 99/1000", progress)
    (line,) = capsys.readouterr().out.splitlines()
    assert len(line) <= 80 and line.endswith(" left") and f"{100 * accuracy:.1f} %" in line


def test_the_last_epoch_has_nothing_left_and_the_best_has_a_star(tmp_path, capsys):
    first = after(Progress())
    second = after(first, accuracy=0.4)
    assert " 50.0 % *  20.0 s" in epoch_line("epoch 1/2", first) and "*" not in epoch_line("epoch 2/2", second)
    assert " val 1.500 balanced 25.0 % *  20.0 s" in epoch_line("epoch 1/2", first, "val_balanced_accuracy")
    tells(tmp_path, 2).epoch("epoch 2/2", second)
    assert "left" not in capsys.readouterr().out


def test_after_some_seconds_of_steps_epoch_and_run_are_estimated_once(tmp_path, capsys, clock):
    tell = tells(tmp_path, 10)
    tell.begin(Compute(CPU, "fp32"), 10, 0)
    (how, _) = capsys.readouterr().out.splitlines()
    assert how.startswith("Training on cpu, ") and how.endswith(", fp32: 10 epochs of 100 images in 10 steps")
    clock.seconds += 60  # the first step sets up, and counts for nothing
    tell.after_step(so_far(10))
    assert tell.left() == "" and capsys.readouterr().out == ""
    for images in (20, 30, 40, 50):  # 0.2 s an image
        clock.seconds += 2
        tell.after_step(so_far(images))
    # 100 images and 30 at a third of the cost are 22 s; of ten epochs half a one is done.
    said = "At this pace an epoch takes about 22 s, the rest of the run about 4 min.\n"
    assert capsys.readouterr().out == said  # after six seconds, of which 212 s were left
    assert tell.left() == "run: 3 min left"


def test_what_the_first_step_sets_up_is_not_expected_of_later_epochs(tmp_path, capsys, clock):
    tell = tells(tmp_path, 10)
    for step_seconds, images in ((60, 10), (2, 50), (3, 100)):
        clock.seconds += step_seconds
        tell.after_step(so_far(images))
    clock.seconds += 1  # validation
    tell.epoch("epoch 1/10", after(Progress(), seconds=66.0))
    assert capsys.readouterr().out.endswith("  66.0 s, 54 s left\n")  # nine epochs of 6 s


def test_what_epochs_took_tells_what_is_left_until_more_of_the_network_learns(tmp_path, clock):
    tell, progress = tells(tmp_path, 10), Progress()
    for seconds in (100.0, 10.0, 12.0, 14.0):  # the first of them is forgotten
        progress = after(progress, seconds=seconds)
        tell.epoch("epoch", progress)
    assert tell.left() == "run: 72 s left"  # six epochs of 12 s
    tell.after_step(so_far(50))
    assert tell.left() == "run: 66 s left"
    tell.pace_changes()
    assert tell.left() == ""
