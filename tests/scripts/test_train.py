"""``partA/train.py`` and ``python -m naturalist evaluate`` as their users run them."""

import csv
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import TIMEOUT, run_python, start_python
from PIL import Image
from sklearn.metrics import precision_recall_fscore_support

from naturalist.data.sources.sample import CLASSES, make_sample
from naturalist.errors import UserError
from naturalist.evaluation.evaluate import evaluate_run
from naturalist.runs.checkpoint import load_checkpoint
from naturalist.settings.command_line import parse_settings
from naturalist.settings.part_a import CnnSettings
from naturalist.wording import duration

ROOT = Path(__file__).parents[2]
TINY = [
    "--image_size",
    "32",
    "--num_filters",
    "4",
    "--filter_organization",
    "same",
    "--dense_units",
    "8",
    "--batch_size",
    "16",
    "--device",
    "cpu",
    "--wandb",
    "disabled",
    "--no_validation_pictures",
]
RUN_FILES = {
    "config.yaml",
    "identity.json",
    "split.csv",
    "environment.json",
    "metrics.jsonl",
    "best.pt",
    "last.pt",
    "summary.json",
    "curves.png",
    "model.txt",
    "evaluation",
}


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "partA" / "train.py"), *TINY, *map(str, arguments)]


def execute(arguments: list[str], folder: Path) -> subprocess.CompletedProcess:
    return run_python(*arguments[1:], cwd=folder)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """A small sample: 100 images to train on, 30 to test on."""
    return make_sample(tmp_path_factory.mktemp("data") / "pictures", train_images=100, test_images=30)


@pytest.fixture(scope="session")
def workplace(tmp_path_factory, pictures) -> tuple[Path, subprocess.CompletedProcess]:
    """A folder with the finished run ``runs/first``, and what its training printed."""
    folder = tmp_path_factory.mktemp("workplace")
    done = execute(command("--data", pictures, "--epochs", 2, "--name", "first", "--validation_pictures"), folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def state(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run, "last.pt")["state_dict"]


def assert_same_weights(first: Path, second: Path) -> None:
    assert all(torch.equal(tensor, state(second)[name]) for name, tensor in state(first).items())


def test_a_run_folder_describes_itself(workplace):
    run = workplace[0] / "runs" / "first"
    assert {path.name for path in run.iterdir()} == RUN_FILES
    assert yaml.safe_load((run / "config.yaml").read_text())["num_filters"] == 4
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["best_val_accuracy"] == max(row["val_accuracy"] for row in rows)
    assert summary["parameters"] > 0
    assert Image.open(run / "curves.png").size[0] > 500


def test_without_a_terminal_there_is_one_plain_line_per_epoch_and_the_next_command(workplace):
    lines = workplace[1].stdout.splitlines()
    assert len([line for line in lines if line.startswith("epoch ")]) == 2
    assert "\x1b" not in workplace[1].stdout and "\r" not in workplace[1].stdout
    assert lines[-1] == "Test it once with: python -m naturalist evaluate runs/first"
    seconds = json.loads((workplace[0] / "runs" / "first" / "summary.json").read_text())["seconds"]
    took = re.search(r"Finished after 2 epochs and .+? s, (.+) of them for training; best", workplace[1].stdout)
    assert took[1] == duration(seconds)


def test_on_a_terminal_there_is_a_live_bar(pictures, tmp_path):
    leader, follower = pty.openpty()
    process = start_python(
        *command("--data", pictures, "--epochs", 1)[1:],
        cwd=tmp_path,
        stdout=follower,
        stderr=follower,
        stdin=follower,
        env={"TERM": "xterm", "COLUMNS": "120"},
        fresh=True,  # looks at its terminal when it is imported
    )
    os.close(follower)
    output = b""
    while True:
        try:
            chunk = os.read(leader, 65536)
        except OSError:  # the other side is closed
            break
        if not chunk:
            break
        output += chunk
    assert process.wait(TIMEOUT) == 0
    text = output.decode(errors="replace")
    assert "━" in text and "images/s" in text and "epoch 1/1" in text


def test_training_needs_no_test_folder_and_the_same_seed_gives_the_same_weights(workplace, pictures, tmp_path):
    shutil.copytree(pictures / "train", tmp_path / "elsewhere" / "train")
    done = execute(command("--data", "elsewhere", "--epochs", 2, "--name", "again"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert_same_weights(workplace[0] / "runs" / "first", tmp_path / "runs" / "again")


def test_a_terminated_run_exits_0_and_resumes_to_the_same_weights(workplace, pictures, tmp_path):
    arguments = command("--data", pictures, "--epochs", 20, "--name", "stopped")
    process = start_python(*arguments[1:], cwd=tmp_path)
    for line in process.stdout:
        if line.startswith("epoch 2/"):
            break
    process.send_signal(signal.SIGTERM)
    output = process.stdout.read()
    assert process.wait(TIMEOUT) == 0
    assert "Go on with:        python partA/train.py --resume runs/stopped" in output
    assert json.loads((tmp_path / "runs" / "stopped" / "summary.json").read_text())["status"] == "stopped"

    # Resumed for fewer epochs than planned the learning rates would differ, so both go to the same end.
    assert execute([sys.executable, ROOT / "partA" / "train.py", "--resume", "runs/stopped"], tmp_path).returncode == 0
    assert execute(command("--data", pictures, "--epochs", 20, "--name", "whole"), tmp_path).returncode == 0
    assert_same_weights(tmp_path / "runs" / "stopped", tmp_path / "runs" / "whole")
    lines = (tmp_path / "runs" / "stopped" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, 21))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "nowhere"], ["nowhere", "--data"]),
        (["--image_size", "16"], ["block 5", "pixels"]),
        (["--device", "cuda:99"], ["cuda:99"]),
        (["--wandb", "online"], ["logged in", "wandb login"]),
    ],
)
def test_a_mistake_is_one_line_exit_code_2_and_leaves_no_run(pictures, tmp_path, arguments, words):
    env = {"HOME": str(tmp_path), "NETRC": str(tmp_path / "none")}
    done = run_python(*command("--data", pictures, *arguments)[1:], cwd=tmp_path, env=env)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr
    assert not list(tmp_path.glob("runs/*"))


