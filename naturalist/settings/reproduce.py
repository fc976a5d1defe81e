"""What the verb ``reproduce`` can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from naturalist.settings.arguments import option
from naturalist.settings.rules import require_at_least_one

STRATEGIES = ["head", "partial", "full", "gradual", "probe-then-full"]


@dataclass(frozen=True)
class ReproduceOptions:
    """Do all of it: audit, sweep, train, test, explain, fine-tune, compare, report."""

    EXAMPLE: ClassVar[str] = "naturalist reproduce --data nature_12K"

    data: str = option("sample", path=True)
    """'sample', 'nature_12K' or a folder."""
    quick: bool = False
    """Small images, small networks and few epochs, some minutes on two cores: to see all of it once. So it is for
    'sample' anyhow."""
    count: int | None = None
    """Trials of the sweep; by default 29, as in the original work, or 12."""
    image_size: int | None = None
    """Side of the images of Part A, in pixels; by default 128, or 32."""
    epochs: int | None = None
    """Of the best settings, trained again; by default 30, or 10."""
    strategies: list[Literal["head", "partial", "full", "gradual", "probe-then-full"]] = option(
        STRATEGIES, group="Part B", metavar="NAME …"
    )
    """How to fine-tune."""
    backbone: str | None = option(None, group="Part B")
    """By default resnet50, or squeezenet1_1."""
    weights: str = option("DEFAULT", group="Part B", path=True)
    """Of the backbone: torchvision's, a file, or none."""
    finetune_epochs: int | None = option(None, group="Part B")
    """By default 10, or 3."""
    finetune_image_size: int | None = option(None, group="Part B")
    """By default that of the weights, or 64."""
    device: str = option("auto", group="Machine")
    """auto, cpu, cuda, cuda:N or mps."""
    out: Path | None = option(None, group="Record", short="-o", metavar="FOLDER")
    """Where everything goes; by default reproduction/ and the data's name. The same again goes on there."""

    def validate(self) -> None:
        """Refuse impossible values; raises :class:`UserError` naming the option."""
        names = ["count", "image_size", "epochs", "finetune_epochs", "finetune_image_size"]
        require_at_least_one(self, [name for name in names if getattr(self, name) is not None])
