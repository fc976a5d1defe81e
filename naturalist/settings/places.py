"""Files and folders: below the home folder, or by their last part: a recipe of ``configs/``, a run of ``runs/``."""

import os
from pathlib import Path

from naturalist.errors import UserError
from naturalist.settings.spelling import guess, nearest

RUNS = Path("runs")
"""Where a run is looked for by its name."""


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
    beside = [other.name for other in sorted(path.parent.glob(f"*{path.suffix[:2]}*")) if other.is_file()]
    meant = guess(path.name, beside)
    hint = "" if meant is None else f"; did you mean {path.parent / meant}?"
    raise UserError(f"there is no {what} {str(path)!r}{hint or '.'}")


def _short(folder: Path) -> str:
    """The last two parts of a folder, such as ``configs/partA``."""
    return "/".join(folder.parts[-2:])
