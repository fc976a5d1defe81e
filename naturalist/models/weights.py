"""Pre-trained weights: what they expect of the images, where they come from, and whether they fit."""

import hashlib
import re
import urllib.error
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torchvision import models
from torchvision.models import WeightsEnum
from torchvision.models.vision_transformer import interpolate_embeddings
from torchvision.transforms import InterpolationMode

from naturalist.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from naturalist.errors import UserError
from naturalist.models.backbones import AUXILIARY, StagedNetwork, check_backbone
from naturalist.models.weight_files import read_weights
from naturalist.reading import one_line
from naturalist.settings.part_b import BackboneSettings, FinetuneSettings
from naturalist.settings.spelling import guess

NO_WEIGHTS = "none"
NORMALIZATIONS: dict[tuple[tuple[float, ...], tuple[float, ...]], Literal["imagenet", "half"]] = {
    (IMAGENET_MEAN, IMAGENET_STD): "imagenet",
    ((0.5,) * 3, (0.5,) * 3): "half",
}
"""Mean and deviation of the official weights' transforms, and what the project calls them."""
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")
"""torchvision ends file names with the first digits of the content's SHA-256."""
DENSENET_OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.")
"""In torchvision's DenseNet files, written before a dot in a module's name was forbidden."""
NAMES_SHOWN = 4


def settings_from_weights(settings: FinetuneSettings) -> FinetuneSettings:
    """Fill in what the user left open from the weights' own transforms.

    These are ``image_size``, ``cache_size`` (the size they resize to, in the same proportion to ``image_size``),
    ``resize_mode`` and ``normalization``. A file takes the transforms of the official weights of that name, or else
    of the model's default weights; so does ``weights: none``.

    Raises:
        UserError: for a backbone or weights that there are not, or for training images that are larger than the others.
    """
    data, model = settings.data, settings.model
    transforms = _find_weights(model).transforms()
    crop, resize = transforms.crop_size[0], transforms.resize_size[0]
    image_size = data.image_size or crop
    bicubic = transforms.interpolation == InterpolationMode.BICUBIC
    resize_mode = data.resize_mode or ("crop-bicubic" if bicubic else "crop")
    cache_size = data.cache_size or (image_size if resize_mode == "squash" else round(image_size * resize / crop))
    normalization = NORMALIZATIONS.get((tuple(transforms.mean), tuple(transforms.std)))
    if normalization is None:  # of VGG-16 without a classifier, the only ones made for other pixels
        others = [
            weights.name
            for weights in models.get_model_weights(model.backbone)
            if weights.transforms().mean == list(IMAGENET_MEAN)
        ]
        raise UserError(
            f"the weights {model.weights} of {model.backbone} are no classifier, but a part of other "
            f"networks; use {' or '.join(others)}."
        )
    filled = settings.changed(
        image_size=image_size,
        cache_size=cache_size,
        resize_mode=resize_mode,
        normalization=data.normalization or normalization,
    )
    filled.data.validate()
    return filled


def load_weights(model: StagedNetwork, settings: BackboneSettings) -> str:
    """Load pre-trained weights into everything but the head; returns a line that says which.

    Official weights are downloaded to torchvision's usual cache unless they lie there. A ViT's positions are
    interpolated to the image size.

    Raises:
        UserError: when the weights cannot be had, are damaged, or belong to another model.
    """
    if settings.weights == NO_WEIGHTS:
        return "random weights, nothing pre-trained"
    path = Path(settings.weights)
    if not path.is_file():
        path = _download(_find_weights(settings))
    _check_hash(path)
    state, which = read_weights(path)
    if settings.backbone.startswith("densenet"):
        state = {DENSENET_OLD_NAME.sub(r"\1\2.", name): value for name, value in state.items()}
    head = f"{model.steps[-1]}."
    if settings.backbone.startswith("squeezenet"):
        head = "classifier."  # the convolution that the linear layer stands for
    state = {name: value for name, value in state.items() if not name.startswith((head, *AUXILIARY))}
    network = model.network
    if settings.backbone.startswith("vit_") and "encoder.pos_embedding" in state:
        try:
            state = interpolate_embeddings(network.image_size, network.patch_size, state)
        except ValueError as error:
            raise UserError(
                f"the weights file {str(path)!r} does not fit {settings.backbone}: {one_line(str(error))}."
            ) from None
    _check_fit(
        state,
        {name: value for name, value in network.state_dict().items() if not name.startswith(head)},
        path,
        settings.backbone,
    )
    network.load_state_dict(state, strict=False)  # the head is missing, and nothing else
    return f"{path.name} ({which})" if which else path.name


