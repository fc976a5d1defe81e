"""Several processes train as one would, and end together."""

import itertools
import json
import math
import os
import pickle
import runpy
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, TIMEOUT, start_python
from quick_runs import make_run
from torch.distributed import TCPStore
from warm import write_stand_in

from naturalist.cli import VERBS, main
from naturalist.data import images
from naturalist.device import choose_device
from naturalist.entry import entry_point
from naturalist.errors import UserError
from naturalist.evaluation.evaluate import evaluate_run
from naturalist.ranks import Rank, this_rank
from naturalist.runs.checkpoint import LAST, load_checkpoint
from naturalist.runs.folder import read_metrics
from naturalist.settings.part_a import CnnSettings
from naturalist.settings.part_b import FinetuneSettings
from naturalist.settings.run_settings import RunSettings
from naturalist.training import fit as fit_module
from naturalist.training import keeping, telling
from naturalist.training.start import start_training

SMALL = {
    "image_size": 32,
    "batch_size": 12,  # of 38 images: two in the last batch, fewer than four ranks
    "epochs": 2,
    "optimizer": "SGD",  # Adam makes much of the rounding of a small gradient
    "learning_rate": 0.05,
    "precision": "fp32",
    "device": "cpu",
    "wandb": "disabled",
    "validation_pictures": False,
    "checkpoint_seconds": 0,
}
CNN = {"num_filters": 4, "filter_organization": "same", "dense_units": 8, "dropout": 0.3, "batch_norm": False}
MIXED = {**CNN, "mixup": 0.2, "cutmix": 1.0, "random_erasing": 0.5, "class_weights": "sqrt"}
GRADUAL = {
    "backbone": "squeezenet1_1",  # has no batch normalisation
    "weights": "none",
    "strategy": "gradual",
    "dropout": 0.3,
    "accumulate": 2,
    "gradient_clip": 1.0,
    "ema_decay": 0.5,
    "sampling": "balanced",
}


def train_with(settings: RunSettings) -> None:
    runpy.run_path(str(REPOSITORY / settings.SCRIPT))["train"](settings)


BE_RANK = "import pickle, sys; sys.path[:] = {!r}; pickle.loads({!r})()"


