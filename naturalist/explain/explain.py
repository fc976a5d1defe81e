"""``python -m naturalist explain RUN [PHOTO …]``: what a model has learnt and what it looks at, in pictures."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from naturalist.data.decode import UnreadableImage
from naturalist.data.loader import BatchLoader
from naturalist.errors import UserError
from naturalist.evaluation.classifier import Classifier, load_classifier
from naturalist.evaluation.evaluate import SplitImages, images_of_split
from naturalist.explain.attribution import (
    first_convolution,
    grad_cam,
    guided_backprop,
    last_feature_layer,
    layer_output,
    named_layer,
    occlusion,
)
from naturalist.plots.explanations import (
    MOST_CELLS,
    plot_exciting_images,
    plot_feature_maps,
    plot_filters,
    plot_guided_backprop,
    plot_predictions_explained,
)
from naturalist.progress import progress_bar
from naturalist.runs.checkpoint import load_checkpoint

PARTS = ("filters", "feature_maps", "guided_backprop", "grad_cam", "occlusion", "exciting")
NEED_FEATURE_LAYER = ("guided_backprop", "grad_cam", "exciting")

EXCITING_IMAGES = 6
"""Images shown for each channel."""


@dataclass(frozen=True)
class Photo:
    """One image to explain the model by."""

    pixels: np.ndarray
    """uint8 ``[cache_size, cache_size, 3]``."""
    name: str
    truth: str | None


def explain_run(
    run: Path,
    photos: list[Path],
    *,
    split: str | None = None,
    data: str | None = None,
    cache_dir: str | None = None,
    images: int = 4,
    units: int = 10,
    layer: str | None = None,
    only: tuple[str, ...] | None = None,
    seed: int = 0,
    device: str = "auto",
) -> list[Path]:
    """Draw pictures into ``explanation`` in the run folder.

    - ``filters.png``, ``feature_maps.png``: the first convolution's filters, and its output for the first image;
    - ``guided_backprop.png``: for the first image, the channels of the last feature layer (in the five-block CNN the
      fifth block) that respond most, each at its strongest place;
    - ``predictions.png``: Grad-CAM and occlusion for every image;
    - ``exciting.png``: for the same channels, the images of the split that excite them most.

    Args:
        run: run folder, or a checkpoint file in one.
        photos: image files; without any, random images of the split are taken.
        split: ``"test"`` or ``"val"``; by default test where the data has one.
        data: data set to use instead of the run's own.
        cache_dir: folder for decoded images, if not the run's own.
        images: how many random images.
        units: how many channels.
        layer: name of the layer whose channels are looked at, instead of the last feature layer.
        only: some of :data:`PARTS`; by default all that the model, and the data at hand, allow.
        seed: of the choice of images.
        device: see :func:`naturalist.device.choose_device`.

    Returns:
        The files written.

    Raises:
        UserError: for what cannot be read, or a part in ``only`` that makes no sense for this model.
    """
    _check(images, units, only)
    checkpoint = load_checkpoint(run)
    folder = run if run.is_dir() else run.parent
    classifier = load_classifier(run, device, checkpoint=checkpoint)
    wanted = list(only or PARTS)
    split_images = None
    if not photos or (only and "exciting" in only):
        split_images = _images(folder, checkpoint, split, data, cache_dir)
    elif "exciting" in wanted:
        wanted.remove("exciting")
        print(
            "The images that excite a unit most are looked for in the data set: pass no photographs, or --only "
            "exciting."
        )
    chosen = [_read(classifier, path) for path in photos] or _draw(split_images, images, seed)
    return explain_classifier(
        classifier,
        chosen,
        split_images,
        folder / "explanation",
        wanted,
        units=units,
        layer=layer,
        strict=only is not None,
    )


def explain_classifier(
    classifier: Classifier,
    photos: list[Photo],
    split_images: SplitImages | None,
    output: Path,
    wanted: list[str],
    *,
    units: int = 10,
    layer: str | None = None,
    strict: bool = True,
) -> list[Path]:
    """As :func:`explain_run`, for a model in memory.

    Args:
        classifier: any network of convolutions.
        photos: at least one; the first is the one for feature maps and guided backpropagation.
        split_images: where to look for exciting images; only they need it.
        output: folder for the pictures, made if need be.
        wanted: some of :data:`PARTS`.
        units: how many channels.
        layer: name of the layer whose channels are looked at, instead of the last feature layer.
        strict: refuse what makes no sense for the model, rather than say so and leave it out.
    """
    wanted = list(wanted)
    first = classifier.inputs(photos[0].pixels[None])
    layer_name, feature_layer = _feature_layer(classifier.model, first, layer, wanted, strict=strict)
    try:
        output.mkdir(parents=True, exist_ok=True)
        written = []
        if {"filters", "feature_maps"} & set(wanted):
            written += _first_layer(classifier, photos[0], wanted, output)
        if {"guided_backprop", "exciting"} & set(wanted):
            channels = _strongest_channels(classifier.model, feature_layer, first, units)
        if "guided_backprop" in wanted:
            written.append(_guided(classifier, feature_layer, layer_name, photos[0], channels, output))
        if {"grad_cam", "occlusion"} & set(wanted):
            written.append(_predictions(classifier, feature_layer, layer_name, photos, wanted, output))
        if "exciting" in wanted:
            written.append(_exciting(classifier, feature_layer, layer_name, split_images, channels, output))
    except OSError as error:
        raise UserError(f"cannot write the pictures to {str(output)!r}: {error.strerror or error}.") from None
    print(f"In {output}: {', '.join(path.name for path in written)}")
    return written


def _check(images: int, units: int, only: tuple[str, ...] | None) -> None:
    for name, value in (("--images", images), ("--units", units)):
        if value < 1:
            raise UserError(f"{name} must be at least 1, but it is {value}.")
    unknown = sorted(set(only or ()) - set(PARTS))
    if unknown:
        raise UserError(f"--only does not know {', '.join(unknown)}; it takes some of {','.join(PARTS)}.")


def _images(folder: Path, checkpoint: dict, split: str | None, data: str | None, cache_dir: str | None) -> SplitImages:
    if split is not None:
        return images_of_split(folder, checkpoint, split, data=data, cache_dir=cache_dir)
    try:
        return images_of_split(folder, checkpoint, "test", data=data, cache_dir=cache_dir)
    except UserError:  # data without a test set
        return images_of_split(folder, checkpoint, "val", data=data, cache_dir=cache_dir)


def _draw(split_images: SplitImages, count: int, seed: int) -> list[Photo]:
    cache = split_images.cache
    chosen = np.random.default_rng(seed).permutation(split_images.indices)[:count]
    return [
        Photo(pixels, cache.paths[i], cache.class_names[cache.labels[i]])
        for i, pixels in zip(chosen, cache.read(chosen), strict=True)
    ]


def _read(classifier: Classifier, path: Path) -> Photo:
    try:
        return Photo(classifier.decode(path), path.name, None)
    except UnreadableImage as reason:
        raise UserError(f"{str(path)!r} cannot be read: {reason}.") from None


def _feature_layer(
    model: nn.Module, image: torch.Tensor, name: str | None, wanted: list[str], *, strict: bool
) -> tuple[str, nn.Module | None]:
    """The layer to look at; what needs one leaves ``wanted`` when the model has none, unless asked for by name."""
    if not set(NEED_FEATURE_LAYER) & set(wanted):
        return "", None
    try:
        return (name, named_layer(model, image, name)) if name else last_feature_layer(model, image)
    except UserError as error:
        if strict or name:
            raise
        print(f"Left out {', '.join(NEED_FEATURE_LAYER)}: {error}")
        wanted[:] = [part for part in wanted if part not in NEED_FEATURE_LAYER]
        return "", None


def _first_layer(classifier: Classifier, photo: Photo, wanted: list[str], output: Path) -> list[Path]:
    name, convolution = first_convolution(classifier.model)
    count = min(convolution.out_channels, MOST_CELLS)
    of_all = "" if count == convolution.out_channels else f"the first {count} of "
    what = f"{classifier.name}: {of_all}the {convolution.out_channels} filters of {name}"
    written = []
    if "filters" in wanted:
        written.append(output / "filters.png")
        plot_filters(convolution.weight[:count].detach().cpu().numpy(), written[-1], what)
    if "feature_maps" in wanted:
        inputs = classifier.inputs(photo.pixels[None])
        maps = layer_output(classifier.model, convolution, inputs)[0, :count]
        written.append(output / "feature_maps.png")
        plot_feature_maps(
            classifier.pictures(inputs)[0],
            maps.cpu().numpy(),
            written[-1],
            f"{what}: what each makes of {Path(photo.name).name}",
        )
    return written


def _strongest_channels(model: nn.Module, layer: nn.Module, image: torch.Tensor, count: int) -> list[int]:
    return layer_output(model, layer, image)[0].amax(dim=(1, 2)).argsort(descending=True, stable=True)[:count].tolist()


def _guided(
    classifier: Classifier, layer: nn.Module, layer_name: str, photo: Photo, channels: list[int], output: Path
) -> Path:
    inputs = classifier.inputs(photo.pixels[None])
    maps = layer_output(classifier.model, layer, inputs)[0]
    width = maps.shape[2]
    units = []
    for channel in channels:
        place = divmod(int(maps[channel].argmax()), width)
        gradient = guided_backprop(classifier.model, layer, inputs, channel, place)
        units.append(
            {
                "channel": channel,
                "place": place,
                "value": float(maps[channel][place]),
                "grid": tuple(maps.shape[1:]),
                "gradient": gradient.permute(1, 2, 0).cpu().numpy(),
            }
        )
    path = output / "guided_backprop.png"
    plot_guided_backprop(
        classifier.pictures(inputs)[0],
        units,
        path,
        f"{classifier.name}: what drives {len(units)} units of {layer_name}",
        f"{Path(photo.name).name}; guided backpropagation from each unit, scaled by itself, grey is 0",
    )
    return path


def _predictions(
    classifier: Classifier,
    layer: nn.Module | None,
    layer_name: str,
    photos: list[Photo],
    wanted: list[str],
    output: Path,
) -> Path:
    rows = []
    with progress_bar("Explaining predictions", len(photos)) as bar:
        for photo in photos:
            inputs = classifier.inputs(photo.pixels[None])
            probabilities = classifier.probabilities(photo.pixels[None])[0]
            target = int(probabilities.argmax())
            says = f"{probabilities[target]:.0%} {classifier.class_names[target]}".replace("_", " ").replace("%", " %")
            is_what = [] if photo.truth is None else [f"is {photo.truth}".replace("_", " ")]
            row = {"photo": classifier.pictures(inputs)[0], "caption": [says, *is_what, Path(photo.name).name]}
            if "grad_cam" in wanted:
                row["grad_cam"] = grad_cam(classifier.model, layer, inputs, target).cpu().numpy()
            if "occlusion" in wanted:
                row["occlusion"] = occlusion(classifier.model, inputs, target).cpu().numpy()
            rows.append(row)
            bar.advance()
    path = output / "predictions.png"
    notes = []
    if "grad_cam" in wanted:
        notes.append(f"Grad-CAM at {layer_name}: the brighter, the more evidence for the prediction")
    if "occlusion" in wanted:
        notes.append("occlusion: orange where covering hurts the prediction, violet where it helps")
    plot_predictions_explained(rows, path, f"{classifier.name}: what its predictions rest on", "; ".join(notes))
    return path


def _exciting(
    classifier: Classifier, layer: nn.Module, layer_name: str, images: SplitImages, channels: list[int], output: Path
) -> Path:
    loader = BatchLoader(images.cache, images.indices, 64, classifier.device)
    peaks, places = [], []
    with progress_bar("Looking for exciting images", len(images.indices)) as bar:
        for pixels, _ in loader.epoch():
            maps = layer_output(classifier.model, layer, classifier.preprocessing(pixels).contiguous())[:, channels]
            values, positions = maps.flatten(2).max(dim=2)
            peaks.append(values.cpu())
            places.append(positions.cpu())
            bar.advance(len(pixels))
    height, width = maps.shape[2:]
    peaks, places = torch.cat(peaks), torch.cat(places)
    units = []
    for column, channel in enumerate(channels):
        best = peaks[:, column].argsort(descending=True, stable=True)[:EXCITING_IMAGES]
        units.append(
            {
                "channel": channel,
                "photos": images.cache.read(images.indices[best.numpy()]),
                "values": peaks[best, column].tolist(),
                "grid": (height, width),
                "places": [divmod(int(position), width) for position in places[best, column]],
            }
        )
    path = output / "exciting.png"
    plot_exciting_images(
        units,
        path,
        f"{classifier.name}: the images that excite channels of {layer_name} most",
        "frame: the place of the strongest unit; below: its activation",
    )
    return path
