"""Optimisers, what decays, and the course of the learning rate."""

import pytest
import torch
from torch import nn

from naturalist.errors import UserError
from naturalist.models.parameter_groups import LATER, parameter_groups
from naturalist.settings.groups import TrainingSettings
from naturalist.training.optim import Schedule, make_optimizer, restore_optimizer

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


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD", "NAdam", "Muon"])
def test_every_optimizer_takes_a_step(name):
    parameter = nn.Parameter(torch.ones(3))
    optimizer = make_optimizer([{"params": [parameter]}], TrainingSettings(optimizer=name, learning_rate=0.1), CPU)
    assert type(optimizer).__name__ == name
    parameter.sum().backward()
    optimizer.step()
    assert (parameter < 1).all()


@pytest.mark.parametrize("shape", [(6, 3, 3, 3), (40, 2, 3, 3), (5, 5, 1, 1)], ids=str)
def test_filters_take_the_steps_that_torchs_muon_takes_with_matrices(shape):
    torch.manual_seed(0)
    ours = nn.Parameter(torch.randn(shape).contiguous(memory_format=torch.channels_last))
    theirs = nn.Parameter(ours.detach().flatten(1).clone())
    settings = TrainingSettings(optimizer="Muon", learning_rate=0.02, momentum=0.8)
    muon = make_optimizer([{"params": [ours], "weight_decay": 0.3}], settings, CPU)
    other = torch.optim.Muon([theirs], 0.02, 0.3, momentum=0.8, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        gradient = torch.randn(shape)
        ours.grad, theirs.grad = gradient.clone(), gradient.flatten(1)
        muon.step()
        other.step()
    torch.testing.assert_close(ours.flatten(1), theirs, atol=2e-3, rtol=0)  # torch's computes in bf16 everywhere


def test_muon_leaves_all_but_filters_to_adamw():
    models = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    for model, name in zip(models, ("Muon", "AdamW"), strict=True):
        optimizer = make_optimizer(parameter_groups(model, 0.1), TrainingSettings(optimizer=name), CPU)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    for (name, ours), theirs in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        if name == "0.weight":
            assert not torch.allclose(ours, theirs)
        else:
            torch.testing.assert_close(ours, theirs)


def test_a_state_of_another_optimiser_is_refused():
    def taught(name: str) -> torch.optim.Optimizer:
        weight = nn.Parameter(torch.ones(2, 2, 3, 3))
        optimizer = make_optimizer([{"params": [weight]}], TrainingSettings(optimizer=name), CPU)
        weight.sum().backward()
        optimizer.step()
        return optimizer

    restore_optimizer(taught("Muon"), taught("Muon").state_dict())
    for one, other in (("Muon", "AdamW"), ("AdamW", "Muon"), ("NAdam", "AdamW")):
        with pytest.raises(ValueError, match="its optimiser keeps"):
            restore_optimizer(taught(one), taught(other).state_dict())


def test_biases_of_batch_normalisation_have_a_rate_of_their_own():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    decaying, exempt, biases = parameter_groups(model, 0.1, 0.5)
    assert biases == {"params": [model[1].bias], "weight_decay": 0.0, "lr": 0.5}
    assert len(decaying["params"]) == 2 and len(exempt["params"]) == 3
    settings = TrainingSettings(learning_rate=0.01, schedule="none", warmup_epochs=0)
    optimizer = make_optimizer([decaying, exempt, biases], settings, CPU)
    assert Schedule(optimizer, settings, 10, 1).set_learning_rate(3) == 0.01
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.01, 0.5]


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


@pytest.mark.parametrize(
    ("optimizer", "decay"), [("AdamW", 0.05), ("Muon", 0.05), ("SGD", 5e-4), ("Adam", 0.0), ("NAdam", 0.0)]
)
def test_no_optimiser_inherits_the_decay_of_another(optimizer, decay):
    assert TrainingSettings(optimizer=optimizer).decay == decay
    assert TrainingSettings(optimizer=optimizer, weight_decay=0.3).decay == 0.3
    assert TrainingSettings(optimizer=optimizer, weight_decay=0.0).decay == 0
    with pytest.raises(UserError, match="weight_decay must not be negative"):
        TrainingSettings(optimizer=optimizer, weight_decay=-0.1).validate()
