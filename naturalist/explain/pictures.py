"""The pictures of ``explain``, a function each: asks the model, and has the answer drawn."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from naturalist.data.loader import BatchLoader
from naturalist.data.photographs import describe_missing
from naturalist.evaluation.classifier import Classifier
from naturalist.evaluation.split_images import SplitImages
from naturalist.explain.attribution import grad_cam, guided_backprop, occlusion
from naturalist.explain.layers import Layer, first_convolution, layer_output
from naturalist.plots.explanations import (
    MOST_CELLS,
    DrivenUnit,
    ExcitedChannel,
    ExplainedPhoto,
    Heat,
    plot_exciting_images,
    plot_feature_maps,
    plot_filters,
    plot_guided_backprop,
    plot_predictions_explained,
)
from naturalist.plots.style import words
from naturalist.printable import printable
from naturalist.progress import progress_bar
from naturalist.wording import counted, percent

EXCITING_IMAGES = 6
"""Images shown for each channel."""

FEWEST_CELLS = 4
"""On a side of Grad-CAM's map, to tell a place."""


@dataclass(frozen=True)
class Photo:
    """One image to explain the model by."""

    pixels: NDArray[np.uint8]
    """``[cache_size, cache_size, 3]``."""
    picture: NDArray[np.uint8]
    """The same as it is shown, see :func:`naturalist.data.photographs.shown_photograph`."""
    name: str
    truth: str | None


def draw_first_layer(
    classifier: Classifier, photo: Photo, wanted: Collection[str], output: Path, format: str
) -> list[Path]:
    """``filters``, ``feature_maps`` or both: the first convolution, and what it makes of the photograph."""
    name, convolution = first_convolution(classifier.model)
    count = min(convolution.out_channels, MOST_CELLS)
    of_all = "" if count == convolution.out_channels else f"the first {count} of "
    what = f"{classifier.name}: {of_all}the {convolution.out_channels} filters of {name}"
    written = []
    if "filters" in wanted:
        written.append(output / f"filters.{format}")
        plot_filters(convolution.weight[:count].detach().cpu().numpy(), written[-1], what)
    if "feature_maps" in wanted:
        inputs = classifier.inputs(photo.pixels[None])
        maps = layer_output(classifier.model, convolution, inputs)[0, :count].cpu().numpy()
        written.append(output / f"feature_maps.{format}")
        title = f"{what}: what each makes of {Path(photo.name).name}"
        plot_feature_maps(photo.picture, maps, written[-1], title)
    return written


@torch.no_grad()
def choose_units(classifier: Classifier, layer: Layer, photos: Sequence[Photo], count: int) -> dict[int, Photo]:
    """Channels of a layer, each with the photograph that chose it.

    The photographs take turns. Each takes the channel that responds most to it, at its strongest place, beyond its mean
    response to the other photographs, and that none has taken: what they all drive alike says little.
    """
    maps = [layer_output(classifier.model, layer.module, classifier.inputs(photo.pixels[None]))[0] for photo in photos]
    peaks = torch.stack([output.amax(dim=(1, 2)) for output in maps]).cpu()
    others = (peaks.sum(dim=0) - peaks) / max(1, len(photos) - 1)
    excess = torch.where(peaks > 0, peaks - others, -torch.inf)  # a unit that is not active has nothing to explain
    units: dict[int, Photo] = {}
    for turn in range(min(count, peaks.shape[1])):
        number = turn % len(photos)
        ranking = excess[number].argsort(descending=True, stable=True).tolist()
        units[next(channel for channel in ranking if channel not in units)] = photos[number]
    return units


def draw_guided_backprop(
    classifier: Classifier, layer: Layer, units: dict[int, Photo], output: Path, format: str
) -> Path:
    """``guided_backprop``: what in its photograph drives each channel at its strongest place."""
    drawn = []
    for channel, photo in units.items():
        inputs = classifier.inputs(photo.pixels[None])
        response = layer_output(classifier.model, layer.module, inputs)[0, channel]
        height, width = response.shape
        place = divmod(int(response.argmax()), width)
        gradient = guided_backprop(classifier.model, layer.module, inputs, channel, place)
        pixels = gradient.permute(1, 2, 0).cpu().numpy()
        name, value = Path(photo.name).name, float(response[place])
        drawn.append(DrivenUnit(channel, place, (height, width), value, photo.picture, name, pixels))
    path = output / f"guided_backprop.{format}"
    title = f"{classifier.name}: what drives {counted(len(drawn), 'unit')} of {layer.name}"
    note = "frame: the unit's place; below: guided backpropagation from it, scaled by itself, grey is 0"
    plot_guided_backprop(drawn, path, title, note)
    return path


