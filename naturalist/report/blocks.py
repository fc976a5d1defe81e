"""What a report is made of, whatever it is written as: sections of sentences, tables, pictures and commands."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from naturalist.settings.display_names import Italic

ITALIC = "\ufdd0", "\ufdd1"
"""Stand around what is in italics: Unicode keeps them for programs, so that no text of others holds them."""


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    KIND: ClassVar[str] = "text"


@dataclass(frozen=True)
class Heading:
    """Of a part of a section."""

    text: str
    KIND: ClassVar[str] = "heading"


@dataclass(frozen=True)
class Sentences:
    """Findings, each with its figures."""

    sentences: Sequence[str]
    KIND: ClassVar[str] = "sentences"


@dataclass(frozen=True)
class Formula:
    """Lines that are shown as they are: formulas, or a table of text."""

    text: str
    title: str = ""
    """With one, the lines are folded away behind it."""
    KIND: ClassVar[str] = "formula"


@dataclass(frozen=True)
class Table:
    """Rows of text; the first cell of each is its heading."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    KIND: ClassVar[str] = "table"


@dataclass(frozen=True)
class Picture:
    """An image file."""

    path: Path
    alternative: str
    """What it shows, for those who cannot see it."""
    caption: str = ""
    KIND: ClassVar[str] = "picture"


@dataclass(frozen=True)
class Parallel:
    """Parallel coordinates that can be brushed; the picture stands where no script runs, and in print."""

    picture: Picture
    dimensions: list[dict[str, Any]]
    """As plotly takes them: ``label``, ``values`` and, for words, ``tickvals`` and ``ticktext``; the last is the
    metric."""
    names: list[str]
    """Of the runs."""
    KIND: ClassVar[str] = "parallel"


@dataclass(frozen=True)
class Command:
    """What to type for something."""

    words: str
    command: str
    KIND: ClassVar[str] = "command"


@dataclass(frozen=True)
class Missing:
    """What the report has nothing to say about, and the command that changes that."""

    words: str
    command: str
    KIND: ClassVar[str] = "missing"


Block = Text | Heading | Sentences | Formula | Table | Picture | Parallel | Command | Missing


@dataclass
class Section:
    """A part of the report."""

    key: str
    """For addresses within the page."""
    title: str
    blocks: list[Block] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """The whole report."""

    title: str
    subtitle: str
    sections: list[Section]


def rate(value: float | None) -> str:
    """A score of a class in a table; a dash where it has none."""
    return "–" if value is None else f"{value:.3f}"


def marked(name: str) -> str:
    """A class's name as blocks hold it: between :data:`ITALIC` where it is in italics."""
    return name.join(ITALIC) if isinstance(name, Italic) else name
