"""The arguments of a command, read off dataclasses: name, type, default and the words below each field."""

from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from docstring_parser import parse_from_object


@dataclass(frozen=True)
class Argument:
    """One setting or option, as the command line has it."""

    name: str
    field_name: str
    """Its field in the dataclass; only where that cannot be the flag's name are the two different."""
    type: Any
    default: Any
    words: str
    """What it means."""
    group: str
    """Heading of ``--help`` that it stands under."""
    metavar: str
    short: str | None = None
    """One letter that stands for it, such as ``-o``."""
    is_positional: bool = False
    bare: str | None = None
    """What the flag means without a value; None where it needs one."""
    is_repeated: bool = False
    """Every use of the flag adds a value."""
    is_path: bool = False
    """Its value names a file or folder, so that ``~`` at its beginning is the home folder."""

    @property
    def is_flag(self) -> bool:
        """Whether its value is true or false."""
        return self.type is bool

    @property
    def is_named_switch(self) -> bool:
        """Whether it may be written as a flag, for which one of its words then stands."""
        return self.bare is not None and bool(self.choices)

    @property
    def is_optional(self) -> bool:
        """Whether it may be left open: None is a value of it."""
        return NoneType in get_args(self.type)

    @property
    def is_text(self) -> bool:
        """Whether its value is text of any kind."""
        return parts_of(self.type) in ((str,), (Path,))

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that it takes, where those can be listed."""
        for part in parts_of(self.type):
            element = get_args(part)[0] if get_origin(part) is list else part
            if get_origin(element) is Literal:
                return get_args(element)
        return ()

    @property
    def is_list(self) -> bool:
        """Whether a positional argument takes one or more values; of one with a default there may be none."""
        return any(get_origin(part) is list for part in parts_of(self.type))

    @property
    def takes_number(self) -> bool:
        """Whether one value will do where a list could stand."""
        return len(parts_of(self.type)) > 1

    def help(self) -> str:
        """The words of ``--help``: meaning, choices, default."""
        text = self.words
        if self.choices:
            text += f" One of {', '.join(self.choices)}."
        if self.is_positional or self.default in (None, MISSING) or self.default == []:
            return text
        if self.is_flag:
            return f"{text} (default: {'on' if self.default else 'off'})"
        shown = " ".join(self.default) if isinstance(self.default, list) else self.default
        return f"{text} (default: {shown})"


def option(
    default: Any = MISSING,
    *,
    group: str | None = None,
    metavar: str | None = None,
    name: str | None = None,
    short: str | None = None,
    bare: str | None = None,
    repeated: bool = False,
    path: bool = False,
) -> Any:
    """A field that is not an ordinary flag.

    Args:
        default: without one the argument is positional.
        group: heading of ``--help``, if not that of its dataclass.
        metavar: what stands for its value in ``--help``.
        name: of the flag, if not the field's.
        short: one letter with a hyphen.
        bare: what the flag means without a value.
        repeated: whether the flag may be given again, each time with another value.
        path: whether its value names a file or folder, where its type is not Path and its name does not end in _dir.
    """
    more = {"group": group, "metavar": metavar, "name": name, "short": short, "bare": bare, "repeated": repeated}
    more["path"] = path
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=more)
    return field(default=default, metadata=more)


def positional(metavar: str, default: Any = MISSING, *, path: bool = False) -> Any:
    """A field that is given by its place on the command line; ``path`` as for :func:`option`."""
    more = {"metavar": metavar, "positional": True, "path": path}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=more)
    return field(default=default, metadata=more)


@cache
def arguments_of(dataclass_: type) -> tuple[Argument, ...]:
    """The arguments that fill a dataclass, in the order of its fields."""
    hints, words = get_type_hints(dataclass_), _words(dataclass_)
    arguments = []
    for item in fields(dataclass_):
        default = item.default if item.default_factory is MISSING else item.default_factory()
        more = item.metadata
        arguments.append(
            Argument(
                name=more.get("name") or item.name,
                field_name=item.name,
                type=hints[item.name],
                default=default,
                words=words.get(item.name, ""),
                group=str(more.get("group") or getattr(dataclass_, "TITLE", "Options")),
                metavar=more.get("metavar") or _metavar(item.name, hints[item.name]),
                short=more.get("short"),
                bare=more.get("bare"),
                is_positional=more.get("positional", False),
                is_repeated=more.get("repeated", False),
                is_path=_is_path(item.name, hints[item.name]) or more.get("path", False),
            )
        )
    return tuple(arguments)


def parts_of(hint: Any) -> tuple[Any, ...]:
    """The types of a union without None, or the one type."""
    if get_origin(hint) in (Union, UnionType):
        return tuple(part for part in get_args(hint) if part is not NoneType)
    return (hint,)


def describe_type(hint: Any) -> str:
    """A type in words, for messages."""
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
    return " or ".join("a list of five" if get_origin(part) is list else words[part] for part in parts_of(hint))


def _is_path(name: str, hint: Any) -> bool:
    return name.endswith("_dir") or any(Path in (part, *get_args(part)) for part in parts_of(hint))


def _metavar(name: str, hint: Any) -> str:
    if name.endswith("_dir"):
        return "FOLDER"
    by_type = {int: "N", float: "X", Path: "PATH"}
    return by_type.get(parts_of(hint)[0], "NAME")


def _words(dataclass_: type) -> dict[str, str]:
    """The string below every field; where a class only changes a default, that of its base."""
    words: dict[str, str] = {}
    for base in reversed(dataclass_.__mro__[:-1]):
        for entry in parse_from_object(base).params:
            if entry.description:
                words[entry.arg_name] = " ".join(entry.description.split())
    return words
