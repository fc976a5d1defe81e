"""From the command line to settings: one way for the scripts and for every verb.

Settings come from the defaults < ``--config`` YAML < flags. Hyphens may stand for underscores, abbreviations for
nothing; what is not understood is refused in one sentence that names the nearest valid spelling. This module must not
import torch: ``--help`` answers in well under a second.
"""

import argparse
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from naturalist.errors import UserError
from naturalist.settings.arguments import Argument, arguments_of, describe_type
from naturalist.settings.groups import NOT_RECORDED
from naturalist.settings.places import find_recipe, find_run
from naturalist.settings.run_settings import RunSettings
from naturalist.settings.spelling import nearest
from naturalist.settings.yaml_file import read_yaml

Settings = TypeVar("Settings", bound=RunSettings)
Options = TypeVar("Options")

WIDEST_HELP = 100
"""Columns of ``--help`` on a wide terminal."""

PRINT_CONFIG = "print_config"

BOOLEANS = "A switch is written --flag, --no_flag, --flag=true or --flag=false; hyphens may stand for underscores."


@dataclass(frozen=True)
class Information:
    """A flag that prints something and ends, such as ``--help_stages resnet50``."""

    words: str
    print: Callable[[str], None]
    """Gets the word after the flag, or an empty one."""
    metavar: str = ""


@dataclass(frozen=True)
class Command:
    """A script or a verb, as its command line sees it."""

    program: str
    summary: str
    arguments: tuple[Argument, ...]
    example: str = ""
    takes_config: bool = False
    recipes: Path | None = None
    """Folder of configuration files that ``--config`` finds by name."""
    information: Mapping[str, Information] | None = None

    @property
    def flags(self) -> dict[str, Argument]:
        """Name → argument of everything that is written with two hyphens."""
        return {argument.name: argument for argument in self.arguments if not argument.is_positional}

    def parse(self, argv: Sequence[str]) -> dict[str, Any]:
        """Values by field name.

        ``--help``, ``--print_config`` and the flags of ``information`` print and exit with code 0. Raises
        :class:`UserError` for anything that is not understood.
        """
        tokens = _spell_out(self, list(argv))
        prints_config = f"--{PRINT_CONFIG}" in tokens  # not left to jsonargparse, whose own flag of that name it is
        try:
            values = self._parser().parse_args([token for token in tokens if token != f"--{PRINT_CONFIG}"]).as_dict()
        except ArgumentError as error:
            raise UserError(self._one_sentence(str(error))) from None
        if prints_config:
            kept = {name: value for name, value in values.items() if name in self.flags and name not in NOT_RECORDED}
            print(yaml.safe_dump(kept, sort_keys=False, allow_unicode=True), end="")
            sys.exit(0)
        return {argument.field_name: values[argument.name] for argument in self.arguments}

    def _parser(self) -> ArgumentParser:
        parser = ArgumentParser(
            prog=self.program,
            usage=self._usage(),
            description=self.summary,
            epilog=f"example:\n  {self.example}" if self.example else None,
            exit_on_error=False,
            allow_abbrev=False,
            add_help=False,
            formatter_class=_Help,
        )
        headings = {}
        for argument in self.arguments:
            if argument.group not in headings:
                headings[argument.group] = parser.add_argument_group(argument.group)
            _add(headings[argument.group], argument)
        others = parser.add_argument_group("Help" if self.arguments else "Options")
        if self.takes_config:
            words = "YAML file of settings, or the name of a recipe in configs/; flags override it."
            others.add_argument("--config", action="config", metavar="FILE", help=words)
            words = "Print all settings as such a file, and stop."
            others.add_argument(f"--{PRINT_CONFIG}", action="store_true", help=words)
        others.add_argument("-h", "--help", action="help", help="Show this, and stop.")
        for name, item in (self.information or {}).items():
            others.add_argument(f"--{name}", metavar=item.metavar, nargs="?", help=item.words)
        return parser

    def _usage(self) -> str:
        positions = []
        for argument in self.arguments:
            if argument.is_positional:
                more = " …" if argument.is_list else ""
                shown = f"{argument.metavar}{more}"
                positions.append(f"[{shown}]" if argument.default == [] else shown)
        config = ["[--config FILE]"] if self.takes_config else []
        return " ".join([self.program, *positions, *config, "[--flag value …]"])

    def _one_sentence(self, message: str) -> str:
        """Rewrite a complaint of several lines as one sentence, with the nearest value for a choice."""
        see = f"see {self.program} --help"
        if missing := re.search(r"arguments are required: (.*)", message):
            return f"{self.program} needs {missing[1].upper()}; {see}."
        if stray := re.search(r"unrecognized arguments: (.*)", message):
            return f"{self.program} takes no {stray[1]!r}; {see}."
        if empty := re.search(r"argument (?:-\w/|-\w, )?--(\w+): expected", message):
            return f"--{empty[1]} needs a value after it; {see}."
        match = re.search(r'Parser key "(\w+)":.*(?:Got|Given) value: (.*)', message, flags=re.DOTALL)
        by_name = {argument.name: argument for argument in self.arguments}
        if match is None or match[1] not in by_name:
            return " ".join(message.split())
        argument, value = by_name[match[1]], match[2].strip().splitlines()[0]
        if argument.choices:
            return f"{argument.name} cannot be {value!r}{nearest(value, argument.choices)}"
        return f"{argument.name} must be {describe_type(argument.type)}, but it is {value!r}."


