"""Rows of the suite on single steps: memory that is kept, arithmetic, and how far from the hardware's floor a step is.

python -m benchmarks.steps     one measurement in a process of its own, for the row "memory kept"
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.measuring import Row, Settings, Work, in_turns, rate_row, seconds_of, time_row
from benchmarks.pipeline import cases, small_network
from benchmarks.usual import BATCH_SIZE
from naturalist.device import Compute, choose_device, multiplies_bf16, peak_memory_mb
from naturalist.models.cnn import FiveBlockCNN
from naturalist.models.parameter_groups import parameter_groups
from naturalist.settings.groups import TrainingSettings
from naturalist.training.epoch import Learner
from naturalist.training.optim import Schedule, make_optimizer

SIZE = 128
STEPS = 6
LEFT_ALONE = {"GLIBC_TUNABLES": "glibc.malloc.check=0"}
"""Tunes nothing, but says that somebody tunes: malloc stays as it comes."""
MATRIX, COPY_BYTES = 3072, 2**28


def step_of(compute: Compute, size: int = SIZE, make: Callable[[int], FiveBlockCNN] = small_network) -> Work:
    """A step of training on a batch that is there already."""
    model = compute.place(make(size)).train()
    settings = TrainingSettings(label_smoothing=0)
    optimizer = make_optimizer(parameter_groups(model, settings.decay), settings, compute.device)
    images = compute.lay_out(torch.randn(BATCH_SIZE, 3, size, size, device=compute.device))
    labels = torch.randint(10, (BATCH_SIZE,), device=compute.device)
    learner = Learner(model, optimizer, Schedule(optimizer, settings, 1, 1), settings, compute)
    captured = learner.captured_step()

    def step() -> None:
        if captured is not None:
            captured(images, labels)
            return
        with compute.autocast():
            logits = learner.network(images)
        cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]  # of torch
        optimizer.step()
        optimizer.zero_grad()

    return step


def memory_kept(settings: Settings) -> Iterator[Row]:
    """A step with freed memory kept against glibc's habits, each in a process of its own."""
    name = "step: freed memory kept"
    if settings.device.type != "cpu":
        yield Row(name, "", "", [], "only on a CPU")
        return
    pairs = [(_measure({}), _measure(LEFT_ALONE)) for _ in range(settings.repeats)]
    ours, other = ({key: statistics.median(pair[i][key] for pair in pairs) for key in pairs[0][0]} for i in (0, 1))

    def words(side: dict[str, float]) -> str:
        return f"{side['rate']:,.0f} images/s, {side['faults']:,.0f} page faults a step, {side['peak_mb']:,.0f} MB"

    yield Row(name, words(ours), words(other), [kept["rate"] / left["rate"] for kept, left in pairs])


def _measure(environment: dict[str, str]) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.steps"]
    env = {**os.environ, **environment}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def measure_once() -> None:
    """Print, as JSON, rate, page faults and peak memory of some steps in fp32."""
    import resource

    device = choose_device("cpu")
    step = step_of(Compute(device, "fp32"))
    for _ in range(STEPS):
        step()
    faults, start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
    for _ in range(STEPS):
        step()
    seconds = time.perf_counter() - start
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    rate, peak = STEPS * BATCH_SIZE / seconds, peak_memory_mb(device) or 0.0
    print(json.dumps({"rate": rate, "faults": faults / STEPS, "peak_mb": peak}))


def precision(settings: Settings) -> Iterator[Row]:
    """A step as ``--precision auto`` computes it against the other arithmetic."""
    auto = Compute(settings.device).precision
    other = "fp32" if auto == "bf16" else "bf16"
    name = f"step: precision {auto} (auto) against {other}"
    if other == "bf16" and not multiplies_bf16(settings.device):
        yield Row(name, "", "", [], "bf16 is emulated here")
        return
    steps = [step_of(Compute(settings.device, kind)) for kind in (auto, other)]
    times = in_turns(_several(steps[0]), _several(steps[1]), settings.repeats, settings.device)
    yield rate_row(name, times, STEPS * BATCH_SIZE)


def replayed(settings: Settings) -> Iterator[Row]:
    """Steps that are replayed as a CUDA graph against the same ones kernel by kernel."""
    if settings.device.type != "cuda":
        yield Row("step: replayed", "", "", [], "only on a CUDA GPU")
        return
    for name, make, size, _ in cases(settings):
        steps = [step_of(Compute(settings.device, cuda_graphs=graphs), size, make) for graphs in (True, False)]
        times = in_turns(_several(steps[0]), _several(steps[1]), settings.repeats, settings.device)
        yield rate_row(f"step: replayed, {name}", times, STEPS * BATCH_SIZE)


def compiled(settings: Settings) -> Iterator[Row]:
    """Steps whose passes are compiled against the same ones as they are; on a CUDA GPU both are replayed."""
    for name, make, size, _ in cases(settings):
        computes = [Compute(settings.device, cuda_graphs=True, compiles=compiles) for compiles in (True, False)]
        steps = [step_of(compute, size, make) for compute in computes]
        times = in_turns(_several(steps[0]), _several(steps[1]), settings.repeats, settings.device)
        yield rate_row(f"step: compiled, {name}", times, STEPS * BATCH_SIZE)


def floor(settings: Settings) -> Iterator[Row]:
    """A step against the larger of its FLOPs over the measured matrix rate and its bytes over the measured bandwidth.

    FLOPs are those of convolutions and dense layers, three times those of the forward pass. Bytes are inputs and
    outputs of these layers, also three times: as if all that lies between them were free. No program reaches both.
    """
    compute = Compute(settings.device, cuda_graphs=True)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[compute.precision]
    rates = _hardware_rates(settings.device, dtype)
    for name, make, size, _ in cases(settings):
        flops, numbers = _work_of(make(size), size)
        step, lowest = step_of(compute, size, make), max(flops / rates[0], numbers * dtype.itemsize / rates[1])
        times = [(seconds_of(_several(step), settings.device) / STEPS, lowest) for _ in range(settings.repeats + 1)][1:]
        note = (
            f"{flops / 1e9:,.1f} GFLOP at {rates[0] / 1e9:,.0f} GFLOP/s, "
            f"{numbers * dtype.itemsize / 1e9:.2f} GB at {rates[1] / 1e9:,.1f} GB/s; {compute.precision}"
        )
        yield time_row(f"floor: {name}", times, note)


def _several(step: Work) -> Work:
    def steps() -> None:
        for _ in range(STEPS):
            step()

    return steps


def _work_of(model: nn.Module, size: int) -> tuple[float, float]:
    """FLOPs of a step, and numbers that its layers read and write."""
    flops = numbers = 0.0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal flops, numbers
        assert isinstance(module, nn.Conv2d | nn.Linear)
        flops += 2 * output.numel() * module.weight[0].numel()
        numbers += inputs[0].numel() + output.numel()

    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [module.register_forward_hook(count) for module in layers]
    with torch.no_grad():
        model(torch.zeros(BATCH_SIZE, 3, size, size))
    for hook in hooks:
        hook.remove()
    return 3 * flops, 3 * numbers


def _hardware_rates(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """FLOPs per second of a large matrix product, and bytes per second of a large copy."""
    left = torch.randn(MATRIX, MATRIX, device=device, dtype=dtype)
    source = torch.zeros(COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    products = min(seconds_of(lambda: left @ left, device) for _ in range(5))
    copies = min(seconds_of(lambda: target.copy_(source), device) for _ in range(5))
    return 2 * MATRIX**3 / products, 2 * COPY_BYTES / copies


if __name__ == "__main__":
    measure_once()
