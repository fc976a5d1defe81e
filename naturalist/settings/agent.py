"""A trial of a sweep, as a W&B agent starts it and as its server shows it: the two must be the same."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from naturalist.entry import IN_SWEEP
from naturalist.errors import UserError
from naturalist.settings.yaml_file import read_yaml, without_wandb

PARAMETERS = "WANDB_SWEEP_PARAM_PATH"
"""Environment variable by which an agent says which file has the settings that the server shows of a trial."""

WRITE_ARGS = "write ${args} in it, and nothing that sets the same"
"""What to do about a command that makes other trials than those shown."""


def flags(settings: Mapping[str, Any]) -> list[str]:
    """What ``${args}`` stands for, as an agent writes it."""
    return [f"--{name}={value}" for name, value in settings.items()]


def name_of(flag: str) -> str:
    """The setting that such a flag sets."""
    return flag[2:].partition("=")[0].replace("-", "_")


def flags_of_agent() -> list[str]:
    """Flags for the settings that the server shows of this run; none outside of an agent.

    Raises :class:`UserError` when the agent's file cannot be read.
    """
    path = Path(os.environ.get(PARAMETERS, ""))
    if IN_SWEEP not in os.environ or not path.is_file():
        return []
    return flags(without_wandb(read_yaml(path, "agent's file of settings")))


def require_same(meant: Mapping[str, Any], found: Mapping[str, Any], where: str) -> None:
    """Raise :class:`UserError` for a setting of a trial that is found to be another; one that is not there is let be.

    Args:
        meant: settings by name, as the sweep shows them.
        found: what the trial has, or has recorded.
        where: what ``found`` is, for the message.
    """
    for name, value in meant.items():
        if name in found and found[name] != value:
            raise UserError(f"{name} is {value!r} in the sweep, but {found[name]!r} {where}.")
