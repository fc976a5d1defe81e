"""The usual way, to be measured against: ImageFolder, Pillow's resize, ToTensor, Normalize, a DataLoader, a plain loop.

With it the photographs that both ways read: JPEGs of 800×600 of about 300 KB (those of nature_12K have 318 on average),
drawn for the purpose.
"""

import argparse
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from naturalist.data.images import available_cores
from naturalist.data.sources.sample import CLASSES, draw
from naturalist.models.cnn import FiveBlockCNN

BATCH_SIZE = 64
MEAN = STD = (0.5, 0.5, 0.5)
DISTINCT_PHOTOGRAPHS = 200
"""Drawn once; more images are further names of the same files."""


class UsualLoop:
    """What most scripts do, in fp32 and without augmentation.

    Args:
        folder: holds a folder for each class.
        size: side of the network's input, in pixels.
        model: is trained; None where only :meth:`decode` is wanted.
        device: where.
        workers: of the DataLoader; None for the number that decodes fastest here.
    """

    def __init__(
        self, folder: Path, size: int, model: nn.Module | None, device: torch.device, workers: int | None = None
    ) -> None:
        self.device = device
        self.workers = best_workers(folder, size) if workers is None else workers
        transform = transforms.Compose(
            [transforms.Resize((size, size)), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        )
        self.loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
            ImageFolder(folder, transform),
            BATCH_SIZE,
            shuffle=True,
            num_workers=self.workers,
            pin_memory=device.type == "cuda",
        )
        if model is not None:
            self.model = model.to(device)
            learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
            self.optimizer = torch.optim.Adam(learning, lr=1e-3)

    def decode(self) -> None:
        """One epoch of batches, without a network."""
        for images, _ in self.loader:
            images.to(self.device)

    def train(self) -> None:
        """One epoch of training."""
        self.model.train()
        for images, labels in self.loader:
            images, labels = images.to(self.device), labels.to(self.device)
            loss = nn.functional.cross_entropy(self.model(images), labels)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # of torch
            self.optimizer.step()

    @torch.no_grad()
    def accuracy(self) -> float:
        """Share of the images that the model gets right."""
        self.model.eval()
        right = images_seen = 0
        for images, labels in self.loader:
            right += int((self.model(images.to(self.device)).argmax(1) == labels.to(self.device)).sum())
            images_seen += len(labels)
        return right / images_seen


def best_workers(folder: Path, size: int) -> int:
    """Number of workers with which the usual loop decodes fastest, between none and one for each core."""

    def seconds(workers: int) -> float:
        loop = UsualLoop(folder, size, None, torch.device("cpu"), workers)
        times = []
        for _ in range(2):
            start = time.perf_counter()
            loop.decode()
            times.append(time.perf_counter() - start)
        return min(times)

    return min({0, 1, available_cores()}, key=seconds)


def make_photographs(folder: Path, count: int) -> Path:
    """Write ``count`` JPEGs of 800×600 with the detail and file size of photographs, in a folder for each class."""
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
    return folder


def main() -> None:
    """A training of the usual kind, in a process of its own; says when it is done, and the test accuracy if asked."""
    parser = argparse.ArgumentParser(description="Train the usual way.")
    parser.add_argument("folder", type=Path, help="holds a folder for each class")
    parser.add_argument("--size", type=int, default=96, help="side of the images, in pixels")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--test", type=Path, help="holds the same classes")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    size, workers, device = arguments.size, available_cores(), torch.device("cpu")
    network = FiveBlockCNN(len(CLASSES), size, num_filters=32, filter_organization="same")
    loop = UsualLoop(arguments.folder, size, network, device, workers)
    for group in loop.optimizer.param_groups:
        group["lr"] = arguments.learning_rate
    for _ in range(arguments.epochs):
        loop.train()
    print("trained", flush=True)
    if arguments.test:
        print(f"test accuracy {UsualLoop(arguments.test, size, network, device, workers).accuracy()}")


if __name__ == "__main__":
    main()
