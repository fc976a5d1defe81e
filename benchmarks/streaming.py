"""Rows of the suite on data larger than memory, and on several ranks."""

import os
import statistics
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.commands import ROOT, run_timed
from benchmarks.measuring import Row, Settings, Work, in_turns, rate_row, seconds_of
from benchmarks.pipeline import SIZE, CachedPath, small_network
from benchmarks.usual import BATCH_SIZE, make_photographs
from naturalist.data.images import ImageCache, available_cores
from naturalist.data.loader import BatchLoader
from naturalist.data.placing import choose_place
from naturalist.data.stream import RowFile
from naturalist.runs.folder import read_metrics
from naturalist.training.epoch import train_one_epoch

ROWS_READ = 20_000
"""Images of the file whose batches are only read: enough that a disk shows its speed."""
RANKS, RANK_EPOCHS, RANK_BATCH = 2, 3, 64


def streaming(settings: Settings) -> Iterator[Row]:
    """Streamed batches against resident ones, in a shuffled order: the input alone, and an epoch of training.

    Cold means that the system has forgotten the file before each turn; where images lie on a device, only that they
    were there before can be measured.
    """
    make_photographs(settings.folder / "train", settings.images)
    path = CachedPath(settings.folder, SIZE, small_network(SIZE), settings.device)
    resident = choose_place("resident", 0, settings.device)
    few = path.loader.cache
    for name, cache in (("input", _many(few, settings.folder / "many.bin")), ("epoch", few)):
        streamed, kept = (
            BatchLoader(cache, np.arange(len(cache)), BATCH_SIZE, settings.device, shuffle_seed=0, place=place)
            for place in ("file", resident)
        )
        ours, other = (_work(path, loader, trains=name == "epoch") for loader in (streamed, kept))
        note = f"{len(cache):,} images of {SIZE} px, against resident ({resident})"
        if resident == "map" and hasattr(os, "posix_fadvise"):
            pixels = Path(str(cache.pixels.filename))
            times = []
            for _ in range(settings.repeats):
                cache.release()  # the system keeps pages that are in use
                times.append((cold_seconds(ours, pixels), cold_seconds(other, pixels)))
            yield rate_row(f"streaming: {name}, cold", times, len(cache), note=note)
        else:
            yield Row(f"streaming: {name}, cold", "", "", [], "what is resident does not come from the disk")
        times = in_turns(ours, other, settings.repeats, settings.device)
        yield rate_row(f"streaming: {name}, warm", times, len(cache), note=note)


def _many(cache: ImageCache, path: Path) -> ImageCache:
    """A cache of more images than were drawn: the same over and over."""
    pixels = np.asarray(cache.pixels)
    with path.open("wb") as file:
        for start in range(0, ROWS_READ, len(pixels)):
            file.write(pixels[: ROWS_READ - start].data)
        os.fsync(file.fileno())
    rows = np.memmap(path, np.uint8, mode="r", shape=(ROWS_READ, *pixels.shape[1:]))
    numbers = np.arange(ROWS_READ)
    with path.open("rb") as file:
        row_file = RowFile(rows.reshape(ROWS_READ, -1), file)
    return ImageCache(rows, numbers, cache.labels[numbers % len(cache)], (), cache.class_names, (), file=row_file)


def _work(path: CachedPath, loader: BatchLoader, trains: bool) -> Work:
    def work() -> None:
        if trains:
            train_one_epoch(path.learner, loader, path.augment, epoch=0)
        else:
            for _ in loader.epoch():
                pass

    return work


def cold_seconds(work: Work, pixels: Path) -> float:
    """Seconds of what reads a file that the system has forgotten; no map of it may hold pages at the moment."""
    with pixels.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return seconds_of(work, torch.device("cpu"))


def ranks(settings: Settings) -> Iterator[Row]:
    """Epochs of two ranks against those of one process, in the same batches and on the same cores or on two GPUs."""
    name = f"ranks: {RANKS} against 1"
    if settings.device.type == "cuda" and torch.cuda.device_count() < RANKS:
        yield Row(name, "", "", [], f"needs {RANKS} GPUs")
        return
    cores = available_cores()
    data = make_photographs(settings.folder / "photographs" / "train", settings.images).parent
    flags = {"data": data, "image_size": SIZE, "num_filters": 32, "filter_organization": "same", "epochs": RANK_EPOCHS}
    flags |= {
        "batch_size": RANK_BATCH,
        "optimizer": "AdamW",
        "val_fraction": 0.1,
        "wandb": "disabled",
        "device": settings.device.type,
    }
    flags |= {"runs_dir": settings.folder / "runs", "cache_dir": settings.folder / "cache", "checkpoint_seconds": 0}
    script = [str(ROOT / "partA" / "train.py"), *(f"--{flag}={value}" for flag, value in flags.items())]
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={RANKS}"]

    def seconds(run: str, start: list[str], threads: int) -> float:
        more = [f"--name={run}", "--no_validation_pictures"]
        run_timed([*start, *script, *more], environment={"OMP_NUM_THREADS": str(threads)})
        epochs = read_metrics(settings.folder / "runs" / run)[1:]  # the first sets things up
        return statistics.median(float(epoch["epoch_seconds"]) for epoch in epochs)

    times = [
        (seconds(f"two-{turn}", torchrun, max(1, cores // RANKS)), seconds(f"one-{turn}", [], cores))
        for turn in range(settings.repeats)
    ]
    note = f"{settings.images} images, {SIZE} px, batches of {RANK_BATCH}, the median epoch with its validation"
    if settings.device.type == "cpu":
        note += f"; both on the same {cores} cores, so this is what ranks cost, not what they gain"
    yield rate_row(name, times, settings.images, note=note)
