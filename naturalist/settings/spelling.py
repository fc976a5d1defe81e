"""Did you mean …? The valid name that is most like a mistaken one."""

import difflib
from collections.abc import Sequence

MOST_LISTED = 12
"""So many valid names are listed in full when none is like the mistaken one."""


def guess(name: str, valid: Sequence[str]) -> str | None:
    """The valid name that was probably meant: a similar one, one with these initials, or one that begins so.

    ``learning_rat`` and ``lr`` both mean ``learning_rate``, ``batch`` means ``batch_size``.
    """
    by_lower_case = {candidate.lower(): candidate for candidate in valid}
    name = name.lower()
    abbreviated = [full for full in by_lower_case if name and name == "".join(word[:1] for word in full.split("_"))]
    begun = [full for full in by_lower_case if len(name) > 2 and full.startswith(name)]
    similar = difflib.get_close_matches(name, by_lower_case, n=1, cutoff=0.5)
    matches = abbreviated[:1] or similar or begun
    return by_lower_case[matches[0]] if matches else None


def nearest(name: str, valid: Sequence[str], otherwise: str = "--help lists all settings") -> str:
    """The end of a sentence: ``'; did you mean X?'``, or all valid names, or ``otherwise`` when they are too many."""
    meant = guess(name, valid)
    if meant is not None:
        return f"; did you mean {meant}?"
    return f"; valid are {', '.join(valid)}." if 0 < len(valid) <= MOST_LISTED else f"; {otherwise}."
