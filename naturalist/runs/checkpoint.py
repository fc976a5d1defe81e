"""Checkpoints: plain tensors, numbers, strings, lists and dicts; written atomically, loaded without running code."""

import warnings
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from naturalist.data.preprocessing import Preprocessing
from naturalist.entry import stops_wait
from naturalist.errors import ADVICE, NO_ROOM, UserError, is_out_of_memory
from naturalist.files import written_whole
from naturalist.models import build_model
from naturalist.models.state_dict import LOAD_ERRORS, describe_misfit, strip_wrappers
from naturalist.reading import misnamed, one_line
from naturalist.runs.checkpoint_schema import check_checkpoint, check_training

FORMAT = "naturalist-1"
BEST, LAST = "best.pt", "last.pt"
REMEDY = "nothing in it was run; take another checkpoint of the run, or train it again"
_DOES_NOT_FIT = "the checkpoint's weights do not fit the model that it describes: {}"
NEWER_STATE: dict[str, Any] = {"so_far": None, "planned_epochs": None, "seconds": 0.0}
"""What the training state of 0.1 did not have."""


def save_checkpoint(
    path: Path,
    *,
    state_dict: Mapping[str, Tensor],
    description: dict[str, Any],
    class_names: tuple[str, ...],
    preprocessing: Preprocessing,
    data: str,
    **more: Any,
) -> None:
    """Write a checkpoint that describes itself, atomically: a killed write leaves the old file whole.

    Args:
        path: where to.
        state_dict: see :func:`naturalist.models.state_dict.plain_state_dict`.
        description: see :func:`naturalist.models.build_model`.
        class_names: in the order of the outputs.
        preprocessing: from photograph to input.
        data: what it was trained on, as given by ``--data``.
        more: plain values and tensors, such as ``epoch``, or ``training`` for resuming.
    """
    content = {
        "format": FORMAT,
        "model": description,
        "state_dict": dict(state_dict),
        "class_names": list(class_names),
        "data": data,
        "preprocessing": {**vars(preprocessing), "mean": list(preprocessing.mean), "std": list(preprocessing.std)},
        **more,
    }
    try:
        with stops_wait(), written_whole(path) as file:  # torch ends the process when a write is interrupted
            torch.save(content, file)
    except OSError as error:
        if is_out_of_memory(error):
            raise
        if not path.parent.is_dir():
            raise UserError(
                f"the folder {str(path.parent)!r} is gone, so the run cannot be recorded any more."
            ) from None
        reason = f"{error.strerror or error}{'; is the disk full?' if error.errno in NO_ROOM else ''}"
        advice = ADVICE.get(error.errno or 0, "mend that")
        raise UserError(
            f"cannot write the checkpoint {str(path)!r} ({reason}): {advice}, and go on with --resume."
        ) from None


def load_checkpoint(run: Path, which: str = BEST) -> dict[str, Any]:
    """Read a checkpoint's content, tensors on the CPU.

    Args:
        run: a run folder, or a checkpoint file in one.
        which: the file to take from a run folder.

    Raises:
        UserError: when there is none, it is truncated, or it is no checkpoint of this package. Nothing in the file
            is executed.
    """
    path = run / which if run.is_dir() else run
    if not path.is_file():
        raise UserError(f"there is no checkpoint {str(path)!r}; RUN is a run folder, or a checkpoint file in one.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is in a damaged file, for torch's developers
            content = torch.load(path, map_location="cpu", weights_only=True)
    except LOAD_ERRORS:
        # torch's message tells how to load without safety; ours must not.
        with path.open("rb") as file:
            what = misnamed(file.read(1024))
        if what:
            raise UserError(f"{str(path)!r} is no checkpoint, but {what}.") from None
        raise UserError(
            f"{str(path)!r} is no readable checkpoint: it is damaged, incomplete, or holds more than "
            "plain tensors and values; nothing in it was run."
        ) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{str(path)!r} is no checkpoint of this package.")
    check_checkpoint(content, repr(str(path)), REMEDY)
    return content


def goes_on(run: str | None) -> bool:
    """Whether ``--resume`` names a run that has a checkpoint; one without begins anew in its folder."""
    return run is not None and (Path(run) / LAST).is_file()


def load_for_resume(run: Path) -> dict[str, Any]:
    """Content of the checkpoint that a run goes on from, with ``training`` in it.

    Args:
        run: a run folder.

    Raises:
        UserError: as :func:`load_checkpoint` does, and when the checkpoint holds only a network.
    """
    content = load_checkpoint(run, LAST)
    place = repr(str(run / LAST))
    if not isinstance(content.get("training"), dict):
        raise UserError(f"{place} cannot be resumed: it holds no training state.")
    content["training"] = {**NEWER_STATE, **content["training"]}
    check_training(content, place, "the run cannot be resumed from it; train a new one")
    return content


def restore_model(content: dict[str, Any], model: nn.Module | None = None) -> tuple[nn.Module, Preprocessing]:
    """The network of a checkpoint with its weights, in evaluation mode, and its preprocessing.

    ``model`` is filled with the weights and made to begin with images; by default a new one is built.
    Raises :class:`UserError` when weights and description do not fit.
    """
    description = content["model"]
    if model is None:
        with torch.device("meta"):  # takes no memory, however large the network is said to be
            _refuse_misfit(content["state_dict"], _build(description))
        model = _build(description)
    elif description["kind"] == "torchvision":
        from naturalist.models.backbones import StagedNetwork  # not for others, as it takes long

        assert isinstance(model, StagedNetwork)
        model.start_at(next(iter(model.stages)))  # with the image, not with features of what was frozen
    fill_model(model, content["state_dict"])
    return model.eval(), preprocessing_of(content)


def preprocessing_of(content: dict[str, Any]) -> Preprocessing:
    """From photograph to input, as a checkpoint says it."""
    shown = {item.name: content["preprocessing"][item.name] for item in fields(Preprocessing)}
    return Preprocessing(**{**shown, "mean": tuple(shown["mean"]), "std": tuple(shown["std"])})


def fill_model(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load weights, which must have the network's own names, shapes and types; raises :class:`UserError`."""
    _refuse_misfit(state, model)
    model.load_state_dict(state)


def _build(description: dict[str, Any]) -> nn.Module:
    try:
        return build_model(description)
    except (RuntimeError, LookupError, TypeError, AttributeError, ValueError, ArithmeticError, AssertionError) as error:
        raise UserError(_DOES_NOT_FIT.format(one_line(str(error)))) from None


def _refuse_misfit(state: dict[str, Tensor], model: nn.Module) -> None:
    problem = describe_misfit(state, strip_wrappers(model.state_dict()))
    if problem:
        raise UserError(_DOES_NOT_FIT.format(one_line(problem)))
