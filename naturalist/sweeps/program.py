"""The script that a sweep runs: found by ``program``, called in this process instead of started anew.

A program is a file with ``train(settings, should_stop)``, whose first argument is annotated with its settings' class,
as ``partA/train.py`` has it. Its arguments are those that a W&B agent would give it.
"""

import importlib.util
import os
import random
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from naturalist.errors import UserError, describe_error
from naturalist.settings.agent import WRITE_ARGS, flags, name_of, require_same
from naturalist.settings.command_line import parse_settings
from naturalist.settings.run_settings import RunSettings
from naturalist.settings.spelling import nearest
from naturalist.sweeps.parameter import require
from naturalist.sweeps.space import SweepFile

REFUSED_MACROS = {
    "${args_no_hyphens}": "the scripts read --name=value only",
    "${args_json}": "the scripts read no JSON among their arguments",
    "${args_json_file}": "no such file is written here",
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
    "val_balanced_accuracy",
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
    train: Callable[..., dict[str, Any]]
    takes_scan: bool
    """Whether ``train`` can be told how to list a folder, so that all trials of a process list it once."""
    recipes: Path | None
    """Folder of configuration files that the script finds by name."""

    def parse(self, arguments: list[str]) -> RunSettings:
        """Settings for a command line; raises :class:`UserError` like the script itself."""
        return parse_settings(self.settings_class, "", arguments, recipes=self.recipes)


def load_program(path: Path) -> Program:
    """Import a training script. Raises :class:`UserError` when the file is none."""
    is_there = path.is_file()
    require(is_there, f"the sweep's program {str(path)!r} is not there; run the sweep from the repository's root.")
    spec = importlib.util.spec_from_file_location(f"sweep_program_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"the sweep's program {str(path)!r} is no Python script.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # of whatever kind: it is the user's program
        raise UserError(f"the sweep's program {str(path)!r} cannot be run: {describe_error(error)}.") from error
    train = getattr(module, "train", None)
    parameters = list(signature(train).parameters.values()) if callable(train) else []
    settings_class = parameters[0].annotation if parameters else None
    if train and isinstance(settings_class, type) and issubclass(settings_class, RunSettings):
        takes_scan = any(parameter.name == "scan" for parameter in parameters)
        return Program(path, settings_class, train, takes_scan, getattr(module, "RECIPES", None))
    raise UserError(f"{path} cannot be swept here: it has no function train(settings: …, should_stop).")


def command_line(sweep: SweepFile, settings: dict[str, Any]) -> list[str]:
    """The program's arguments for a trial, by the sweep's ``command``.

    Raises :class:`UserError` for a command that is not this Python running the program.
    """
    where = f"{sweep.path}: command"
    parts = list(sweep.command)
    parts = parts[1:] if parts[:1] in (["${env}"], ["/usr/bin/env"]) else parts
    interpreter, program = [*parts, "", ""][:2]
    if interpreter != "${interpreter}" and re.fullmatch(r"python[\d.]*", interpreter) is None:
        raise UserError(
            f"{where} starts {interpreter!r}, but a sweep that runs here can start Python only: write "
            '[python, "${program}", "${args}"].'
        )
    is_program = program == "${program}" or Path(program) == sweep.program
    require(is_program, f"{where} runs {program!r}, but the program is {str(sweep.program)!r}.")
    return [argument for part in parts[2:] for argument in _expand(where, part, settings)]


def check_sweep(sweep: SweepFile, program: Program) -> None:
    """Refuse, before the first trial, what the program would refuse during one.

    Every value is tried together with the constants and what was given beside the file, see :func:`parse_some`.
    Raises :class:`UserError` naming the parameter.
    """
    _check_given(sweep)
    known = sorted(program.settings_class().flat())
    where = f"{sweep.path}: {program.path}"
    for parameter in sweep.parameters:
        is_known = parameter.name.replace("-", "_") in known
        require(is_known, f"{where} has no setting {parameter.name!r}{nearest(parameter.name, known)}")
    is_logged = sweep.metric in EPOCH_METRICS
    require(is_logged, f"{where} logs no metric {sweep.metric!r}{nearest(sweep.metric, EPOCH_METRICS)}")
    parse_some(sweep, program, {})
    for parameter in sweep.varied:
        for value in parameter.examples():
            try:
                parse_some(sweep, program, {parameter.name: value})
            except UserError as error:
                raise UserError(f"{sweep.path}: {parameter.name}: {error}") from None


def _check_given(sweep: SweepFile) -> None:
    """Refuse what the file sets too, and what the sweep sets itself."""
    searched = [parameter.name.replace("-", "_") for parameter in sweep.parameters]
    given = list(map(name_of, sweep.given))
    for name in given:
        for spelling in (name, name.removeprefix("no_")):
            is_free = spelling not in searched
            require(is_free, f"{spelling} is set by {sweep.path}, so it cannot be set for every trial as well.")
    for name in OWN_SETTINGS:
        is_free = name not in (*searched, *given)
        require(is_free, f"{name} cannot be set: the sweep gives every trial its own; --out chooses the folder.")


def parse_some(sweep: SweepFile, program: Program, some: dict[str, Any], last: Sequence[str] = ()) -> RunSettings:
    """Settings of a trial of which only ``some`` parameters and the constants are known.

    The others have the program's defaults or, where those do not go together with the rest, values of the search.
    Flags in ``last`` override the sweep's parameters. Raises :class:`UserError` when no values go together.
    """
    known = {**{item.name: item.value(None) for item in sweep.parameters if item.is_constant}, **some}
    others = [item for item in sweep.parameters if item.name not in known]
    draw = random.Random(0)
    first_error = None
    for attempt in range(1 + (COUPLED_TRIES if others else 0)):
        more = {item.name: draw.choice(item.examples()) for item in others} if attempt else {}
        try:
            return _parse_trial(sweep, program, {**known, **more}, last)
        except UserError as error:
            first_error = first_error or error
    raise first_error or UserError(f"{sweep.path}: no settings go together.")


def _parse_trial(sweep: SweepFile, program: Program, settings: dict[str, Any], last: Sequence[str]) -> RunSettings:
    """Settings of a trial, by the sweep's command; raises :class:`UserError` when they are not those of the trial."""
    arguments = command_line(sweep, settings)
    parsed = program.parse([*sweep.given, *arguments, *last])
    if arguments != flags(settings):
        meant = program.parse([*sweep.given, *flags(settings), *last]).flat()
        names = map(name_of, flags(settings))
        where = f"by the command in {sweep.path}; {WRITE_ARGS}"
        require_same({name: meant[name] for name in names}, parsed.flat(), where)
    return parsed


def _expand(where: str, part: str, settings: dict[str, Any]) -> list[str]:
    if part == "${args}":
        return flags(settings)
    if part == "${args_no_boolean_flags}":  # the script's default then stands for what is false, see _parse_trial
        shown = {name: value for name, value in settings.items() if value is not False}
        return [f"--{name}" if value is True else f"--{name}={value}" for name, value in shown.items()]
    require(part not in REFUSED_MACROS, f"{where} has {part}, but {REFUSED_MACROS.get(part)}; write ${{args}}.")

    def value_of(variable: re.Match[str]) -> str:
        is_set = variable[1] in os.environ
        require(is_set, f"{where} has {variable[0]}, but the environment has no {variable[1]}.")
        return os.environ[variable[1]]

    rest = re.search(r"\$\{(?!envvar:[A-Z0-9_]+\}).*?\}", part)
    if rest:
        is_variable = rest[0].startswith("${envvar:")
        advice = "W&B knows variables of capital letters only" if is_variable else "write ${args}"
        raise UserError(f"{where} has {rest[0]}, which is not honoured here; {advice}.")
    return [re.sub(r"\$\{envvar:([A-Z0-9_]+)\}", value_of, part)]
