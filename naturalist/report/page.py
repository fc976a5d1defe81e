"""The report as one HTML page that needs nothing else, or as Markdown with a folder of pictures beside it."""

import base64
import gzip
import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from naturalist.files import write_atomically
from naturalist.printable import in_markdown, printable
from naturalist.report.blocks import ITALIC, Parallel, Picture, Report

WIDEST = 1600
"""Pixels of an embedded picture."""
QUALITY = 85
"""Of WebP, 0 to 100: letters and lines show no noise yet."""

_IN_ITALICS = re.compile("{0}([^{0}{1}]*){1}".format(*ITALIC))


def write_html(report: Report, path: Path) -> None:
    """Write one page; pictures and scripts are in it, and it asks nobody for anything."""
    interactive = any(isinstance(block, Parallel) for section in report.sections for block in section.blocks)
    page = _environment(html=True).get_template("page.html.j2")
    write_atomically(path, page.render(report=report, plotly=_plotly() if interactive else ""))


def write_markdown(report: Report, path: Path) -> None:
    """Write Markdown; its pictures lie in a folder beside it."""
    folder = path.with_name(f"{path.stem}-pictures")
    folder.mkdir(exist_ok=True)
    taken: set[str] = set()

    def copy(picture: Picture) -> str:
        """Copy a picture to the folder, two of one name under two names; returns its address."""
        name = picture.path.name
        if name in taken:
            name = f"{picture.path.parent.parent.name}-{name}"
        while name in taken:
            name = f"other-{name}"
        taken.add(name)
        shutil.copyfile(picture.path, folder / name)
        return f"{folder.name}/{name}"

    write_atomically(path, render_markdown(report, copy))


def render_markdown(report: Report, address: Callable[[Picture], str] | None) -> str:
    """The report in Markdown; ``address`` says where a picture lies, None leaves them out."""
    page = _environment(html=False).get_template("page.md.j2")
    text = page.render(report=report, address=address)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _environment(html: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("naturalist.report", "."),
        autoescape=html,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=_in_html if html else _printable,
    )
    environment.filters |= {"embedded": embedded, "cell": _in_markdown}
    return environment


def _printable(value: Any) -> Any:
    """What a template writes; names that others gave hold nothing that cannot be shown."""
    return printable(value) if type(value) is str and not value.isprintable() and "\n" not in value else value


def _unbroken(text: str) -> str:
    """The same, with no line that begins with a per cent sign."""
    return re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", _printable(text))


def _in_html(value: Any) -> Any:
    """The same, escaped, with names in italics; what is HTML already stays as it is."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return Markup(_written(value, lambda text: str(escape(_unbroken(text))), "<em>", "</em>"))


def _in_markdown(text: str) -> str:
    """Text of others with names in italics, see :func:`naturalist.printable.in_markdown`."""
    return _written(text, in_markdown, "*", "*")


def _written(text: str, plain: Callable[[str], str], before: str, after: str) -> str:
    """Text with its parts written as ``plain`` does, and signs around those in italics."""
    parts = _IN_ITALICS.split(text)  # every second one
    return "".join(f"{before}{plain(part)}{after}" if i % 2 else plain(part) for i, part in enumerate(parts))


def embedded(path: Path) -> dict[str, Any]:
    """A picture in an address, no wider than needed: ``address``, ``width`` and ``height`` in pixels."""
    with Image.open(path) as file:
        image = file.convert("RGB")
        image.thumbnail((WIDEST, 4 * WIDEST))
        small = io.BytesIO()
        image.save(small, "WEBP", quality=QUALITY, method=2)  # further methods take longer and gain nothing here
        address = f"data:image/webp;base64,{base64.b64encode(small.getvalue()).decode()}"
        return {"address": address, "width": image.width, "height": image.height}


def _plotly() -> str:
    """The library that draws what can be brushed, packed; a page with it unpacked would be three times as large."""
    from plotly.offline import get_plotlyjs

    packed = gzip.compress(get_plotlyjs().encode(), 9, mtime=0)
    return base64.b64encode(packed).decode()
