"""What can be chosen, for people: the backbones that there are, and the stages of one."""

from pathlib import PurePosixPath
from urllib.parse import urljoin

from torchvision import models

from naturalist.models.backbones import StagedNetwork, backbone_names
from naturalist.models.strategies import describe_stages
from naturalist.models.weights import settings_from_weights
from naturalist.settings.part_b import FinetuneSettings

SOURCE = "https://download.pytorch.org/models/"
"""Where torchvision's weights lie."""

HEADINGS = ("backbone", "params (M)", "input (px)", "GMACs", "top-1 (%)", "file (MB)")


def list_backbones(_: str = "") -> str:
    """A table of text, a line for every backbone that ``--backbone`` takes, from small to large.

    All is from torchvision's own records; nothing is built or fetched.

    Size of input, multiply–accumulates at that size, accuracy on ImageNet and the file are of the default weights;
    parameters are counted with the head of 1,000 classes.
    """
    rows = []
    for name in backbone_names():
        weights = models.get_model_weights(name).DEFAULT
        file = PurePosixPath(weights.url).name
        rows.append(
            (
                name,
                weights.meta["num_params"] / 1e6,
                weights.transforms().crop_size[0],
                weights.meta["_ops"],
                weights.meta["_metrics"]["ImageNet-1K"]["acc@1"],
                weights.meta["_file_size"] * 2**20 / 1e6,  # torchvision says it in MiB
                file if urljoin(SOURCE, file) == weights.url else weights.url,
            )
        )
    rows.sort(key=lambda row: (row[1], row[0]))
    heading, *others = HEADINGS
    lines = [f"{heading:<20}" + "".join(f"{heading:>12}" for heading in others) + "  default weights"]
    lines += [
        f"{name:<20}{parameters:>12.1f}{size:>12}{gmacs:>12.2f}{accuracy:>12.1f}{megabytes:>12,.0f}  {file}"
        for name, parameters, size, gmacs, accuracy, megabytes, file in rows
    ]
    return "\n".join([*lines, f"top-1 is on ImageNet; weights are files of {SOURCE}, fetched by the first run."])


def list_stages(backbone: str) -> str:
    """The names that ``--unfreeze_from`` takes for a backbone, from the image to the head."""
    settings = settings_from_weights(FinetuneSettings.of(**({"backbone": backbone} if backbone else {})))
    return describe_stages(StagedNetwork(settings.model.backbone, 10, settings.data.image_size))
