"""``--find_lr`` proposes a learning rate, draws why, and leaves no run."""

import runpy

import numpy as np
import pytest
from conftest import REPOSITORY
from matplotlib import image

from naturalist.data.phases import _PhasedLoader
from naturalist.errors import UserError
from naturalist.settings.command_line import parse_settings
from naturalist.settings.part_a import CnnSettings
from naturalist.settings.part_b import FinetuneSettings
from naturalist.training import find_rate
from naturalist.training.find_rate import rates, search_of
from naturalist.training.start import start_training

SMALL = {"image_size": 32, "batch_size": 8, "precision": "fp32", "device": "cpu", "warmup_epochs": 0.0, "find_lr": True}
CNN = {"num_filters": 4, "filter_organization": "same", "dense_units": 8}
BACKBONE = {"backbone": "squeezenet1_1", "weights": "none"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {**CNN, "optimizer": "SGD", "accumulate": 2, "schedule": "plateau", "mixup": 0.2, "class_weights": "sqrt"},
        {**CNN, "optimizer": "NAdam", "schedule": "one-cycle", "sampling": "balanced", "ema_decay": 0.9},
        {**CNN, "optimizer": "Muon", "initialization": "patches", "bias_lr_scale": 4.0},
        {**BACKBONE, "strategy": "head", "views": 2},
        {**BACKBONE, "strategy": "gradual", "backbone_lr_scale": 0.5},
        {**BACKBONE, "strategy": "probe-then-full", "views": 1, "epochs": 4},
    ],
    ids=["SGD", "NAdam", "Muon", "features", "gradual", "probe"],
)
def test_a_search_proposes_a_rate_and_leaves_a_picture_and_no_run(photographs, tmp_path, monkeypatch, capsys, changes):
    monkeypatch.setattr(find_rate, "STEPS", 20)
    kind = FinetuneSettings if "strategy" in changes else CnnSettings
    places = {"data": str(photographs), "runs_dir": str(tmp_path / "runs"), "cache_dir": str(tmp_path / "cache")}
    settings = kind.of(**{**SMALL, **places, **changes}, name="first try")
    train = runpy.run_path(str(REPOSITORY / settings.SCRIPT))["train"]
    picture = tmp_path / "runs" / "first-try-learning-rate.png"
    phases, epoch = [], _PhasedLoader.epoch
    monkeypatch.setattr(_PhasedLoader, "epoch", lambda self, *at: (epoch(self, *at), phases.append(self.phase))[0])
    try:
        found = train(settings)
    except UserError as error:  # a few steps of so few images may find nothing
        assert "the loss falls at no learning rate" in str(error)
    else:
        assert found["picture"] == str(picture) and found["learning_rate"] in [float(f"{x:.2g}") for x in rates()]
        assert f"Train with: --learning_rate {found['learning_rate']:g}" in capsys.readouterr().out
    assert list((tmp_path / "runs").iterdir()) == [picture]
    assert image.imread(picture).shape[1] > 500
    assert set(phases) <= {0} and bool(phases) == (
        changes.get("strategy") == "probe-then-full"
    )  # kept features all along


def test_the_rate_is_where_the_loss_falls_fastest_and_noise_does_not_move_it_far():
    steps, noise = np.arange(100), np.random.default_rng(0).normal(0, 0.05, 100)
    falls = 2.3 - 1.0 / (1 + np.exp(-(steps - 50) / 4))  # fastest at step 50
    losses = (falls + noise + np.maximum(0, steps - 80) * 0.1).tolist()
    search = search_of(losses[:95])
    assert abs(search.steepest - 50) <= 5 and 55 < search.lowest < 85 and search.diverged
    assert search.rate == float(f"{rates()[search.steepest]:.2g}")
    assert not search_of(falls.tolist()).diverged
    assert search_of([*losses[:85], float("nan")]).steepest == pytest.approx(search.steepest, abs=1)


def test_a_loss_that_only_rises_has_no_rate_and_one_that_is_none_says_so():
    assert search_of(np.linspace(2, 3, 100).tolist()).lowest == 0
    with pytest.raises(UserError, match="not finite before any training"):
        search_of([float("nan")])


def test_rates_rise_by_the_same_factor():
    assert rates()[[0, -1]] == pytest.approx([1e-6, 10])
    assert np.diff(np.log(rates())) == pytest.approx(np.log(1e7) / 99)


@pytest.mark.parametrize("other", ["resume", "dry_run"])
def test_it_goes_with_no_other_request(tmp_path, other):
    settings = CnnSettings.of(find_lr=True, **{other: str(tmp_path) if other == "resume" else True})
    with pytest.raises(UserError, match=f"find_lr tries.*{other} cannot be given with it"):
        settings.validate()


@pytest.mark.parametrize("flag", ["find_lr", "compile"])
def test_it_is_no_part_of_a_run_and_no_work_for_several_processes(monkeypatch, flag):
    settings = parse_settings(CnnSettings, "", [f"--{flag}"])
    assert (flag in settings.recorded()) is (flag != "find_lr")
    names = {"RANK": 1, "LOCAL_RANK": 1, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}
    for name, value in names.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(UserError, match=f"{flag} works in one process"):
        start_training(settings)