def test_a_diverging_run_records_why_it_failed_and_exits_2(pictures, tmp_path):
    done = execute(
        command(
            "--data",
            pictures,
            "--optimizer",
            "SGD",
            "--learning_rate",
            "1e20",
            "--no_batch_norm",
            "--schedule",
            "none",
            "--warmup_epochs",
            0,
            "--name",
            "diverged",
        ),
        tmp_path,
    )
    assert done.returncode == 2
    assert "learning rate" in done.stderr and done.stderr.count("\n") == 1
    summary = json.loads((tmp_path / "runs" / "diverged" / "summary.json").read_text())
    assert summary["status"] == "failed" and "learning rate" in summary["reason"]


def test_evaluate_measures_every_test_image_and_draws_the_pictures(workplace):
    folder = workplace[0]
    done = execute([sys.executable, "-m", "naturalist", "evaluate", "runs/first"], folder)
    assert done.returncode == 0, done.stderr
    output = folder / "runs" / "first" / "evaluation" / "test"
    assert {path.name for path in output.iterdir()} == {
        "metrics.json",
        "predictions.csv",
        "confusion_matrix.csv",
        "confusion_matrix.png",
        "coverage.csv",
        "coverage.png",
        "predictions.png",
        "reliability.png",
        "mistakes.png",
        "uncertain.png",
    }
    metrics = json.loads((output / "metrics.json").read_text())
    with (output / "confusion_matrix.csv").open() as file:
        matrix = np.array([row[1:] for row in list(csv.reader(file))[1:]], int)
    truth, predicted = (np.repeat(index.ravel(), matrix.ravel()) for index in np.indices(matrix.shape))
    assert metrics["n"] == matrix.sum() == 30
    assert metrics["accuracy"] == pytest.approx((truth == predicted).mean())
    low, high = metrics["accuracy_95_interval"]
    assert low < metrics["accuracy"] < high
    for row, scores in zip(
        np.transpose(precision_recall_fscore_support(truth, predicted, zero_division=0)),
        metrics["per_class"].values(),
        strict=True,
    ):
        assert [scores["precision"], scores["recall"], scores["f1"], scores["support"]] == pytest.approx(row)
    for name in CLASSES:
        assert name in done.stdout
    assert "95 % interval" in done.stdout and "top-3" in done.stdout
    width, height = Image.open(output / "predictions.png").size
    assert width > 1000 and height > width


def test_evaluate_on_validation_agrees_with_what_training_measured(workplace):
    run = workplace[0] / "runs" / "first"
    before = Path.cwd()
    os.chdir(workplace[0])
    try:
        metrics = evaluate_run(run, "val", device="cpu", quiet=True)
    finally:
        os.chdir(before)
    assert metrics["n"] == 20
    # Training may have measured in bf16, which can turn a close decision.
    assert metrics["accuracy"] == pytest.approx(load_checkpoint(run)["metrics"]["val_accuracy"], abs=0.05 + 1e-9)


def test_evaluate_without_a_test_folder_says_what_to_do(workplace, pictures, tmp_path):
    shutil.copytree(pictures / "train", tmp_path / "photos")
    done = execute(
        [
            sys.executable,
            "-m",
            "naturalist",
            "evaluate",
            workplace[0] / "runs" / "first",
            "--data",
            "photos",
            "--cache_dir",
            "cache",
        ],
        tmp_path,
    )
    assert done.returncode == 2
    assert "--split val" in done.stderr and done.stderr.count("\n") == 1


