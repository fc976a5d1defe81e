"""What files say of themselves is read, and a place is never more than a yes."""

import numpy as np
import pytest
from PIL import ExifTags, Image

from naturalist.data.metadata import Header, guessed_by, read_header
from naturalist.errors import UserError

LATITUDE, LONGITUDE = {1: "N", 2: (51.0, 30.0, 0.0)}, {3: "E", 4: (7.0, 5.0, 2.0)}


def saved(path, places=None, camera=(), orientation=1, mode="RGB", size=(40, 30), **options):
    exif = Image.Exif()
    for tag, value in zip((ExifTags.Base.Make, ExifTags.Base.Model), camera, strict=False):
        exif[tag] = value
    exif[ExifTags.Base.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(places or {})
    Image.new(mode, size, "red" if mode == "RGB" else 9).save(path, exif=exif, **options)
    return read_header(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_size_mode_format_camera_and_place_are_read_of_every_format(tmp_path, suffix):
    header = saved(tmp_path / f"a.{suffix}", {**LATITUDE, **LONGITUDE}, ("Make\0", " Model "))
    names = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
    assert header == Header(40, 30, "RGB", names[suffix], "Make Model", has_place=True)
    assert "51" not in repr(header)


def test_sides_are_those_of_the_photograph_as_it_is_looked_at(tmp_path):
    header = saved(tmp_path / "a.jpg", orientation=6)
    assert (header.width, header.height, header.aspect) == (30, 40, 0.75)


def test_fields_for_a_place_without_a_position_are_none(tmp_path):
    assert not saved(tmp_path / "a.jpg", {0: b"\2\3\0\0", 29: "2020:01:01"}).has_place
    assert not saved(tmp_path / "b.jpg", LATITUDE).has_place
    assert not saved(tmp_path / "c.jpg").has_place


def test_a_place_in_xmp_is_one(tmp_path):
    assert saved(tmp_path / "a.jpg", xmp=b"<x:xmpmeta exif:GPSLatitude='51,30N'/>").has_place


def test_a_grey_photograph_says_so(tmp_path):
    assert saved(tmp_path / "a.png", mode="L").mode == "L"


def test_a_file_that_is_gone_since_is_named(tmp_path):
    with pytest.raises(UserError, match="cannot read .*gone.jpg"):
        read_header(tmp_path / "gone.jpg")


@pytest.mark.parametrize(
    ("values", "share"),
    [
        ("aabbcc", 1.0),  # each class has its camera
        ("xxxxxx", 0.0),  # all the same: one's own class has one less than the others
        ("abcdef", 0.0),  # no other photograph says what the value means
        ("aabbxy", 4 / 6),
    ],
)
def test_a_class_is_given_away_by_what_others_of_it_have_too(values, share):
    assert guessed_by(values, np.array([0, 0, 1, 1, 2, 2])) == pytest.approx(share)
