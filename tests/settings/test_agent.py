"""Under a W&B agent a run has the settings that the server shows of it, or fails."""

import sys

import pytest
import yaml

from naturalist.errors import UserError
from naturalist.settings.command_line import parse_settings
from naturalist.settings.part_a import CnnSettings

SHOWN = {"batch_norm": False, "num_filters": [8, 8, 8, 8, 8], "data": "~/my photographs", "learning_rate": "1e-5"}


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ([f"--{name}={value}" for name, value in SHOWN.items()], None),  # ${args}
        ([f"--{name}={value}" for name, value in SHOWN.items() if value], "batch_norm is False in the sweep, but True"),
        ([], "batch_norm is False in the sweep"),
    ],
)
def test_what_the_command_makes_of_a_trial_is_compared_with_what_the_agent_was_told(
    tmp_path, monkeypatch, argv, sentence
):
    path = tmp_path / "config-1.yaml"  # as an agent writes it
    path.write_text(yaml.safe_dump({"wandb_version": 1} | {name: {"value": value} for name, value in SHOWN.items()}))
    monkeypatch.setattr(sys, "argv", ["partA/train.py", *argv])
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(path))
    parse_settings(CnnSettings, "")  # no agent: the variable may be left over
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    if sentence is None:
        assert parse_settings(CnnSettings, "").training.learning_rate == 1e-5
        return
    with pytest.raises(UserError, match=sentence):
        parse_settings(CnnSettings, "")
