"""How classes are called where people read them: a file that gives folders names, in italics where it says so."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from naturalist.errors import UserError
from naturalist.printable import in_markdown
from naturalist.reading import read_csv
from naturalist.settings.spelling import nearest
from naturalist.settings.yaml_file import read_yaml

WHAT = "file of display names"

Called = Callable[[str], str]
"""What a class is called, by the name of its folder."""


class Given(str):
    """A name that a file gave to a class: it is shown as it is."""

    __slots__ = ()


class Italic(Given):
    """One that figures and pages set in italics, as those of species are."""

    __slots__ = ()


def read_display_names(path: Path | None, class_names: Sequence[str]) -> tuple[str, ...]:
    """The names of classes, in their order; a class that no file names keeps its folder's name.

    The file is YAML, ``folder: name``, or, called ``….csv``, a table with the columns ``folder`` and ``name``. A name
    between asterisks, ``*Acer negundo*``, is an :class:`Italic`. Nothing else in a name has a meaning.

    Raises:
        UserError: when it cannot be read, names a folder that is no class, or gives two classes one name.
    """
    if path is None:
        return tuple(class_names)
    given = _of_table(path) if path.suffix.lower() == ".csv" else read_yaml(path, WHAT, "folder: name")
    for folder, name in given.items():
        if folder not in class_names:
            guess = nearest(str(folder), list(class_names), f"the classes are {', '.join(class_names)}")
            raise UserError(f"{path} names {folder!r}, which is no class here{guess}")
        if not isinstance(name, str) or not name.strip("* "):
            raise UserError(f"{path} has no name for {folder!r}; write one, or leave the folder out.")
    names = tuple(_marked(given.get(name, name)) if name in given else name for name in class_names)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path} calls two classes {str(twice)!r}; give each a name of its own.")
    return names


def names_by_folder(path: Path | None, class_names: Sequence[str]) -> dict[str, str]:
    """The name of each class's folder → what the class is called; see :func:`read_display_names`."""
    return dict(zip(class_names, read_display_names(path, class_names), strict=True))


def name_in_markdown(name: str) -> str:
    """A class's name as Markdown shows it, in italics or not; see :func:`naturalist.printable.in_markdown`."""
    return f"*{in_markdown(name)}*" if isinstance(name, Italic) else in_markdown(name)


def _of_table(path: Path) -> dict[str, Any]:
    heading, rows = read_csv(path, f"a {WHAT} in CSV has the columns folder and name")
    if heading != ["folder", "name"]:
        raise UserError(f"{path} must begin with the line 'folder,name'.")
    given: dict[str, Any] = {}
    for folder, name in rows:
        if folder in given:
            raise UserError(f"{path} names {folder!r} twice; keep one of the rows.")
        given[folder] = name
    return given


def _marked(name: str) -> str:
    name = name.strip()
    is_italic = len(name) > 2 and name.startswith("*") and name.endswith("*")
    return Italic(name[1:-1].strip()) if is_italic else Given(name)
