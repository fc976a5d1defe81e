"""``python -m naturalist explain RUN [PHOTO …]``: what a model has learnt and what it looks at, in pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from naturalist.data.decode import UnreadableImage
from naturalist.data.photographs import describe_missing, shown_photograph
from naturalist.errors import UserError, cause_of
from naturalist.evaluation.classifier import Classifier, load_classifier
from naturalist.evaluation.looks import describe_looks, record_look
from naturalist.evaluation.split_images import SplitImages, images_of_split
from naturalist.explain.layers import Layer, describe_layers, last_feature_layer, named_layer
from naturalist.explain.pictures import (
    Photo,
    choose_units,
    draw_exciting,
    draw_first_layer,
    draw_guided_backprop,
    draw_predictions,
)
from naturalist.printable import printable
from naturalist.runs.checkpoint import load_checkpoint

PARTS = ("filters", "feature_maps", "guided_backprop", "grad_cam", "occlusion", "exciting")
NEED_FEATURE_LAYER = ("guided_backprop", "grad_cam", "exciting")

LIST = "list"
"""In place of a layer's name: name them all."""

EXCITING_NEEDS_DATA = (
    "The images that excite a unit most are looked for in the data set: pass no photographs, or --only exciting."
)


def explain_run(
    run: Path,
    photos: list[Path],
    *,
    split: str = "val",
    data: str | None = None,
    cache_dir: str | None = None,
    images: int = 4,
    units: int = 10,
    layer: str | None = None,
    only: tuple[str, ...] | None = None,
    seed: int = 0,
    device: str = "auto",
    format: str = "png",
    display_names: Path | None = None,
    out: Path | None = None,
) -> list[Path]:
    """Draw pictures into ``explanation`` in the run folder.

    - ``filters``, ``feature_maps``: the first convolution's filters, and its output for the first image;
    - ``guided_backprop``: channels of the last feature layer (in the five-block CNN the fifth block), each at its
      strongest place in the image that chose it (:func:`choose_units`);
    - ``predictions``: Grad-CAM and occlusion for every image;
    - ``exciting``: for the same channels, the images of the split that excite them most.

    Args:
        run: run folder, or a checkpoint file in one.
        photos: image files; without any, random images of the split are taken, for the channels as many as those.
        split: ``"val"``, or ``"test"``, which is a look at the test set and remembered as one.
        data: data set to use instead of the run's own.
        cache_dir: folder for decoded images, if not the run's own.
        images: how many random images.
        units: how many channels.
        layer: whose channels are looked at, instead of the last feature layer; ``"list"`` prints all names and ends.
        only: some of :data:`PARTS`; by default all that the model, and the data at hand, allow.
        seed: of the choice of images.
        device: see :func:`naturalist.device.choose_device`.
        format: of the pictures: ``"png"``, ``"svg"`` or ``"pdf"``.
        display_names: how classes are called, see :func:`read_display_names`.
        out: folder for the pictures, if not ``explanation`` in the run folder.

    Returns the files written. Raises UserError for what cannot be read, and a part that makes no sense for the model.
    """
    _check(images, units, only)
    checkpoint = load_checkpoint(run)
    classifier = load_classifier(run, device, checkpoint=checkpoint).called(display_names)
    if layer == LIST:
        print(_list_layers(classifier))
        return []
    output = out or (run if run.is_dir() else run.parent) / "explanation"
    wanted, split_images = list(only or PARTS), None
    if not photos or (only and "exciting" in only):
        split_images = _images(run, checkpoint, split, data, cache_dir)
    elif "exciting" in wanted:
        wanted.remove("exciting")
        print(EXCITING_NEEDS_DATA)
    chosen = _choose_photos(classifier, photos, split_images, max(images, units), seed)
    more: dict[str, Any] = {"explained": None if photos else images, "strict": only is not None, "format": format}
    return explain_classifier(classifier, chosen, split_images, output, wanted, units=units, layer=layer, **more)


