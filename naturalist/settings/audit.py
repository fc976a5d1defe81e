"""What the verb ``audit`` can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from naturalist.settings.arguments import option, positional
from naturalist.settings.rules import require, require_device, require_not_negative
from naturalist.settings.verbs import PictureFormat, Split

MOST_BITS = 16
"""Two photographs that have nothing to do with each other differ in 32 of 64 bits, give or take 4."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """From where on a photograph is suspicious, and two look the same."""

    small: int = option(64, group="Limits")
    """Short side in pixels below which a photograph is called small."""
    uniform: float = option(6.0, group="Limits")
    """Standard deviation of brightness (0 to 255) below which it is called nearly uniform."""
    blurred: float = option(30.0, group="Limits")
    """Variance of the Laplacian of brightness, at 128 px, below which it is called blurred."""
    dark: float = option(15.0, group="Limits")
    """Mean brightness below which it is called very dark."""
    bright: float = option(240.0, group="Limits")
    """Mean brightness above which it is called very bright."""
    distance: int = option(8, group="Limits")
    """Bits in which the perceptual hashes, of 64 bits, of two photographs that look the same may differ, 0 to 16."""

    def validate(self) -> None:
        """Refuse impossible values; raises :class:`UserError` naming the option."""
        require_not_negative(self, ["small", "uniform", "blurred", "dark", "bright"])
        holds = 0 <= self.distance <= MOST_BITS
        require("distance", self.distance, holds, f"must lie between 0 and {MOST_BITS}")


@dataclass(frozen=True, kw_only=True)
class AuditOptions(Limits):
    """Look for what is wrong with a data set: duplicates, leaks, odd files, labels."""

    EXAMPLE: ClassVar[str] = "naturalist audit photographs -o audit --run runs/first"

    data: str = positional("FOLDER", path=True)
    """Folder of photographs, or 'sample' or 'nature_12K'."""
    run: Path | None = option(None, metavar="RUN")
    """Also look for wrong labels, among images that this run was not trained on: run folder, a checkpoint file in one,
    or the name of a run in runs/."""
    split: Split = "val"
    """Images in which to look for wrong labels; test is a look at the test set, and remembered as one."""
    display_names: Path | None = option(None, metavar="FILE")
    """How classes are called: YAML of folder: name, or CSV; a name between asterisks is in italics."""
    format: PictureFormat = "png"
    """Of the pictures; svg and pdf for papers."""
    datasets_dir: str = option("datasets", group="Data")
    """Where 'sample' and 'nature_12K' are stored."""
    cache_dir: str | None = option(None, group="Data")
    """Folder for decoded images; by default 'cache' beside runs_dir."""
    device: str = option("auto", group="Machine")
    """Of the run's network: auto, cpu, cuda, cuda:N or mps."""
    runs_dir: str = option("runs", group="Record")
    """The cache lies beside it unless --cache_dir is given."""
    out: Path = option(Path("audit"), group="Record", short="-o", metavar="FOLDER")
    """Where tables and pictures go."""

    def validate(self) -> None:
        """Refuse impossible values; raises :class:`UserError` naming the option."""
        super().validate()
        require_device(self.device)
        require("split", self.split, self.run is not None or self.split == "val", "needs --run")
