"""YAML files of people: settings, sweeps, records."""

from pathlib import Path
from typing import Any

import yaml

from naturalist.errors import UserError


def read_yaml(path: Path, what: str, line: str = "setting: value") -> dict[str, Any]:
    """The content of a YAML file that holds keys and values; an empty file holds none.

    Args:
        path: the file.
        what: what it is called in messages, such as ``"configuration file"``.
        line: the form of its lines, in messages.

    Raises:
        UserError: when it cannot be read, is no YAML, or holds something else.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise UserError(f"cannot read the {what} {str(path)!r}: {reason}.") from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:  # such as a 30th of February
        mark = getattr(error, "problem_mark", None)
        raise UserError(f"{path} is not valid YAML" + (f" (line {mark.line + 1})." if mark else ".")) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold lines of the form '{line}'.")
    return content