def explain_classifier(
    classifier: Classifier,
    photos: list[Photo],
    split_images: SplitImages | None,
    output: Path,
    wanted: list[str],
    *,
    units: int = 10,
    explained: int | None = None,
    layer: str | None = None,
    strict: bool = True,
    format: str = "png",
) -> list[Path]:
    """As :func:`explain_run`, for a model in memory.

    Args:
        classifier: any network of convolutions.
        photos: at least one; the first is the one for feature maps, and all of them choose channels.
        split_images: where to look for exciting images; only they need it.
        output: folder for the pictures, made if need be.
        wanted: some of :data:`PARTS`.
        units: how many channels.
        explained: of how many of the photographs the predictions are explained, by default all.
        layer: name of the layer whose channels are looked at, instead of the last feature layer.
        format: of the pictures: ``"png"``, ``"svg"`` or ``"pdf"``.
        strict: refuse what makes no sense for the model, rather than say so and leave it out.
    """
    found, wanted = _feature_layer(classifier, photos[0], layer, wanted, strict=strict)
    try:
        output.mkdir(parents=True, exist_ok=True)
        written = []
        if {"filters", "feature_maps"} & set(wanted):
            written += draw_first_layer(classifier, photos[0], wanted, output, format)
        if found and {"guided_backprop", "exciting"} & set(wanted):
            chosen = choose_units(classifier, found, photos, units)
        if found and "guided_backprop" in wanted:
            written.append(draw_guided_backprop(classifier, found, chosen, output, format))
        if {"grad_cam", "occlusion"} & set(wanted):
            cam_layer = found if "grad_cam" in wanted else None
            with_occlusion = "occlusion" in wanted
            shown = photos[:explained]
            written.append(
                draw_predictions(classifier, cam_layer, shown, output, format, with_occlusion=with_occlusion)
            )
        if found and split_images is not None and "exciting" in wanted:
            written.append(draw_exciting(classifier, found, split_images, list(chosen), output, format))
    except OSError as error:
        raise UserError(f"cannot write the pictures to {str(output)!r}: {cause_of(error)}.") from None
    print(f"In {printable(output)}: {', '.join(path.name for path in written)}")
    return written


def _check(images: int, units: int, only: tuple[str, ...] | None) -> None:
    for name, value in (("--images", images), ("--units", units)):
        if value < 1:
            raise UserError(f"{name} must be at least 1, but it is {value}.")
    unknown = sorted(set(only or ()) - set(PARTS))
    if unknown:
        raise UserError(f"--only does not know {', '.join(unknown)}; it takes some of {','.join(PARTS)}.")


def _images(run: Path, checkpoint: dict[str, Any], split: str, data: str | None, cache_dir: str | None) -> SplitImages:
    folder = run if run.is_dir() else run.parent
    images = images_of_split(folder, checkpoint, split, data=data, cache_dir=cache_dir)
    if split == "test":
        looks = describe_looks(record_look(run, images.files, checkpoint["epoch"], None))
        if looks:
            print(printable(looks))
    return images


def _list_layers(classifier: Classifier) -> str:
    size = classifier.preprocessing.image_size
    return describe_layers(classifier.model, torch.zeros(1, 3, size, size, device=classifier.device))


def _choose_photos(
    classifier: Classifier, paths: list[Path], split_images: SplitImages | None, count: int, seed: int
) -> list[Photo]:
    """Those given, or else random images of the split."""
    if paths or split_images is None:
        return [_read(classifier, path) for path in paths]
    cache = split_images.cache
    order = np.random.default_rng(seed).permutation(len(split_images.indices))[:count]
    pictures, missing = split_images.photographs(order)
    if missing:
        print(f"{describe_missing(missing)}.")
    chosen = split_images.indices[order]
    return [
        Photo(pixels, picture, cache.paths[i], classifier.class_names[cache.labels[i]])
        for i, pixels, picture in zip(chosen, cache.read(chosen), pictures, strict=True)
    ]


def _read(classifier: Classifier, path: Path) -> Photo:
    try:
        return Photo(classifier.decode(path), shown_photograph(path, classifier.preprocessing), path.name, None)
    except UnreadableImage as reason:
        raise UserError(f"{str(path)!r} cannot be read: {reason}.") from None


def _feature_layer(
    classifier: Classifier, photo: Photo, name: str | None, wanted: list[str], *, strict: bool
) -> tuple[Layer | None, list[str]]:
    """The layer to look at, and what of ``wanted`` remains.

    There is always a layer for what needs one: it is left out when the model has none, unless asked for by name.
    """
    if not set(NEED_FEATURE_LAYER) & set(wanted):
        return None, wanted
    model, image = classifier.model, classifier.inputs(photo.pixels[None])
    try:
        if name:
            return Layer(name, named_layer(model, image, name)), wanted
        return last_feature_layer(model, image), wanted
    except UserError as error:
        if strict or name:
            raise
        print(f"Left out {', '.join(NEED_FEATURE_LAYER)}: {printable(error)}")
        return None, [part for part in wanted if part not in NEED_FEATURE_LAYER]
