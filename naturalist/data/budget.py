"""How much memory photographs may take while they are decoded, by all threads of this process together.

A few kilobytes can ask for gigabytes of pixels, and there are as many threads as cores. So whoever decodes first asks
for room, waits until there is enough of it, and refuses what would never fit.
"""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image
from PIL.TiffImagePlugin import BITSPERSAMPLE, ROWSPERSTRIP, TILELENGTH, TILEWIDTH, TiffImageFile

from naturalist.memory import machine_memory

MOST = 2 * 2**30
"""Bytes that are used at most by default, on a machine that has more than four times as much memory."""
FILES_SHARE = 0.25
"""Share of the budget for what lies in files; the rest is for pixels."""
LARGEST_FILE = 2**30
"""Bytes; no photograph is larger, whatever the budget."""
STRIP_PIXELS = 2**19
"""Pixels whose colours are converted at once."""
CONVERSION = 30 * STRIP_PIXELS + 2**20
"""Bytes that converting colours takes beside the pixels."""


class BeyondBudget(Exception):
    """What was asked for is more than the whole budget."""


class Room:
    """Bytes that threads share."""

    def __init__(self, limit: int) -> None:
        self._limit, self._used = limit, 0
        self._changed = threading.Condition()

    @property
    def limit(self) -> int:
        """Bytes that may be in use at once."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        with self._changed:
            self._limit = limit
            self._changed.notify_all()

    @contextmanager
    def of(self, needed: int) -> Iterator[None]:
        """Hold ``needed`` bytes, once others have given back enough; raises :class:`BeyondBudget`."""
        with self._changed:
            self._changed.wait_for(lambda: needed > self._limit or self._used + needed <= self._limit)
            if needed > self._limit:
                raise BeyondBudget
            self._used += needed
        try:
            yield
        finally:
            with self._changed:
                self._used -= needed
                self._changed.notify_all()


def default_budget() -> int:
    """Bytes: a quarter of this machine's memory, at most :data:`MOST`."""
    memory = machine_memory()
    return MOST if memory is None else min(MOST, memory // 4)


def set_decode_budget(size: int) -> None:
    """Let all decoding of this process together take ``size`` bytes from now on; a server may want less."""
    global _budget
    _budget = size
    files.limit = min(LARGEST_FILE, int(size * FILES_SHARE))
    pixels.limit = size - int(size * FILES_SHARE)


def decode_budget() -> int:
    """Bytes that all decoding together may take; see :func:`set_decode_budget`."""
    return _budget


# Two pools, always entered in this order, so that no thread waits with a file in hand for one that does the same.
files, pixels = Room(0), Room(0)
_budget = 0
set_decode_budget(default_budget())


def pillow_bytes(image: Image.Image, data: bytes, wanted: int) -> int:
    """Bytes that Pillow takes, at most, to decode an opened image, and resizing it to a side of ``wanted`` pixels.

    Tests measure it. Raises ValueError for a TIFF whose tags are no numbers.
    """
    count, resizing = image.width * image.height, _resizing(image.height, wanted)
    if image.format == "WEBP":  # two canvases, what the decoder works in, a copy as bytes, Pillow's pixels
        return 18 * count + resizing
    if image.format in ("AVIF", "HEIF"):  # planes, maybe of more than 8 bits, pixels made of them, copies of those
        return 26 * count + resizing
    pixel = 1 if image.mode in ("1", "L", "P") else 2 if image.mode.startswith("I;16") else 4
    if not isinstance(image, TiffImageFile):
        kept = _kept_coefficients(image, data) if image.format in ("JPEG", "MPO") else 0
        return (pixel + 3) * count + kept + resizing
    # Pillow turns a TIFF upright, which makes a second copy, before it is asked for pixels.
    return max(pixel + 5, 2 * pixel) * count + _largest_piece(image) + resizing


def jpeg_bytes(image: Image.Image, data: bytes, wanted: int) -> int:
    """Bytes that libjpeg-turbo takes for a JPEG of which a side of ``wanted`` pixels is wanted, and resizing it."""
    shrink = max((part for part in (2, 4, 8) if min(image.size) >= part * wanted), default=1)
    width, height = math.ceil(image.width / shrink), math.ceil(image.height / shrink)
    return 6 * width * height + _kept_coefficients(image, data) + _resizing(height, wanted)


def _resizing(height: int, wanted: int) -> int:
    """Bytes beside the pixels: rows are resized first, and then columns."""
    return 3 * wanted * (height + wanted) + CONVERSION


def _kept_coefficients(image: Image.Image, data: bytes) -> int:
    """Bytes of a JPEG's coefficients: where a block's come in several scans, those of all blocks are kept."""
    return 2 * len(image.getbands()) * image.width * image.height if _has_several_scans(data) else 0


def _largest_piece(image: TiffImageFile) -> int:
    """Bytes of a strip or tile once it is unpacked, which may be larger than the image is."""
    if image.info.get("compression") == "raw":
        return 0
    if TILEWIDTH in image.tag_v2:
        (width,), (height,) = numbers_of(image, TILEWIDTH), numbers_of(image, TILELENGTH)
    else:
        width, height = image.width, min([image.height, *numbers_of(image, ROWSPERSTRIP)])
    return math.ceil(width * height * sum(numbers_of(image, BITSPERSAMPLE) or (1,)) / 8)


def numbers_of(image: TiffImageFile, tag: int) -> tuple[int, ...]:
    """What a TIFF's tag holds; raises ValueError where that is anything but whole numbers."""
    values = image.tag_v2.get(tag, ())
    numbers = values if isinstance(values, tuple) else (values,)
    if not all(isinstance(number, int) for number in numbers):
        raise ValueError(f"damaged tag {tag}")
    return numbers


def _has_several_scans(data: bytes) -> bool:
    """Whether a JPEG is progressive, or has its colours one after the other."""
    position = 2
    components = 0
    while position + 10 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a byte that fills
            position += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame's header
            components = data[position + 9]
            if marker in (0xC2, 0xC6, 0xCA, 0xCE):
                return True
        if marker == 0xDA:  # a scan's header
            return data[position + 4] < components
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return True
