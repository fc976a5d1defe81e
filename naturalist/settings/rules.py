"""Rules that values must keep, and the sentence for one that does not."""

import math
import re
from collections.abc import Iterable
from typing import Any

from naturalist.errors import UserError

LARGEST_SEED = 2**32 - 1
"""NumPy's generators take no larger one."""

NOTHING = ("None", "null")
"""Words for a setting that is left open, as Python, and so W&B's agent, and YAML write it."""

DEVICES = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")


def require(name: str, value: Any, holds: bool, rule: str) -> None:
    """Raise :class:`UserError` naming the setting unless ``holds``.

    A comparison with nan is false, so nan is refused by every rule.
    """
    if not holds:
        raise UserError(f"{name} {rule}, but it is {value!r}.")


def require_positive(group: Any, names: Iterable[str]) -> None:
    """Each of a group's settings must be greater than 0."""
    for name in names:
        require(name, getattr(group, name), 0 < getattr(group, name) < math.inf, "must be greater than 0")


def require_not_negative(group: Any, names: Iterable[str]) -> None:
    """Each of a group's settings must be 0 or more."""
    for name in names:
        require(name, getattr(group, name), 0 <= getattr(group, name) < math.inf, "must not be negative or infinite")


def require_share(group: Any, names: Iterable[str]) -> None:
    """Each of a group's settings must lie in [0, 1]."""
    for name in names:
        require(name, getattr(group, name), 0 <= getattr(group, name) <= 1, "must lie between 0 and 1")


def require_below_one(group: Any, names: Iterable[str]) -> None:
    """Each of a group's settings must lie in [0, 1)."""
    for name in names:
        require(name, getattr(group, name), 0 <= getattr(group, name) < 1, "must be at least 0 and less than 1")


def require_positive_share(group: Any, names: Iterable[str]) -> None:
    """Each of a group's settings must lie in (0, 1]."""
    for name in names:
        require(name, getattr(group, name), 0 < getattr(group, name) <= 1, "must be greater than 0 and at most 1")


def require_at_least_one(group: Any, names: Iterable[str]) -> None:
    """Each of a group's settings must be 1 or more."""
    for name in names:
        require(name, getattr(group, name), getattr(group, name) >= 1, "must be at least 1")


def require_seed(group: Any, names: Iterable[str]) -> None:
    """Each of a group's settings must be a seed."""
    for name in names:
        seed = getattr(group, name)
        require(name, seed, 0 <= seed <= LARGEST_SEED, f"must lie between 0 and {LARGEST_SEED:,}")


def require_device(name: str) -> None:
    """``--device`` must be the name of one; whether it is there is asked when it is needed."""
    require("device", name, DEVICES.fullmatch(name) is not None, "must be auto, cpu, mps, cuda or cuda:N")


def require_project(name: str, project: str) -> None:
    """A project's name must be one that W&B takes."""
    is_name = len(project) <= 128 and not set("/\\#?%:") & set(project)
    require(name, project, is_name, "must have at most 128 letters and none of / \\ # ? % :")


def require_text(name: str, value: Any) -> None:
    """Text, alone or in a list, must hold something, and only what can be shown and recorded."""
    for text in value if isinstance(value, list) else [value]:
        if not isinstance(text, str):
            continue
        require(name, text, text.strip() != "", "must not be empty")
        is_shown = all(character.isprintable() for character in text)
        require(name, text, is_shown, "must be text without control characters, in UTF-8")
