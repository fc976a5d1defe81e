"""Files and folders: below the home folder, or by their last part; and what names they can have."""

import os
import re
from contextlib import suppress
from pathlib import Path

from naturalist.errors import UserError
from naturalist.settings.spelling import guess, nearest

RUNS = Path("runs")
"""Where a run is looked for by its name."""

LONGEST_NAME = 240
"""Bytes of a folder's name: file systems take 255, and a number may come on top."""

_DEVICE = re.compile(r"^(con|prn|aux|nul|(com|lpt)[0-9¹²³])(?= *(\.|$))", re.IGNORECASE)


def from_home(name: str, path: str) -> str:
    """A path whose ``~`` or ``~user`` is that home folder; variables of the environment are not filled in.

    Shells do the same for a flag's value only where it stands apart, and nobody does it in YAML: the folder that would
    be made is called ``~``.

    Args:
        name: of the setting, for messages.
        path: as it was given.

    Raises:
        UserError: when nobody of that name has a home folder, and no file is called so.
    """
    if not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError:
        if os.path.lexists(path):
            return path
        raise UserError(f"{name}: nobody called {Path(path).parts[0][1:]!r} has a home folder here.") from None


def find_recipe(name: str, recipes: Path | None) -> Path:
    """The configuration file that ``--config`` names: a path, or a recipe with or without ``.yaml``.

    Raises :class:`UserError`, with the most similar recipe, when there is none.
    """
    path = Path(name)
    if path.exists() or recipes is None:
        return path
    known = {recipe.name: recipe for recipe in sorted(recipes.glob("*.yaml"))}
    for candidate in (path.name, f"{path.name}.yaml"):
        if candidate in known and len(path.parts) == 1:
            return known[candidate]
    hint = nearest(path.name, list(known))
    raise UserError(f"there is no configuration file {name!r}, nor a recipe of that name in {_short(recipes)}/{hint}")


def find_run(run: Path) -> Path:
    """The run folder, or checkpoint file, that a command line names: a path, or the name of a run in ``runs/``.

    A path that is not there is given back as it is when no run is like it: what reads it says what is wrong.
    """
    if run.exists() or len(run.parts) != 1:
        return run
    if (RUNS / run).exists():
        return RUNS / run
    known = [folder.name for folder in sorted(RUNS.glob("*")) if folder.is_dir()]
    meant = guess(run.name, known)
    if meant is not None:
        raise UserError(f"there is no run {str(run)!r}, neither here nor in {RUNS}/; did you mean {meant}?")
    return run


def refuse_missing(path: Path, what: str) -> None:
    """Raise :class:`UserError` when a file is not there, with the most similar one beside it."""
    if path.is_file():
        return
    meant = guess(path.name, _beside(path))
    hint = "" if meant is None else f"; did you mean {path.parent / meant}?"
    raise UserError(f"there is no {what} {str(path)!r}{hint or '.'}")


def run_folder_name(name: str) -> str:
    """What the folder of a run with that name is called.

    What file systems or shells object to becomes ``-``; see also :func:`portable`.
    """
    name = re.sub(r"[^\w.=+-]+", "-", name)[:120].encode(errors="replace")[:LONGEST_NAME].decode(errors="ignore")
    return portable(name.strip(".-") or "run")


def portable(name: str) -> str:
    """A folder's name that Windows can hold, too: results are copied from one machine to another.

    Signs that mean something in its paths become ``-``, a name of a device, such as ``aux``, gets one at its end, and
    spaces and dots at the end, which it forgets, are left out.
    """
    return _DEVICE.sub(r"\g<0>-", re.sub(r'[<>:"/\\|?*]', "-", name).rstrip(" ."), count=1)


def _beside(path: Path) -> list[str]:
    """Files that lie where a path points, of a similar kind."""
    with suppress(OSError):
        return sorted(
            other.name for other in path.parent.iterdir() if path.suffix[:2] in other.name and other.is_file()
        )
    return []


def _short(folder: Path) -> str:
    """The last two parts of a folder, such as ``configs/partA``."""
    return "/".join(folder.parts[-2:])
