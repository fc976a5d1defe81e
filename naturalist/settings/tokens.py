"""The words of a command line, spelled out: every way to write a flag becomes the one that the parser reads."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from naturalist.entry import show_tracebacks
from naturalist.errors import UserError
from naturalist.settings.arguments import Argument
from naturalist.settings.places import find_recipe, find_run, from_home
from naturalist.settings.resume import AUTO
from naturalist.settings.rules import NOTHING
from naturalist.settings.spelling import nearest
from naturalist.settings.yaml_file import read_yaml, without_wandb

PRINT_CONFIG = "print_config"
DEBUG = "debug"
"""The switch of every command that shows where an error came from; it is no setting, and not recorded."""
MISSING = {"config": "file", "resume": "run folder"}
"""What to call the value that a flag lacks."""


@dataclass(frozen=True)
class Information:
    """A flag that prints something and ends, such as ``--help_stages resnet50``."""

    words: str
    describe: str
    """Module and function, as in ``package.module:function``, that gets the word after the flag, or an empty one, and
    returns what to print; imported when it is needed, so that ``--help`` does not wait for torch."""
    metavar: str = ""

    def text(self, word: str) -> str:
        """What is printed."""
        module, _, function = self.describe.partition(":")
        return str(getattr(import_module(module), function)(word))


@dataclass(frozen=True)
class Known:
    """The flags that a command line may have."""

    flags: Mapping[str, Argument]
    passed_on: Mapping[str, Argument] = field(default_factory=dict)
    """Flags of other programs, whose values are checked by those."""
    information: Mapping[str, Information] = field(default_factory=dict)
    takes_config: bool = False
    recipes: Path | None = None
    """Folder of configuration files that ``--config`` finds by name."""

    @property
    def names(self) -> list[str]:
        """All of them, for the nearest to a mistaken one."""
        extra = ["config", PRINT_CONFIG] if self.takes_config else []
        return sorted({*self.flags, *self.passed_on, *self.information, *extra, DEBUG, "help"})

    def is_switch(self, name: str) -> bool:
        """Whether a flag is true or false."""
        argument = self.flags.get(name) or self.passed_on.get(name)
        return name == DEBUG or (argument is not None and (argument.is_flag or argument.is_named_switch))

    def long_name(self, short: str) -> str | None:
        """The switch that a letter with a hyphen stands for; None where it stands for none."""
        return next((name for name, item in self.flags.items() if item.is_flag and item.short == short), None)


class Tokens:
    """A command line, spelled out.

    Raises :class:`UserError` for a name that is not known (naming the nearest), and for a file that cannot be read.
    A flag of ``information`` prints and exits with code 0.
    """

    def __init__(self, argv: Sequence[str], known: Known) -> None:
        self._argv, self._known = list(argv), known
        self.own: list[str] = []
        """What the parser reads."""
        self.config: dict[str, Any] = {}
        """Settings of configuration files, whose later ones win over earlier ones; flags win wherever they stand."""
        self.open: set[str] = set()
        """Names of settings that flags leave open."""
        self.prints_config = False
        self.passed_on: list[str] = []
        """What goes to other programs."""
        while self._argv:
            token = self._argv.pop(0)
            if token == "--":  # what follows is no flag, whatever it looks like
                self.own += [token, *self._argv]
                break
            if token.startswith("--"):
                name, equals, value = token[2:].partition("=")
                self._read(name.replace("-", "_"), value if equals else None)
            elif (switch := self._known.long_name(token)) is not None:
                self._read(switch, None)
            else:
                _refuse_empty("an argument", token)
                self.own.append(token)

    def _read(self, name: str, value: str | None) -> None:
        known = self._known
        _refuse_empty(f"--{name}", value)
        positive = name.removeprefix("no_")
        if name not in known.names:
            if value is not None or not known.is_switch(positive):
                raise UserError(f"there is no setting --{name}{nearest(name, known.names)}")
            name, value = positive, "false"
        if name in known.information:
            follows = self._argv[0] if self._argv and not self._argv[0].startswith("-") else ""
            print(known.information[name].text(follows if value is None else value))
            sys.exit(0)
        self.open.discard(name)
        if name == PRINT_CONFIG and known.takes_config:
            self.prints_config = True
        elif name == "help" and name not in known.flags:
            self.own.append(f"--{name}")
        elif name == DEBUG:
            show_tracebacks(self._switch(value) == "true")
        elif known.is_switch(name):
            self._keep(name, self._switch(value, known.flags.get(name)))
        elif name == "config" and known.takes_config:
            self._add_config(find_recipe(from_home(name, self._value(name, value)), known.recipes))
        elif name == "resume" and known.takes_config:
            run = from_home(name, self._value(name, value))
            self._keep(name, run if run == AUTO else str(find_run(Path(run))))
        elif name in known.flags and known.flags[name].is_optional and (value or "".join(self._argv[:1])) in NOTHING:
            self._value(name, value)
            self.open.add(name)
        elif name in known.flags:
            if self._argv and value is None:
                _refuse_empty(f"--{name}", self._argv[0])
            if value is None and (not self._argv or self._argv[0].startswith("--")):
                value = known.flags[name].bare
            self.own.append(f"--{name}" if value is None else f"--{name}={value}")
        else:
            self._keep(name, self._value(name, value))

    def _keep(self, name: str, value: str) -> None:
        (self.own if name in self._known.flags else self.passed_on).append(f"--{name}={value}")

    def _switch(self, value: str | None, argument: Argument | None = None) -> str:
        """What a switch says; one with names for it may say those, and ``true`` and ``false`` stand for two of them."""
        names = argument if argument is not None and argument.is_named_switch else None
        if value is None:
            words = ("true", "false", *(names.choices if names else ()))
            is_next = bool(self._argv) and self._argv[0].lower() in words
            value = self._argv.pop(0) if is_next else "true"
        value = value.lower()
        return {"true": str(names.bare), "false": names.default}.get(value, value) if names else value

    def _value(self, name: str, value: str | None) -> str:
        if value is not None:
            return value
        if not self._argv:
            raise UserError(f"--{name} needs a {MISSING.get(name, 'value')} after it.")
        value = self._argv.pop(0)
        _refuse_empty(f"--{name}", value)
        return value

    def _add_config(self, path: Path) -> None:
        """Take a configuration file whose lines all name settings."""
        for name, value in without_wandb(read_yaml(path, "configuration file")).items():
            if name not in self._known.flags:
                raise UserError(f"{path}: there is no setting {name!r}{nearest(str(name), sorted(self._known.flags))}")
            is_open = value is None or (self._known.flags[name].is_optional and value in NOTHING)
            if is_open and not self._known.flags[name].is_optional:
                raise UserError(f"{path}: {name} is empty; give it a value, or take the line out.")
            self.config[name] = None if is_open else value


def _refuse_empty(what: str, value: str | None) -> None:
    if value is not None and not value.strip():
        raise UserError(f"{what} is empty; give it a value, or leave it out.")
