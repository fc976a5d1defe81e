"""What decoding one file promises, for every kind of file that a folder of photographs may hold."""

import contextlib
import errno
import io
import json
import os
import random
import struct
import threading
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import run_python
from PIL import Image, ImageOps

from naturalist.data import budget, decode, formats
from naturalist.data.decode import UnreadableImage, decode_bytes, decode_file
from naturalist.data.sources.sample import draw

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # pytest overrides the filter of decode.py

SIZE = 64


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """A detailed RGB picture, wider than high, that looks different in every orientation."""
    return draw("Aves", np.random.default_rng(4)).convert("RGB").resize((320, 240))


def encode(image: Image.Image, file_format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def resized(image: Image.Image, size: int = SIZE, resize_mode: str = "squash") -> np.ndarray:
    """Pillow's own antialiased resizing of the fully decoded image, as the truth."""
    if resize_mode == "crop":
        return np.asarray(ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BILINEAR))
    return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB; above 35 two photographs look the same."""
    error = np.square(first.astype(float) - second).mean()
    return 10 * np.log10(255**2 / max(error, 1e-3))


@pytest.fixture
def set_budget():
    """Sets how many bytes decoding may take, for one test."""
    before = budget.decode_budget()
    yield budget.set_decode_budget
    budget.set_decode_budget(before)


def tiff_of_size(width: int, height: int, content: bytes, **tags: int) -> bytes:
    """A TIFF of grey pixels all of whose strips, or tiles, are the same few packed bytes.

    Args:
        width: in pixels.
        height: in pixels.
        content: of the strips, packed as zlib does unless ``compression`` says otherwise.
        tags: ``bits`` (16), ``compression`` (8), ``kind`` of the numbers (1), ``rows`` of a strip, ``tile`` (its side).
    """
    rows, tile = tags.get("rows", height), tags.get("tile")
    pieces = -(-height // tile) * -(-width // tile) if tile else -(-height // rows)
    fields = {256: width, 257: height, 258: tags.get("bits", 16), 259: tags.get("compression", 8), 262: 1, 277: 1}
    fields |= {339: tags.get("kind", 1)} | ({322: tile, 323: tile} if tile else {278: rows})
    start, places, sizes = 8 + 2 + 12 * (len(fields) + 2) + 4, (324, 325) if tile else (273, 279), b""
    end = start + (8 * pieces if pieces > 1 else 0)
    entries = {tag: struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields.items()}
    for tag, value in zip(places, (end, len(content)), strict=True):
        entries[tag] = struct.pack("<HHII", tag, 4, pieces, value if pieces == 1 else start + len(sizes))
        sizes += struct.pack("<I", value) * pieces if pieces > 1 else b""
    directory = b"".join(entries[tag] for tag in sorted(entries))
    return struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + directory + bytes(4) + sizes + content


def png_of_size(width: int, height: int) -> bytes:
    """A PNG of some bytes that claims to be large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("resize_mode", ["squash", "crop"])
@pytest.mark.parametrize("size", [16, 96, 224, 300])
@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"subsampling": "4:1:1"}, {"subsampling": "4:4:4"}, {"keep_rgb": True}],
    ids=str,
)
def test_scaled_jpeg_decoding_looks_like_full_decoding(picture, options, size, resize_mode):
    data = encode(picture, "JPEG", quality=90, **options)
    with Image.open(io.BytesIO(data)) as whole:
        assert psnr(decode_bytes(data, size, resize_mode), resized(whole, size, resize_mode)) > 35


