"""One photograph file → one square of uint8 RGB pixels.

JPEGs are decoded by libjpeg-turbo (simplejpeg), which can shrink while decoding: the inverse DCT yields a smaller
image directly. Everything else, and every JPEG that libjpeg-turbo finds fault with, goes through Pillow, whose
judgement on what is readable is final.
"""

import errno
import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch.nn.functional import interpolate

Pixels = NDArray[np.uint8]
"""``[H, W, 3]``, RGB."""

warnings.filterwarnings("ignore", module="PIL")  # odd metadata is no fault of the picture

Image.MAX_IMAGE_PIXELS = 150_000_000  # twice as many are refused: phones take photographs of 200 megapixels

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Formats that Pillow may open; others (EPS, PDF) would start external programs or are no photographs."""

OVERSAMPLING = 1.15
"""How much larger than wanted a JPEG is decoded at least, before it is resized with antialiasing. So an 800×600
photograph is decoded at 1/8, 1/4 or 1/2 for 64, 128 or 256 px, which libjpeg-turbo does fastest. On detailed
photographs the peak signal-to-noise ratio against full decoding is 38 to 44 dB, a difference that nobody sees."""

PASSING_FAULTS = (errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ETIMEDOUT)
"""Errors of reading that may be gone the next time."""

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
    ``"crop-bicubic"``. ``see`` is shown the file's bytes before they are decoded, for its hash.

    Raises:
        UnreadableImage: when the file is missing, empty, truncated, damaged or no image.
        OSError: when the disk, the network or the system fails, which says nothing about the file.
    """
    if path.exists() and not path.is_file():  # reading a pipe would wait for ever
        raise UnreadableImage("a directory, pipe or device")
    try:
        data = path.read_bytes()
    except OSError as error:
        if error.errno in PASSING_FAULTS:
            raise
        raise UnreadableImage(error.strerror or "cannot be read") from None
    if see is not None:
        see(data)
    return decode_bytes(data, size, resize_mode)


def decode_bytes(data: bytes, size: int, resize_mode: str) -> Pixels:
    """As :func:`decode_file`, from the file's content."""
    if not data:
        raise UnreadableImage("empty file")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            pixels: Pixels | None = None
            if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
                pixels = _decode_jpeg(data, size)
            if pixels is None:
                pixels = np.array(_to_rgb(image))
            # Asked for last: Pillow turns a TIFF upright while loading it, and then reports no orientation.
            orientation = image.getexif().get(ORIENTATION_TAG, 1)
    except UnidentifiedImageError:
        raise UnreadableImage("no image") from None
    except Image.DecompressionBombError:
        raise UnreadableImage("more pixels than a photograph has") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        # Pillow's plugins let all of these out when a file's structure is damaged.
        raise UnreadableImage(str(error).splitlines()[0] if str(error) else "damaged") from None
    square = _resize(pixels, size, resize_mode)
    if orientation in TRANSPOSITIONS:
        square = TRANSPOSITIONS[orientation](square)
    return np.ascontiguousarray(square)


def _decode_jpeg(data: bytes, size: int) -> Pixels | None:
    """Decode by libjpeg-turbo, no smaller than resizing needs; None when it complains about the file."""
    wanted = int(size * OVERSAMPLING)  # what is smaller already is decoded as it is
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(
            data, colorspace="RGB", fastdct=False, fastupsample=False, min_height=wanted, min_width=wanted, strict=True
        )
    except ValueError:
        return None
    return pixels


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel, or 32 of which 16 are used
        values = np.asarray(image).astype(np.int64)
        image = Image.fromarray(
            (values // 257 if values.max(initial=0) > 255 else values).clip(0, 255).astype(np.uint8)
        )
    elif image.mode == "F":
        raise ValueError("floating-point pixels")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")


def _resize(pixels: Pixels, size: int, resize_mode: str) -> Pixels:
    """``[H, W, 3]`` uint8 → ``[size, size, 3]`` uint8."""
    height, width = pixels.shape[:2]
    if resize_mode != "squash":  # cutting first gives the same picture and leaves less to resize
        short = min(height, width)
        top, left = (height - short) // 2, (width - short) // 2
        pixels = pixels[top : top + short, left : left + short]
    if pixels.shape[:2] == (size, size):
        return pixels
    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).unsqueeze(0)
    interpolation = "bicubic" if resize_mode == "crop-bicubic" else "bilinear"
    resized = interpolate(image, (size, size), mode=interpolation, antialias=True, align_corners=False)
    square: Pixels = resized[0].permute(1, 2, 0).numpy()
    return square
