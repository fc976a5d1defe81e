"""The script that a sweep runs: found by ``program``, called in this process instead of started anew.

A program is a file with ``train(settings, should_stop)``, whose first argument is annotated with its settings' class,
as ``partA/train.py`` has it. Its arguments are those that a W&B agent would give it.
"""

import importlib.util
import os
import random
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import get_type_hints

from naturalist.errors import UserError
from naturalist.settings.command_line import parse_settings
from naturalist.settings.run_settings import RunSettings
from naturalist.settings.spelling import nearest
from naturalist.sweeps.space import SweepFile

REFUSED_MACROS = {
    "${args_no_hyphens}": "the scripts read --name=value only",
    "${args_json}": "the scripts read no JSON",
    "${args_json_file}": "the scripts read no JSON",
    "${args_dict}": "the scripts read no Hydra overrides",
}

OWN_SETTINGS = ("runs_dir", "resume")
"""Settings that a sweep gives to its trials itself."""

COUPLED_TRIES = 30
"""How many combinations with other parameters a value gets that does not go together with the program's defaults."""

EPOCH_METRICS = (
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "best_val_accuracy",
    "learning_rate",
    "images_per_second",
    "epoch_seconds",
)
"""What every script logs once per epoch."""


@dataclass(frozen=True)
class Program:
    """A training script."""

    path: Path
    settings_class: type[RunSettings]
    train: Callable[..., dict]

    def parse(self, arguments: list[str]) -> RunSettings:
        """Settings for a command line; raises :class:`UserError` like the script itself."""
        return parse_settings(self.settings_class, "", arguments)


def load_program(path: Path) -> Program:
    """Import a training script. Raises :class:`UserError` when the file is none."""
    if not path.is_file():
        raise UserError(f"the sweep's program {str(path)!r} is not there; run the sweep from the repository's root.")
    spec = importlib.util.spec_from_file_location(f"sweep_program_{path.stem}", path)
    if spec is None:
        raise UserError(f"the sweep's program {str(path)!r} is no Python script.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    train = getattr(module, "train", None)
    settings_class = next(iter(get_type_hints(train).values()), None) if train else None
    if not (isinstance(settings_class, type) and issubclass(settings_class, RunSettings)):
        raise UserError(f"{path} cannot be swept here: it has no function train(settings: …, should_stop).")
    return Program(path, settings_class, train)


def command_line(sweep: SweepFile, settings: dict) -> list[str]:
    """The program's arguments for a trial, by the sweep's ``command``.

    Raises :class:`UserError` for a command that is not this Python running the program.
    """
    where = f"{sweep.path}: command"
    parts = [part for part in sweep.command if part not in ("${env}", "/usr/bin/env")]
    interpreter, program, *rest = [*parts, "", ""]
    if interpreter != "${interpreter}" and re.fullmatch(r"python[\d.]*", interpreter) is None:
        raise UserError(
            f"{where} starts {interpreter!r}, but a sweep that runs here can start Python only: write "
            '[python, "${program}", "${args}"].'
        )
    if program != "${program}" and Path(program) != sweep.program:
        raise UserError(f"{where} runs {program!r}, but the program is {str(sweep.program)!r}.")
    arguments = []
    for part in rest[:-2]:
        arguments += _expand(where, part, settings)
    return arguments


def check_sweep(sweep: SweepFile, program: Program, more_arguments: list[str]) -> None:
    """Refuse, before the first trial, what the program would refuse during one.

    Every value is tried together with the constants and ``more_arguments``, see :func:`parse_some`.
    Raises :class:`UserError` naming the parameter.
    """
    _check_given(sweep, more_arguments)
    known = {field.name for field in fields(program.settings_class)}
    for parameter in sweep.parameters:
        if parameter.name.replace("-", "_") not in known:
            raise UserError(
                f"{sweep.path}: {program.path} has no setting {parameter.name!r}"
                f"{nearest(parameter.name, sorted(known))}"
            )
    if sweep.metric not in EPOCH_METRICS:
        raise UserError(
            f"{sweep.path}: {program.path} logs no metric {sweep.metric!r}{nearest(sweep.metric, EPOCH_METRICS)}"
        )
    parse_some(sweep, program, more_arguments, {})
    for parameter in sweep.parameters:
        for value in [] if parameter.is_constant else parameter.examples():
            try:
                parse_some(sweep, program, more_arguments, {parameter.name: value})
            except UserError as error:
                raise UserError(f"{sweep.path}: {parameter.name}: {error}") from None


def _check_given(sweep: SweepFile, arguments: list[str]) -> None:
    """Refuse what the file sets too, and what the sweep sets itself."""
    searched = [parameter.name.replace("-", "_") for parameter in sweep.parameters]
    given = [item[2:].partition("=")[0].replace("-", "_") for item in arguments]
    for name in given:
        for spelling in (name, name.removeprefix("no_")):
            if spelling in searched:
                raise UserError(f"{spelling} is set by {sweep.path}, so it cannot be set for every trial as well.")
    for name in OWN_SETTINGS:
        if name in (*searched, *given):
            raise UserError(f"{name} cannot be set: the sweep gives every trial its own; --out chooses the folder.")


def parse_some(
    sweep: SweepFile, program: Program, arguments: list[str], some: dict, last: list[str] | None = None
) -> RunSettings:
    """Settings of a trial of which only ``some`` parameters and the constants are known.

    The others have the program's defaults or, where those do not go together with the rest, values of the search.
    Raises :class:`UserError` when no values do.

    Args:
        sweep: the search.
        program: reads the settings.
        arguments: flags that the sweep's parameters override.
        some: values by name.
        last: flags that override the sweep's parameters.
    """
    known = {**{item.name: item.value(None) for item in sweep.parameters if item.is_constant}, **some}
    others = [item for item in sweep.parameters if item.name not in known]
    draw = random.Random(0)
    first_error = None
    for attempt in range(1 + (COUPLED_TRIES if others else 0)):
        more = {item.name: draw.choice(item.examples()) for item in others} if attempt else {}
        try:
            return program.parse([*arguments, *command_line(sweep, {**known, **more}), *(last or [])])
        except UserError as error:
            first_error = first_error or error
    raise first_error


def _expand(where: str, part: str, settings: dict) -> list[str]:
    if part == "${args}":
        return [f"--{name}={value}" for name, value in settings.items()]
    if part == "${args_no_boolean_flags}":
        return [
            f"--{name}" if value is True else f"--{name}={value}"
            for name, value in settings.items()
            if value is not False
        ]
    if part in REFUSED_MACROS:
        raise UserError(f"{where} has {part}, but {REFUSED_MACROS[part]}; write ${{args}}.")

    def value_of(variable: re.Match) -> str:
        if variable[1] not in os.environ:
            raise UserError(f"{where} has {variable[0]}, but the environment has no {variable[1]}.")
        return os.environ[variable[1]]

    rest = re.search(r"\$\{(?!envvar:\w+\}).*?\}", part)
    if rest:
        raise UserError(f"{where} has {rest[0]}, which is not honoured here; write ${{args}}.")
    return [re.sub(r"\$\{envvar:(\w+)\}", value_of, part)]
