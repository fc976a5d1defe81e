"""What is read back is checked: each record has a schema, and a damaged one is named in one sentence.

A schema is a msgspec Struct. Fields that it does not know are of a newer version and let be. NaN and infinities are
no JSON, and an impossible value, such as an accuracy of 2, is damage like any other.
"""

import csv
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import msgspec
from msgspec import Meta

from naturalist.errors import UserError
from naturalist.files import restored
from naturalist.wording import counted

LARGEST = 2**53
"""Beyond it a float no longer counts by ones."""

Share = Annotated[float, Meta(ge=0, le=1)]
"""In [0, 1]."""
NotNegative = Annotated[float, Meta(ge=0, le=LARGEST)]
Finite = Annotated[float, Meta(ge=-1e300, le=1e300)]
Count = Annotated[int, Meta(ge=0, le=LARGEST)]
"""0, 1, 2 …"""
Ordinal = Annotated[int, Meta(ge=1, le=LARGEST)]
"""1, 2, 3 …"""
# No patterns for strings: a pattern and a list in one union make msgspec 0.22 free memory that is not its own.
Plain = None | bool | int | float | str | list[None | bool | int | float | str]
"""What a setting may be."""
Settings = dict[str, Plain]

T = TypeVar("T")


class DamagedRecord(UserError):
    """A record that is missing, damaged or impossible: which, where in it, and what to do."""


def read_json(path: Path, kind: type[T], remedy: str) -> T:
    """The object in a JSON file.

    Args:
        path: the file.
        kind: its schema.
        remedy: what to do when it is damaged, or what that means; ends the sentence.

    Raises:
        DamagedRecord: when there is none, it is no UTF-8, no JSON, or does not keep to its schema.
    """
    return fit(_decode(_read(path, remedy), str(path), remedy), kind, str(path), remedy)


def read_json_lines(
    path: Path,
    kind: type[T],
    remedy: str,
    *,
    schema: type[object] | None = None,
    leave_out: Callable[[DamagedRecord], None] | None = None,
) -> list[T]:
    """The objects in a file of JSON lines, in order.

    A last line without its line end is what a killed process leaves; it counts only when it is whole.

    Args:
        path: the file.
        kind: what each line becomes.
        schema: what it must keep to, if not ``kind``: for dicts whose unknown fields are to be kept.
        remedy: see :func:`read_json`.
        leave_out: told of a damaged line, which is then left out; by default it is raised.

    Raises:
        DamagedRecord: as :func:`read_json` does, naming the line.
    """
    found = []
    lines = _read(path, remedy).split(b"\n")
    for number, line in enumerate(lines, start=1):
        is_last = number == len(lines)  # after the last line end there is nothing, or what was torn
        if is_last and not line:
            break
        place = f"{path}, line {number},"
        try:
            content = _decode(line, place, remedy)
            fit(content, schema or kind, place, remedy)
            found.append(fit(content, kind, place, remedy))
        except DamagedRecord as damage:
            if is_last:
                break
            if leave_out is None:
                raise
            leave_out(damage)
    return found


def read_csv(path: Path, remedy: str) -> tuple[list[str], list[list[str]]]:
    """Heading and rows of a CSV file, all of one length; bytes that are no UTF-8 are let be, for names may have them.

    Cells are as they were given to :func:`naturalist.files.write_table`.

    Args:
        path: the file.
        remedy: see :func:`read_json`.

    Raises:
        DamagedRecord: when there is none, or it is no table.
    """
    text = _read(path, remedy).decode(errors="surrogateescape")
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        damaged(str(path), str(error), remedy)
    if not rows:
        damaged(str(path), "it is empty", remedy)
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]) or "\0" in "".join(row):
            damaged(f"{path}, row {number},", f"it has {len(row)} of {counted(len(rows[0]), 'column')}", remedy)
    return restored(rows[0]), [restored(row) for row in rows[1:]]


def fit(value: object, kind: type[T], place: str, remedy: str) -> T:
    """A plain value as its schema has it.

    Args:
        value: numbers, strings, lists and dicts.
        kind: the schema.
        place: which value, for messages.
        remedy: see :func:`read_json`.

    Raises:
        DamagedRecord: when it does not keep to the schema.
    """
    try:
        if _holds_nul(value):
            damaged(place, "it holds a NUL", remedy)
        return msgspec.convert(value, kind)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        damaged(place, _words(error), remedy)


def damaged(place: str, problem: str, remedy: str) -> NoReturn:
    """Raise :class:`DamagedRecord`: ``place`` is damaged, for ``problem``; ``remedy``."""
    raise DamagedRecord(f"{place} is damaged ({one_line(problem)}); {remedy}.") from None


def one_line(words: str) -> str:
    """What somebody else wrote, fit to be quoted in a sentence: 300 characters at most, all of them printable."""
    shown = "".join(character if character.isprintable() else " " for character in words[:300])
    return " ".join(shown.split())


def misnamed(head: bytes) -> str | None:
    """What a file is whose content was never fetched, by its first bytes, and what to do; None for all others."""
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself; fetch it with git lfs pull"
    if re.match(rb"\s*<(!doctype html|html|head|body)\b", head, re.IGNORECASE):
        return "a web page, not the file itself; download it again"
    return None


def end_last_line(path: Path) -> None:
    """Give a file of lines the line end that a killed process owed, so that the next line is one of its own."""
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")  # at the end, wherever was read


def _read(path: Path, remedy: str) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DamagedRecord(f"{path} is missing or damaged ({reason}); {remedy}.") from None


def _decode(content: bytes, place: str, remedy: str) -> object:
    try:
        return json.loads(content.decode(), parse_constant=_refuse, parse_float=_finite)
    except UnicodeDecodeError as error:
        problem = f"byte {error.start + 1} is no UTF-8"
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}" if b"\n" in content else f"column {error.colno}"
        problem = f"no valid JSON at {where}"
    except (ValueError, RecursionError) as error:
        problem = _words(error)
    damaged(place, problem, remedy)


def _holds_nul(value: object) -> bool:
    """Whether some text has a character that no name of a file or class has."""
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_holds_nul(key) or _holds_nul(item) for key, item in value.items())
    return isinstance(value, list | tuple) and any(map(_holds_nul, value))


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def _finite(digits: str) -> float:
    value = float(digits)
    if abs(value) == float("inf"):
        raise ValueError(f"{digits[:20]} is out of range")
    return value


def _words(error: BaseException) -> str:
    """What is wrong and where, without msgspec's signs."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeError):
        return "it holds half a character"
    problem, _, place = str(error).replace("`", "").partition(" - at ")
    place = re.sub(r"^\$\.?", "", place)
    if problem.startswith(("Expected", "Object", "Invalid", "Number", "Input")):  # msgspec's own
        problem = problem[0].lower() + problem[1:]
    return f"{place}: {problem}" if place else problem
