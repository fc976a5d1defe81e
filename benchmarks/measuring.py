"""Two ways of doing the same, timed in turns: what a row of the suite is made of."""

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision

from naturalist.data.images import available_cores
from naturalist.device import multiplies_bf16

Work = Callable[[], object]


@dataclass(frozen=True)
class Settings:
    """What the rows share."""

    folder: Path
    """An empty one for each row."""
    images: int
    """Photographs of 800×600 that are drawn."""
    repeats: int
    """Times that each way is measured, after a warm-up."""
    device: torch.device


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    ours: str
    other: str
    """What it is measured against."""
    ratios: list[float]
    """How many times better ours is, a number for each turn; above 1 is better. Empty where it cannot be measured."""
    note: str = ""

    def __str__(self) -> str:
        """As a line of a Markdown table."""
        if not self.ratios:
            return f"| {self.name} | | | not measured | {self.note} |"
        low, middle, high = min(self.ratios), statistics.median(self.ratios), max(self.ratios)
        spread = f" ({low:.2f}–{high:.2f})" if len(self.ratios) > 1 else ""
        return f"| {self.name} | {self.ours} | {self.other} | {middle:.2f}{spread} | {self.note} |"


HEADING = "| row | ours | other | times better (min–max) | |\n|---|---|---|---|---|"


def in_turns(ours: Work, other: Work, repeats: int, device: torch.device) -> list[tuple[float, float]]:
    """Seconds of each, ``repeats`` times after a warm-up; taking turns, a drift of the machine's speed meets both."""
    return [(seconds_of(ours, device), seconds_of(other, device)) for _ in range(repeats + 1)][1:]


def rate_row(name: str, times: list[tuple[float, float]], count: int, unit: str = "images/s", note: str = "") -> Row:
    """A row of two rates: ``count`` things in the seconds of :func:`in_turns`."""
    ours, other = (f"{count / statistics.median(side):,.0f} {unit}" for side in zip(*times, strict=True))
    return Row(name, ours, other, [other / our for our, other in times], note)


def time_row(name: str, times: list[tuple[float, float]], note: str = "") -> Row:
    """A row of seconds."""
    ours, other = (f"{statistics.median(side):.3g} s" for side in zip(*times, strict=True))
    return Row(name, ours, other, [other / our for our, other in times], note)


def seconds_of(work: Work, device: torch.device) -> float:
    """Seconds that ``work`` takes, until the device has finished too."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def describe_environment(device: torch.device) -> str:
    """Hardware and versions, in a line."""
    return (
        f"{describe_hardware(device)}, {platform.system()} {platform.machine()}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    )


def describe_hardware(device: torch.device) -> str:
    """The GPU's name, or the processor's with the number of cores and the instructions that torch's kernels use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    names = [line.split(": ")[1] for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")]
    name = names[0] if names else platform.processor() or "unnamed"
    instructions = torch.backends.cpu.get_cpu_capability() + " and bf16" * multiplies_bf16(device)
    return f"{available_cores()} CPU cores ({name}, {instructions})"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
