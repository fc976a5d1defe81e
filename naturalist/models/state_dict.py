"""State dicts as files keep them: plain tensors under a network's own names."""

import pickle
import re
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
