"""Row of the suite on growth: time and memory of building a cache and reading an augmented epoch, for more images.

python -m benchmarks.growth FOLDER     one measurement in a process of its own
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.measuring import Row, Settings
from benchmarks.pipeline import SIZE, CachedPath, small_network
from benchmarks.usual import make_photographs
from naturalist.device import choose_device, peak_memory_mb

TIMES = (1, 4, 16)


def growth(settings: Settings) -> Iterator[Row]:
    """Seconds per image and peak memory, at 1, 4 and 16 times the images, against what one time takes."""
    measured = []
    for times in TIMES:
        folder = settings.folder / f"{times}"
        make_photographs(folder / "train", times * settings.images)
        command = [sys.executable, "-m", "benchmarks.growth", str(folder)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        measured.append(json.loads(done.stdout.splitlines()[-1]))
    first = measured[0]
    for times, now in zip(TIMES[1:], measured[1:], strict=True):
        yield Row(
            f"{times} times the images",
            f"{now['seconds']:.1f} s, {now['peak_mb']:,.0f} MB",
            f"{first['seconds']:.1f} s, {first['peak_mb']:,.0f} MB",
            [first["seconds"] * times / now["seconds"]],
            f"{times * settings.images:,} images of {SIZE} px against {settings.images:,}; 1 is proportional",
        )


def measure_once(folder: Path) -> None:
    """Print, as JSON, the seconds and the peak memory of decoding and of an epoch of augmented batches."""
    import time

    device = choose_device("cpu")
    start = time.perf_counter()
    CachedPath(folder, SIZE, small_network(SIZE), torch.device("cpu")).read()
    print(json.dumps({"seconds": time.perf_counter() - start, "peak_mb": peak_memory_mb(device) or 0.0}))


if __name__ == "__main__":
    measure_once(Path(sys.argv[1]))
