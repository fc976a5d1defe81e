"""Which formats of photographs are read, and what to do about those that are not; the content decides, not the name."""

import importlib.util
import re
from functools import lru_cache

from naturalist.reading import misnamed

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
"""Formats that Pillow may open; others (EPS, PDF) would start external programs or are no photographs."""

HEIC_READER = "pillow_heif"
"""The module that teaches Pillow to read HEIC, where it is installed."""

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"),
    *(".avif", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".jxl"),
)
"""How the names of photographs end, also of those that somebody has to convert first: they are named, not passed by."""

_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_OTHERS = (
    (rb"\xff\x0a|\x00\x00\x00\x0cJXL ", "JPEG XL; convert it to PNG or JPEG"),
    (rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000; convert it to PNG or JPEG"),
    (rb"\x00\x00[\x01\x02]\x00[^\x00]\x00", "an icon or a cursor; convert it to PNG"),
    (rb"....ftypcrx |FUJIFILMCCD-RAW|IIRO|IIU\x00|MMOR", "a camera's raw file; develop it to JPEG"),
    (rb"....ftypavi[fs]", "AVIF, which this Pillow cannot read; convert it to PNG or JPEG"),
    (rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI |\x00\x00\x01[\xb3\xba]", "a video; save a frame of it as JPEG"),
    (rb"8BPS", "Photoshop; convert it to PNG or JPEG"),
    (rb"%PDF|%!PS", "a PDF or PostScript document; save its pictures as JPEG"),
    (rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*|<!DOCTYPE svg[^>]*>\s*)*<svg", "SVG; convert it to PNG"),
)
"""How the content of what is not read begins, as a regular expression, and what it is."""


def is_heic(data: bytes) -> bool:
    """Whether a file is HEIC, as far as its first bytes tell."""
    if data[4:8] != b"ftyp":
        return False
    header = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
    brands = {header[start : start + 4] for start in range(0, len(header), 4)}
    return bool(brands & _HEIC_BRANDS) and b"avif" not in brands


def can_read_heic() -> bool:
    """Whether the library for HEIC is installed."""
    return importlib.util.find_spec(HEIC_READER) is not None


def readers_of(data: bytes) -> tuple[str, ...]:
    """The formats that Pillow may take the file for."""
    return (*FORMATS, "HEIF") if is_heic(data) and can_read_heic() and _register_heic() else FORMATS


def why_unread(data: bytes) -> str:
    """What a file is that Pillow does not recognise, and what to do, in a few words."""
    if is_heic(data):
        return (
            "damaged HEIC, or of a kind that needs a newer pillow-heif"
            if can_read_heic()
            else "HEIC, which needs a library; pip install pillow-heif"
        )
    known = (words for pattern, words in _OTHERS if re.match(pattern, data[:1024], re.DOTALL))
    return misnamed(data[:1024]) or next(known, "no image")


@lru_cache(maxsize=1)
def _register_heic() -> bool:
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)
    return True
