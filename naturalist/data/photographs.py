"""Photographs read again to be shown: larger than a model's pixels, and cut out as the model sees them."""

import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from naturalist.data.decode import Pixels, UnreadableImage, content_hash, decode_bytes, decode_file
from naturalist.data.images import ImageCache
from naturalist.data.preprocessing import Preprocessing, is_squashed

SIDE = 400
"""Pixels, at least, of a photograph in a figure."""


def shown_photograph(
    photo: Path | bytes, preprocessing: Preprocessing, see: Callable[[bytes], None] | None = None
) -> Pixels:
    """A photograph's file or its content, as large as figures show it: uint8 ``[side, side, 3]``.

    It is squashed, or cut out of the photograph's middle, as for the model. The side is :data:`SIDE`, or the model's
    own where that is larger. Raises as :func:`naturalist.data.decode.decode_file`, which shows ``see`` the bytes, does.
    """
    side, mode = _side(preprocessing), preprocessing.resize_mode
    whole = side if is_squashed(mode) else round(side / (1 - 2 * preprocessing.border))
    pixels = decode_bytes(photo, whole, mode) if isinstance(photo, bytes) else decode_file(photo, whole, mode, see)
    return _middle(pixels, side)


def shown_photographs(
    cache: ImageCache, indices: NDArray[np.int64], preprocessing: Preprocessing
) -> tuple[NDArray[np.uint8], int]:
    """Images of a cache, read again from their files.

    Args:
        cache: what the model's pixels come from.
        indices: which images, int64 ``[N]``.
        preprocessing: the model's.

    Returns:
        uint8 ``[N, side, side, 3]``, see :func:`shown_photograph`; and how many of them are the model's own pixels,
        enlarged, because the file is gone, changed or cannot be read.
    """
    pictures, missing = [], 0
    for i in indices.tolist():
        try:
            pictures.append(_read_again(cache, i, preprocessing))
        except (UnreadableImage, OSError):
            missing += 1
            pixels = _middle(cache.read(np.array([i]))[0], _models_side(cache, preprocessing))
            side = _side(preprocessing)
            nearest = np.arange(side) * len(pixels) // side
            pictures.append(pixels[nearest][:, nearest])
    side = _side(preprocessing)
    return np.stack(pictures) if pictures else np.zeros((0, side, side, 3), np.uint8), missing


def describe_missing(missing: int) -> str:
    """What a figure has to say of pictures that could not be read again; empty where there are none."""
    return f"{missing} of the files cannot be read any more: shown is what the model sees of them" if missing else ""


def _read_again(cache: ImageCache, index: int, preprocessing: Preprocessing) -> Pixels:
    def require_same(data: bytes) -> None:
        if content_hash(data) != cache.hashes[index]:
            raise UnreadableImage("changed")

    path = Path(cache.folder, cache.paths[index])
    if not path.exists():  # records have names composed, some disks do not
        path = Path(cache.folder, unicodedata.normalize("NFD", cache.paths[index]))
    return shown_photograph(path, preprocessing, require_same)


def _side(preprocessing: Preprocessing) -> int:
    return max(SIDE, preprocessing.image_size)


def _models_side(cache: ImageCache, preprocessing: Preprocessing) -> int:
    """Pixels of a cached image that the model sees; a squashed one it sees whole."""
    return cache.size if is_squashed(preprocessing.resize_mode) else preprocessing.image_size


def _middle(pixels: Pixels, side: int) -> Pixels:
    margin = (len(pixels) - side) // 2
    return pixels[margin : margin + side, margin : margin + side]
