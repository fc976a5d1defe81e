"""What a run that goes on takes from itself, and what it may be told anew."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from naturalist.errors import UserError
from naturalist.reading import Settings, fit, read_json
from naturalist.settings.groups import NOT_RECORDED, MachineSettings, RecordSettings
from naturalist.settings.yaml_file import read_yaml

IDENTITY = "identity.json"
"""The file of a run folder that says what the run is, written before its first step and never after."""

AUTO = "auto"
"""``--resume auto --name N`` goes on with N where it exists, and begins it where not."""

MAY_CHANGE = (
    "epochs",
    "patience",
    "data",
    "datasets_dir",
    "cache_dir",
    *(item.name for group in (MachineSettings, RecordSettings) for item in fields(group)),
)
"""What may differ when a run goes on: how long, on which machine, where things lie, how it is recorded."""


class IdentityFile(Struct):
    """``identity.json``, as far as it is read back."""

    fingerprint: Annotated[str, Meta(min_length=1)]
    class_names: Annotated[tuple[str, ...], Meta(min_length=1)]
    validation: Literal["held out", "folder"]
    settings: Settings
    soup: tuple[str, ...] = ()
    """Names of the runs that it is an average of."""

    def __post_init__(self) -> None:
        """Raise ValueError for class names that are not."""
        if len(set(self.class_names)) < len(self.class_names) or "" in self.class_names:
            raise ValueError("class_names: names must differ from each other and not be empty")


def settings_of_run(run: Path, known: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a run goes on with.

    What shapes its result stands in ``identity.json``; only what may change is read from ``config.yaml``, which
    people may have edited.

    Args:
        run: its folder.
        known: settings by name; what an older version recorded beside them is left out.

    Raises:
        UserError: when the folder is none of a run.
    """
    path = run / IDENTITY
    if not path.is_file():
        raise UserError(f"{str(run)!r} is no run folder to resume: it has no {IDENTITY}.")
    identity = read_json(path, IdentityFile, "nobody knows what this run is, so it cannot be resumed")
    settings = identity.settings
    if identity.soup:
        raise UserError(f"{str(run)!r} is a soup of other runs: no training made it, and none can go on with it.")
    config = run / "config.yaml"
    changeable = fit(read_yaml(config, "settings of the run"), Settings, str(config), "mend or delete that line")
    kept = {name: value for name, value in changeable.items() if name in MAY_CHANGE and name not in NOT_RECORDED}
    return {name: value for name, value in {**kept, **settings}.items() if name in known}


def refuse_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Raise :class:`UserError`, naming the setting, when a run would go on as another one."""
    for name, value in after.items():
        if name not in before or value == before[name]:
            continue
        if name not in MAY_CHANGE:
            raise UserError(
                f"{name} is {before[name]!r} in this run and cannot become {value!r} when it is resumed; train a new "
                "run instead, or leave the flag out."
            )
        if name == "epochs" and value < before[name]:
            raise UserError(f"epochs can only grow when a run is resumed: from {before[name]}, not to {value}.")


def shaping(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of all settings, those that shape a run's result."""
    return {name: value for name, value in settings.items() if name not in MAY_CHANGE}
