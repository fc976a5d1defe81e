"""A finished run as a teacher: what it says of the training images is computed once, and learnt by another network."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from naturalist.data.catalog import scan
from naturalist.data.dataset import TrainingData, cache_of, find_data
from naturalist.data.distillation import DistilledData
from naturalist.data.features import Views, cache_features
from naturalist.data.recorded_split import RecordedSplit
from naturalist.device import Compute
from naturalist.errors import UserError
from naturalist.models.state_dict import digest_of
from naturalist.printable import printable
from naturalist.progress import print_numbers
from naturalist.ranks import in_turn, this_rank
from naturalist.runs.checkpoint import load_checkpoint, restore_model
from naturalist.runs.identity import read_identity
from naturalist.settings.part_a import CnnSettings
from naturalist.settings.places import find_run
from naturalist.wording import percent


@dataclass(frozen=True)
class Teacher:
    """A run that may teach; it knows the same classes, and was trained on no validation image."""

    name: str
    checkpoint: dict[str, Any]

    def teach(self, settings: CnnSettings, data: TrainingData, compute: Compute) -> tuple[TrainingData, dict[str, Any]]:
        """The data with the teacher's outputs, and what is to be recorded of it.

        It sees what the student sees, by its own measures: the same crops, turns and colours of the same photographs,
        in its own size and normalisation. Whether the whole photograph or its centre is shown is the student's choice.

        Raises:
            UserError: when there is no room to keep the outputs.
        """
        model, shown = restore_model(self.checkpoint)
        shared = replace(settings.augmentation, alternating_flip=False)  # there are no turns in views
        views = Views(settings.teacher.teacher_views, shared, settings.training.seed)
        with in_turn(this_rank()):
            own = _in_size(data, settings, shown.image_size)
        own = replace(own, preprocessing=replace(own.preprocessing, mean=shown.mean, std=shown.std))
        network = _Network(compute.place(model), self.name, self.checkpoint["state_dict"])
        outputs = cache_features(network, own, views, compute, settings.cache_folder)
        if outputs is None:
            raise UserError("without room for the teacher's outputs nobody can learn from it; see the line above.")
        labels = torch.from_numpy(own.val_cache.labels[own.val_indices])
        accuracy = float((outputs.val_features[0].argmax(dim=1) == labels).float().mean())
        print_numbers(f"Teacher: {printable(self.name)}, right on {percent(accuracy)} of the validation images")
        told = {"teacher": self.name, "teacher_val_accuracy": accuracy, "feature_seconds": outputs.seconds}
        return DistilledData(**vars(data), logits=outputs.train_features, teacher=settings.teacher), told


def find_teacher(settings: CnnSettings, class_names: Sequence[str], split: RecordedSplit | None) -> Teacher | None:
    """The run that ``teacher`` names; None where none is named.

    Args:
        settings: which name it.
        class_names: of the student.
        split: of the student; None in a dry run, which draws none.

    Raises:
        UserError: for what is no run, knows other classes, or was trained on validation images.
    """
    if settings.teacher.teacher is None:
        return None
    run = find_run(Path(settings.teacher.teacher))
    folder, checkpoint = run if run.is_dir() else run.parent, load_checkpoint(run)
    _refuse_other_classes(folder, tuple(checkpoint["class_names"]), tuple(class_names))
    if split is not None:
        _refuse_seen(folder, read_identity(folder, checkpoint).split, split)
    return Teacher(folder.resolve().name, checkpoint)


class _Network:
    """A whole network as :func:`cache_features` takes the frozen part of one."""

    stage = "output"

    def __init__(self, model: nn.Module, name: str, state: dict[str, Tensor]) -> None:
        self.model, self.name, self.fingerprint = model.eval(), name, digest_of(state)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Normalised images → logits ``[B, classes]``."""
        logits: Tensor = self.model(inputs)
        return logits


def _in_size(data: TrainingData, settings: CnnSettings, size: int) -> TrainingData:
    """The same images, decoded for another size; the share of a photograph that is shown stays the same."""
    shown = data.preprocessing
    if size == shown.image_size:
        return data
    cache_size = round(size * shown.cache_size / shown.image_size)
    wanted = replace(settings.data, image_size=size, cache_size=cache_size)
    folders = find_data(settings.data.data, settings.data.datasets_dir)
    train = cache_of(scan(folders.train, data.class_names), wanted, settings.cache_folder)
    val = train
    if folders.val is not None:
        val = cache_of(scan(folders.val, data.class_names), wanted, settings.cache_folder)
    if (train.hashes, val.hashes) != (data.train_cache.hashes, data.val_cache.hashes):
        raise UserError(
            f"not all images in {settings.data.data!r} can be read at the teacher's size ({size} px) as they are at "
            f"{shown.image_size} px; did they change meanwhile? Try again."
        )
    preprocessing = replace(shown, image_size=size, cache_size=cache_size)
    return replace(data, train_cache=train, val_cache=val, preprocessing=preprocessing)


def _refuse_other_classes(folder: Path, theirs: tuple[str, ...], ours: tuple[str, ...]) -> None:
    if theirs == ours:
        return
    lacking, other = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
    words = [
        f"{which} {', '.join(names)}"
        for which, names in (("it does not know", lacking), ("only it knows", other))
        if names
    ]
    raise UserError(f"the teacher {str(folder)!r} has other classes than the data: {'; '.join(words)}.")


def _refuse_seen(folder: Path, theirs: RecordedSplit, ours: RecordedSplit) -> None:
    """Raise :class:`UserError` where the student would be validated on what its teacher was trained on."""
    known = {file.hash for file in ours.files if file.part != "val"}  # a copy on both sides is the data's own
    taught = {file.hash for file in theirs.of("train")} - known
    seen = [file for file in ours.of("val") if file.hash in taught]
    if seen:
        raise UserError(
            f"the teacher {str(folder)!r} was trained on {len(seen):,} of this run's validation images, so validation "
            "would flatter the student; give both runs the same --split_seed and --val_fraction."
        )
