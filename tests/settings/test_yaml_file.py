"""YAML as people and programs write it: the value that was meant, or one sentence that says where it is wrong."""

import re

import pytest
import yaml

from naturalist.errors import UserError
from naturalist.runs.folder import read_config
from naturalist.settings.command_line import parse_settings
from naturalist.settings.part_a import CnnSettings
from naturalist.settings.yaml_file import read_yaml
from naturalist.sweeps.space import read_sweep


def parsed(tmp_path, text: str | bytes, *flags: str) -> dict:
    """What differs from the defaults with such a configuration file."""
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    defaults = CnnSettings().flat()
    settings = parse_settings(CnnSettings, "", [f"--config={path}", *flags]).flat()
    return {name: value for name, value in settings.items() if value != defaults[name]}


MEANT = [
    ("learning_rate: 1e-3\n", {"learning_rate": 1e-3}),
    ("learning_rate: '1E-3'\n", {"learning_rate": 1e-3}),
    ("learning_rate: .5\n", {"learning_rate": 0.5}),
    ("epochs: '5'\n", {"epochs": 5}),
    ("epochs: 1_000\n", {"epochs": 1000}),
    ("epochs: 0x10\n", {"epochs": 16}),
    ("batch_norm: off\n", {"batch_norm": False}),
    ("batch_norm: no\n", {"batch_norm": False}),
    ("batch_norm: 'false'\n", {"batch_norm": False}),
    ("batch_norm: FALSE\n", {"batch_norm": False}),
    ("cache_size: None\nname: null\ncache_dir: ~\nweight_decay: None\n", {}),
    ("name: 2026-11-26\n", {"name": "2026-11-26"}),
    ("name: '010'\n", {"name": "010"}),
    ("schedule: none\n", {"schedule": "none"}),
    ("data: $HOME/x\n", {"data": "$HOME/x"}),
    ("data: ${HOME}\n", {"data": "${HOME}"}),
    ("epochs: 3\r\nseed: 4\r\n", {"epochs": 3, "seed": 4}),
    ('{"num_filters": [8, 8, 8, 8, 8]}', {"num_filters": [8] * 5}),
    ("<<: {epochs: 3, seed: 1}\nseed: 2\n", {"epochs": 3, "seed": 2}),
    ("name: ünï\n".encode("utf-8-sig"), {"name": "ünï"}),
    ("name: ünï\r\n".encode("utf-16"), {"name": "ünï"}),
    (b"\xfe\xff" + "epochs: 3\n".encode("utf-16-be"), {"epochs": 3}),
]


@pytest.mark.parametrize(("text", "values"), MEANT, ids=[repr(text) for text, _ in MEANT])
def test_what_was_meant_is_read(tmp_path, text, values):
    assert parsed(tmp_path, text) == values


MISTAKES = [
    ("epochs: 3\nseed: 1\nepochs: 4\n", "config.yaml: 'epochs' stands in line 1 and in line 3; keep one of them"),
    ("epochs: 010\n", "config.yaml: YAML reads 010 in line 1 as another number"),
    ("seed: 1\nepochs: 1:30\n", "config.yaml: YAML reads 1:30 in line 2 as another number"),
    ("dropout: 1:30.5\n", "YAML reads 1:30.5 in line 1"),
    ("dropout: 20%\n", "dropout must be a number, but it is '20%'"),
    ("momentum: 0,9\n", "momentum must be a number, but it is '0,9'"),
    ("checkpoint_seconds: 60s\n", "checkpoint_seconds must be a number, but it is '60s'"),
    ("epochs: 3.0\n", "epochs must be a whole number, but it is '3.0'"),
    ("epochs: yes\n", "epochs must be a whole number, but it is 'True'"),
    ("batch_norm: 1\n", "batch_norm must be true or false, but it is '1'"),
    ("patience: None\n", "patience must be a whole number, but it is 'None'"),
    ("runs_dir: None\n", "runs_dir cannot be left open, but it is 'None'"),
    ("name: no\n", "name must be text, but it is 'False' (YAML reads bare numbers, yes, no"),
    ("name: 7\n", "name must be text, but it is '7' (YAML reads bare numbers"),
    ("data: [a]\n", "data must be text, but it is \"['a']\"."),
    ("wandb: off\n", "wandb cannot be 'False' (YAML reads bare numbers, yes, no"),
    ("epochs:\t3\n", "is not valid YAML (line 1 has a tab; write spaces)"),
    ("epochs: 3\n\tseed: 2\n", "is not valid YAML (line 2 has a tab; write spaces)"),
    ("a: b: c\n", "is not valid YAML (line 1)"),
    ("epochs: 3\nname: a\x07b\n", "is not valid YAML (line 2 has a character that cannot be shown)"),
    ("epochs: 3\nname: é\n".encode("latin-1"), "config.yaml is not UTF-8 (line 2); save it as UTF-8"),
    ("epochs: 3\n".encode("utf-16-le"), "config.yaml is no text, or not UTF-8; save it as UTF-8"),
    (b"\xff\xfea", "config.yaml is not UTF-8 (line 1)"),
    (b"epochs: 3\n\0", "config.yaml is no text, or not UTF-8"),
]


