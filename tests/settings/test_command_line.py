"""Settings: defaults < --config < command line, every spelling, and mistakes told in one sentence."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from naturalist.entry import show_tracebacks, shows_tracebacks
from naturalist.errors import UserError
from naturalist.settings.command_line import parse_options, parse_settings
from naturalist.settings.part_a import CnnSettings
from naturalist.settings.verbs import SweepOptions

ROOT = Path(__file__).parents[2]
TRAIN = ROOT / "partA" / "train.py"


BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
"""Nine lines that stand for 400 million values."""


def parse(*argv: str) -> SimpleNamespace:
    """Every setting by its flat name, as users know it."""
    return SimpleNamespace(**parse_settings(CnnSettings, "", argv).flat())


@pytest.fixture
def config_file(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_flags_override_the_config_file_wherever_they_stand(config_file):
    path = config_file("num_filters: 16\ndropout: 0.1\n")
    for argv in ([f"--config={path}", "--dropout", "0.5"], ["--dropout", "0.5", "--config", path]):
        settings = parse(*argv)
        assert (settings.num_filters, settings.dropout) == (16, 0.5)
        assert settings.epochs == CnnSettings().training.epochs


def test_a_later_config_file_overrides_an_earlier_one(tmp_path):
    for name, filters in (("a.yaml", 8), ("b.yaml", 24)):
        (tmp_path / name).write_text(f"num_filters: {filters}\n")
    assert parse("--config", str(tmp_path / "a.yaml"), "--config", str(tmp_path / "b.yaml")).num_filters == 24


@pytest.mark.parametrize(
    ("spelling", "value"),
    [
        (["--batch_norm"], True),
        (["--no_batch_norm"], False),
        (["--batch_norm=True"], True),
        (["--batch_norm=False"], False),
        (["--batch-norm"], True),
        (["--no-batch-norm"], False),
        (["--batch_norm", "false"], False),
        (["--batch_norm", "True"], True),
        (["--batch-norm=false"], False),
    ],
)
def test_every_spelling_of_a_boolean_is_understood(spelling, value):
    assert parse(*spelling).batch_norm is value
    assert parse(*spelling, "--epochs", "3").epochs == 3


def test_a_command_line_is_read_as_if_none_had_been_read_before():
    def filters(*argv: str) -> object:
        return parse_settings(CnnSettings, "", argv).model.num_filters

    assert filters("--num_filters", "[4, 5, 6, 7, 8]") == [4, 5, 6, 7, 8]
    with pytest.raises(UserError):
        filters("--num_filters", "many", "--epochs", "3")
    assert filters() == CnnSettings().model.num_filters
    first, second = (parse_options(SweepOptions, "sweep", ["sweep.yaml", "--set", "epochs=1"]) for _ in range(2))
    first.fixed.append("seed=1")
    assert (
        second.fixed == parse_options(SweepOptions, "sweep", ["sweep.yaml", "--set", "epochs=1"]).fixed == ["epochs=1"]
    )
    assert parse_options(SweepOptions, "sweep", ["sweep.yaml"]).fixed == []


def test_filters_and_kernels_may_be_lists_of_five():
    settings = parse("--num_filters=[8,16,32,64,64]", "--kernel_size=[7,5,3,3,3]")
    assert settings.num_filters == [8, 16, 32, 64, 64]
    assert settings.kernel_size == [7, 5, 3, 3, 3]


@pytest.mark.parametrize("number", ["1e-5", "1.0e-5", "0.00001"])
def test_scientific_notation_is_a_number_in_flags_and_in_yaml(config_file, number):
    assert parse("--learning_rate", number).learning_rate == 1e-5
    assert parse("--config", config_file(f"learning_rate: {number}\n")).learning_rate == 1e-5


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--num_filter", "3"], ["--num_filter", "num_filters"]),
        (["--activation", "Gelu"], ["activation", "'Gelu'", "GELU"]),
        (["--activation", "quux"], ["activation", "'quux'", "ReLU, GELU, SiLU, Mish"]),
        (["--learning_rate", "fast"], ["learning_rate", "a number", "'fast'"]),
        (["--learning_rate", "nan"], ["learning_rate"]),
        (["--checkpoint_seconds", "-1"], ["checkpoint_seconds", "must not be negative"]),
        (["--learning_rate", "-1"], ["learning_rate", "greater than 0"]),
        (["--epochs", "2.5"], ["epochs", "whole number"]),
        (["--epochs", "0"], ["epochs", "greater than 0"]),
        (["--dropout", "1.0"], ["dropout", "less than 1"]),
        (["--val_fraction", "1"], ["val_fraction"]),
        (["--num_filters", "many"], ["num_filters", "list of five"]),
        (["--num_filters=[8,16]"], ["num_filters", "list of five"]),
        (["--cache_size", "64"], ["cache_size", "image_size"]),
        (["--device", "tpu"], ["device", "cuda"]),
        (["--epochs"], ["--epochs"]),
        (["--config"], ["--config"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml"]),
        (["--resume", "nowhere"], ["nowhere", "no run folder"]),
        (["stray"], ["stray"]),
        (["--epochs", ""], ["--epochs is empty"]),
        (["--optimizer="], ["--optimizer is empty"]),
        ([""], ["is empty"]),
        (["--config", ""], ["--config is empty"]),
        (["--seed", str(2**32)], ["seed", "between 0 and 4,294,967,295"]),
        (["--split_seed", "-1"], ["split_seed", "between 0 and 4,294,967,295"]),
        (["--device", "cuda:x"], ["device", "cuda:N", "'cuda:x'"]),
        (["--data", "~nouser"], ["data", "'nouser'"]),
        (["--runs_dir", "~nouser/runs"], ["runs_dir", "'nouser'"]),
        (["--wandb_project", "a/b"], ["wandb_project", "'a/b'"]),
        (["--name", "a\x1b[31m"], ["name", "control characters"]),
        (["--name", "a\nb"], ["name", "control characters"]),
        (["--data", "\udcff"], ["data", "UTF-8"]),
        (["--kernel_size", "999"], ["kernel_size", "96 px"]),
        (["--batch_norm_momentum", "0"], ["batch_norm_momentum", "greater than 0"]),
        (["--no_batch_norm", "--bias_lr_scale", "2"], ["bias_lr_scale", "batch_norm"]),
        (["--first_image_size", "64"], ["first_image_size needs pooling=average"]),
        (["--train_image_size", "64"], ["train_image_size needs pooling=average"]),
        (["--train_image_size", "192"], ["train_image_size", "at most image_size (96)"]),
        (
            ["--pooling", "average", "--train_image_size", "64", "--first_image_size", "96"],
            ["first_image_size must be at most train_image_size (64)"],
        ),
        (["--learning_rate", "1e999"], ["learning_rate", "inf"]),
        (["--class_weights", "sqrt", "--sampling", "balanced"], ["sampling", "class_weights sqrt", "one of the two"]),
        (["--num_filters", "[" * 3000 + "]" * 3000], ["RecursionError"]),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_setting_and_the_way_out(argv, words):
    with pytest.raises(UserError) as error:
        parse(*argv)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("num_filter: 3\n", ["config.yaml", "'num_filter'", "num_filters"]),
        ("activation: gelu\n", ["activation", "GELU"]),
        ("- 1\n- 2\n", ["config.yaml", "setting: value"]),
        ("epochs: [1\n", ["config.yaml", "YAML"]),
        ("seed:\n", ["config.yaml", "seed is empty"]),
        ("epochs: 3\noptimizer:\n", ["config.yaml", "optimizer is empty"]),
        ("epochs: ''\n", ["epochs must be a whole number"]),
        ("data: ''\n", ["data must not be empty"]),
        ('name: "a\\0b"\n', ["name", "control characters"]),
        ('name: "a\\u2028b"\n', ["name", "control characters"]),
        ("seed: 4294967296\n", ["seed", "between 0 and 4,294,967,295"]),
        ("seed: 2001-99-99\n", ["seed must be a whole number", "'2001-99-99'"]),
        (f"epochs: {'[' * 3000}{']' * 3000}\n", ["config.yaml", "deeply nested"]),
        ("epochs: &a [*a]\n", ["config.yaml", "deeply nested"]),
        (BOMB, ["config.yaml", "holds more"]),
    ],
)
def test_a_mistake_in_a_config_file_is_one_sentence(config_file, text, words):
    with pytest.raises(UserError) as error:
        parse("--config", config_file(text))
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "partA").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_accepted(path):
    parse("--config", str(path))


def test_the_default_recipe_spells_out_the_defaults():
    recipe = yaml.safe_load((ROOT / "configs" / "partA" / "default.yaml").read_text())
    defaults = CnnSettings().flat()
    assert {name: defaults[name] for name in recipe} == recipe
    assert recipe.keys() >= {"num_filters", "activation", "learning_rate", "epochs", "batch_size", "dropout"}


def test_the_original_recipe_is_the_original_to_the_letter():
    settings = parse("--config", str(ROOT / "configs" / "partA" / "original.yaml"))
    expected = {
        "num_filters": 64,
        "filter_organization": "doubling",
        "activation": "SiLU",
        "batch_norm": True,
        "dropout": 0.3,
        "optimizer": "Adam",
        "learning_rate": 1e-4,
        "batch_size": 64,
        "epochs": 5,
        "image_size": 224,
        "resize_mode": "squash",
        "padding": "valid",
        "kernel_size": 3,
        "dense_units": 128,
        "data_augmentation": False,
        "weight_decay": 0,
        "label_smoothing": 0,
        "schedule": "none",
        "ema_decay": 0,
    }
    assert {name: getattr(settings, name) for name in expected} == expected


def test_help_explains_every_flag_without_importing_torch():
    done = subprocess.run([sys.executable, "-X", "importtime", TRAIN, "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    for name in CnnSettings().flat():
        assert f"--{name} " in done.stdout or f"--{name}, --no_{name}" in done.stdout
    # Each flag's own words stand beside it, with types, choices and defaults in words.
    flags = re.split(r"\n  --", done.stdout.replace("-h, --help", "--help"))[1:]
    assert len(flags) == len(CnnSettings().flat()) + len(["config", "print_config", "debug", "help"])
    assert not [flag for flag in flags if len(flag.split()) < 5]
    assert not re.search(r"Literal|str \||\btype:|null|\+", done.stdout)
    assert "One of ReLU, GELU," in done.stdout and "(default: SiLU)" in " ".join(done.stdout.split())
    for group in CnnSettings.groups().values():
        assert f"\n{group.TITLE}:\n" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "torchvision", "wandb", "sklearn", "matplotlib"}


def test_print_config_gives_a_file_that_config_takes_back(config_file):
    done = subprocess.run(
        [sys.executable, TRAIN, "--num_filters", "16", "--print_config"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert parse("--config", config_file(done.stdout)).num_filters == 16


def test_a_mistake_on_the_command_line_exits_with_code_2_and_one_line():
    done = subprocess.run([sys.executable, TRAIN, "--num_filter", "3"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_a_config_file_that_is_empty_or_leaves_open_what_may_be_open_changes_nothing(config_file):
    for text in ("", "# nothing yet\n", "cache_dir:\nname:\n"):
        assert parse("--config", config_file(text)) == parse()


def test_debug_is_known_everywhere_and_no_setting():
    try:
        assert "debug" not in vars(parse("--debug"))
        assert shows_tracebacks()
        parse("--debug=false")
        assert not shows_tracebacks()
    finally:
        show_tracebacks(False)
