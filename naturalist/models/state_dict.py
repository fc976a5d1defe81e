"""State dicts as files keep them: plain tensors under a network's own names."""

import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from typing import TypeVar

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
