"""Rules that values must keep, and the sentence for one that does not."""

from collections.abc import Iterable
from typing import Any

from naturalist.errors import UserError


def require(name: str, value: Any, holds: bool, rule: str) -> None:
    """Raise :class:`UserError` naming the setting unless ``holds``.

    A comparison with nan is false, so nan is refused by every rule.
    """
    if not holds:
        raise UserError(f"{name} {rule}, but it is {value!r}.")


def require_positive(group: Any, names: Iterable[str]) -> None:
    """Each of a group's settings must be greater than 0."""
    for name in names:
        require(name, getattr(group, name), getattr(group, name) > 0, "must be greater than 0")


def require_not_negative(group: Any, names: Iterable[str]) -> None:
    """Each of a group's settings must be 0 or more."""
    for name in names:
        require(name, getattr(group, name), getattr(group, name) >= 0, "must not be negative")


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
