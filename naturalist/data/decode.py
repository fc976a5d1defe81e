"""One photograph file → one square of uint8 RGB pixels.

JPEGs are decoded by libjpeg-turbo (simplejpeg), which can shrink while decoding: the inverse DCT yields a smaller
image directly. Everything else, and every JPEG that libjpeg-turbo finds fault with, goes through Pillow, whose
judgement on what is readable is final. Pillow shrinks JPEGs in the same steps, so that programs without this package,
such as an exported model's example, see the same pixels.
"""

import ctypes
import errno
import hashlib
import io
import logging
import re
import stat
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, _imaging
from PIL.TiffImagePlugin import STRIPBYTECOUNTS, TILEBYTECOUNTS, TiffImageFile
from torch.nn.functional import interpolate

from naturalist.data import budget
from naturalist.data.budget import STRIP_PIXELS, BeyondBudget, jpeg_bytes, numbers_of, pillow_bytes
from naturalist.data.formats import readers_of, why_unread
from naturalist.data.preprocessing import interpolation_of, is_squashed, jpeg_side
from naturalist.errors import is_out_of_memory

Pixels = NDArray[np.uint8]
"""``[H, W, 3]``, RGB."""

# Odd metadata is no fault of the picture, and of damage our own words are enough.
warnings.filterwarnings("ignore", module="PIL")
logging.getLogger("PIL").setLevel(logging.CRITICAL)
with suppress(OSError, AttributeError):  # libtiff writes to standard error unless told not to; Windows' Pillow hides it
    _pillow = ctypes.CDLL(_imaging.__file__)
    _pillow.TIFFSetErrorHandler(None)
    _pillow.TIFFSetWarningHandler(None)

Image.MAX_IMAGE_PIXELS = 150_000_000  # twice as many are refused: phones take photographs of 200 megapixels

HOLLOW_FROM, HOLLOW_PIXELS_PER_BYTE = 10_000_000, 10_000
"""No file has more pixels than the first number, and than the second for each of its bytes."""

LONGEST_SIDE = 2**17
"""In pixels, twice what a JPEG can have: resizing takes time and memory by the side, however narrow the picture is."""

PASSING_FAULTS = (errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ETIMEDOUT)
"""Errors of reading that may be gone the next time."""

PILLOWS_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, ArithmeticError, struct.error),
    RuntimeError,
)
"""Pillow's plugins let all of these out when a file's structure is damaged."""

DECODERS_CODE = re.compile(r"^decoder error -?\d+.*")
"""What Pillow says where libtiff knew more."""

FIT = "fit"
"""Resize mode for people's eyes; models have squares."""

ORIENTATION_TAG = 0x0112
TRANSPOSITIONS: dict[int, Callable[[Pixels], Pixels]] = {  # EXIF orientation → what makes the stored pixels upright
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda pixels: np.rot90(pixels),
}


class UnreadableImage(Exception):
    """The file is no image that can be decoded whole; the message says why in a few words."""


def decode_file(path: Path, size: int, resize_mode: str, see: Callable[[bytes], None] | None = None) -> Pixels:
    """Decode a photograph to ``[size, size, 3]`` uint8, RGB, upright by its EXIF orientation.

    Greyscale, palette, CMYK and 16-bit images are converted; transparency is laid on white; of an animation the
    first frame is taken. ``resize_mode`` is ``"squash"`` (the whole photograph, its proportions not kept) or
    ``"crop"`` (short side scaled to ``size``, centre cut out); resizing is bilinear with antialiasing, or bicubic for
    ``"crop-bicubic"``. :data:`FIT` keeps the whole photograph and its proportions: ``[H, W, 3]``, with sides of at
    most ``size``. ``see`` is shown the file's bytes before they are decoded, for its hash.

    Raises:
        UnreadableImage: when the file is missing, empty, truncated, damaged or no image.
        OSError: when the disk, the network or the system fails, which says nothing about the file.
    """
    with _faults_of_the_file():
        size_of_file = _regular_size(path)
        with budget.files.of(size_of_file):
            data = path.read_bytes()
            if see is not None:
                see(data)
            return decode_bytes(data, size, resize_mode)


def content_hash(data: bytes) -> str:
    """What a file is recognised by: BLAKE2b of its bytes, 32 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def hash_file(path: Path) -> str:
    """The :func:`content_hash` of a file, which need not fit in memory.

    Raises UnreadableImage and OSError as :func:`decode_file` does.
    """
    digest = hashlib.blake2b(digest_size=16)
    with _faults_of_the_file():
        _regular_size(path)
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def decode_bytes(data: bytes, size: int, resize_mode: str) -> Pixels:
    """As :func:`decode_file`, from the file's content."""
    if not data:
        raise UnreadableImage("empty file")
    square, orientation = _decode_square(data, size, resize_mode)
    if orientation in TRANSPOSITIONS:
        square = TRANSPOSITIONS[orientation](square)
    return np.ascontiguousarray(square)


def _decode_square(data: bytes, size: int, resize_mode: str) -> tuple[Pixels, int]:
    """Pixels as they are stored ``[size, size, 3]``, and how they are to be turned."""
    try:
        with Image.open(io.BytesIO(data), formats=readers_of(data)) as image:
            _refuse_hollow(image, len(data))
            wanted = jpeg_side(size)  # what is smaller already is decoded as it is
            sides, shrunk, whole = image.size, jpeg_bytes(image, data, wanted), pillow_bytes(image, data, wanted)
            image.draft(None, (wanted, wanted))  # a JPEG's size is now that to which it is shrunk
            if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
                with _room(sides, shrunk):
                    pixels = _decode_jpeg(data, *image.size)
                    if pixels is not None:
                        return _resize(pixels, size, resize_mode), _orientation(image)
            with _room(sides, whole):
                pixels, orientation = _decode_whole(image), _orientation(image)
                image.close()  # gives Pillow's pixels back
                return _resize(pixels, size, resize_mode), orientation
    except UnidentifiedImageError:
        raise UnreadableImage(why_unread(data)) from None
    except Image.DecompressionBombError:
        raise UnreadableImage("more pixels than a photograph has") from None
    except PILLOWS_ERRORS as error:
        if is_out_of_memory(error):
            raise
        raise UnreadableImage(_words(error)) from None


