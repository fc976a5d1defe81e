"""What can be chosen, for people: backbones, and the stages of one."""

from naturalist.models.backbones import StagedNetwork, describe_backbones
from naturalist.models.strategies import describe_stages
from naturalist.models.weights import settings_from_weights
from naturalist.settings.part_b import FinetuneSettings


def list_backbones(_: str) -> str:
    """All backbones, with their sizes and where their weights come from."""
    return describe_backbones()


def list_stages(backbone: str) -> str:
    """The names that ``--unfreeze_from`` takes for a backbone, from the image to the head."""
    settings = settings_from_weights(FinetuneSettings.of(**({"backbone": backbone} if backbone else {})))
    return describe_stages(StagedNetwork(settings.model.backbone, 10, settings.data.image_size))
