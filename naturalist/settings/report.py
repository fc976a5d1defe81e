"""What the verb ``report`` can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from naturalist.settings.arguments import option, positional


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Write one page about the data, the sweep, both parts and how to get the same again."""

    EXAMPLE: ClassVar[str] = "naturalist report runs sweeps -o report.html"

    folders: list[Path] = positional("RUNS", [])
    """Run folders, sweeps, or folders of either; by default runs, sweeps and comparison."""
    audit: Path = option(Path("audit"), metavar="FOLDER")
    """Where naturalist audit wrote what it found."""
    title: str | None = None
    """Of the page; by default the data's name."""
    display_names: Path | None = option(None, metavar="FILE")
    """How classes are called: YAML of folder: name, or CSV; a name between asterisks is in italics."""
    format: Literal["html", "md"] = "html"
    """A page that needs nothing else, or Markdown with a folder of pictures beside it."""
    wandb: bool = False
    """Also publish it as a report at Weights & Biases (needs pip install 'naturalist[wandb-report]')."""
    wandb_project: str = "naturalist"
    """Project at Weights & Biases."""
    out: Path | None = option(None, group="Record", short="-o", metavar="FILE")
    """File to write; by default report.html or report.md."""