@pytest.mark.parametrize("fast", [True, False], ids=["libjpeg-turbo", "Pillow"])
@pytest.mark.parametrize("resize_mode", ["squash", "crop"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_is_turned_upright(picture, orientation, resize_mode, fast, monkeypatch):
    if fast:
        monkeypatch.setattr(decode, "_to_rgb", None)
    else:
        monkeypatch.setattr(decode, "_decode_jpeg", lambda *_: None)
    assert_upright("JPEG", picture, orientation, resize_mode)


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF", "MPO", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_other_formats_are_turned_upright(picture, file_format, orientation):
    assert_upright(file_format, picture, orientation, "squash")


def assert_upright(file_format: str, picture: Image.Image, orientation: int, resize_mode: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"save_all": True, "append_images": [picture]} if file_format == "MPO" else {}
    data = encode(picture, file_format, exif=exif, **options)
    with Image.open(io.BytesIO(data)) as stored:
        upright = ImageOps.exif_transpose(stored)
        assert (upright.width < upright.height) == (orientation >= 5)
        assert psnr(decode_bytes(data, SIZE, resize_mode), resized(upright, SIZE, resize_mode)) > 33


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_impossible_orientation_leaves_the_picture_as_it_is(picture, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(
        decode_bytes(encode(picture, "PNG", exif=exif), SIZE, "squash"),
        decode_bytes(encode(picture, "PNG"), SIZE, "squash"),
    )


def test_damaged_metadata_is_no_fault_of_the_picture(picture):
    plain = encode(picture, "JPEG")
    for exif in (b"Exif\x00\x00rubbish", b"Exif\x00\x00II*\x00\xff\xff\xff\xff", b"Exif\x00\x00"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels = decode_bytes(encode(picture, "JPEG", exif=exif), SIZE, "squash")
        assert np.array_equal(pixels, decode_bytes(plain, SIZE, "squash"))


@pytest.mark.parametrize(
    ("file_format", "mode", "options"),
    [
        ("PNG", "RGB", {}),
        ("PNG", "P", {}),
        ("PNG", "1", {}),
        ("PNG", "L", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "LA", {}),
        ("JPEG", "L", {}),
        ("JPEG", "CMYK", {}),
        ("TIFF", "CMYK", {}),
        ("TIFF", "LAB", {}),
        ("TIFF", "RGB", {}),
        ("TIFF", "RGB", {"compression": "jpeg"}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("BMP", "RGB", {}),
        ("BMP", "L", {}),
        ("GIF", "P", {}),
        ("WEBP", "RGB", {}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("PPM", "RGB", {}),
        ("PPM", "L", {}),
        ("AVIF", "RGB", {}),
        ("AVIF", "RGBA", {}),
        ("AVIF", "L", {}),
    ],
)
@pytest.mark.parametrize("resize_mode", ["squash", "crop"])
def test_every_format_and_mode_becomes_rgb(picture, file_format, mode, options, resize_mode):
    converted = picture
    if mode == "LAB":
        from PIL import ImageCms

        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(picture, srgb, lab, outputMode="LAB")
    elif mode != "RGB":
        converted = picture.convert(mode)
    pixels = decode_bytes(encode(converted, file_format, **options), SIZE, resize_mode)
    assert pixels.shape == (SIZE, SIZE, 3) and pixels.dtype == np.uint8 and pixels.flags.c_contiguous
    truth = picture.convert({"LA": "L"}.get(mode, mode)) if mode in ("L", "LA", "1", "P") else picture
    assert psnr(pixels, resized(truth, SIZE, resize_mode)) > 30


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_tones(picture, file_format):
    grey = picture.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    assert psnr(decode_bytes(encode(deep, file_format), SIZE, "squash"), resized(grey)) > 45


def test_pixels_of_more_than_sixteen_bits_are_refused_rather_than_guessed(picture):
    grey = np.asarray(picture.convert("L")).astype(np.int32)
    assert (
        psnr(decode_bytes(encode(Image.fromarray(grey * 257), "TIFF"), SIZE, "squash"), resized(picture.convert("L")))
        > 45
    )
    with pytest.raises(UnreadableImage, match="more than 16 bits"):
        decode_bytes(encode(Image.fromarray(grey * 2**22), "TIFF"), SIZE, "squash")


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGBA", {}),
        ("LA", {}),
        ("P", {"transparency": 0}),
        ("RGB", {"transparency": (0, 0, 0)}),
        ("L", {"transparency": 0}),
    ],
)
def test_transparency_is_laid_on_white(mode, options):
    image = Image.new(mode, (20, 20), {"RGBA": (0, 0, 0, 0), "LA": (0, 0), "P": 0, "RGB": (0, 0, 0), "L": 0}[mode])
    assert (decode_bytes(encode(image, "PNG", **options), 8, "squash") == 255).all()


def test_half_transparent_pixels_are_mixed_with_white():
    pixels = decode_bytes(encode(Image.new("RGBA", (9, 9), (200, 0, 0, 128)), "PNG"), 9, "squash")
    assert np.abs(pixels.astype(int) - (227, 127, 127)).max() <= 1


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_first_frame_is_taken(file_format):
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "lime", "blue")]
    data = encode(frames[0], file_format, save_all=True, append_images=frames[1:])
    assert np.abs(decode_bytes(data, 8, "squash").astype(int) - (255, 0, 0)).max() <= 3


def test_squash_keeps_the_whole_photograph_and_crop_its_proportions():
    image = np.zeros((60, 180, 3), np.uint8)
    image[:, :60], image[:, 60:120], image[:, 120:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    data = encode(Image.fromarray(image), "PNG")
    assert (decode_bytes(data, 20, "crop") == (0, 255, 0)).all()
    squashed = decode_bytes(data, 30, "squash")
    assert (squashed[:, [0, 15, 29]] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]).all()


def test_photograph_of_the_wanted_size_keeps_its_pixels(picture):
    square = picture.crop((0, 0, SIZE, SIZE))
    assert np.array_equal(decode_bytes(encode(square, "PNG"), SIZE, "squash"), np.asarray(square))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("resize_mode", ["squash", "crop"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 100), (1, 5000), (5000, 1), (3, 7), (40, 30)])
def test_tiny_and_narrow_pictures_are_decoded_without_loss(picture, shape, resize_mode, file_format):
    image = picture.resize(shape)
    data = encode(image, file_format, **({"quality": 100, "subsampling": 0} if file_format == "JPEG" else {}))
    pixels = decode_bytes(data, SIZE, resize_mode)
    assert pixels.shape == (SIZE, SIZE, 3)
    if resize_mode == "squash":
        assert psnr(pixels, resized(image)) > 40


@pytest.mark.parametrize("file_format", ["JPEG", "progressive JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated_files_are_unreadable_wherever_they_end(picture, file_format):
    whole = encode(picture, file_format.split()[-1], **({"progressive": True} if " " in file_format else {}))
    decode_bytes(whole, SIZE, "squash")
    # PNG and GIF end with some bytes that hold no pixels.
    for cut in (40, 100, 1000, len(whole) // 2, len(whole) - 700, len(whole) - 40, len(whole) - 3):
        with pytest.raises(UnreadableImage):
            decode_bytes(whole[:-cut], SIZE, "squash")
    if "JPEG" in file_format:
        for cut in (1, 2, 3, 10):
            with pytest.raises(UnreadableImage, match="truncated"):
                decode_bytes(whole[:-cut], SIZE, "squash")


@pytest.mark.parametrize(
    "content",
    [
        b"not an image",
        b"\xff\xd8\xff",
        bytes(1000),
        b"%PDF-1.4\n",
        b"GIF89a",
        b"\x89PNG\r\n\x1a\n",
        b"<html><body>404 Not Found</body></html>",
    ],
    ids=repr,
)
def test_files_that_are_no_images_are_unreadable(content):
    with pytest.raises(UnreadableImage):
        decode_bytes(content, SIZE, "squash")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(50), "HEIC, which needs a library; pip install"),
        (b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1heix" + bytes(50), "HEIC, which needs a library; pip install"),
        (b"\x00\x00\x00\x18ftypavis\x00\x00\x00\x00avifmif1" + bytes(50), "AVIF"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00isommp42" + bytes(50), "a video; save a frame"),
        (b"\x00\x00\x00\x18ftypcrx \x00\x00\x00\x00crx isom" + bytes(50), "raw file; develop it to JPEG"),
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n" + bytes(50), "JPEG XL; convert it"),
        (b"\xff\x0a" + bytes(50), "JPEG XL; convert it"),
        ("JPEG2000", "JPEG 2000; convert it"),
        ("ICO", "an icon or a cursor; convert it"),
        (b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="x">', "SVG; convert it"),
        (b"%PDF-1.7\n", "PDF .*; save its pictures"),
        (b"8BPS\x00\x01" + bytes(50), "Photoshop; convert it"),
        (b"\n<!DOCTYPE html><p>404", "a web page, .*; download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"\x00\x00\x00\x00nothing known" + bytes(50), "^no image$"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_not_read_is_named_with_a_way_out_whatever_its_name(picture, content, words, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "can_read_heic", lambda: False)
    (tmp_path / "a.jpg").write_bytes(content if isinstance(content, bytes) else encode(picture, content))
    with pytest.raises(UnreadableImage, match=words):
        decode_file(tmp_path / "a.jpg", SIZE, "squash")


@pytest.mark.parametrize(("mode", "orientation"), [("RGB", 1), ("RGB", 6), ("RGBA", 1), ("L", 8)])
def test_heic_is_read_where_its_library_is_installed(picture, mode, orientation):
    pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    pillow_heif.register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(picture.convert(mode), "HEIF", quality=95, exif=exif.tobytes())  # as it is, it would be ignored
    upright = picture.convert("L" if mode == "L" else "RGB").rotate({6: -90, 8: 90}.get(orientation, 0), expand=True)
    assert psnr(decode_bytes(data, SIZE, "crop"), resized(upright, SIZE, "crop")) > 33
    with pytest.raises(UnreadableImage):
        decode_bytes(data[:-500], SIZE, "squash")


def test_only_our_own_words_are_said_of_damage(picture, capfd):
    damaged = []
    for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "lzma", "zstd", "group4"):
        data = encode(picture.convert("1" if compression == "group4" else "RGB"), "TIFF", compression=compression)
        damaged += [data[:100] + bytes([number]) * 900 + data[1000:] for number in (0, 90, 255)]
    for file_format in ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "PPM"):
        data = encode(picture, file_format)
        damaged += [data[:60] + bytes(40) + data[100:], data[: len(data) // 2], data[:-30] + bytes(30)]
    damaged += [png_of_size(14000, 14000), tiff_of_size(100, 100, bytes(4000), compression=50001)]
    unreadable = 0
    for data in damaged:
        try:
            decode_bytes(data, SIZE, "squash")
        except UnreadableImage as reason:
            unreadable += 1
            assert "decoder error" not in str(reason)
    assert unreadable > 25
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_opened_is_unreadable_and_says_why(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "dangling.jpg").symlink_to("nowhere")
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    reasons = {"empty": "empty file", "folder": "directory", "dangling": "No such file", "circle": "symbolic link"}
    for name, reason in reasons.items():
        with pytest.raises(UnreadableImage, match=reason):
            decode_file(tmp_path / f"{name}.jpg", SIZE, "squash")


@pytest.mark.parametrize(("width", "height"), [(100_000, 100_000), (2**31 - 1, 2**31 - 1), (0, 0)])
def test_impossible_dimensions_are_refused_without_taking_memory(width, height):
    with pytest.raises(UnreadableImage):
        decode_bytes(png_of_size(width, height), SIZE, "squash")


def test_floating_point_pixels_are_refused_rather_than_guessed(picture):
    with pytest.raises(UnreadableImage, match="floating-point"):
        decode_bytes(encode(picture.convert("F"), "TIFF"), SIZE, "squash")


def test_damage_of_any_kind_is_unreadable_or_a_picture_and_never_another_error(picture):
    small = picture.resize((90, 70))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Camera"
    files = [
        encode(small, "JPEG", exif=exif),
        encode(small, "JPEG", progressive=True),
        encode(small, "PNG", exif=exif),
        encode(small.convert("P"), "PNG", transparency=bytes(20)),
        encode(small, "WEBP", exif=exif),
        encode(small, "GIF", save_all=True, append_images=[small.rotate(9)]),
        encode(small, "BMP"),
        encode(small, "TIFF", tiffinfo={0x0112: 6}),
        encode(small.convert("CMYK"), "JPEG"),
        encode(small, "PPM"),
    ]
    rng = random.Random(0)
    readable = 0
    for _ in range(600):
        data = bytearray(rng.choice(files))
        for _ in range(rng.choice((1, 3, 20))):
            data[rng.randrange(min(len(data), rng.choice((60, 600, 10**6))))] = rng.choice((0, 255, rng.randrange(256)))
        if rng.random() < 0.2:
            del data[rng.randrange(len(data)) :]
        try:
            assert decode_bytes(bytes(data), 32, rng.choice(("squash", "crop"))).shape == (32, 32, 3)
            readable += 1
        except UnreadableImage as reason:
            assert str(reason) and "\n" not in str(reason)
    assert 50 < readable < 550


def test_damaged_tags_of_a_tiff_are_never_another_error(picture):
    small, deep = picture.resize((50, 40)), Image.fromarray(np.zeros((40, 50), np.uint16))
    files = [encode(deep, "TIFF"), encode(small.convert("CMYK"), "TIFF", tiffinfo={0x0112: 6})]
    files += [encode(small, "TIFF", compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate", "jpeg")]
    rng = random.Random(0)
    for _ in range(600):
        data = bytearray(rng.choice(files))
        tags = int.from_bytes(data[4:8], "little")
        for _ in range(rng.choice((1, 1, 2, 4))):
            data[min(tags + rng.randrange(180), len(data) - 1)] = rng.choice((0, 1, 2, 5, 12, 255, rng.randrange(256)))
        with contextlib.suppress(UnreadableImage):
            assert decode_bytes(bytes(data), 32, "squash").shape == (32, 32, 3)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_is_no_photograph_and_nobody_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(UnreadableImage, match="pipe"):
        decode_file(tmp_path / "pipe.jpg", 32, "squash")


def test_a_fault_of_the_disk_is_not_taken_for_a_fault_of_the_file(tmp_path, monkeypatch):
    def fail(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    (tmp_path / "a.jpg").write_bytes(b"x")
    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(OSError, match="Input/output"):
        decode_file(tmp_path / "a.jpg", 32, "squash")


DECEPTIVE = {
    "strips that are one": tiff_of_size(16000, 16000, zlib.compress(bytes(16000 * 64 * 2)), rows=64),
    "one strip cut short": tiff_of_size(16000, 16000, zlib.compress(bytes(10**6))),
    "nothing packed": tiff_of_size(16000, 16000, bytes(4000), compression=1),
    "32 bits": tiff_of_size(16000, 16000, zlib.compress(bytes(10**6)), bits=32),
    "floating point": tiff_of_size(16000, 16000, zlib.compress(bytes(10**6)), bits=32, kind=3),
    "LZW": tiff_of_size(16000, 16000, b"\x80\x00" * 1000, compression=5),
    "PackBits": tiff_of_size(16000, 16000, b"\x81\x00" * 2000, compression=32773),
    "one bit": tiff_of_size(16000, 16000, b"\xff" * 4000, bits=1, compression=4),
    "one tile": tiff_of_size(16000, 16000, zlib.compress(bytes(10**6)), tile=16000),
    "a tile larger than the picture": tiff_of_size(100, 100, zlib.compress(bytes(10**6)), tile=30000),
    "strips that overlap": tiff_of_size(3000, 3000, zlib.compress(bytes(3000 * 2)), rows=1),
    "one pixel wide": tiff_of_size(1, 30_000_000, bytes(30_000), compression=1),
    "PNG": png_of_size(16000, 16000),
}


KINDS = [
    ("PNG", "L", {}),
    ("PNG", "RGB", {}),
    ("PNG", "RGBA", {}),
    ("PNG", "I;16", {}),
    ("TIFF", "L", {"tiffinfo": {0x0112: 6}}),
    ("TIFF", "RGB", {"tiffinfo": {0x0112: 6}, "compression": "tiff_lzw", "strip_size": 2**30}),
    ("TIFF", "I;16", {}),
    ("BMP", "RGB", {}),
    ("GIF", "P", {}),
    ("PPM", "I;16", {}),
    ("WEBP", "RGBA", {}),
    ("WEBP", "RGB", {"lossless": True, "method": 0}),
    ("JPEG", "RGB", {"subsampling": 0}),
    ("JPEG", "RGB", {"subsampling": 0, "progressive": True}),
    ("JPEG", "CMYK", {}),
    ("AVIF", "RGB", {"speed": 10, "subsampling": "4:4:4"}),
    ("AVIF", "RGBA", {"speed": 10}),
]


MEASURE_ALONE = """
import contextlib, ctypes, json, re, sys
from pathlib import Path
from naturalist.data import budget, decode

def kilobytes(name):
    return int(re.search(rf"{name}:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

results, room = [], budget.pixels.of
for file, size in zip(sys.argv[1::2], map(int, sys.argv[2::2])):
    data, peaks_and_asked = Path(file).read_bytes(), []
    for decode_jpeg in (decode._decode_jpeg, lambda *_: None) if data[:2] == b"\\xff\\xd8" else (None,):
        decode._decode_jpeg, kept, asked = decode_jpeg or decode._decode_jpeg, decode._decode_jpeg, [0]
        budget.pixels.of = lambda needed: asked.append(needed) or room(needed)
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = kilobytes("VmRSS")
        with contextlib.suppress(decode.UnreadableImage):
            decode.decode_bytes(data, size, "squash")
        peaks_and_asked.append(((kilobytes("VmHWM") - before) * 1024, asked[-1]))
        decode._decode_jpeg = kept
    results.append(peaks_and_asked)
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def peaks_and_asked(picture, tmp_path_factory) -> dict[str, list[tuple[int, int]]]:
    """Bytes that decoding took and those it asked for, by each library that can decode it.

    They are measured in a process whose heap nothing else has used.
    """
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("peak memory is read from /proc")
    folder = tmp_path_factory.mktemp("kinds")
    large = picture.resize((2600, 1950), Image.Resampling.NEAREST)
    deep = Image.fromarray(np.asarray(large.convert("L")).astype(np.uint16) * 257)
    files = {"narrow": encode(picture.resize((8, 100_000)), "PNG"), **DECEPTIVE}
    for file_format, mode, options in KINDS:
        image = deep if mode == "I;16" else large.convert(mode)
        files[f"{file_format}-{mode}-{options}"] = encode(image, file_format, **options)
    arguments: list[object] = []
    for number, (name, data) in enumerate(files.items()):
        (folder / str(number)).write_bytes(data)
        arguments += [folder / str(number), 256 if name == "narrow" else SIZE]
    result = run_python("-c", MEASURE_ALONE, *arguments, cwd=folder, fresh=True)
    assert result.returncode == 0, result.stderr
    return dict(zip(files, json.loads(result.stdout), strict=True))


@pytest.mark.parametrize("kind", ["-".join(map(str, kind)) for kind in KINDS])
def test_decoding_takes_no_more_memory_than_it_asks_for(peaks_and_asked, kind):
    assert len(peaks_and_asked[kind]) == (2 if kind.startswith("JPEG") else 1)
    for peak, asked in peaks_and_asked[kind]:
        assert 0 < peak <= asked


@pytest.mark.parametrize("kind", DECEPTIVE)
def test_a_few_kilobytes_cannot_take_seconds_or_gigabytes(peaks_and_asked, kind):
    assert len(DECEPTIVE[kind]) < 50_000
    start = time.perf_counter()
    with pytest.raises(UnreadableImage):
        decode_bytes(DECEPTIVE[kind], SIZE, "squash")
    assert time.perf_counter() - start < 1 and peaks_and_asked[kind][0][0] < 50e6


def test_a_photograph_beyond_the_budget_is_refused_in_its_pixels_and_bytes(set_budget):
    data = encode(Image.new("RGB", (4000, 3000)), "PNG")
    decode_bytes(data, SIZE, "squash")
    set_budget(100_000_000)
    with pytest.raises(UnreadableImage, match=r"^4,000 x 3,000 pixels need 0\.1 GB to decode, more than may be used$"):
        decode_bytes(data, SIZE, "squash")


def test_a_large_jpeg_needs_no_more_than_what_it_is_shrunk_to(picture, set_budget):
    data = encode(picture.resize((4000, 3000)), "JPEG")
    set_budget(40_000_000)
    assert decode_bytes(data, SIZE, "squash").shape == (SIZE, SIZE, 3)
    data = encode(picture.resize((4000, 3000)), "JPEG", progressive=True)
    with pytest.raises(UnreadableImage, match="4,000 x 3,000 pixels need 0.1 GB"):
        decode_bytes(data, SIZE, "squash")


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    with (tmp_path / "sparse.jpg").open("wb") as file:
        file.truncate(60 * 10**9)
    monkeypatch.setattr(Path, "read_bytes", None)
    with pytest.raises(UnreadableImage, match=r"a file of 60\.0 GB"):
        decode_file(tmp_path / "sparse.jpg", SIZE, "squash")


def test_narrow_pictures_need_memory_for_their_length(peaks_and_asked):
    ((peak, asked),) = peaks_and_asked["narrow"]
    assert 70e6 < peak <= asked


def test_threads_wait_for_each_others_memory(picture, set_budget, monkeypatch):
    data = encode(picture.resize((1200, 900)), "PNG")
    set_budget(50_000_000)  # more than one of them needs, and less than two
    decode_whole, at_once, most = decode._decode_whole, [], []

    def decode_and_count(image):
        at_once.append(image)
        most.append(len(at_once))
        time.sleep(0.02)
        pixels = decode_whole(image)
        at_once.remove(image)
        return pixels

    monkeypatch.setattr(decode, "_decode_whole", decode_and_count)
    threads = [threading.Thread(target=decode_bytes, args=(data, SIZE, "squash")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "I;16", "1"])
def test_pictures_of_many_strips_are_those_of_one(picture, mode, monkeypatch):
    whole = picture.convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        whole = Image.fromarray(np.asarray(whole).astype(np.uint16) * 257)
    data = encode(whole, "PNG")
    expected = decode_bytes(data, SIZE, "squash")
    monkeypatch.setattr(decode, "STRIP_PIXELS", 1000)
    assert np.array_equal(decode_bytes(data, SIZE, "squash"), expected)
