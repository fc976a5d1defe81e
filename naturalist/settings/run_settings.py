"""The settings of a whole run: groups, composed for a script, and flat for everybody else."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_type_hints

from naturalist.settings.groups import (
    NOT_RECORDED,
    AugmentationSettings,
    DataSettings,
    MachineSettings,
    RecordSettings,
    TrainingSettings,
)

if TYPE_CHECKING:
    from typing_extensions import Self


OWN_DATA = ("sample", "nature_12K")
"""Data sets that the project knows by name."""


@dataclass(frozen=True)
class RunSettings:
    """What every training run can be told, whatever its model."""

    SCRIPT: ClassVar[str] = ""
    """The script that trains with these settings."""

    data: DataSettings = field(default_factory=DataSettings)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    machine: MachineSettings = field(default_factory=MachineSettings)
    record: RecordSettings = field(default_factory=RecordSettings)

    @classmethod
    def groups(cls) -> dict[str, type]:
        """Name of each group → its dataclass."""
        hints = get_type_hints(cls)
        return {item.name: hints[item.name] for item in fields(cls)}

    @classmethod
    def of(cls, **values: Any) -> "Self":
        """The defaults with some flat settings, as in ``CnnSettings.of(num_filters=8, epochs=2)``.

        Raises TypeError for a name that no group has.
        """
        return cls().changed(**values)

    def changed(self, **values: Any) -> "Self":
        """These settings with some flat ones replaced; raises TypeError for a name that no group has."""
        groups = {}
        for name, group in self.groups().items():
            own = {key: values.pop(key) for key in names_of(group) if key in values}
            groups[name] = replace(getattr(self, name), **own)
        if values:
            raise TypeError(f"{type(self).__name__} has no setting {', '.join(values)}")
        return replace(self, **groups)

    def flat(self) -> dict[str, Any]:
        """Every setting by name, in the order of the groups."""
        return {
            name: getattr(getattr(self, group_name), name)
            for group_name, group in self.groups().items()
            for name in names_of(group)
        }

    def recorded(self) -> dict[str, Any]:
        """What ``config.yaml`` holds: every setting but those that ask for something now."""
        return {name: value for name, value in self.flat().items() if name not in NOT_RECORDED}

    def origin(self, description: dict[str, Any]) -> dict[str, Any]:
        """What every checkpoint of the run says beside weights and progress.

        Args:
            description: of the model, see :func:`naturalist.models.build_model`.
        """
        return {
            "description": description,
            "data": name_of_data(self.data.data),
            "seed": self.training.seed,
        }

    def validate(self) -> None:
        """Refuse values that no run can have; raises :class:`naturalist.errors.UserError` naming the setting."""
        for name in self.groups():
            getattr(self, name).validate()

    def describe(self) -> str:
        """A name for the run that tells the settings that a sweep varies."""
        return "run"

    @property
    def cache_folder(self) -> Path:
        """Where decoded images are kept."""
        return cache_folder(self.data.cache_dir, self.record.runs_dir)


def cache_folder(cache_dir: str | None, runs_dir: str) -> Path:
    """Folder of decoded images: the one that is named, else ``cache`` beside the runs."""
    return Path(cache_dir) if cache_dir else Path(runs_dir).parent / "cache"


def name_of_data(data: str) -> str:
    """What a checkpoint calls a data set: a folder's own name, for whoever gets the file needs no path of ours."""
    if data in OWN_DATA:
        return data
    name = Path(data).expanduser().resolve().name
    return f"./{name}" if name in OWN_DATA else name  # a folder of that name is none of the project's


def names_of(group: type) -> list[str]:
    """Names of a group's settings."""
    return [item.name for item in fields(group)]
