"""Fonts for names in any script: matplotlib's own has no Chinese, Japanese or Korean letters, and few emoji."""

import re
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

from matplotlib import font_manager
from matplotlib.font_manager import FontEntry, fontManager

from naturalist.printable import printable

BASE = "DejaVu Sans"
"""Comes with matplotlib."""

NO_USE = ("last resort", "lastresort", "color", "blank", BASE.lower())
"""Parts of the names of fonts that offer nothing: all letters, but as boxes; pictures that matplotlib cannot draw."""

SHOWN = 10
"""Letters that are named when no font has them."""

_MISSING = re.compile(r"Glyph (\d+) .*missing from|Matplotlib currently does not support \w+ natively")
"""How matplotlib begins a warning of a letter that it draws as a box, or of a script that it cannot join."""

_told: set[str] = set()
"""Letters that were said to be missing."""


def fonts_for(*texts: str) -> list[str]:
    """The font families that draw texts: :data:`BASE`, and others on this machine for letters that it lacks."""
    base = str(font_manager.findfont(font_manager.FontProperties(family=[BASE])))
    return [BASE, *_others("".join(sorted(letter for letter in set("".join(texts)) if not _has(base, letter))))]


@contextmanager
def missing_letters_told() -> Iterator[None]:
    """Around drawing: letters that no font has are named in one line, each once, instead of matplotlib's warnings."""
    missing: set[str] = set()
    with warnings.catch_warnings():
        show = warnings.showwarning

        def note(message: Warning | str, *more: Any) -> None:
            found = _MISSING.match(str(message))
            if found is None:
                show(message, *more)
            elif found[1]:
                missing.add(chr(int(found[1])))

        warnings.filterwarnings("always", _MISSING.pattern)
        warnings.showwarning = note  # type: ignore[assignment]  # its last two arguments go through
        yield
    if new := sorted(missing - _told):
        _told.update(new)
        _say_missing(new)


def _say_missing(letters: list[str]) -> None:
    more = f" and {len(letters) - SHOWN} more" if len(letters) > SHOWN else ""
    scripts = sorted({unicodedata.name(letter, "UNKNOWN").split()[0] for letter in letters})
    print(
        f"No font on this machine has {' '.join(map(printable, letters[:SHOWN]))}{more} ({', '.join(scripts)}); "
        "pictures show boxes instead. Install one, such as Noto Sans CJK for Chinese, Japanese and Korean, Noto Emoji, "
        "or Noto Sans of another script, and draw them again.",
        flush=True,
    )


@cache
def _others(letters: str) -> tuple[str, ...]:
    """Families that have as many of the letters as this machine can offer, upright and plain ones first."""
    wanted, families = set(letters), []
    for font in sorted(_installed(), key=_rank) if wanted else ():
        if found := {letter for letter in wanted if _has(font.fname, letter)}:
            families.append(font.name)
            wanted -= found
        if not wanted:
            break
    return tuple(families)


@cache
def _installed() -> list[FontEntry]:
    """All fonts, those too that were installed since matplotlib made its list."""
    known = {font.fname for font in fontManager.ttflist}
    for path in sorted(set(font_manager.findSystemFonts()) - known):
        with suppress(OSError, RuntimeError, ValueError, KeyError):  # damaged, or of a kind that it does not know
            fontManager.addfont(path)
    return [font for font in fontManager.ttflist if not any(part in font.name.lower() for part in NO_USE)]


def _rank(font: FontEntry) -> tuple[bool, bool, bool, str]:
    return font.style != "normal", font.weight not in (400, "normal", "regular"), "Sans" not in font.name, font.name


def _has(path: str, letter: str) -> bool:
    try:
        return bool(font_manager.get_font(path).get_char_index(ord(letter)))
    except (OSError, RuntimeError):  # removed since it was listed, or damaged
        return False
