"""What a photograph's file says of itself, without its pixels: size, mode, format, camera, and whether a place.

A place is somebody's, and so is asked for and never kept. What gives a class away that a network is to see in the
pixels, be it a camera or a size, makes a result too good.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from naturalist.data.decode import ORIENTATION_TAG, PILLOWS_ERRORS
from naturalist.data.formats import readers_of
from naturalist.errors import UserError

HEAD = 4096
"""Bytes by which a file's format is told."""
ON_ITS_SIDE = (5, 6, 7, 8)
"""EXIF orientations of photographs whose sides are to be exchanged."""


@dataclass(frozen=True)
class Header:
    """What a file says of its picture."""

    width: int
    height: int
    """Pixels, as the photograph is looked at."""
    mode: str
    """Of its colours, in Pillow's words: ``RGB``, ``L`` (grey), ``P`` (palette) …"""
    format: str
    camera: str
    """Maker and model; empty where it says none."""
    has_place: bool
    """Whether it holds a GPS position."""

    @property
    def aspect(self) -> float:
        """Width by height."""
        return self.width / self.height


def read_header(path: Path) -> Header:
    """The header of a photograph that can be decoded; raises :class:`UserError` when it cannot be read any more."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
            file.seek(0)
            with Image.open(file, formats=readers_of(head)) as image:
                return _header(image)
    except PILLOWS_ERRORS as error:
        raise UserError(f"cannot read {str(path)!r} ({error}), which could be read a moment ago; try again.") from None


def _header(image: Image.Image) -> Header:
    exif = image.getexif()
    width, height = image.size
    if exif.get(ORIENTATION_TAG) in ON_ITS_SIDE:
        width, height = height, width
    names = (str(exif.get(tag, "")).strip("\0 ") for tag in (ExifTags.Base.Make, ExifTags.Base.Model))
    return Header(width, height, image.mode, image.format or "", " ".join(filter(None, names)), _has_place(image, exif))


def _has_place(image: Image.Image, exif: Image.Exif) -> bool:
    """Whether EXIF or XMP hold a position; phones that were not allowed to tell it write GPS fields without one."""
    if b"GPSLatitude" in _bytes(image.info.get("xmp")) + _bytes(image.info.get("XML:com.adobe.xmp")):
        return True
    if ExifTags.IFD.GPSInfo not in exif:
        return False
    try:
        fields = exif.get_ifd(ExifTags.IFD.GPSInfo)
    except PILLOWS_ERRORS:  # damaged, and perhaps still to be read by others
        return True
    return ExifTags.GPS.GPSLatitude in fields and ExifTags.GPS.GPSLongitude in fields


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value or "").encode(errors="replace")


def guessed_by(values: Sequence[Hashable], labels: NDArray[np.int64]) -> float:
    """Share of photographs whose class could be guessed from a value of theirs alone.

    The guess is the commonest class among all others of the same value; one that no other has says nothing, and the
    guess is wrong.
    """
    classes: dict[Hashable, Counter[int]] = defaultdict(Counter)
    for value, label in zip(values, labels.tolist(), strict=True):
        classes[value][label] += 1
    right = 0
    for counts in classes.values():
        for label, count in counts.items():
            others = max((other for name, other in counts.items() if name != label), default=0)
            right += count * (count - 1 > others)
    return right / max(1, len(labels))
