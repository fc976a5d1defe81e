"""From the command line to settings: one way for the scripts and for every verb.

Settings come from the defaults < ``--config`` YAML < flags. Hyphens may stand for underscores, abbreviations for
nothing; what is not understood is refused in one sentence that names the nearest valid spelling. This module must not
import torch: ``--help`` answers in well under a second.
"""

import argparse
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from naturalist.errors import UserError, describe_error
from naturalist.settings.agent import WRITE_ARGS, flags_of_agent, name_of, require_same
from naturalist.settings.arguments import Argument, arguments_of, describe_type, parts_of
from naturalist.settings.groups import NOT_RECORDED
from naturalist.settings.places import from_home, run_folder_name
from naturalist.settings.resume import AUTO, IDENTITY, refuse_changes, settings_of_run, shaping
from naturalist.settings.rules import NOTHING, require, require_text
from naturalist.settings.run_settings import RunSettings
from naturalist.settings.spelling import nearest
from naturalist.settings.tokens import DEBUG, PRINT_CONFIG, Information, Known, Tokens

Settings = TypeVar("Settings", bound=RunSettings)
Options = TypeVar("Options")

WIDEST_HELP = 100
"""Columns of ``--help`` on a wide terminal."""

BOOLEANS = "A switch is written --flag, --no_flag, --flag=true or --flag=false; hyphens may stand for underscores."


