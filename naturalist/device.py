"""Which device, and in which arithmetic."""

import contextlib
import copy
import gc
import re
import sys
from pathlib import Path
from typing import TypeVar

import torch
from torch.nn import Module

from naturalist.errors import UserError
from naturalist.memory import DeviceMemory, give_memory_back, keep_freed_memory
from naturalist.ranks import this_rank
from naturalist.wording import counted, percent

COMPARED = ("mps",)
"""Kinds of device whose first batch is compared with the CPU's."""

COMPARED_IMAGES = 8

DIFFERENCE = 1e-3
"""Relative to the CPU's numbers; see :func:`tell_difference`."""

Model = TypeVar("Model", bound=Module)


def choose_device(name: str) -> torch.device:
    """The device that ``--device`` names, ready to be computed on; ``auto`` is the GPU if CUDA has one, else the CPU.

    Of several ranks each has a GPU of its own. Raises :class:`UserError` when the device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not this_rank().is_alone:
        name = _own_device(name, this_rank().local)
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"there is no device {name!r}; use --device auto, cpu, mps, cuda or cuda:N.") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"there is no device {name!r}: CUDA finds {counted(torch.cuda.device_count(), 'GPU')} here; use "
            "--device cpu or --device auto."
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("there is no device 'mps' here; use --device cpu or --device auto.")
    if device.type == "cuda":
        if device.index is not None:
            torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    if device.type == "cpu":
        keep_freed_memory()
    return device


def _own_device(name: str, number: int) -> str:
    """The device of the rank that has this number on its machine."""
    if name == "cpu":
        return name
    if name != "cuda":
        raise UserError(
            f"under torchrun every process has a device of its own, not {name!r}: use --device cuda or cpu."
        )
    if number >= torch.cuda.device_count():
        raise UserError(
            f"torchrun started more processes here than CUDA finds GPUs ({torch.cuda.device_count()}): start as many "
            "with --nproc_per_node, or use --device cpu."
        )
    return f"cuda:{number}"


def forget_peak_memory(device: torch.device) -> None:
    """Have :func:`peak_memory_mb` tell the most that is held from now on, where the system can forget.

    A process that trains one run after the other would record for each the most that any of them took.
    """
    give_memory_back()
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):  # not Linux, or a container without it
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # see proc_pid_clear_refs(5)


def peak_memory_mb(device: torch.device) -> float | None:
    """Most memory held so far, in MB: of the GPU, or of this process; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    with contextlib.suppress(OSError):
        # What getrusage tells never falls, and begins with that of the process that started this one.
        if found := re.search(
            r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE
        ):
            return int(found[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, else units of 1,024 bytes
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def tell_difference(model: Module, inputs: torch.Tensor) -> None:
    """On a device of :data:`COMPARED`, say in one line when a model computes something else there than on the CPU.

    Metal has computed wrong numbers without a word, in forward and in backward passes. So the first images of a batch
    go through the model and through a copy on the CPU, in fp32 and evaluation mode, and the outputs and the gradients
    of their squares are compared: by the length of the difference, relative to the length of the CPU's. Rounding, in
    another order of summation, comes to 1e-7 to 1e-4 in deep networks; what is reported of wrong kernels, to 1e-2 and
    far more. :data:`DIFFERENCE` lies between.

    Args:
        model: on the device; it is in evaluation mode afterwards, and otherwise unchanged.
        inputs: a batch of what it takes, there.
    """
    if inputs.device.type not in COMPARED:
        return
    inputs = inputs[:COMPARED_IMAGES].detach()
    there = _outputs_and_gradients(model.eval(), inputs)
    here = _outputs_and_gradients(copy.deepcopy(model).cpu(), inputs.cpu())
    for what, ours, expected in zip(("outputs", "gradients"), there, here, strict=True):
        difference = float((ours - expected).norm() / expected.norm().clamp(min=1e-12))
        if not difference <= DIFFERENCE:
            print(
                f"On this {inputs.device.type} device the network's {what} differ from the CPU's by "
                f"{percent(difference)}, which is more than rounding: do not trust its results; update macOS and "
                "torch, or use --device cpu.",
                flush=True,
            )
            return


@torch.enable_grad()
def _outputs_and_gradients(model: Module, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both as float64 vectors on the CPU; the gradients are empty where nothing is trainable."""
    outputs = model(inputs)
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(outputs.square().mean(), trainable, allow_unused=True) if trainable else ()
    flat = [tensor.detach().cpu().double().flatten() for tensor in gradients if tensor is not None]
    return outputs.detach().cpu().double().flatten(), torch.cat([torch.zeros(0, dtype=torch.float64), *flat])


class Compute:
    """How a device computes: its arithmetic (fp32, bf16, or fp16 with gradient scaling), its layout and its memory.

    Args:
        device: see :func:`choose_device`.
        precision: auto is bf16 where the hardware multiplies it natively, else fp32.
        channels_last: layout of images and filters.
        device_memory: see :func:`naturalist.data.placing.choose_place`.
        cuda_graphs: whether steps on a GPU are recorded and replayed.
        compiles: whether torch.compile makes larger kernels of training passes.
    """

    def __init__(
        self,
        device: torch.device,
        precision: str = "auto",
        *,
        channels_last: bool = True,
        device_memory: DeviceMemory = "auto",
        cuda_graphs: bool = False,
        compiles: bool = False,
    ) -> None:
        if precision == "auto":
            precision = "bf16" if multiplies_bf16(device) else "fp32"
        self.device, self.precision, self.channels_last = device, precision, channels_last
        self.device_memory = device_memory
        self.compiles = compiles
        self.captures = cuda_graphs and device.type == "cuda"
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self._dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def place(self, model: Model) -> Model:
        """Bring a model to the device, in its layout."""
        return model.to(self.device, memory_format=self.memory_format)  # type: ignore[call-overload, no-any-return]  # torch's stubs forget memory_format without dtype

    def lay_out(self, inputs: torch.Tensor) -> torch.Tensor:
        """A batch in the device's layout; features of a frozen part may be vectors or tokens, which have none."""
        is_image = inputs.ndim == 4
        return inputs.contiguous(memory_format=self.memory_format if is_image else torch.contiguous_format)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Context for forward passes; weights and optimiser stay in fp32."""
        if self._dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self._dtype)


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bf16 natively, so that it is faster than fp32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # The one name that torch 2.11 to 2.15 share; without it fp32 is the safe answer.
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device.type == "cpu" and supported is not None and supported()
