"""YAML files of people: settings, sweeps, records."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from naturalist.errors import UserError

MOST_BYTES, MOST_VALUES, DEEPEST = 2**20, 100_000, 20
"""No file of people is as large; one that nobody wrote by hand could take all memory."""


def read_yaml(path: Path, what: str, line: str = "setting: value") -> dict[str, Any]:
    """The content of a YAML file that holds keys and values; an empty file holds none.

    Args:
        path: the file.
        what: what it is called in messages, such as ``"configuration file"``.
        line: the form of its lines, in messages.

    Raises:
        UserError: when it cannot be read, is no YAML, is too large or too deeply nested, or holds something else.
    """
    too_much = UserError(f"{path} holds more, or more deeply nested, values than a {what} can need.")
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise too_much
        content = yaml.safe_load(data.decode("utf-8-sig"))
    except RecursionError:
        raise too_much from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise UserError(f"cannot read the {what} {str(path)!r}: {reason}.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise UserError(f"{path} is not valid YAML" + (f" (line {mark.line + 1})." if mark else ".")) from None
    except (ValueError, TypeError, OverflowError) as error:  # a 30th of February, a number of thousands of digits
        raise UserError(f"{path} is not valid YAML: {error}.") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold lines of the form '{line}'.")
    for number, depth in enumerate(_depths(content)):  # names that stand for what other names stand for multiply
        if number > MOST_VALUES or depth > DEEPEST:
            raise too_much
    return content


def _depths(content: Any) -> Iterator[int]:
    """How deep each value lies, every name in the file replaced by what it stands for."""
    waiting = [(content, 0)]
    while waiting:
        value, depth = waiting.pop()
        yield depth
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | set) else ()
        waiting += [(item, depth + 1) for item in inner]
