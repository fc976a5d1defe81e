"""Files of weights as others write them: the state dict in one is found, and nothing in it is run."""

import argparse
import pickle
import re
import warnings
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from naturalist.errors import UserError
from naturalist.models.state_dict import LOAD_ERRORS, first_fault
from naturalist.reading import misnamed, one_line

AVERAGED = ("model_ema", "state_dict_ema", "ema_state_dict", "ema")
CHOICE = (*AVERAGED, "state_dict", "model_state_dict", "model", "net", "network")
"""What programs call the state dict in their checkpoints; where there are several, the first of these is taken. So it
is averaged weights, where a training has them, since those are what it publishes."""
PREFIX = re.compile(r"^(?:(?:_orig_mod|module|model|net|network|backbone)\.)+")
"""What programs put before a network's own names; torchvision's networks have no parts of these names."""
_NUMBER = np.float64().__reduce__()[0]
"""What makes a number of NumPy's again."""
PLAIN: list[Any] = [
    argparse.Namespace,
    *((PurePosixPath, f"{module}.PosixPath") for module in ("pathlib", "pathlib._local")),
    *((PureWindowsPath, f"{module}.WindowsPath") for module in ("pathlib", "pathlib._local")),
    *((_NUMBER, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *(np.dtype, *(type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool"))),
]
"""Beside what torch takes for plain: a program's arguments, and numbers, which hold values and do nothing."""
DEPTH = 3
"""How deep in a checkpoint a state dict is looked for."""

_TAKEN = "--weights takes a state dict of PyTorch, as .pth or .safetensors"
_SAVE_STATE = "save its state dict: torch.save({}.state_dict(), 'weights.pth')"
_BEGINNINGS = (
    (b"\x89HDF", f"an HDF5 file, such as Keras writes; {_TAKEN}"),
    (b"\x93NUMPY", f"a NumPy array; {_TAKEN}"),
    (b"\x1f\x8b", "compressed; unpack it with gunzip"),
    (b"GGUF", f"a GGUF file; {_TAKEN}"),
)
_IN_ZIP = (
    (r".*/constants\.pkl", "a TorchScript program; " + _SAVE_STATE.format("torch.jit.load(FILE)")),
    (r".*/archive_format", "a torch.export program; take the checkpoint from which it was exported"),
    (r"(.*/)?data\.pkl", ""),
    (r".*\.weights\.h5", f"a Keras file; {_TAKEN}"),
    (r".*\.npy", f"NumPy arrays; {_TAKEN}"),
    (r".*", "a zip archive of files; unpack it, and name the one that holds the weights"),
)
"""By the name of a file in a zip archive, what that is; torch's own files are such archives too."""


def read_weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """The state dict in a file, plain or in a checkpoint, under names without :data:`PREFIX`.

    Returns it with a few words on which it is, empty where the file holds nothing else.

    Raises:
        UserError: for a file that is damaged, is something else, or holds none or several; with a way out.
    """
    content = _load(path)
    found = _state_dicts(content) if isinstance(content, dict) else {}
    name = next((name for name in CHOICE if name in found), next(iter(found), None))
    if name is None:
        raise _unusable(path, f"it holds no state dict, that is, no tensors by name; {_TAKEN}")
    if len(found) > 1 and name not in CHOICE:
        raise _unusable(
            path,
            f"it holds several state dicts, {one_line(', '.join(map(repr, found)))}; save the one that is meant alone: "
            "torch.save(torch.load(FILE)[NAME], 'weights.pth')",
        )
    state = _plain_names(found[name])
    fault = first_fault(state)
    if fault is not None:
        raise _unusable(path, one_line(": ".join(fault)))
    others = one_line(", ".join(other for other in found if other != name))
    return state, f"its {one_line(name)}{f'; also there: {others}' if others else ''}" if name else ""


def _load(path: Path) -> object:
    """What a file holds, read as plain values."""
    with path.open("rb") as file:
        head = file.read(1024)
    what = _what_else(path, head)
    if what:
        raise _unusable(path, f"it is {what}")
    try:
        if _is_safetensors(head):
            return _load_safetensors(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals(PLAIN), path.open("rb") as file:
            warnings.simplefilter("ignore")  # of what is in the file, for torch's developers
            return torch.load(file, map_location="cpu", weights_only=True)
    except LOAD_ERRORS as error:
        thing = re.search(r"GLOBAL ([\w.]+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        reason = (
            f"it holds a Python object ({thing[1]}), whose code would have to be run; where it was made, "
            + _SAVE_STATE.format("model")
            if thing
            else "it is damaged, cut short, or no file of weights"
        )
        raise _unusable(path, f"{reason}; nothing in it was run") from None


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from None


def _what_else(path: Path, head: bytes) -> str | None:
    """What a file is that is no file of weights, and what to do."""
    if path.suffix == ".onnx":
        return f"an ONNX program; {_TAKEN}"
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it, and name the file in it that holds the weights"
    if not head.startswith(b"PK"):
        return misnamed(head) or next((words for start, words in _BEGINNINGS if head.startswith(start)), None)
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):  # torch will find the same damage
        return None
    return next((words for pattern, words in _IN_ZIP if any(re.fullmatch(pattern, name) for name in names)), None)


def _is_safetensors(head: bytes) -> bool:
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**30


def _state_dicts(content: dict[Any, Any], depth: int = DEPTH) -> dict[str, dict[str, Tensor]]:
    """The state dicts in a checkpoint by their keys, those of the outermost level that has any; "" is for itself."""
    if not depth:
        return {}
    inner = {key: value for key, value in content.items() if isinstance(value, dict) and value}
    found = {str(key): value for key, value in inner.items() if _is_state(value)}
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if found or tensors:
        return found or {"": tensors}
    deeper = (_state_dicts(value, depth - 1) for value in inner.values())
    return next((states for states in deeper if states), {})


def _is_state(value: dict[Any, Any]) -> bool:
    return all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())


def _plain_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Under names without prefixes; the same where that would make one of two."""
    state = {name: value for name, value in state.items() if name != "n_averaged"}  # of torch's averaged models
    plain = {PREFIX.sub("", name): value for name, value in state.items()}
    return plain if len(plain) == len(state) else state


def _unusable(path: Path, reason: str) -> UserError:
    return UserError(f"the weights file {str(path)!r} cannot be used: {reason}.")