def draw_predictions(
    classifier: Classifier,
    cam_layer: Layer | None,
    photos: list[Photo],
    output: Path,
    format: str,
    *,
    with_occlusion: bool,
) -> Path:
    """``predictions``: Grad-CAM at a layer, where one is given, and occlusion, where it is wanted."""
    rows, cells = [], (0, 0)
    with progress_bar("Explaining predictions", len(photos)) as bar:
        for photo in photos:
            inputs = classifier.inputs(photo.pixels[None])
            probabilities = classifier.probabilities(photo.pixels[None])[0]
            target = int(probabilities.argmax())
            says = percent(probabilities[target], 0), words(classifier.class_names[target])
            truth = [] if photo.truth is None else [("is", words(photo.truth))]
            heats: dict[Heat, NDArray[np.float32]] = {}
            if cam_layer is not None:
                heats["grad_cam"] = grad_cam(classifier.model, cam_layer.module, inputs, target).cpu().numpy()
                height, width = layer_output(classifier.model, cam_layer.module, inputs).shape[2:]
                cells = height, width
            if with_occlusion:
                heats["occlusion"] = occlusion(classifier.model, inputs, target).cpu().numpy()
            rows.append(ExplainedPhoto(photo.picture, [says, *truth, ("", Path(photo.name).name)], heats))
            bar.advance()
    notes = []
    if cam_layer is not None:
        notes.append(f"Grad-CAM at {cam_layer.name}: evidence for the prediction; lines at 25, 50 and 75 % of the most")
    if cam_layer is not None and min(cells) < FEWEST_CELLS:
        coarse = f"{cells[0]} × {cells[1]} cells are too few to tell a place"
        notes.append(coarse)
        print(f"Grad-CAM at {printable(cam_layer.name)}: {coarse}; --layer with the name of an earlier layer has more.")
    if with_occlusion:
        notes.append("occlusion: orange where covering hurts the prediction, violet where it helps")
    path = output / f"predictions.{format}"
    title = f"{classifier.name}: what its predictions rest on"
    plot_predictions_explained(rows, path, title, "; ".join(notes), cells)
    return path


def draw_exciting(
    classifier: Classifier, layer: Layer, images: SplitImages, channels: list[int], output: Path, format: str
) -> Path:
    """``exciting``: for each channel, the images of the split that excite it most."""
    loader = BatchLoader(images.cache, images.indices, 64, classifier.device)
    batches = []
    with progress_bar("Looking for exciting images", len(images.indices)) as bar:
        for pixels, _ in loader.epoch():
            inputs = classifier.preprocessing(pixels).contiguous()
            maps = layer_output(classifier.model, layer.module, inputs)[:, channels]
            values, positions = maps.flatten(2).max(dim=2)
            batches.append((values.cpu(), positions.cpu()))
            bar.advance(len(pixels))
    height, width = maps.shape[2:]
    peaks, places = (torch.cat(parts) for parts in zip(*batches, strict=True))
    shown, all_missing = [], 0
    for column, channel in enumerate(channels):
        best = peaks[:, column].argsort(descending=True, stable=True)[:EXCITING_IMAGES]
        photos, missing = images.photographs(best.numpy())
        all_missing += missing
        best_places = [divmod(int(position), width) for position in places[best, column]]
        shown.append(ExcitedChannel(channel, photos, peaks[best, column].tolist(), best_places, (height, width)))
    path = output / f"exciting.{format}"
    title = f"{classifier.name}: the images that excite channels of {layer.name} most"
    note = "frame: the place of the strongest unit; below: its activation"
    plot_exciting_images(shown, path, title, "; ".join(filter(None, (note, describe_missing(all_missing)))))
    return path
