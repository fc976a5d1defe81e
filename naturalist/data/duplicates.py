"""Photographs that are there twice: the same bytes, or the same picture saved, resized or brightened anew.

Look-alikes are found in two steps. A perceptual hash of 64 bits says which photographs could be the same: the signs of
the lowest frequencies of its luminance against their median (pHash, Zauner 2010). Two hashes that differ in at most *d*
bits agree in at least one of *d* + 1 bands, so that sorting by bands finds all such pairs without comparing each with
each. Then 16×16 luminances have to be alike, too, for hashes alone take one golf ball on grass for another.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
import scipy.fft
from numpy.typing import NDArray

HASH_BITS = 64
BASIS = 32
"""Side of the luminance that a hash is made of, in pixels."""
GRAIN = 16
"""Side of the luminance that is compared, in pixels."""
LIKENESS = 0.9
"""Smallest correlation of two luminances that show the same picture."""
ROWS = 64
"""How many hashes are compared with all others of their bucket at once; it bounds memory."""

SAME_BYTES = -1
"""In place of a distance."""
NONE = np.iinfo(np.int64).max

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Prints:
    """What photographs are recognised by."""

    hashes: NDArray[np.uint64]
    """uint64 ``[N]``."""
    grains: NDArray[np.float32]
    """float32 ``[N, 256]``, of mean 0 and length 1, so that their product is the correlation; zeros for a photograph
    that shows next to nothing, which is like all others that do."""


@dataclass(frozen=True)
class Twins:
    """For each of some photographs the other that is most like it; of the same bytes if there is one."""

    files: Indices
    """int64 ``[P]``, ascending; each once."""
    others: Indices
    """int64 ``[P]``."""
    distances: Indices
    """int64 ``[P]``: bits in which their hashes differ; ``SAME_BYTES`` where those are the same."""

    def __len__(self) -> int:
        return len(self.files)


@dataclass(frozen=True)
class Duplicates:
    """What is there twice, by what is wrong with that."""

    leaks: Twins
    """Of photographs that are in a later split, too: the training image, and its twin in validation or test."""
    conflicts: Twins
    """Of photographs that have another label, too; of a pair in two splits only the earlier split's."""
    copies: Twins
    """Of photographs that are in the same split and class already, by an earlier name."""


def take_prints(luminance: NDArray[np.float32], shows_something: NDArray[np.bool_]) -> Prints:
    """Prints of photographs; luminance is ``[N, 32, 32]``."""
    spectrum = scipy.fft.dctn(luminance, axes=(1, 2), norm="ortho")[:, 1:9, 1:9].reshape(-1, HASH_BITS)
    bits = spectrum > np.median(spectrum, axis=1, keepdims=True)
    grains = luminance.reshape(len(luminance), GRAIN, BASIS // GRAIN, GRAIN, BASIS // GRAIN).mean(axis=(2, 4))
    grains = grains.reshape(len(luminance), -1)
    grains = grains - grains.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(grains, axis=1, keepdims=True)
    scale = np.where(shows_something[:, None] & (lengths > 0), 1 / np.maximum(lengths, 1e-6), 0)
    return Prints(np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64), (grains * scale).astype(np.float32))


def find_duplicates(
    prints: Prints, contents: Sequence[str], splits: Indices, labels: Indices, distance: int
) -> Duplicates:
    """What is there twice among the photographs of all splits.

    Args:
        prints: of ``N`` photographs.
        contents: hash of each file's bytes, ``[N]``.
        splits: int64 ``[N]``, ascending: 0 for the training images, then validation, then test.
        labels: int64 ``[N]``.
        distance: in how many bits hashes of look-alikes may differ.
    """
    count = len(labels)
    leaks, conflicts, copies = (np.full(count, NONE) for _ in range(3))

    def note(best: Indices, files: Indices, others: Indices, distances: Indices) -> None:
        np.minimum.at(best, files, (distances + 1) * count + others)  # the most like it; of equals the first

    for first, second, distances in chain(_same_bytes(contents, splits, labels), _alike(prints, distance)):
        same_split, same_label = splits[first] == splits[second], labels[first] == labels[second]
        for best, chosen, turned in (
            (leaks, ~same_split, False),
            (conflicts, ~same_label, False),
            (conflicts, ~same_label & same_split, True),
            (copies, same_label & same_split, True),
        ):
            files, others = (second, first) if turned else (first, second)
            note(best, files[chosen], others[chosen], distances[chosen])
    return Duplicates(*(_twins(best, count) for best in (leaks, conflicts, copies)))


def near_pairs(hashes: NDArray[np.uint64], distance: int) -> Iterator[tuple[Indices, Indices, Indices]]:
    """All pairs of hashes that differ in at most ``distance`` bits, each once.

    Yields the first of each pair, the second (int64 ``[P]``, first < second) and the bits in which they differ.
    """
    edges = np.linspace(0, HASH_BITS, distance + 2).astype(int).tolist()
    masks = [np.uint64(2**high - 2**low) for low, high in pairwise(edges)]
    for band, mask in enumerate(masks):
        keys = hashes & mask
        order = np.argsort(keys, kind="stable")
        for bucket in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
            for start in range(0, len(bucket) - 1, ROWS):
                rows, columns = bucket[start : start + ROWS], bucket[start:]
                differing = hashes[rows, None] ^ hashes[columns]
                row, column = np.nonzero(np.bitwise_count(differing) <= distance)
                bits = differing[row, column]
                new = column > row
                for earlier in masks[:band]:  # in which it would have been found
                    new &= (bits & earlier) != 0
                yield rows[row[new]], columns[column[new]], np.bitwise_count(bits[new]).astype(np.int64)


def _alike(prints: Prints, distance: int) -> Iterator[tuple[Indices, Indices, Indices]]:
    """Pairs of photographs that look the same, as :func:`near_pairs` yields them."""
    shown = np.flatnonzero(prints.grains.any(axis=1))
    for first, second, distances in near_pairs(prints.hashes[shown], distance):
        (firsts, row), (seconds, column) = (np.unique(side, return_inverse=True) for side in (first, second))
        likeness = prints.grains[shown[firsts]] @ prints.grains[shown[seconds]].T
        alike = likeness[row, column] >= LIKENESS
        yield shown[first[alike]], shown[second[alike]], distances[alike]


def _same_bytes(
    contents: Sequence[str], splits: Indices, labels: Indices
) -> Iterator[tuple[Indices, Indices, Indices]]:
    """Pairs of files of the same bytes: each with the first of every split and class, which is enough of many."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i, content in enumerate(contents):
        groups[content].append(i)
    for group in groups.values():
        firsts: dict[tuple[int, int], int] = {}
        for i in group:
            firsts.setdefault((int(splits[i]), int(labels[i])), i)
        pairs = {(min(i, j), max(i, j)) for i in group for j in firsts.values() if i != j}
        if pairs:
            first, second = np.array(sorted(pairs), np.int64).T
            yield first, second, np.full(len(pairs), SAME_BYTES)


def _twins(best: Indices, count: int) -> Twins:
    files = np.flatnonzero(best < NONE)
    distances, others = np.divmod(best[files], count)
    return Twins(files, others, distances - 1)
