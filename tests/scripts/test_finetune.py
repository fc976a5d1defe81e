"""``partB/finetune.py`` as its users run it: scripts, recipes, and the verbs that follow."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import run_python

from naturalist.data.sources.sample import make_sample
from naturalist.settings.command_line import parse_settings
from naturalist.settings.part_b import FinetuneSettings

ROOT = Path(__file__).parents[2]
TINY = [
    "--backbone",
    "squeezenet1_1",
    "--weights",
    "none",
    "--image_size",
    "32",
    "--batch_size",
    "16",
    "--epochs",
    "2",
    "--device",
    "cpu",
    "--wandb",
    "disabled",
    "--no_validation_pictures",
]
RECIPES = sorted((ROOT / "configs" / "partB").glob("*.yaml"))


def execute(folder: Path, *arguments: object) -> subprocess.CompletedProcess:
    script = ["-m", "naturalist"] if arguments[0] in ("evaluate", "compare") else [str(ROOT / "partB" / "finetune.py")]
    return run_python(*script, *arguments, cwd=folder)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """A small sample: 60 images to train on, 20 to test on."""
    return make_sample(tmp_path_factory.mktemp("data") / "pictures", train_images=60, test_images=20)


def test_a_run_can_be_trained_resumed_and_evaluated(pictures, tmp_path):
    first = execute(
        tmp_path,
        *TINY,
        "--data",
        pictures,
        "--strategy",
        "partial",
        "--freeze-stages=8",
        "--views=1",
        "--name",
        "first",
        "--epochs",
        "1",
    )
    assert first.returncode == 0, first.stderr
    assert "parameters learn" in first.stdout and "frozen" in first.stdout
    run = tmp_path / "runs" / "first"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["frozen_parameters"] > 0 and summary["peak_memory_mb"] > 0
    assert summary["trainable_parameters"] + summary["frozen_parameters"] == summary["parameters"]
    assert [stage["name"] for stage in summary["stages"]][-1] == "head"
    assert "features.12" in (run / "model.txt").read_text()
    assert yaml.safe_load((run / "config.yaml").read_text())["cache_size"] == 37  # 256 / 224 of 32
    resumed = execute(tmp_path, "--resume", "runs/first", "--epochs", "2")
    assert resumed.returncode == 0, resumed.stderr
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    evaluated = execute(tmp_path, "evaluate", "runs/first", "--device", "cpu")
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads((run / "evaluation" / "test" / "metrics.json").read_text())["n"] == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--strategy", "partial", "--unfreeze_from", "layer9"],
            "has no stage 'layer9' to unfreeze from; its stages are ",
        ),
        (
            ["--weights", "DEFALT"],
            "squeezenet1_1 has no weights 'DEFALT', and there is no such file; did you mean DEFAULT",
        ),
        (["--backbone", "mobilenetv2"], "there is no backbone 'mobilenetv2'; did you mean mobilenet_v2?"),
        (["--strategy", "parital"], "strategy cannot be 'parital'; did you mean partial?"),
        (
            ["--train_image_size", "33"],
            "train_image_size must be at most image_size (32), but it is 33",
        ),
        (
            ["--backbone", "vit_b_32", "--train_image_size", "31"],
            "vit_b_32 for images of 32 px cannot take training images of 31 px; give another train_image_size, or none",
        ),
        (["--unfrese_from", "layer3"], "there is no setting --unfrese_from; did you mean unfreeze_from?"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(arguments, message, pictures, tmp_path):
    done = execute(tmp_path, *TINY, "--data", pictures, *arguments)
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_stages_are_listed_from_the_image_to_the_head(tmp_path):
    done = execute(tmp_path, "--help_stages", "resnet50")
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "conv1",
        "layer1",
        "layer2",
        "layer3",
        "layer4",
        "head",
    ]
    assert execute(tmp_path, "--help-stages=nonet").returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_trains(recipe, pictures, tmp_path):
    """With a small backbone of random weights, small images and two epochs."""
    weights = [] if recipe.stem == "smoke" else TINY
    parse_settings(FinetuneSettings, "", ["--config", str(recipe)])  # as it is, too
    settings = parse_settings(
        FinetuneSettings,
        "",
        [
            *[*weights, "--config", str(recipe), "--data", str(pictures), *TINY],
            *["--train_image_size", "24", "--val_fraction", "0.2", "--runs_dir", str(tmp_path / "runs")],
        ],
    )
    sys.path.insert(0, str(ROOT / "partB"))
    try:
        from finetune import train
    finally:
        sys.path.remove(str(ROOT / "partB"))
    result = train(settings)
    assert result["status"] == "finished" and result["epochs"] == 2


def test_the_sweep_searches_settings_that_there_are():
    sweep = yaml.safe_load((ROOT / "partB" / "sweep.yaml").read_text())
    assert (ROOT / sweep["program"]).is_file()
    for name, choice in sweep["parameters"].items():
        for value in choice.get("values", [choice.get("value")]):
            parse_settings(FinetuneSettings, "", [f"--{name}={value}"])
    assert sweep["metric"] == {"name": "val_accuracy", "goal": "maximize"}
