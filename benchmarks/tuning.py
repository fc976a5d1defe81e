"""Row of the suite on what is left to users to try: each such knob turned, against an epoch of training as it is.

python -m benchmarks.tuning FOLDER KNOB     one measurement in a process of its own
"""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.measuring import Row, Settings, rate_row, seconds_of
from benchmarks.pipeline import CachedPath, small_network
from benchmarks.usual import BATCH_SIZE, make_photographs
from naturalist.data.loader import BatchLoader
from naturalist.device import choose_device
from naturalist.training.epoch import train_one_epoch

SIZE = 128
NONE, FLUSHED, ONE_THREAD, BESIDE = "none", "flushed", "one-thread", "beside"
KNOBS = {
    FLUSHED: "denormal numbers are zero",
    ONE_THREAD: "a single thread",
    BESIDE: "next batch augmented beside the step",
}


class Ahead(BatchLoader):
    """Batches that a thread augments while the step before them is taken."""

    def __init__(self, path: CachedPath) -> None:
        super().__init__(path.loader.cache, path.loader.indices, BATCH_SIZE, path.loader.device, shuffle_seed=0)
        self._augment = path.augment

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """As :meth:`BatchLoader.epoch`, but the network's inputs."""
        coming: Future[tuple[Tensor, Tensor]] | None = None
        with ThreadPoolExecutor(1) as beside:
            for step, (images, labels) in enumerate(super().epoch(epoch, start), start):
                ready, coming = coming, beside.submit(self._augment, images, labels, epoch, step)
                if ready is not None:
                    yield ready.result()
            if coming is not None:
                yield coming.result()


def tuning(settings: Settings) -> Iterator[Row]:
    """An epoch with a knob turned and one without, in turns."""
    if settings.device.type != "cpu":
        yield Row("tuning", "", "", [], "only on a CPU")
        return
    make_photographs(settings.folder / "train", settings.images)
    for knob, name in KNOBS.items():
        turns = [(_measure(knob, settings.folder), _measure(NONE, settings.folder)) for _ in range(settings.repeats)]
        yield rate_row(f"tuning: {name}", turns, settings.images, note="an epoch, 32 filters, 128 px")


def _measure(knob: str, folder: Path) -> float:
    command = [sys.executable, "-m", "benchmarks.tuning", str(folder), knob]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def measure_once(folder: Path, knob: str) -> None:
    """Print the seconds of the second epoch."""
    torch.set_flush_denormal(knob == FLUSHED)  # before there are threads, which take it over
    device = choose_device("cpu")
    if knob == ONE_THREAD:
        torch.set_num_threads(1)
    path = CachedPath(folder, SIZE, small_network(SIZE), device)
    ahead = Ahead(path)

    def epoch() -> None:
        if knob == BESIDE:
            train_one_epoch(path.learner, ahead, lambda inputs: inputs, epoch=0)
        else:
            path.train()

    epoch()
    print(seconds_of(epoch, device))


if __name__ == "__main__":
    measure_once(Path(sys.argv[1]), sys.argv[2])