QUOTES = " (YAML reads bare numbers, yes, no, on and off as no text; write it in quotes)"


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
    information: Mapping[str, Information] = field(default_factory=dict)
    passed_on: Mapping[str, Argument] = field(default_factory=dict)
    """Flags of other programs, whose values are checked by those."""

    @property
    def known(self) -> Known:
        """Everything that is written with two hyphens."""
        flags = {argument.name: argument for argument in self.arguments if not argument.is_positional}
        return Known(flags, self.passed_on, self.information, self.takes_config, self.recipes)

    def parse(self, argv: Sequence[str]) -> dict[str, Any]:
        """Values by field name.

        ``--help``, ``--print_config`` and the flags of ``information`` print and exit with code 0. Raises
        :class:`UserError` for anything that is not understood.
        """
        tokens = Tokens(argv, self.known)
        values = self._values(tokens)
        if tokens.prints_config:
            kept = {
                name: value for name, value in values.items() if name in self.known.flags and name not in NOT_RECORDED
            }
            print(yaml.safe_dump(kept, sort_keys=False, allow_unicode=True), end="")
            sys.exit(0)
        return {argument.field_name: values[argument.name] for argument in self.arguments}

    def _values(self, tokens: Tokens, run: dict[str, Any] | None = None) -> dict[str, Any]:
        """What the tokens say, on top of the defaults or of a run's own settings."""
        parser = self._parser
        if run:
            parser = self._make_parser()
            parser.set_defaults(**run)
        hint = QUOTES
        try:
            config = parser.parse_object(tokens.config, defaults=False) if tokens.config else None
            hint = ""
            values: dict[str, Any] = parser.parse_args(tokens.own, namespace=config).as_dict()
        except ArgumentError as error:
            raise UserError(self._one_sentence(str(error), hint)) from None
        except (RecursionError, ValueError, TypeError) as error:
            raise UserError(f"{self.program} cannot make sense of its values ({describe_error(error)}).") from None
        values |= dict.fromkeys(tokens.open)
        for argument in self.arguments:
            name, value = argument.name, values[argument.name]
            if not argument.is_positional:
                require_text(name, value)
                if argument.is_text and str(value) in NOTHING:
                    require(name, str(value), argument.is_optional, "cannot be left open")
                    value = values[name] = None
            if argument.is_path:
                values[name] = _from_home(name, value)
        if run is None and values.get("resume") and self.takes_config:
            return self._resumed(tokens, values)
        return values

    def _resumed(self, tokens: Tokens, values: dict[str, Any]) -> dict[str, Any]:
        """The same for a run that goes on: its own settings, of which only some may change."""
        run, is_auto = Path(values["resume"]), values["resume"] == AUTO
        if is_auto:
            if not values["name"]:
                raise UserError(f"--resume {AUTO} needs the run's --name, too.")
            run = Path(values["runs_dir"], run_folder_name(values["name"]))
        if is_auto and not (run / IDENTITY).is_file():
            return {**values, "resume": str(run) if run.is_dir() else None}
        # What the version that began the run could not be told had its default.
        defaults = shaping({name: argument.default for name, argument in self.known.flags.items()})
        own = {**defaults, **settings_of_run(run, self.known.flags)}
        resumed = {**self._values(tokens, own), "resume": str(run)}
        refuse_changes(own, {name: resumed[name] for name in own})
        return resumed

    @cached_property
    def _parser(self) -> ArgumentParser:
        """Kept, because it takes longer to make than to use, and a sweep's worker reads a command line per trial."""
        return self._make_parser()

    def _make_parser(self) -> ArgumentParser:
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
            others.add_argument("--config", metavar="FILE", help=words)
            words = "Print all settings as such a file, and stop."
            others.add_argument(f"--{PRINT_CONFIG}", action="store_true", help=words)
        words = "Show where an error came from, for a report."
        others.add_argument(f"--{DEBUG}", action="store_true", help=words)
        others.add_argument("-h", "--help", action="help", help="Show this, and stop.")
        for name, item in self.information.items():
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

    def _one_sentence(self, message: str, hint: str) -> str:
        """Rewrite a complaint of several lines as one sentence, with the nearest value for a choice.

        ``hint`` follows where text was wanted and something else was read.
        """
        see = f"see {self.program} --help"
        if missing := re.search(r"arguments are required: (.*)", message):
            names = missing[1].split(", ")
            wanted = [argument.metavar for argument in self.arguments if argument.name in names]
            return f"{self.program} needs {' and '.join(wanted)}; {see}."
        if stray := re.search(r"unrecognized arguments: (.*)", message):
            may_stand_alone = [item for item in self.arguments if item.bare and item.choices]
            words = [f"--{item.name} takes {', '.join(item.choices)}" for item in may_stand_alone]
            return f"{self.program} takes no {stray[1]!r}; {'; '.join([*words, see])}."
        if empty := re.search(r"argument (?:-\w/|-\w, )?--(\w+): expected", message):
            return f"--{empty[1]} needs a value after it; {see}."
        match = re.search(r'Parser key "(\w+)".*(?:Got|Given) value: (.*)', message, flags=re.DOTALL)
        by_name = {argument.name: argument for argument in self.arguments}
        if match is None or match[1] not in by_name:
            return " ".join(message.split())
        argument, value = by_name[match[1]], match[2].strip().partition("\n")[0]
        if argument.choices:
            why = hint if value in ("True", "False") else ""
            return f"{argument.name} cannot be {value!r}{why}{nearest(value, argument.choices)}"
        why = hint if argument.is_text and value[0] not in "[{" else ""
        return f"{argument.name} must be {describe_type(argument.type)}, but it is {value!r}{why}."


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

    With ``--resume RUN`` the run's own settings stand where the defaults would, and most must stay as they are.
    Raises :class:`UserError` for an unknown setting (naming the nearest) or an impossible value. ``--help`` and
    ``--print_config`` print and exit with code 0. Under a W&B agent, which chooses the settings of the run, they must
    be those that its server shows.
    """
    shown_by = tuple((information or {}).items())
    command = _command_of_script(cast(type, settings_class), summary, example, recipes, shown_by)
    values = command.parse(sys.argv[1:] if argv is None else argv)
    if argv is None and (shown := flags_of_agent()):
        meant = command.parse([*sys.argv[1:], *shown])
        require_same({name: meant[name] for name in map(name_of, shown)}, values, f"by its command; {WRITE_ARGS}")
    settings = settings_class.of(**values)
    settings.validate()
    return settings


@lru_cache
def _command_of_script(
    settings_class: type[RunSettings],
    summary: str,
    example: str,
    recipes: Path | None,
    information: tuple[tuple[str, Information], ...],
) -> Command:
    arguments = tuple(argument for group in settings_class.groups().values() for argument in arguments_of(group))
    summary += f"\n\nSettings come from the defaults, then --config, then the flags. {BOOLEANS}"
    return Command(f"python {settings_class.SCRIPT}", summary, arguments, example, True, recipes, dict(information))


def parse_options(options_class: type[Options], program: str, argv: Sequence[str]) -> Options:
    """Fill a verb's options; raises :class:`UserError` as :func:`parse_settings` does."""
    return _checked(options_class(**command_of(cast(type, options_class), program).parse(argv)))


