"""The pictures of ``explain``, a function each: asks the model, and has the answer drawn."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from naturalist.data.loader import BatchLoader
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
from naturalist.progress import progress_bar
from naturalist.wording import percent

EXCITING_IMAGES = 6
"""Images shown for each channel."""


@dataclass(frozen=True)
class Photo:
    """One image to explain the model by."""

    pixels: NDArray[np.uint8]
    """``[cache_size, cache_size, 3]``."""
    name: str
    truth: str | None


def draw_first_layer(classifier: Classifier, photo: Photo, wanted: Collection[str], output: Path) -> list[Path]:
    """``filters.png``, ``feature_maps.png`` or both: the first convolution, and what it makes of the photograph."""
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
        maps = layer_output(classifier.model, convolution, inputs)[0, :count].cpu().numpy()
        written.append(output / "feature_maps.png")
        title = f"{what}: what each makes of {Path(photo.name).name}"
        plot_feature_maps(classifier.pictures(inputs)[0], maps, written[-1], title)
    return written


def strongest_channels(classifier: Classifier, layer: Layer, photo: Photo, count: int) -> list[int]:
    """The channels of a layer that respond most to a photograph, at their strongest place, strongest first."""
    maps = layer_output(classifier.model, layer.module, classifier.inputs(photo.pixels[None]))[0]
    ranking: list[int] = maps.amax(dim=(1, 2)).argsort(descending=True, stable=True).tolist()
    return ranking[:count]


def draw_guided_backprop(classifier: Classifier, layer: Layer, photo: Photo, channels: list[int], output: Path) -> Path:
    """``guided_backprop.png``: what in the photograph drives each channel at its strongest place."""
    inputs = classifier.inputs(photo.pixels[None])
    maps = layer_output(classifier.model, layer.module, inputs)[0]
    height, width = maps.shape[1:]
    units = []
    for channel in channels:
        place = divmod(int(maps[channel].argmax()), width)
        gradient = guided_backprop(classifier.model, layer.module, inputs, channel, place)
        value = float(maps[channel][place])
        units.append(DrivenUnit(channel, place, (height, width), value, gradient.permute(1, 2, 0).cpu().numpy()))
    path = output / "guided_backprop.png"
    title = f"{classifier.name}: what drives {len(units)} units of {layer.name}"
    note = f"{Path(photo.name).name}; guided backpropagation from each unit, scaled by itself, grey is 0"
    plot_guided_backprop(classifier.pictures(inputs)[0], units, path, title, note)
    return path


def draw_predictions(
    classifier: Classifier, cam_layer: Layer | None, photos: list[Photo], output: Path, *, with_occlusion: bool
) -> Path:
    """``predictions.png``: Grad-CAM at a layer, where one is given, and occlusion, where it is wanted."""
    rows = []
    with progress_bar("Explaining predictions", len(photos)) as bar:
        for photo in photos:
            inputs = classifier.inputs(photo.pixels[None])
            probabilities = classifier.probabilities(photo.pixels[None])[0]
            target = int(probabilities.argmax())
            says = f"{percent(probabilities[target], 0)} {words(classifier.class_names[target])}"
            truth = [] if photo.truth is None else [f"is {words(photo.truth)}"]
            heats: dict[Heat, NDArray[np.float32]] = {}
            if cam_layer is not None:
                heats["grad_cam"] = grad_cam(classifier.model, cam_layer.module, inputs, target).cpu().numpy()
            if with_occlusion:
                heats["occlusion"] = occlusion(classifier.model, inputs, target).cpu().numpy()
            caption = [says, *truth, Path(photo.name).name]
            rows.append(ExplainedPhoto(classifier.pictures(inputs)[0], caption, heats))
            bar.advance()
    notes = []
    if cam_layer is not None:
        notes.append(f"Grad-CAM at {cam_layer.name}: the brighter, the more evidence for the prediction")
    if with_occlusion:
        notes.append("occlusion: orange where covering hurts the prediction, violet where it helps")
    path = output / "predictions.png"
    plot_predictions_explained(rows, path, f"{classifier.name}: what its predictions rest on", "; ".join(notes))
    return path


def draw_exciting(classifier: Classifier, layer: Layer, images: SplitImages, channels: list[int], output: Path) -> Path:
    """``exciting.png``: for each channel, the images of the split that excite it most."""
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
    shown = []
    for column, channel in enumerate(channels):
        best = peaks[:, column].argsort(descending=True, stable=True)[:EXCITING_IMAGES]
        photos = images.cache.read(images.indices[best.numpy()])
        best_places = [divmod(int(position), width) for position in places[best, column]]
        shown.append(ExcitedChannel(channel, photos, peaks[best, column].tolist(), best_places, (height, width)))
    path = output / "exciting.png"
    title = f"{classifier.name}: the images that excite channels of {layer.name} most"
    plot_exciting_images(shown, path, title, "frame: the place of the strongest unit; below: its activation")
    return path
