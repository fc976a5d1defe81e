"""The small data set that comes with the project: ten classes, drawn, not photographed.

The pictures are synthetic. They take the place of the photographs where those cannot be had, to try every
command in minutes, and say nothing about how well a model tells real animals and plants apart. A class is
recognised by its shape: colours, backgrounds, light, size, place and turn are drawn independently of it, so
that a linear model on pixels, or one that looks at colours, stays near chance.
"""

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from filelock import FileLock
from PIL import Image, ImageDraw, ImageFilter

from naturalist.data.sources.creatures import CREATURES, SEEN_FROM_ABOVE, Colours, Pen, rotation, some_colour
from naturalist.errors import UserError
from naturalist.progress import progress_bar

CLASSES = tuple(CREATURES)
"""The ten class names, in alphabetical order."""

DRAWING_VERSION = 1
"""Raised whenever the same seed would give other pictures, so that older samples are drawn afresh."""

SIZES = ((320, 240), (300, 200), (267, 200), (256, 256), (240, 320), (200, 300), (200, 267))
"""Width and height in pixels; both orientations, as in photographs."""
GREYSCALE_SHARE = 0.06

LEAN = np.radians(25)
"""How far from upright a creature may be turned."""

SPLITS = ("train", "test")
MARKER = "sample.json"
README = """\
Synthetic sample of naturalist
==============================

These pictures were drawn by a program (naturalist/data/sources/sample.py); none is a photograph. They stand in for
the ten classes of nature_12K to try out the project. Accuracies on them say nothing about real photographs.

Keep no files of your own here: the folder is replaced as a whole when another sample is asked for.
"""


def make_sample(folder: Path, *, seed: int = 0, train_images: int = 1000, test_images: int = 300) -> Path:
    """Draw the sample below ``folder``, unless it is there already.

    Makes ``folder/train/<Class>/<32 hex digits>.jpg`` and ``folder/test/<Class>/…``, with the classes as even
    as the counts allow, and, as in nature_12K, a stray ``.DS_Store`` and some single-channel files. The same
    seed, counts and Pillow version give the same bytes. The folder appears when it is whole; a sample
    of another seed, count or drawing version is replaced. Several processes may ask for the same folder.

    Args:
        folder: where the sample is or shall be.
        seed: non-negative; decides every picture.
        train_images: number of files below ``train/``, at least one for each class.
        test_images: number of files below ``test/``, at least one for each class.

    Returns:
        ``folder``

    Raises:
        UserError: ``folder`` holds something else or cannot be written, or a count or the seed is too small.
    """
    if min(train_images, test_images) < len(CLASSES) or seed < 0:
        raise UserError(
            f"a sample needs at least {len(CLASSES)} train and test images, one for each class, "
            f"and a seed of at least 0; got {train_images}, {test_images} and seed {seed}."
        )
    place = folder.resolve()  # beyond a link, which must not be replaced by a folder
    recipe = {
        "drawing_version": DRAWING_VERSION,
        "seed": seed,
        "train_images": train_images,
        "test_images": test_images,
    }
    if _is_sample(place, recipe):
        return folder
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.with_name(f".{place.name}.lock")):
            if not _is_sample(place, recipe):
                _refuse_foreign(place)
                unfinished = place.with_name(f".{place.name}.unfinished")
                shutil.rmtree(unfinished, ignore_errors=True)  # what a killed run left
                _write_sample(unfinished, recipe)
                shutil.rmtree(place, ignore_errors=True)
                unfinished.replace(place)
    except OSError as error:
        raise UserError(
            f"cannot write the sample to {str(folder)!r}: {error.strerror or error}; name a folder that can be written."
        ) from error
    return folder


def draw(class_name: str, rng: np.random.Generator) -> Image.Image:
    """Draw one picture of ``class_name``, of a size from ``SIZES``, mode RGB or, seldom, L."""
    width, height = SIZES[rng.integers(len(SIZES))]
    ground_lightness = rng.uniform(0.2, 0.8)
    lightness = rng.uniform(0.12, 0.88)
    while abs(lightness - ground_lightness) < 0.22:
        lightness = rng.uniform(0.12, 0.88)
    image = _background(rng, width, height, ground_lightness)
    layer = _creature(rng, width, height, class_name, lightness, ground_lightness)
    image.paste(layer, mask=layer)

    # A soft bevel on the creature, its shadow on the ground, and light that falls off across the picture.
    alpha = np.asarray(layer.getchannel("A"), np.float32) / 255
    relief = np.asarray(layer.getchannel("A").filter(ImageFilter.BoxBlur(5)), np.float32) / 255
    sun = rng.uniform(0, 2 * np.pi)
    towards = round(4 * np.sin(sun)), round(4 * np.cos(sun))
    thrown = np.roll(relief, towards, (0, 1))
    shade = alpha * (1 + 0.55 * (relief - thrown)) + (1 - alpha) * (1 - rng.uniform(0.2, 0.5) * thrown)
    across, down = (np.linspace(-1, 1, length, dtype=np.float32) for length in (width, height))
    fall = rng.uniform(0, 0.2) * (float(np.cos(sun)) * across + float(np.sin(sun)) * down[:, None])
    shade *= rng.uniform(0.85, 1.1) - fall

    grain = rng.uniform(2, 10) * rng.standard_normal((height, width), np.float32)
    pixels = np.asarray(image, np.float32) * shade[..., None] + grain[..., None]
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.BoxBlur(rng.uniform(0.5, 1.2)))
    return image.convert("L") if rng.random() < GREYSCALE_SHARE else image