def test_evaluate_measures_the_classes_that_a_test_set_has(workplace, pictures, tmp_path):
    for split in ("train", "test"):
        for name in CLASSES[:3]:
            shutil.copytree(pictures / split / name, tmp_path / "three" / split / name)
    done = execute(
        [sys.executable, "-m", "naturalist", "evaluate", workplace[0] / "runs" / "first", "--data", "three"], tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert f"three/test has no images of {', '.join(CLASSES[3:])}: the numbers are of the 3 classes" in done.stdout


def test_unreadable_photographs_are_named_and_left_out_or_fatal(pictures, tmp_path):
    shutil.copytree(pictures / "train", tmp_path / "photos" / "train")
    victim = sorted((tmp_path / "photos" / "train" / "Aves").glob("*.jpg"))[0]
    victim.write_bytes(victim.read_bytes()[:300])
    (tmp_path / "photos" / "train" / "Fungi" / "notes.txt").write_text("found near the oak")
    done = execute(command("--data", "photos", "--epochs", 1), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 of 101 files in train/ cannot be read and are left out" in done.stdout
    assert victim.name in done.stdout and "notes.txt: no image" in done.stdout
    done = execute(command("--data", "photos", "--epochs", 1, "--on_corrupt", "error"), tmp_path)
    assert done.returncode == 2
    assert victim.name in done.stderr


def test_the_smoke_recipe_runs_in_seconds(tmp_path, pictures):
    start = time.monotonic()
    done = execute(
        [
            sys.executable,
            ROOT / "partA" / "train.py",
            "--config",
            ROOT / "configs" / "partA" / "smoke.yaml",
            "--data",
            pictures,
            "--wandb",
            "disabled",
        ],
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start < 60
    assert (tmp_path / "runs" / "ep-2_nf-8_fo-same_ac-SiLU_da-1_bn-1_do-0_bs-64_lr-0.006").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", sorted((ROOT / "configs" / "partA").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_trains(recipe, pictures, tmp_path, monkeypatch):
    """With few filters, small images and one epoch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "partA")
    from train import train

    settings = parse_settings(
        CnnSettings,
        "",
        [
            "--config",
            str(recipe),
            "--data",
            str(pictures),
            *TINY[4:],
            "--image_size",
            "96",
            "--train_image_size",
            "96",
            "--num_filters",
            "4",
            "--epochs",
            "1",
        ],
    )
    assert train(settings)["status"] == "finished"


@pytest.mark.slow
def test_all_ingredients_together_train_and_go_on_to_the_same_weights(pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "partA")
    from train import train

    flags = "--image_size 48 --pooling average --first_image_size 32 --initialization patches --bias_lr_scale 4"
    flags += " --batch_norm_momentum 0.3 --optimizer Muon --alternating_flip --ema_decay 0.9 --epochs 3"
    whole, parts = (
        parse_settings(CnnSettings, "", [*TINY, *flags.split(), "--data", str(pictures), "--name", name])
        for name in ("whole", "parts")
    )
    train(whole)
    assert "Training images: 32 px, growing to 48 px within 1.8 epochs" in capsys.readouterr().out
    assert train(parts, should_stop=lambda metrics: True)["epochs"] == 1
    train(parse_settings(CnnSettings, "", ["--resume", "runs/parts"]))
    assert_same_weights(tmp_path / "runs" / "whole", tmp_path / "runs" / "parts")


@pytest.mark.parametrize("name", ["first_image_size", "train_image_size"])
def test_sides_that_leave_a_block_nothing_are_refused_before_there_is_a_run(pictures, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "partA")
    from train import train

    settings = parse_settings(
        CnnSettings, "", [*TINY, "--pooling", "average", "--data", str(pictures), f"--{name}", "31"]
    )
    with pytest.raises(UserError, match=f"{name} is too small: block 5.*; raise {name}\\.$"):
        train(settings)
    assert not (tmp_path / "runs").exists()


def test_a_run_that_is_stopped_before_training_is_no_failure_to_an_agent(tmp_path):
    code = (
        "from naturalist.settings.part_a import CnnSettings; from naturalist.entry import entry_point\n"
        "from naturalist.runs.recording import record_run\n"
        "with entry_point(), record_run(CnnSettings.of(wandb='disabled', name='early'), 'partA'):\n"
        "    raise KeyboardInterrupt\n"
    )
    for agent, exit_code in (({}, 130), ({"WANDB_SWEEP_ID": "abc123"}, 0)):
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        done = run_python("-c", code, cwd=tmp_path, env=agent)
        assert (done.returncode, done.stderr) == (exit_code, "Interrupted.\n")
        summary = json.loads((tmp_path / "runs" / "early" / "summary.json").read_text())
        assert (summary["status"], summary["exit_code"]) == ("stopped", 0)