def _words(error: Exception) -> str:
    """What is wrong, as far as a library says so."""
    words = str(error).strip().partition("\n")[0]
    return DECODERS_CODE.sub("damaged, or packed in a way that is not known", words) or "damaged"


def _decode_jpeg(data: bytes, width: int, height: int) -> Pixels | None:
    """Decode by libjpeg-turbo, at the scale that yields these sides; None when it complains about the file."""
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(
            data, colorspace="RGB", fastdct=False, fastupsample=False, min_height=height, min_width=width, strict=True
        )
    except ValueError:
        return None
    return pixels


def _orientation(image: Image.Image) -> int:
    """As EXIF has it, after decoding: Pillow turns a TIFF upright while loading it, and then reports none."""
    orientation: int = image.getexif().get(ORIENTATION_TAG, 1)
    return orientation


@contextmanager
def _faults_of_the_file() -> Iterator[None]:
    """Makes UnreadableImage of errors that will be there the next time, too."""
    try:
        yield
    except BeyondBudget:
        raise UnreadableImage("a file larger than the memory that may be used") from None
    except OSError as error:
        if error.errno in PASSING_FAULTS:
            raise
        raise UnreadableImage(error.strerror or "cannot be read") from None


def _regular_size(path: Path) -> int:
    """Bytes of a file; raises OSError, and UnreadableImage for anything else, such as a pipe that one waits for."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableImage("a directory, pipe or device")
    if status.st_size > budget.files.limit:
        raise UnreadableImage(f"a file of {status.st_size / 1e9:.1f} GB, more than a photograph may have")
    return status.st_size


@contextmanager
def _room(sides: tuple[int, int], needed: int) -> Iterator[None]:
    """Memory for decoding; raises :class:`UnreadableImage` for a photograph that needs more than there may be."""
    try:
        with budget.pixels.of(needed):
            yield
    except BeyondBudget:
        raise UnreadableImage(
            f"{sides[0]:,} x {sides[1]:,} pixels need {needed / 1e9:.1f} GB to decode, more than may be used"
        ) from None


def _refuse_hollow(image: Image.Image, size_of_file: int) -> None:
    """Refuse a file of some bytes that would take seconds, as it claims to be large; nothing is decoded for it.

    Packing makes pixels of one colour as small as that, but no photograph.
    """
    pixels = image.width * image.height
    is_hollow = pixels > max(HOLLOW_FROM, HOLLOW_PIXELS_PER_BYTE * size_of_file)
    if isinstance(image, TiffImageFile):
        pieces = numbers_of(image, STRIPBYTECOUNTS) + numbers_of(image, TILEBYTECOUNTS)
        is_hollow = is_hollow or sum(pieces) > size_of_file  # then some are the same bytes
    if max(image.size) > LONGEST_SIDE:
        raise UnreadableImage("more pixels in a row than a photograph has")
    if is_hollow:
        raise UnreadableImage(f"{image.width:,} x {image.height:,} pixels in {size_of_file:,} bytes")


def _decode_whole(image: Image.Image) -> Pixels:
    """Decode by Pillow; ``[H, W, 3]``.

    Colours are converted some rows at a time, so that only Pillow's pixels and the result are in memory whole.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels")
    image.load()
    width, height = image.size
    bounds = [
        (top, min(top + rows, height)) for rows in [max(1, STRIP_PIXELS // width)] for top in range(0, height, rows)
    ]
    is_deep = image.mode.startswith("I")  # 16 bits a pixel, or 32 of which 16 are used
    brightest = max(int(_rows(image, *strip).max()) for strip in bounds) if is_deep else 0
    if brightest >= 2**16:  # how bright white is, nobody says
        raise ValueError("pixels of more than 16 bits; save it with 8 or 16")
    divisor = 257 if brightest > 255 else 1
    pixels = np.empty((height, width, 3), np.uint8)
    for top, bottom in bounds:
        if is_deep:
            pixels[top:bottom] = (_rows(image, top, bottom) // divisor).clip(0, 255)[..., None]
        else:
            pixels[top:bottom] = np.asarray(_to_rgb(image.crop((0, top, width, bottom))))
    return pixels


def _rows(image: Image.Image, top: int, bottom: int) -> NDArray[Any]:
    return np.asarray(image.crop((0, top, image.width, bottom)))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")


def _resize(pixels: Pixels, size: int, resize_mode: str) -> Pixels:
    """``[H, W, 3]`` uint8 → ``[size, size, 3]`` uint8; to fit, the longer side at most ``size``."""
    height, width = pixels.shape[:2]
    sides = (size, size)
    if resize_mode == FIT:
        scale = min(1, size / max(height, width))
        sides = (max(1, round(height * scale)), max(1, round(width * scale)))
    elif not is_squashed(resize_mode):  # cutting first gives the same picture and leaves less to resize
        short = min(height, width)
        top, left = (height - short) // 2, (width - short) // 2
        pixels = pixels[top : top + short, left : left + short]
    if pixels.shape[:2] == sides:
        return pixels
    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).unsqueeze(0)
    resized = interpolate(image, sides, mode=interpolation_of(resize_mode), antialias=True, align_corners=False)
    result: Pixels = resized[0].permute(1, 2, 0).numpy()
    return result
