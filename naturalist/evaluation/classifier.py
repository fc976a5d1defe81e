"""A trained model ready for use: all of it comes out of the checkpoint."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from naturalist.data.decode import decode_bytes, decode_file
from naturalist.data.preprocessing import Preprocessing
from naturalist.device import COMPARED, choose_device, tell_difference
from naturalist.errors import UserError
from naturalist.runs.checkpoint import load_checkpoint, restore_model
from naturalist.settings.display_names import read_display_names


@dataclass(frozen=True)
class Classifier:
    """A model in evaluation mode, with what turns photographs into its input and its output into names."""

    model: nn.Module
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    device: torch.device
    name: str
    """The run's name, for titles."""

    def called(self, display_names: Path | None) -> "Classifier":
        """The same with the names of a file; see :func:`naturalist.settings.display_names.read_display_names`."""
        return replace(self, class_names=read_display_names(display_names, self.class_names))

    def decode(self, photo: Path | bytes) -> NDArray[np.uint8]:
        """A photograph's file or its content → uint8 ``[cache_size, cache_size, 3]``.

        Raises :class:`naturalist.data.decode.UnreadableImage`.
        """
        size, mode = self.preprocessing.cache_size, self.preprocessing.resize_mode
        return decode_bytes(photo, size, mode) if isinstance(photo, bytes) else decode_file(photo, size, mode)

    def inputs(self, pixels: NDArray[np.uint8]) -> Tensor:
        """uint8 ``[B, cache_size, cache_size, 3]`` → the model's input, float32 ``[B, 3, S, S]``, on the device."""
        return self.preprocessing(torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2)).contiguous()

    @torch.inference_mode()
    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """uint8 ``[B, cache_size, cache_size, 3]`` → float64 ``[B, classes]``; see :func:`require_finite`."""
        logits: Tensor = self.model(self.inputs(pixels))
        require_finite(logits)
        probabilities: NDArray[np.float64] = logits.float().cpu().double().softmax(dim=1).numpy()
        return probabilities

    def pictures(self, inputs: Tensor) -> NDArray[np.uint8]:
        """The model's input ``[B, 3, S, S]`` as it looks: uint8 ``[B, S, S, 3]``."""
        mean, std = (
            torch.tensor(values, device=inputs.device).view(3, 1, 1)
            for values in (self.preprocessing.mean, self.preprocessing.std)
        )
        values = (inputs.detach() * std + mean).clamp(0, 1).mul(255).round().byte()
        pictures: NDArray[np.uint8] = values.permute(0, 2, 3, 1).cpu().numpy()
        return pictures


def require_finite(logits: Tensor) -> None:
    """Raise :class:`UserError` when a network's outputs are no numbers, of which no probabilities can be made."""
    if not bool(logits.isfinite().all()):
        raise UserError("the network's outputs are not finite: the checkpoint's weights are damaged; train it again.")


def load_classifier(
    run: Path, device: str = "auto", *, checkpoint: dict[str, Any] | None = None, model: nn.Module | None = None
) -> Classifier:
    """The classifier of a run folder or a checkpoint file.

    Args:
        run: run folder, or a checkpoint file.
        device: see :func:`naturalist.device.choose_device`.
        checkpoint: the content, where it has been read already.
        model: of the kind that the checkpoint describes, to be filled with its weights; by default one is built.

    Raises:
        UserError: when there is none, or the file cannot be trusted to be one.
    """
    checkpoint = load_checkpoint(run) if checkpoint is None else checkpoint
    model, preprocessing = restore_model(checkpoint, model)
    names = checkpoint["class_names"]
    chosen_device = choose_device(device)
    folder = run if run.is_dir() else run.parent
    model = model.to(chosen_device)
    if chosen_device.type in COMPARED:
        size = preprocessing.image_size
        noise = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
        tell_difference(model, noise.to(chosen_device))
    return Classifier(model, preprocessing, tuple(names), chosen_device, folder.resolve().name)
