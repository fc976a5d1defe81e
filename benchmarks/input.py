"""Images per second of the decoded cache against the usual loop, side by side in one run.

    python -m benchmarks.input [--images 1000] [--image_size 128] [--repeats 3] [--memory]

The usual loop is ImageFolder, Pillow's resize, ToTensor, Normalize and a DataLoader with as many workers as serve it
best. Both read the same 800×600 JPEGs of about 300 KB (those of nature_12K have 318 on average), drawn for the
purpose, and both train the same network. The two take turns, so that a drift of the machine's speed meets both.
"""

import argparse
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from naturalist.data.augment import Augmentation
from naturalist.data.catalog import scan
from naturalist.data.images import available_cores, open_cache
from naturalist.data.loader import BatchLoader
from naturalist.data.preprocessing import Preprocessing
from naturalist.data.sources.sample import CLASSES, draw
from naturalist.device import Compute, choose_device
from naturalist.models.cnn import FiveBlockCNN
from naturalist.models.parameter_groups import parameter_groups
from naturalist.settings.groups import AugmentationSettings, TrainingSettings
from naturalist.training.epoch import Learner, train_one_epoch
from naturalist.training.optim import Schedule, make_optimizer

BATCH_SIZE = 64
MEAN = STD = (0.5, 0.5, 0.5)
DISTINCT_PHOTOGRAPHS = 200
"""Drawn once; more images are further names of the same files."""


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--image_size", type=int, default=128, help="side of the network's input, in pixels")
    parser.add_argument("--repeats", type=int, default=3, help="times that each is measured")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--memory", action="store_true", help="measure peak memory at 1,000 and 10,000 images instead")
    parser.add_argument("--measure_memory_of", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure_memory_of:
        read_one_epoch(arguments.measure_memory_of, arguments.image_size)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if arguments.memory:
            compare_memory(folder, arguments.image_size)
        else:
            compare_speed(
                folder, arguments.images, arguments.image_size, arguments.repeats, choose_device(arguments.device)
            )


def compare_speed(folder: Path, images: int, size: int, repeats: int, device: torch.device) -> None:
    """Print images per second of both, for decoding, input alone and training."""
    make_photographs(folder / "train", images)
    workers = best_workers(folder / "train", size)
    cached = CachedPath(folder, size, device)
    usual = UsualLoop(folder / "train", size, workers, device)
    rows = {
        "decode everything once": (cached.build, usual.decode),
        "an epoch of input (cached: augmented)": (cached.read, usual.decode),
        "an epoch of training (cached: augmented)": (cached.train, usual.train),
    }
    print_environment(device)
    print(
        f"{images:,} JPEGs of 800×600, {file_size(folder / 'train') / 1e3:.0f} KB on average; {size} px; batch "
        f"{BATCH_SIZE}; {repeats} runs each after a warm-up; the usual loop with {workers} worker(s), its best"
    )
    print("\n| images per second | cached | usual loop | ratio (min–max) |\n|---|---|---|---|")
    for name, (ours, theirs) in rows.items():
        rates = [(rate(ours, images), rate(theirs, images)) for _ in range(repeats + 1)][1:]
        ratios = [our / their for our, their in rates]
        print(
            f"| {name} | {statistics.median(our for our, _ in rates):,.0f} "
            f"| {statistics.median(their for _, their in rates):,.0f} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}) |",
            flush=True,
        )


class CachedPath:
    """This project's way from JPEGs to a trained epoch."""

    def __init__(self, folder: Path, size: int, device: torch.device) -> None:
        self.folder, self.size = folder, size
        self.settings = TrainingSettings(batch_size=BATCH_SIZE)
        compute = Compute(device)
        self.augment = Augmentation(
            AugmentationSettings(), self.settings.seed, Preprocessing(size, size, "squash", MEAN, STD), len(CLASSES)
        )
        model = compute.place(make_network(size))
        optimizer = make_optimizer(parameter_groups(model, self.settings.decay), self.settings, device)
        self.loader: BatchLoader = self._build(device)
        schedule = Schedule(optimizer, self.settings, len(self.loader), 1)
        self.learner = Learner(model, optimizer, schedule, self.settings, compute)

    def build(self) -> None:
        """Decode all photographs into a new cache."""
        self.loader = self._build(self.loader.device)

    def _build(self, device: torch.device) -> BatchLoader:
        shutil.rmtree(self.folder / "cache", ignore_errors=True)
        cache = open_cache(scan(self.folder / "train"), self.size, "squash", self.folder / "cache")
        return BatchLoader(cache, np.arange(len(cache)), BATCH_SIZE, device, shuffle_seed=0)

    def read(self) -> None:
        """One epoch of augmented batches, without a network."""
        for step, (images, labels) in enumerate(self.loader.epoch()):
            self.augment(images, labels, 0, step)

    def train(self) -> None:
        """One epoch of training with augmentation."""
        train_one_epoch(self.learner, self.loader, self.augment, epoch=0)


class UsualLoop:
    """What most scripts do, without augmentation."""

    def __init__(self, folder: Path, size: int, workers: int, device: torch.device) -> None:
        transform = transforms.Compose(
            [transforms.Resize((size, size)), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        )
        self.loader = DataLoader(
            ImageFolder(folder, transform),
            BATCH_SIZE,
            shuffle=True,
            num_workers=workers,
            pin_memory=device.type == "cuda",
        )
        self.device = device
        self.model = make_network(size).to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.002)

    def decode(self) -> None:
        """One epoch of batches, without a network."""
        for images, _ in self.loader:
            images.to(self.device)

    def train(self) -> None:
        """One epoch of training in fp32."""
        for images, labels in self.loader:
            images, labels = images.to(self.device), labels.to(self.device)
            loss = torch.nn.functional.cross_entropy(self.model(images), labels)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # of torch
            self.optimizer.step()


def make_network(size: int) -> FiveBlockCNN:
    """32 filters in every block, SiLU, batch normalisation."""
    return FiveBlockCNN(len(CLASSES), size, num_filters=32, filter_organization="same", activation="SiLU")


def make_photographs(folder: Path, count: int) -> None:
    """Write ``count`` JPEGs of 800×600 with the detail and file size of photographs."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True)

    def write(index: int) -> None:
        rng = np.random.default_rng(index)
        picture = draw(CLASSES[index % len(CLASSES)], rng).convert("RGB").resize((800, 600), Image.Resampling.BICUBIC)
        pixels = np.asarray(picture, np.float32) + rng.standard_normal((600, 800, 1), np.float32) * 12
        path = folder / CLASSES[index % len(CLASSES)] / f"{index}.jpg"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=95)

    distinct = min(count, DISTINCT_PHOTOGRAPHS)
    with ThreadPoolExecutor(available_cores()) as pool:
        list(pool.map(write, range(distinct)))
    for index in range(distinct, count):
        name = CLASSES[index % len(CLASSES)]
        os.link(folder / name / f"{index % distinct}.jpg", folder / name / f"{index}.jpg")


def best_workers(folder: Path, size: int) -> int:
    """Number of workers with which the usual loop decodes fastest, between none and one for each core."""

    def seconds(workers: int) -> float:
        loop = UsualLoop(folder, size, workers, torch.device("cpu"))
        return min(time_of(loop.decode) for _ in range(2))

    return min({0, 1, available_cores()}, key=seconds)


def compare_memory(folder: Path, size: int) -> None:
    """Print peak memory of building a cache and reading an augmented epoch, for 1,000 and 10,000 images."""
    print_environment(torch.device("cpu"))
    print("\n| images | cache | peak memory of the process |\n|---|---|---|")
    for images in (1_000, 10_000):
        make_photographs(folder / str(images) / "train", images)
        command = [
            sys.executable,
            "-m",
            "benchmarks.input",
            "--measure_memory_of",
            str(folder / str(images)),
            "--image_size",
            str(size),
        ]
        peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
        print(f"| {images:,} | {images * size**2 * 3 / 2**20:,.0f} MiB | {peak / 2**20:,.0f} MiB |", flush=True)


def read_one_epoch(folder: Path, size: int) -> None:
    """Build, read one augmented epoch, and print this process's peak memory in bytes."""
    CachedPath(folder, size, torch.device("cpu")).read()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(peak if sys.platform == "darwin" else peak * 1024)


def rate(work: Callable[[], None], images: int) -> float:
    """Images per second."""
    return images / time_of(work)


def time_of(work: Callable[[], None]) -> float:
    """Seconds that ``work`` takes, until the device has finished too."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def file_size(folder: Path) -> float:
    """Mean bytes of the files below a folder."""
    return statistics.mean(path.stat().st_size for path in folder.glob("*/*.jpg"))


def print_environment(device: torch.device) -> None:
    """Print hardware and versions."""
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{available_cores()} CPU cores"
    print(
        f"{hardware}, {platform.machine()}; Python {platform.python_version()}, torch {torch.__version__}, "
        f"torchvision {torchvision.__version__}"
    )


if __name__ == "__main__":
    main()
