"""Photographs that are there twice are found, however they were saved, and no others."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from naturalist.data.decode import decode_bytes
from naturalist.data.duplicates import SAME_BYTES, Prints, find_duplicates, near_pairs, take_prints
from naturalist.data.sources.sample import CLASSES, draw

SHARES = (0.299, 0.587, 0.114)


def luminance(image: Image.Image, **options: object) -> np.ndarray:
    data = io.BytesIO()
    image.save(data, options.pop("format", "JPEG"), **options)
    return decode_bytes(data.getvalue(), 32, "squash").astype(np.float32) @ np.float32(SHARES)


def prints_of(*images: np.ndarray) -> Prints:
    return take_prints(np.stack(images), np.array([image.std() > 6 for image in images]))


def found(prints: Prints, contents=None, splits=None, labels=None, distance=8):
    count = len(prints.hashes)
    zeros = np.zeros(count, np.int64)
    contents = [str(i) for i in range(count)] if contents is None else contents
    splits, labels = (zeros if given is None else np.array(given) for given in (splits, labels))
    duplicates = find_duplicates(prints, contents, splits, labels, distance)
    return {
        name: {(int(file), int(other)) for file, other in zip(twins.files, twins.others, strict=True)}
        for name, twins in vars(duplicates).items()
    }


@pytest.mark.parametrize("distance", [0, 3, 8, 16])
def test_near_pairs_are_those_that_comparing_each_with_each_finds(distance):
    generator = np.random.default_rng(distance)
    hashes = generator.integers(0, 2**64, 300, np.uint64)
    for i in range(0, 300, 3):  # some near others, some the same
        for bit in generator.integers(0, 64, generator.integers(0, distance + 2)):
            hashes[i] ^= np.uint64(1) << np.uint64(bit)
        hashes[i + 1] = hashes[i] ^ np.uint64(generator.integers(0, 4))
    differing = np.bitwise_count(hashes[:, None] ^ hashes)
    expected = [(i, j, differing[i, j]) for i in range(300) for j in range(i) if differing[i, j] <= distance]
    pairs = [tuple(map(int, pair)) for chunk in near_pairs(hashes, distance) for pair in zip(*chunk, strict=True)]
    assert sorted(pairs) == sorted((j, i, bits) for i, j, bits in expected)


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (lambda image: image, {"quality": 20}),
        (lambda image: image, {"format": "PNG"}),
        (lambda image: image.resize((image.width // 3, image.height // 3)), {"quality": 50}),
        (lambda image: image.convert("L"), {}),
        (lambda image: ImageEnhance.Brightness(image).enhance(1.15), {}),
        (lambda image: image.crop((4, 4, image.width - 4, image.height - 4)), {}),
    ],
    ids=["recompressed", "PNG", "smaller", "grey", "brighter", "cropped"],
)
def test_a_photograph_that_was_saved_anew_is_found(change, options):
    image = draw(CLASSES[0], np.random.default_rng(0))
    others = [luminance(draw(name, np.random.default_rng([1, i]))) for i, name in enumerate(CLASSES[:4])]
    prints = prints_of(luminance(image), luminance(change(image), **options), *others)
    assert found(prints)["copies"] == {(1, 0)}


def test_different_photographs_are_none_also_in_one_class():
    images = [luminance(draw(name, np.random.default_rng([2, i]))) for i in range(6) for name in CLASSES[:4]]
    assert found(prints_of(*images))["copies"] == set()


def test_photographs_that_show_nothing_are_like_each_other_only_by_their_bytes():
    noise = np.random.default_rng(0).normal(100, 0.5, (3, 32, 32)).astype(np.float32)
    assert found(prints_of(noise[0], noise[0], noise[1]))["copies"] == set()
    assert found(prints_of(noise[0], noise[0], noise[1]), contents=["a", "a", "b"])["copies"] == {(1, 0)}


def test_each_duplicate_is_told_by_what_is_wrong_with_it():
    picture = luminance(draw(CLASSES[0], np.random.default_rng(0)))
    duplicates = found(
        prints_of(*[picture] * 6),
        splits=[0, 0, 0, 0, 1, 1],
        labels=[0, 0, 1, 1, 0, 0],
    )
    assert duplicates == {
        "leaks": {(0, 4), (1, 4), (2, 4), (3, 4)},  # the training images
        "conflicts": {(0, 2), (1, 2), (2, 0), (3, 0)},  # all in doubt; of the test set's the training image is named
        "copies": {(1, 0), (3, 2), (5, 4)},  # all but the first
    }


def test_the_most_similar_twin_is_named_and_the_same_bytes_before_all_others():
    picture = luminance(draw(CLASSES[0], np.random.default_rng(0)))
    prints = prints_of(picture, picture, picture, picture)
    prints.hashes[0] ^= np.uint64(7)
    assert found(prints, splits=[0, 1, 1, 1])["leaks"] == {(0, 1)}
    prints.hashes[2] ^= np.uint64(3)
    assert found(prints, splits=[0, 1, 1, 1])["leaks"] == {(0, 2)}
    duplicates = find_duplicates(prints, ["a", "b", "c", "a"], np.array([0, 1, 1, 1]), np.zeros(4, np.int64), 8)
    assert duplicates.leaks.others.tolist() == [3] and duplicates.leaks.distances.tolist() == [SAME_BYTES]


def test_a_thousand_copies_are_a_thousand_rows_and_not_all_their_pairs():
    prints = prints_of(*[luminance(draw(CLASSES[0], np.random.default_rng(0)))] * 1000)
    duplicates = found(prints, contents=["a"] * 500 + [str(i) for i in range(500)])
    assert duplicates["copies"] == {(i, 0) for i in range(1, 1000)}