def parse_settings(
    settings_class: type[Settings],
    summary: str,
    argv: Sequence[str] | None = None,
    *,
    example: str = "",
    recipes: Path | None = None,
    information: Mapping[str, Information] | None = None,
) -> Settings:
    """Fill a script's settings from defaults, then ``--config`` files, then flags.

    With ``--resume RUN`` the run's own ``config.yaml`` stands where ``--config`` files would.
    Raises :class:`UserError` for an unknown setting (naming the nearest) or an impossible value. ``--help`` and
    ``--print_config`` print and exit with code 0.
    """
    arguments = tuple(argument for group in settings_class.groups().values() for argument in arguments_of(group))
    summary += f"\n\nSettings come from the defaults, then --config, then the flags. {BOOLEANS}"
    program = f"python {settings_class.SCRIPT}"
    command = Command(program, summary, arguments, example, True, recipes, information)
    settings = settings_class.of(**command.parse(sys.argv[1:] if argv is None else argv))
    settings.validate()
    return settings


def parse_options(options_class: type[Options], program: str, argv: Sequence[str]) -> Options:
    """Fill a verb's options; raises :class:`UserError` as :func:`parse_settings` does."""
    return options_class(**command_of(options_class, program).parse(argv))


def command_of(options_class: type, program: str) -> Command:
    """A verb, by the dataclass of its options: its docstring is the summary, ``EXAMPLE`` an example."""
    summary = " ".join((options_class.__doc__ or "").split())
    return Command(program, summary, arguments_of(options_class), getattr(options_class, "EXAMPLE", ""))


def _add(group: Any, argument: Argument) -> None:
    """Give an argument to jsonargparse, which checks values by their types."""
    words = argument.help().replace("%", "%%")
    if argument.is_positional:
        element = argument.type.__args__[0] if argument.is_list else argument.type
        how_many = {"nargs": "*" if argument.default == [] else "+"} if argument.is_list else {}
        group.add_argument(argument.name, type=element, metavar=argument.metavar, help=words, **how_many)
        return
    names = [f"--{argument.name}"] if argument.short is None else [argument.short, f"--{argument.name}"]
    more: dict[str, Any] = {"type": argument.type, "default": argument.default}
    if argument.is_repeated:
        more = {"type": argument.type.__args__[0], "default": argument.default, "action": "append"}
    group.add_argument(*names, metavar=argument.metavar, help=words, **more)


def _spell_out(command: Command, argv: list[str]) -> list[str]:
    """Accept hyphens and every spelling of a switch; put ``--config`` first; refuse unknown names."""
    flags = command.flags
    known = [*flags, *(command.information or {}), *(["config", PRINT_CONFIG] if command.takes_config else []), "help"]
    first: list[str] = []
    rest: list[str] = []
    position = 0
    while position < len(argv):
        token = argv[position]
        position += 1
        if token == "--":  # what follows is no flag, whatever it looks like
            return [*first, *rest, *argv[position - 1 :]]
        if not token.startswith("--"):
            rest.append(token)
            continue
        name, equals, value = token[2:].partition("=")
        name = name.replace("-", "_")
        follows = argv[position] if position < len(argv) else None
        if name.startswith("no_") and name[3:] in flags and flags[name[3:]].is_flag and not equals:
            rest.append(f"--{name[3:]}=false")
        elif name not in known:
            raise UserError(f"there is no setting --{name}{nearest(name, sorted(known))}")
        elif command.information and name in command.information:
            command.information[name].print(value or ("" if follows is None or follows.startswith("-") else follows))
            sys.exit(0)
        elif name in flags and flags[name].is_flag:
            if not equals and follows is not None and follows.lower() in ("true", "false"):
                value, position = follows, position + 1
            rest.append(f"--{name}={value.lower() if value or equals else 'true'}")
        elif name == "config" or (name == "resume" and command.takes_config):
            if not equals:
                if follows is None:
                    raise UserError(f"--{name} needs a {'file' if name == 'config' else 'run folder'} after it.")
                value, position = follows, position + 1
            if name == "config":
                first.append(f"--config={_checked(find_recipe(value, command.recipes), flags)}")
            else:
                run = find_run(Path(value))
                if not (run / "config.yaml").is_file():
                    raise UserError(f"{value!r} is no run folder to resume: it has no config.yaml.")
                first.append(f"--config={_checked(run / 'config.yaml', flags)}")
                rest.append(f"--resume={run}")
        else:
            rest.append(f"--{name}{equals}{value}")
    return first + rest


def _checked(path: Path, flags: Mapping[str, Argument]) -> Path:
    """A configuration file whose lines all name settings."""
    for name in read_yaml(path, "configuration file"):
        if name not in flags:
            raise UserError(f"{path}: there is no setting {name!r}{nearest(str(name), sorted(flags))}")
    return path


class _Help(argparse.RawDescriptionHelpFormatter):
    """Flags on the left, words on the right."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=min(WIDEST_HELP, shutil.get_terminal_size().columns))

    def _format_action_invocation(self, action: argparse.Action) -> str:
        names = [name for name in action.option_strings if not name.endswith("+")]  # jsonargparse appends to lists
        if not names:
            return super()._format_action_invocation(action)
        if getattr(action, "_typehint", None) is bool:
            return f"{names[-1]}, --no_{names[-1][2:]}"
        value = "" if action.nargs == 0 or not action.metavar else f" {action.metavar}"
        return ", ".join(names) + value

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Wrap every paragraph; lines that are indented stay as they are."""
        lines = []
        for line in text.splitlines():
            fill = argparse.HelpFormatter._fill_text
            lines.append(line if line.startswith(" ") else fill(self, line, width, indent))
        return "\n".join(lines)