def be_rank(rank: Rank, port: int, folder: Path, work: Callable[[], None], happens: dict) -> None:
    """Be one of several ranks, in a process of its own.

    Args:
        rank: which.
        port: where they meet.
        folder: takes what it prints, and the names of the files that it decodes.
        work: what all ranks do.
        happens: ``rank`` → ``"stop"`` or ``"die"``, at its fifth step.
    """
    names = {"RANK": rank.number, "LOCAL_RANK": rank.local, "WORLD_SIZE": rank.count, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()}, MASTER_ADDR="127.0.0.1")
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    for descriptor, name in enumerate(("output", "errors"), start=1):
        os.dup2(os.open(folder / f"{name}-{rank.number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    keeping.SAVING_SHARE, telling.plot_curves = math.inf, lambda *arguments: None
    decode, steps = images.decode_file, itertools.count()

    def noted(path: Path, *arguments):
        with (folder / "decoded").open("a") as file:
            file.write(f"{path}\n")
        return decode(path, *arguments)

    def stop_requested() -> bool:
        at_the_fifth = next(steps) == 5
        if at_the_fifth and happens.get(rank.number) == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return at_the_fifth and happens.get(rank.number) == "stop"

    images.decode_file, fit_module.stop_requested = noted, stop_requested
    with entry_point(trains=True):
        work()


@pytest.fixture
def together(tmp_path):
    """Have so many ranks do some work; returns the exit code of each."""

    def together(count: int, work: Callable[[], None], happens: dict | None = None) -> list[int]:
        meeting = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # as torchrun has one
        ranks = [Rank(number, count, number) for number in range(count)]
        tasks = [partial(be_rank, rank, meeting.port, tmp_path, work, happens or {}) for rank in ranks]
        programs = [BE_RANK.format(sys.path, pickle.dumps(task)) for task in tasks]
        processes = [start_python("-c", program, cwd=tmp_path) for program in programs]
        return [process.wait(TIMEOUT) for process in processes]

    return together


@pytest.fixture
def train(photographs, tmp_path, together):
    """Train with so many ranks; a run that has been begun goes on."""

    def train(count: int, name: str, happens: dict | None = None, **changes) -> list[int]:
        kind = FinetuneSettings if "strategy" in changes else CnnSettings
        run = tmp_path / "runs" / name
        resume = str(run) if run.exists() else None
        places = {"data": str(photographs), "runs_dir": str(run.parent), "name": name, "resume": resume}
        return together(count, partial(train_with, kind.of(**{**SMALL, **places, **changes})), happens)

    return train


def assert_same_to_rounding(first: Path, second: Path) -> None:
    for one, other in zip(read_metrics(first), read_metrics(second), strict=True):
        for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
            assert one[name] == pytest.approx(other[name], rel=1e-5), name
    weights = load_checkpoint(second, LAST)["state_dict"]
    for name, value in load_checkpoint(first, LAST)["state_dict"].items():
        torch.testing.assert_close(value, weights[name], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "counts"), [(MIXED, (2, 4)), (GRADUAL, (3,))], ids=["mixes", "gradual release"])
def test_several_ranks_train_as_one_process_does_to_rounding(train, tmp_path, changes, counts):
    runs = tmp_path / "runs"
    assert train(1, "one", **changes) == [0]
    for count in counts:
        assert train(count, f"of-{count}", **changes) == [0] * count, (tmp_path / "errors-0").read_text()
        assert_same_to_rounding(runs / "one", runs / f"of-{count}")
        assert (tmp_path / "output-0").read_text().count("epoch 2/2") == 1
        assert (tmp_path / "output-1").read_text() == ""
        assert json.loads((runs / f"of-{count}" / "environment.json").read_text())["ranks"] == count


@pytest.mark.slow
def test_a_stop_of_any_rank_saves_and_any_number_of_ranks_goes_on(train, photographs, tmp_path):
    runs = tmp_path / "runs"
    streamed = {**MIXED, "device_memory": "stream"}
    assert train(3, "cut", {2: "stop"}, **streamed) == [0, 0, 0], (tmp_path / "errors-0").read_text()
    decoded = (tmp_path / "decoded").read_text().splitlines()
    assert sorted(decoded) == sorted(map(str, (photographs / "train").rglob("*.jpg")))  # each once
    assert json.loads((runs / "cut" / "summary.json").read_text())["status"] == "stopped"
    assert 0 < load_checkpoint(runs / "cut", LAST)["training"]["so_far"]["batches"] < 4  # within an epoch
    assert train(2, "cut", **MIXED) == [0, 0], (tmp_path / "errors-0").read_text()
    assert train(1, "whole", **MIXED) == [0]
    assert_same_to_rounding(runs / "whole", runs / "cut")


@pytest.mark.slow
@pytest.mark.parametrize("dead", [0, 1])
def test_a_rank_that_dies_ends_the_others_with_one_sentence(train, tmp_path, dead):
    codes = train(3, "run", {dead: "die"}, **MIXED)
    assert codes == [-signal.SIGKILL if number == dead else 2 for number in range(3)]
    words = "".join((tmp_path / f"errors-{number}").read_text() for number in range(3))
    assert words.count("error: another process of this training has ended") == 1
    assert "Traceback" not in words


@pytest.mark.slow
def test_under_torchrun_only_the_first_rank_speaks(photographs, tmp_path):
    settings = {**SMALL, **CNN, "num_filters": 2, "epochs": 1, "data": photographs, "runs_dir": "runs", "name": "run"}
    flags = [f"--{name}={value}" for name, value in settings.items()]
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    env = {"PYTHON_EXEC": str(write_stand_in(tmp_path / "bin"))}
    training = start_python(*torchrun, REPOSITORY / "partA" / "train.py", *flags, cwd=tmp_path, env=env)
    output = training.communicate(timeout=TIMEOUT)[0]
    assert training.returncode == 0, output
    for words in ("Run: runs/run", "epoch 1/1", "Finished after 1 epoch "):
        assert output.count(words) == 1, output


@pytest.mark.slow
def test_several_ranks_evaluate_as_one_process_does_and_the_first_writes(together, photographs, tmp_path):
    run = make_run(tmp_path / "runs" / "run", photographs)
    expected = evaluate_run(run, device="cpu", quiet=True)
    shutil.rmtree(run / "evaluation")
    work = partial(main, ["evaluate", str(run), "--device=cpu", "--batch_size=7", "--tta"])
    assert together(3, work) == [0, 0, 0], (tmp_path / "errors-0").read_text()
    metrics = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())
    assert metrics["per_class"] == expected["per_class"]
    assert metrics["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert [(tmp_path / f"output-{number}").read_text().count("Accuracy") for number in range(3)] == [1, 0, 0]


# ---- refused


@pytest.fixture
def second_of_two(monkeypatch) -> None:
    """This process is one that torchrun started."""
    environment = {"RANK": 1, "LOCAL_RANK": 1, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))


def test_a_rank_is_what_torchrun_says_and_alone_without_it(second_of_two, monkeypatch):
    assert this_rank() == Rank(1, 2, 1)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert this_rank() == Rank(0, 1, 0)
    monkeypatch.delenv("WORLD_SIZE")
    assert this_rank().is_alone


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"RANK": ""}, "RANK"), ({"RANK": "2"}, "RANK"), ({"WORLD_SIZE": "two"}, "two"), ({"MASTER_PORT": ""}, "_PORT")],
)
def test_half_of_torchruns_environment_is_refused(second_of_two, monkeypatch, changes, named):
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=rf"{named}.*torchrun"):
        this_rank()


@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"evaluate"}))
def test_verbs_that_one_process_does_are_refused(second_of_two, verb):
    with pytest.raises(UserError, match=f"naturalist {verb} works in one process"):
        main([verb])


@pytest.mark.parametrize(("device", "words"), [("mps", "device of its own"), ("cuda:0", "device of its own")])
def test_ranks_share_no_device(second_of_two, device, words):
    with pytest.raises(UserError, match=words):
        choose_device(device)


def test_there_is_a_gpu_for_every_rank(second_of_two, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="--nproc_per_node"):
        choose_device("cuda")
    assert choose_device("cpu") == torch.device("cpu")


def test_batch_normalisation_over_ranks_is_refused_on_a_cpu(photographs):
    settings = CnnSettings.of(data=str(photographs), device="cpu", sync_batch_norm=True)
    with pytest.raises(UserError, match="sync_batch_norm"):
        start_training(settings)