@pytest.mark.parametrize(("text", "sentence"), MISTAKES, ids=[repr(text) for text, _ in MISTAKES])
def test_what_nobody_can_have_meant_is_one_sentence(tmp_path, text, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)) as error:
        parsed(tmp_path, text)
    assert "\n" not in str(error.value)
    assert not re.search(r"jsonargparse|Parser key|Expected a|Literal|Union|yaml\.|Traceback", str(error.value))


@pytest.mark.parametrize("read", [read_sweep, lambda path: read_config(path.parent)], ids=["sweep", "recorded"])
def test_a_key_that_is_there_twice_is_refused_in_every_file(tmp_path, read):
    path = tmp_path / "config.yaml"
    path.write_text("a: 1\nb:\n  c: 1\n  c: 2\n")
    with pytest.raises(UserError, match="'c' stands in line 3 and in line 4"):
        read(path)


def test_a_later_file_and_a_flag_may_leave_open_what_an_earlier_one_set(tmp_path):
    text = "name: a\ncache_size: 256\n"
    assert parsed(tmp_path, text) == {"name": "a", "cache_size": 256}
    assert parsed(tmp_path, text, "--name=None", "--cache_size", "null") == {}
    assert parsed(tmp_path, text, "--cache_size=None", "--cache_size=300") == {"name": "a", "cache_size": 300}
    (tmp_path / "more.yaml").write_text("cache_size:\n")
    assert parsed(tmp_path, text, f"--config={tmp_path / 'more.yaml'}") == {"name": "a"}


@pytest.mark.parametrize("word", ["&x", "!x", "#x", "*x", "[x", "{x: y", "'x", "1e5", "true", "010", "~x"])
def test_text_in_a_flag_is_taken_as_it_stands(tmp_path, word):
    assert parsed(tmp_path, "", f"--name={word}") == {"name": word}


def test_the_file_that_wandb_keeps_of_a_run_is_a_configuration_file(tmp_path):
    settings = CnnSettings.of(learning_rate=1e-3, num_filters=[8, 8, 8, 8, 8], batch_norm=False, name=None).recorded()
    new = {name: {"value": value} for name, value in {**settings, "environment": {"torch": "2"}, "_wandb": {}}.items()}
    old = {name: {"desc": None, **entry} for name, entry in new.items()} | {"wandb_version": 1}
    for content in (new, old):
        values = parsed(tmp_path, yaml.safe_dump(content))
        assert values == {"learning_rate": 1e-3, "num_filters": [8] * 5, "batch_norm": False}
    with pytest.raises(UserError, match="no setting 'environment'"):
        parsed(tmp_path, "environment: {}\n")


def test_numbers_of_a_sweep_are_those_that_wandb_reads(tmp_path):
    path = tmp_path / "sweep.yaml"
    text = "a: 1e-3\nb: 1.0e-3\nc: yes\nd: 0x10\ne: 1_0\nf: ~\ng: .5\nh: +1\n"
    path.write_text(text)
    assert read_yaml(path, "sweep file") == yaml.safe_load(text)
