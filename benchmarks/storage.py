"""What an image takes on the disk and costs to read, as pixels and as a JPEG of the same size; what a file costs.

python -m benchmarks.storage FOLDER [--sizes 128 160] [--images 500] [--files 20000] [--disk FOLDER]

FOLDER holds photographs, in a folder for each class. What is read from memory is timed by the core that one thread
takes. The disk is that of ``--disk``, read when the system has forgotten the file. Prints three tables;
docs/scaling.md reckons with them.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray

from benchmarks.measuring import describe_environment
from benchmarks.streaming import cold_seconds
from naturalist.data.catalog import scan
from naturalist.data.decode import decode_file
from naturalist.data.images import open_cache
from naturalist.data.stream import RowFile, streamed
from naturalist.device import forget_peak_memory, peak_memory_mb
from naturalist.entry import entry_point

QUALITY = 90
BATCH = 64
CPU = torch.device("cpu")
DISK_ROWS, DISK_ROW_BYTES = 60_000, 128 * 128 * 3
DISK_ROWS_READ = 10_000
"""So few that what a map reads too much, for images of which nobody needs any soon, shows as time."""


def measure_images(paths: list[Path], size: int) -> str:
    """A line of the table: of the first decoding, of pixels, of JPEGs."""
    start = time.thread_time()
    images = np.stack([decode_file(path, size, "squash") for path in paths])
    first = len(paths) / (time.thread_time() - start)
    encoded = [simplejpeg.encode_jpeg(image, quality=QUALITY, colorsubsampling="420") for image in images]
    start = time.thread_time()
    for data in encoded:
        simplejpeg.decode_jpeg(data)
    decoding = len(paths) / (time.thread_time() - start)
    pixels = _reading_rate(images)
    jpeg = statistics.mean(map(len, encoded))
    return f"| {size} | {images[0].nbytes:,} | {jpeg:,.0f} | {first:,.0f} | {pixels:,.0f} | {decoding:,.0f} |"


def _reading_rate(images: NDArray[np.uint8]) -> float:
    """Images a second that one thread reads, in any order, from a file that the system holds in memory."""
    rows = images.reshape(len(images), -1)
    order = np.random.default_rng(0).permutation(len(images))
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "pixels.bin").open("w+b", buffering=0) as file:
        file.write(rows.data)
        row_file, out = RowFile(rows, file), np.empty((BATCH, rows.shape[1]), np.uint8)
        start = time.thread_time()
        for batch in (order[first : first + BATCH] for first in range(0, len(order), BATCH)):
            row_file.read(batch, out[: len(batch)])
        return len(order) / (time.thread_time() - start)


def measure_files(photograph: Path, count: int) -> str:
    """A line of the table: listing and opening a cache of many files, which are one."""
    with tempfile.TemporaryDirectory() as folder:
        train, caches = Path(folder) / "train", Path(folder) / "cache"
        for number in range(count):
            place = train / f"class {number % 10}"
            place.mkdir(parents=True, exist_ok=True)
            # Names as long as those of nature_12K.
            (place / f"{number:032x}{photograph.suffix}").symlink_to(photograph.resolve())
        open_cache(scan(train), 8, "squash", caches)
        forget_peak_memory(CPU)
        before, start = peak_memory_mb(CPU) or 0.0, time.thread_time()
        split = scan(train)
        listed = time.thread_time() - start
        cache = open_cache(split, 8, "squash", caches)
        opened = time.thread_time() - start - listed
        index = next(caches.glob("*/index.json")).stat().st_size
        assert len(cache) == count
        memory = 1e6 * ((peak_memory_mb(CPU) or 0.0) - before)
    seconds = f"{1e6 * listed / count:,.0f} µs | {1e6 * opened / count:,.0f} µs"
    return f"| {count:,} | {seconds} | {index / count:,.0f} | {memory / count:,.0f} |"


def measure_disk(folder: Path) -> Iterator[str]:
    """Lines of the table: a part of a file of 3 GB, read in order and shuffled, streamed and through the map."""
    path, shape = folder / "pixels.bin", (DISK_ROWS, DISK_ROW_BYTES)
    with path.open("wb") as file:
        block = np.random.default_rng(0).integers(0, 256, (BATCH, DISK_ROW_BYTES), np.uint8)
        for start in range(0, DISK_ROWS, BATCH):
            file.write(block[: DISK_ROWS - start].data)
        os.fsync(file.fileno())
    in_order, shuffled = np.arange(DISK_ROWS), np.random.default_rng(1).permutation(DISK_ROWS)
    for name, order in (("in order", in_order), ("shuffled", shuffled)):
        for way in (read_streamed, read_map):
            batches = np.array_split(order[:DISK_ROWS_READ], DISK_ROWS_READ // BATCH)
            rates = [DISK_ROWS_READ / cold_seconds(partial(way, path, shape, batches), path) for _ in range(3)]
            middle = statistics.median(rates)
            words = f"{middle:,.0f} ({min(rates):,.0f}–{max(rates):,.0f}) | {middle * DISK_ROW_BYTES / 1e6:,.0f}"
            yield f"| {name}, {way.__name__.removeprefix('read_')} | {words} |"


def read_streamed(path: Path, shape: tuple[int, int], batches: list[NDArray[np.int64]]) -> None:
    """Read a file as training does that streams it."""
    with path.open("rb") as file:
        for _ in streamed(RowFile(np.memmap(path, np.uint8, mode="r", shape=shape), file), batches, CPU):
            pass


def read_map(path: Path, shape: tuple[int, int], batches: list[NDArray[np.int64]]) -> None:
    """Read a file through a map."""
    rows = np.memmap(path, np.uint8, mode="r", shape=shape)
    for batch in batches:
        rows[batch]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.storage", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 160])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--disk", type=Path, help="folder on the disk that is measured; by default that of the system")
    arguments = parser.parse_args()
    with entry_point():
        torch.set_num_threads(1)
        files = scan(arguments.folder).files
        paths = [arguments.folder / file.path for file in files[:: max(1, len(files) // arguments.images)]]
        print(f"{describe_environment(CPU)}; {len(paths)} photographs, one thread\n")
        print("| px | bytes as pixels | as JPEG | decoded first, images/s | pixels read, images/s | JPEGs decoded |")
        print("|---|---|---|---|---|---|", flush=True)
        for size in arguments.sizes:
            print(measure_images(paths, size), flush=True)
        print("\n| files | listed, each | opened, each | bytes of index, each | bytes of memory, each |")
        print("|---|---|---|---|---|", flush=True)
        print(measure_files(paths[0], arguments.files), flush=True)
        print(f"\n| disk, cold, {DISK_ROW_BYTES:,} bytes an image | images/s (min–max) | MB/s |")
        print("|---|---|---|", flush=True)
        with tempfile.TemporaryDirectory(dir=arguments.disk) as folder:
            for line in measure_disk(Path(folder)):
                print(line, flush=True)


if __name__ == "__main__":
    main()
