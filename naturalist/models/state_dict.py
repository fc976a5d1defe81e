"""State dicts as files keep them: plain tensors under a network's own names."""

import hashlib
import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

WRAPPER_PREFIX = re.compile(r"^(?:_orig_mod\.|module\.)+")
"""What torch.compile and data-parallel wrappers put before parameter names."""
LOAD_ERRORS = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    zipfile.BadZipFile,
    ValueError,
    KeyError,
    AttributeError,
    IndexError,
    TypeError,
    OSError,
    OverflowError,
    MemoryError,
    AssertionError,
    struct.error,
)
"""What torch.load raises, with ``weights_only``, for a file that is damaged or holds more than plain values."""

Value = TypeVar("Value")


def strip_wrappers(state: Mapping[str, Value]) -> dict[str, Value]:
    """The same values under names free of wrappers' prefixes."""
    return {WRAPPER_PREFIX.sub("", name): value for name, value in state.items()}


def plain_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with contiguous tensors on the CPU and names free of wrappers' prefixes.

    To be written, not kept: what is contiguous and on the CPU shares the network's memory.
    """
    state = strip_wrappers(model.state_dict())
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def digest_of(state: Mapping[str, Tensor], *more: str) -> str:
    """A hash of weights with their names, and of words before them."""
    digest = hashlib.sha256("".join(more).encode())
    for name, value in state.items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def describe_misfit(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """Which tensors are missing, unexpected, or of another shape or type than wanted; empty when all fit."""
    both = [name for name in wanted if name in state]
    of_other_shape = [name for name in both if state[name].shape != wanted[name].shape]
    kinds = {
        "missing": [name for name in wanted if name not in state],
        "unexpected": [name for name in state if name not in wanted],
        "of another shape": of_other_shape,
        "of another type": [name for name in both if state[name].dtype != wanted[name].dtype],
    }
    return "; ".join(
        f"{kind} {len(names)} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for kind, names in kinds.items()
        if names
    )


def is_plain(value: object) -> bool:
    """Whether it is a tensor whose every element is in memory: not one of a shape that its bytes do not fill."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.device.type != "cpu":
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes() and not value.is_quantized


def first_fault(state: Mapping[str, object]) -> tuple[str, str] | None:
    """A name among weights and what is wrong with its tensor; None where all are plain tensors of finite numbers."""
    for name, value in state.items():
        if not isinstance(value, Tensor) or not is_plain(value):
            return name, "it is no plain tensor"
        if value.is_complex():
            return name, "its numbers are complex"
        if value.is_floating_point() and not bool(value.isfinite().all()):
            return name, "it holds NaN or infinity"
        if name.endswith("running_var") and bool((value < 0).any()):
            return name, "a variance is negative"
    return None
