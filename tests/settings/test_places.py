"""Paths: below the home folder wherever one is given, and nothing else filled in."""

import importlib.util
import re
import sys
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import pytest

from naturalist.cli import VERBS
from naturalist.errors import UserError
from naturalist.settings.arguments import Argument, arguments_of, parts_of
from naturalist.settings.command_line import Command, command_of, parse_settings
from naturalist.settings.part_a import CnnSettings
from naturalist.settings.part_b import FinetuneSettings
from naturalist.settings.places import from_home

ROOT = Path(__file__).parents[2]
NO_PATHS = ("storage", "name")
"""Arguments whose words speak of files or photographs, but which name none."""


def command_of_compare() -> Command:
    spec = importlib.util.spec_from_file_location("compare_script", ROOT / "partB" / "compare.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look it up there
    spec.loader.exec_module(module)
    return command_of(module.Options, "compare.py")


SETTINGS = {"partA/train.py": CnnSettings, "partB/finetune.py": FinetuneSettings}
COMMANDS = {name: command_of(verb.options, name) for name, verb in VERBS.items()} | {
    "partB/compare.py": command_of_compare()
}
ARGUMENTS: dict[str, list[Argument]] = {name: list(command.arguments) for name, command in COMMANDS.items()} | {
    name: [argument for group in settings.groups().values() for argument in arguments_of(group)]
    for name, settings in SETTINGS.items()
}
PATHS = [
    (command, argument.name)
    for command, arguments in ARGUMENTS.items()
    for argument in arguments
    if argument.is_path and argument.name != "resume"  # is looked for at once, see below
]


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.mark.parametrize("command", ARGUMENTS)
def test_whatever_sounds_like_a_path_is_one(command):
    for argument in ARGUMENTS[command]:
        speaks = re.search(r"\b(folders?|files?|path|photographs?)\b", argument.words, re.IGNORECASE)
        is_named = argument.metavar.split()[0].rstrip("S") in ("FOLDER", "FILE", "PATH", "RUN", "PHOTO")
        takes_text = {str, Path, list[str], list[Path]} & set(parts_of(argument.type))
        if takes_text and (speaks or is_named) and argument.name not in NO_PATHS:
            assert argument.is_path, f"{argument.name}: {argument.words}"


def value_of(command: str, name: str, value: str) -> Any:
    """What a command makes of one argument, paths as text."""
    argv = []
    for item in ARGUMENTS[command]:
        if item.is_positional:
            argv += [value] if item.name == name else ["other"] if item.default is MISSING else []
        elif item.name == name:
            argv.append(f"--{name}={value}")
    if command in SETTINGS:
        return parse_settings(SETTINGS[command], "", argv).flat()[name]
    found = COMMANDS[command].parse(argv)[name]
    return [str(item) for item in found] if isinstance(found, list) else str(found)


@pytest.mark.parametrize(("command", "name"), PATHS)
def test_a_tilde_is_the_home_folder_and_variables_are_not_filled_in(home, command, name):
    for value, meant in {"~/there": f"{home}/there", "~": str(home), "$HOME/there": "$HOME/there"}.items():
        assert value_of(command, name, value) in (meant, [meant])


@pytest.mark.parametrize(("command", "name"), [path for path in PATHS if path[0] in SETTINGS])
def test_a_tilde_is_the_home_folder_in_a_config_file_too(home, command, name):
    Path("config.yaml").write_text(f"{name}: ~/there\n")
    assert parse_settings(SETTINGS[command], "", ["--config=config.yaml"]).flat()[name] == f"{home}/there"


def test_runs_to_resume_and_config_files_are_looked_for_in_the_home_folder(home):
    home.mkdir()
    (home / "there.yaml").write_text("resume: ~/there\n")
    for argv in (["--resume", "~/there"], ["--config", "~/there.yaml"]):
        with pytest.raises(UserError, match=f"'{home}/there' is no run folder"):
            parse_settings(CnnSettings, "", argv)


def test_an_output_that_is_called_nothing_makes_no_file_of_that_name(home):
    for argv in (["x", "-o", "None"], ["x", "--out=None"], ["x", "--out", "null"]):
        assert COMMANDS["export"].parse(argv)["out"] is None
        with pytest.raises(UserError, match="out cannot be left open, but it is '(None|null)'"):
            COMMANDS["sweep"].parse(argv)


def test_a_file_whose_name_begins_with_a_tilde_is_found(home):
    with pytest.raises(UserError, match=r"photos: nobody called '\$copy.jpg' has a home folder"):
        from_home("photos", "~$copy.jpg")
    Path("~$copy.jpg").touch()
    assert from_home("photos", "~$copy.jpg") == "~$copy.jpg"