def _find_weights(settings: BackboneSettings) -> WeightsEnum:
    """The official weights that ``--weights`` names, or whose transforms stand for a file's."""
    check_backbone(settings.backbone)
    choices = models.get_model_weights(settings.backbone)
    name = settings.weights
    if name == NO_WEIGHTS or Path(name).is_file():
        return next((weights for weights in choices if Path(weights.url).name == Path(name).name), choices.DEFAULT)
    if name not in choices.__members__:
        meant = guess(name, list(choices.__members__))
        raise UserError(
            f"{settings.backbone} has no weights {name!r}, and there is no such file"
            f"{f'; did you mean {meant}?' if meant else '.'} --weights takes "
            f"{', '.join(choices.__members__)}, none or a file."
        )
    return choices[name]


def _download(weights: WeightsEnum) -> Path:
    """The file of official weights in torchvision's cache, fetched if it is not there."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / Path(weights.url).name
    if path.is_file():
        return path
    print(f"Downloading {weights.url} to {path}", flush=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(weights.url, str(path), hash_in_name(path.name))
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"the weights {weights} cannot be downloaded ({error}); fetch {weights.url} on another machine "
            f"and put it at {str(path)!r}, or name a file with --weights FILE."
        ) from None
    return path


def hash_in_name(name: str) -> str | None:
    """The first digits of a file's SHA-256 that its name ends with; None for a name without.

    A date or a time, such as in ``finetuned-20251125.pt``, is no hash: decimal digits alone count only where the name
    begins as an official file's does.
    """
    match = HASH_IN_NAME.search(name)
    if match is None or (match[1].isdecimal() and name[: match.start()] not in _official_stems()):
        return None
    return match[1]


def _official_stems() -> set[str]:
    """Names of official files, without their hash."""
    names = [Path(weights.url).name for model in models.list_models() for weights in models.get_model_weights(model)]
    return {HASH_IN_NAME.sub("", name) for name in names}


def _check_hash(path: Path) -> None:
    """Refuse a file whose content is not what the hash in its name says; names without a hash pass."""
    promised = hash_in_name(path.name)
    if promised is None:
        return
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    if not digest.hexdigest().startswith(promised):
        raise UserError(
            f"the weights file {str(path)!r} is damaged or not what its name says: its SHA-256 begins with "
            f"{digest.hexdigest()[: len(promised)]}, not {promised}; delete it and fetch it again, or rename it."
        )


def _check_fit(state: dict[str, Tensor], wanted: dict[str, Tensor], path: Path, backbone: str) -> None:
    # Files from before 2018 lack num_batches_tracked, which nothing needs.
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in wanted]
    other_shape = [
        f"{name} {list(state[name].shape)} instead of {list(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    problems = [
        f"{kind} {len(names)} ({', '.join(names[:NAMES_SHOWN])}{', …' if len(names) > NAMES_SHOWN else ''})"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", other_shape))
        if names
    ]
    if problems:
        hint = ""
        if state.keys().isdisjoint(wanted):
            hint = (
                f"; none of its names is one of torchvision's {backbone}, so it is of another network, or made by "
                "another library, such as timm, that names its parts otherwise"
            )
        raise UserError(f"the weights file {str(path)!r} does not fit {backbone}: {'; '.join(problems)}{hint}.")