def _creature(
    rng: np.random.Generator, width: int, height: int, class_name: str, lightness: float, ground_lightness: float
) -> Image.Image:
    """Draw a creature near the middle, behind a few blades of grass, on a transparent RGBA image."""
    sharp = 2  # drawn this much larger, for smooth edges
    size = np.array((width, height)) * sharp
    scale = min(size) * rng.uniform(0.34, 0.5)
    origin = size / 2 + rng.uniform(-1, 1, 2) * np.maximum(0.7 * (size / 2 - 0.9 * scale), 0.02 * min(size))
    turn = rng.uniform(-np.pi, np.pi) if class_name in SEEN_FROM_ABOVE else rng.uniform(-LEAN, LEAN)
    stretch = rng.uniform(0.88, 1.12)
    matrix = scale * rotation(turn) @ np.diag((rng.choice((-1, 1)) * stretch, 1 / stretch))
    layer = Image.new("RGBA", tuple(size.tolist()))
    canvas = ImageDraw.Draw(layer)
    CREATURES[class_name](Pen(canvas, matrix, origin), rng, Colours.pick(rng, lightness))
    _grass(rng, canvas, layer.size, ground_lightness, int(rng.integers(0, 8)))
    return layer.reduce(sharp)


def _background(rng: np.random.Generator, width: int, height: int, lightness: float) -> Image.Image:
    """Paint a ground out of focus around ``lightness`` (0 to 1)."""
    texture = np.zeros((height, width), np.float32)
    stretch = 2.0 ** rng.uniform(-2, 2)  # grain across or along the picture, like bark, grass or waves
    for octave, weight in ((3, 128), (8, 76), (24, 51)):
        grid = rng.random((max(2, round(octave * stretch)), max(2, round(octave / stretch))), np.float32)
        smooth = Image.fromarray(grid).resize((width, height), Image.Resampling.BILINEAR)
        texture += weight * np.asarray(smooth)
    dark, light = (Image.new("RGB", (width, height), some_colour(rng, lightness + shift)) for shift in (-0.14, 0.14))
    image = Image.composite(light, dark, Image.fromarray(texture.astype(np.uint8)))
    canvas = ImageDraw.Draw(image)
    if rng.random() < 0.5:
        for _ in range(rng.integers(5, 50)):  # pebbles
            x, y, radius = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(3, 16)
            flat = radius * rng.uniform(0.6, 1)
            canvas.ellipse(
                (x - radius, y - flat, x + radius, y + flat), some_colour(rng, lightness + rng.uniform(-0.15, 0.15))
            )
    if rng.random() < 0.5:
        _grass(rng, canvas, image.size, lightness, int(rng.integers(5, 50)))
    return image.filter(ImageFilter.BoxBlur(rng.uniform(0.7, 3.5)))


def _grass(
    rng: np.random.Generator, canvas: ImageDraw.ImageDraw, size: tuple[int, int], lightness: float, blades: int
) -> None:
    """Draw blades of grass that grow upwards, anywhere on an image of ``size`` (width, height)."""
    unit = min(size)
    for _ in range(blades):
        x, y = rng.uniform(0, 1, 2) * size * (1, 1.2)
        foot, tip, reach = rng.uniform((0.012, -0.2, 0.15), (0.04, 0.2, 0.5)) * unit
        canvas.polygon(
            (x - foot, y, x + foot, y, x + tip, y - reach), some_colour(rng, lightness + rng.uniform(-0.15, 0.15))
        )


def _is_sample(folder: Path, recipe: dict[str, int]) -> bool:
    """Tell whether ``folder`` holds the whole sample that ``recipe`` asks for."""
    try:
        if json.loads((folder / MARKER).read_text(encoding="utf-8")) != recipe:
            return False
    except (OSError, ValueError, RecursionError):
        return False
    return all(sum(1 for _ in (folder / split).glob("*/*.jpg")) == recipe[f"{split}_images"] for split in SPLITS)


def _refuse_foreign(folder: Path) -> None:
    """Raise UserError if ``folder`` holds anything that this module has not written."""
    if not folder.exists() or (folder / MARKER).is_file():
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise UserError(
            f"{str(folder)!r} holds something other than the drawn sample; name another folder "
            "for the sample, or move this one away."
        )


def _write_sample(folder: Path, recipe: dict[str, int]) -> None:
    """Draw every picture of ``recipe`` below the new folder ``folder``; the marker is written last."""
    for split in SPLITS:
        for class_name in CLASSES:
            (folder / split / class_name).mkdir(parents=True)
    jobs = list(_jobs(recipe))
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress_bar("drawing the sample", len(jobs)) as bar:
        for _ in pool.map(lambda job: _write_picture(folder, recipe["seed"], *job), jobs):
            bar.advance()
    (folder / "train" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "README.txt").write_text(README, encoding="utf-8")
    (folder / MARKER).write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")


def _jobs(recipe: dict[str, int]) -> Iterator[tuple[str, str, int]]:
    """Yield split, class and number of every picture, the classes as even as the counts allow."""
    for split in SPLITS:
        for index in range(recipe[f"{split}_images"]):
            yield split, CLASSES[index % len(CLASSES)], index


def _write_picture(folder: Path, seed: int, split: str, class_name: str, index: int) -> None:
    """Draw picture ``index`` of a split; its chance depends on nothing but these arguments."""
    rng = np.random.default_rng((seed, SPLITS.index(split), index))
    name = rng.bytes(16).hex()
    quality = int(rng.integers(80, 95))
    draw(class_name, rng).save(folder / split / class_name / f"{name}.jpg", quality=quality)
