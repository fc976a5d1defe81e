"""Optimisers, what decays, and the course of the learning rate."""

import pytest
import torch
from torch import nn

from naturalist.errors import UserError
from naturalist.models.parameter_groups import LATER, parameter_groups
from naturalist.settings.groups import TrainingSettings
from naturalist.training.optim import Schedule, make_optimizer

CPU = torch.device("cpu")


def schedule_for(epochs: int = 4, steps: int = 10, **changes) -> Schedule:
    settings = TrainingSettings(**{"learning_rate": 1.0, "optimizer": "SGD", **changes})
    optimizer = make_optimizer([{"params": [nn.Parameter(torch.zeros(1))]}], settings, CPU)
    return Schedule(optimizer, settings, steps, epochs)


def rates(schedule: Schedule) -> list[float]:
    return [schedule.set_learning_rate(step) for step in range(schedule.total_steps)]


def test_norms_and_biases_do_not_decay():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    decaying, exempt = parameter_groups(model, 0.1)
    assert {id(p) for p in decaying["params"]} == {id(model[0].weight), id(model[3].weight)}
    assert decaying["weight_decay"] == 0.1
    assert exempt["weight_decay"] == 0
    assert len(exempt["params"]) == 4


def test_frozen_parameters_are_not_in_the_optimizer():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    listed = [id(p) for group in parameter_groups(model, 0.1) for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in model[1].parameters())


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD", "NAdam"])
def test_every_optimizer_takes_a_step(name):
    parameter = nn.Parameter(torch.ones(3))
    optimizer = make_optimizer([{"params": [parameter]}], TrainingSettings(optimizer=name, learning_rate=0.1), CPU)
    assert type(optimizer).__name__ == name
    parameter.sum().backward()
    optimizer.step()
    assert (parameter < 1).all()


def test_warmup_rises_in_equal_steps_to_the_peak():
    course = rates(schedule_for(schedule="none", warmup_epochs=0.5))
    assert course[:6] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1.0])
    assert set(course[6:]) == {1.0}


def test_cosine_falls_from_the_peak_to_nearly_nothing():
    course = rates(schedule_for(schedule="cosine", warmup_epochs=1))
    assert max(course) == course[10] == 1.0
    assert course[10:] == sorted(course[10:], reverse=True)
    assert course[-1] == pytest.approx(1e-3)
    # Half-way the cosine is half-way.
    assert course[10 + 14] == pytest.approx(0.53, abs=0.03)


def test_one_cycle_rises_for_30_percent_of_the_steps_and_falls_for_the_rest():
    course = rates(schedule_for(schedule="one-cycle", warmup_epochs=0))
    assert course[0] == pytest.approx(1 / 25)
    assert course.index(max(course)) == 12
    assert course[-1] == pytest.approx(1e-3)


@pytest.mark.parametrize("kind", ["cosine", "one-cycle", "none", "plateau"])
def test_a_second_course_begins_anew_with_its_own_peaks(kind):
    settings = TrainingSettings(learning_rate=1.0, optimizer="SGD", schedule=kind, warmup_epochs=1)
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": 1.0, LATER: 0.1}]
    schedule = Schedule(make_optimizer(groups, settings, CPU), settings, 10, 7, first_epochs=3)
    schedule.plateau_share = 0.5 if kind == "plateau" else 1.0
    course = rates(schedule)
    whole = [rates(schedule_for(epochs, schedule=kind, warmup_epochs=1)) for epochs in (3, 4)]
    if kind == "plateau":
        course[10:30] = [2 * rate for rate in course[10:30]]
    assert course == pytest.approx([*whole[0], *(0.1 * rate for rate in whole[1])])


def test_plateau_divides_by_ten_after_patience_epochs_without_gain():
    schedule = schedule_for(schedule="plateau", warmup_epochs=0, plateau_patience=1)
    seen = []
    for epoch, loss in enumerate([1.0, 0.9, 0.9, 0.9, 0.8, 0.8, 0.8, 0.8]):
        seen.append(schedule.set_learning_rate(epoch))
        schedule.end_epoch(loss)
    assert seen == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01])


@pytest.mark.parametrize("kind", ["none", "cosine", "one-cycle", "plateau"])
def test_every_schedule_serves_a_run_of_a_single_step(kind):
    assert 0 < rates(schedule_for(epochs=1, steps=1, schedule=kind, warmup_epochs=5))[0] <= 1


@pytest.mark.parametrize(("optimizer", "decay"), [("AdamW", 0.05), ("SGD", 5e-4), ("Adam", 0.0), ("NAdam", 0.0)])
def test_no_optimiser_inherits_the_decay_of_another(optimizer, decay):
    assert TrainingSettings(optimizer=optimizer).decay == decay
    assert TrainingSettings(optimizer=optimizer, weight_decay=0.3).decay == 0.3
    assert TrainingSettings(optimizer=optimizer, weight_decay=0.0).decay == 0
    with pytest.raises(UserError, match="weight_decay must not be negative"):
        TrainingSettings(optimizer=optimizer, weight_decay=-0.1).validate()