def parse_options_and_rest(
    options_class: type[Options], program: str, argv: Sequence[str], others: Sequence[type[RunSettings]]
) -> tuple[Options, list[str]]:
    """As :func:`parse_options`, for a program that hands on settings of others.

    Returns:
        The options, and the flags of ``others`` that were given, to be handed on as they are.
    """
    command = command_of(cast(type, options_class), program, tuple(others))
    return _checked(options_class(**command.parse(argv))), Tokens(argv, command.known).passed_on


def _checked(options: Options) -> Options:
    """The options, after those have refused what is impossible."""
    if hasattr(options, "validate"):
        options.validate()
    return options


@lru_cache
def command_of(options_class: type, program: str, others: tuple[type[RunSettings], ...] = ()) -> Command:
    """A verb, by the dataclass of its options: its docstring is the summary, ``EXAMPLE`` an example.

    Args:
        options_class: the dataclass.
        program: what is typed before the options.
        others: settings of other programs, which the verb hands on.
    """
    summary = " ".join((options_class.__doc__ or "").split())
    example = getattr(options_class, "EXAMPLE", "")
    passed_on = {
        argument.name: argument
        for settings_class in others
        for group in settings_class.groups().values()
        for argument in arguments_of(group)
    }
    return Command(program, summary, arguments_of(options_class), example, passed_on=passed_on)


def _add(group: Any, argument: Argument) -> None:
    """Give an argument to jsonargparse, which checks values by their types."""
    words = argument.help().replace("%", "%%")
    if argument.is_positional:
        element = argument.type.__args__[0] if argument.is_list else argument.type
        how_many = {"nargs": "*" if argument.default == [] else "+"} if argument.is_list else {}
        group.add_argument(argument.name, type=element, metavar=argument.metavar, help=words, **how_many)
        return
    # A switch's letter is spelled out before: argparse would take -1 for a flag wherever there is a flag -0.
    short = [] if argument.short is None or argument.is_flag else [argument.short]
    names = [*short, f"--{argument.name}"]
    # Without None, as else text that YAML reads as nothing would be lost; it is a default, and see Tokens.open.
    parts = parts_of(argument.type)
    more: dict[str, Any] = {"type": parts[0] if len(parts) == 1 else argument.type, "default": argument.default}
    if argument.is_list and not argument.takes_number:
        element = argument.type.__args__[0]
        more = {"type": element, "default": argument.default}
        more |= {"action": "append"} if argument.is_repeated else {"nargs": "+"}
    action = group.add_argument(*names, metavar=argument.metavar, help=words, **more)
    action.letter = argument.short if argument.is_flag else None


def _from_home(name: str, value: Any) -> Any:
    """A path, or each of a list, with ``~`` filled in."""
    if isinstance(value, list):
        return [_from_home(name, item) for item in value]
    return None if value is None else type(value)(from_home(name, str(value)))


class _Help(argparse.RawDescriptionHelpFormatter):
    """Flags on the left, words on the right."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=min(WIDEST_HELP, shutil.get_terminal_size().columns))

    def _format_action_invocation(self, action: argparse.Action) -> str:
        names = [name for name in action.option_strings if not name.endswith("+")]  # jsonargparse appends to lists
        if not names:
            return super()._format_action_invocation(action)
        if getattr(action, "_typehint", None) is bool:
            letter = getattr(action, "letter", None)
            return ", ".join([*([letter] if letter else []), names[-1], f"--no_{names[-1][2:]}"])
        value = "" if action.nargs == 0 or not action.metavar else f" {action.metavar}"
        return ", ".join(names) + value

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Wrap every paragraph; lines that are indented stay as they are."""
        lines = []
        for line in text.splitlines():
            fill = argparse.HelpFormatter._fill_text
            lines.append(line if line.startswith(" ") else fill(self, line, width, indent))
        return "\n".join(lines)
