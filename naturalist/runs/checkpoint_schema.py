"""What a checkpoint must hold to be believed: plain values by a schema, tensors by their look."""

import math
from typing import Annotated, Any

from msgspec import Meta, Struct
from torch import Tensor

from naturalist.errors import UserError
from naturalist.models.state_dict import first_fault, is_plain
from naturalist.reading import Count, DamagedRecord, NotNegative, Ordinal, Settings, Share, damaged, fit
from naturalist.settings.groups import ResizeMode
from naturalist.settings.part_a import CnnModelSettings
from naturalist.wording import counted

LARGEST_SIDE = 2**14
"""Of an image, in pixels; a single larger one would take gigabytes."""

Side = Annotated[int, Meta(ge=1, le=LARGEST_SIDE)]
Deviation = Annotated[float, Meta(ge=1e-6, le=1e6)]
Mean = Annotated[float, Meta(ge=-1e6, le=1e6)]


class Shown(Struct):
    """``preprocessing``."""

    image_size: Side
    cache_size: Side
    resize_mode: ResizeMode
    mean: tuple[Mean, Mean, Mean]
    std: tuple[Deviation, Deviation, Deviation]

    def __post_init__(self) -> None:
        """Raise ValueError for a cache of smaller images than those shown."""
        if self.cache_size < self.image_size:
            raise ValueError(f"cache_size {self.cache_size} is less than image_size {self.image_size}")


class Description(Struct):
    """``model``, as far as all kinds have it."""

    kind: str
    num_classes: Ordinal
    image_size: Side
    dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.0


class Backbone(Struct):
    """``model`` of kind torchvision."""

    backbone: str


class Checkpoint(Struct):
    """A whole checkpoint; weights and training state are looked at apart."""

    model: Description
    preprocessing: Shown
    state_dict: dict[str, Any]
    class_names: Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(min_length=1)]
    data: str
    epoch: Count
    metrics: dict[str, Any] | None = None
    feature_seconds: NotNegative = 0.0
    identity: str | None = None
    settings: Any = None

    def __post_init__(self) -> None:
        """Raise ValueError for parts that do not go together."""
        if len(set(self.class_names)) < len(self.class_names):
            raise ValueError("class_names: a name is there twice")
        if len(self.class_names) != self.model.num_classes:
            names = counted(len(self.class_names), "name")
            raise ValueError(f"class_names: {names} for {counted(self.model.num_classes, 'output')}")
        if self.preprocessing.image_size != self.model.image_size:
            raise ValueError("preprocessing: its image_size is not the model's")
        if not self.state_dict:
            raise ValueError("state_dict: it is empty")


class TrainedEpoch(Struct):
    """A row of a training's history; a loss may have been NaN."""

    epoch: Ordinal
    train_loss: float
    train_accuracy: Share
    val_loss: float
    val_accuracy: Share
    best_val_accuracy: Annotated[float, Meta(ge=-1, le=1)]
    learning_rate: NotNegative
    images_per_second: Annotated[float, Meta(ge=0)]
    epoch_seconds: NotNegative
    val_balanced_accuracy: Share | None = None


class Progress(Struct):
    """How far a training has come."""

    epoch: Count
    best_val_accuracy: Annotated[float, Meta(ge=-1, le=1)]
    best_val_loss: float
    best_epoch: Count
    history: list[TrainedEpoch]

    def __post_init__(self) -> None:
        """Raise ValueError for numbers of epochs that do not go together."""
        if [row.epoch for row in self.history] != list(range(1, self.epoch + 1)):
            raise ValueError(f"history: its epochs are not 1 to {self.epoch}")
        if self.best_epoch > self.epoch:
            raise ValueError(f"best_epoch {self.best_epoch} is later than epoch {self.epoch}")


class SoFar(Struct):
    """What an epoch that is under way has come to."""

    loss_sum: Any
    right: Any
    bad_step: Any
    batches: Ordinal
    images: Ordinal
    learning_rate: NotNegative
    seconds: NotNegative


class ScheduleState(Struct):
    """Of the course of the learning rate."""

    plateau_share: Share
    lowest_val_loss: float
    stalled_epochs: Count


class OptimizerState(Struct):
    """Of any optimiser of torch; what is in it must fit the run's, see :mod:`naturalist.training.optim`."""

    state: dict[int, dict[str, Any]]
    param_groups: list[dict[str, Any]]


class Training(Struct):
    """``training``: what it takes to go on."""

    optimizer: OptimizerState
    schedule: ScheduleState
    scaler: dict[str, float]
    progress: Progress
    so_far: SoFar | None
    weights: dict[str, Any] | None
    average_updates: Count
    planned_epochs: Ordinal | None
    seconds: NotNegative


def check_checkpoint(content: dict[Any, Any], place: str, remedy: str) -> None:
    """Refuse a checkpoint that no training of this package has written.

    Args:
        content: what was loaded.
        place: the file, for messages.
        remedy: what to do; ends the sentence.

    Raises:
        DamagedRecord: naming what is wrong.
    """
    checkpoint = fit({**content, "training": None}, Checkpoint, place, remedy)
    description = dict(content["model"])
    if checkpoint.model.kind == "five_block_cnn":
        arguments = fit(description, Settings, place, remedy)
        try:
            fit(arguments, CnnModelSettings, place, remedy).validate()
        except DamagedRecord:
            raise
        except UserError as error:
            damaged(place, f"model: {str(error).rstrip('.')}", remedy)
    elif checkpoint.model.kind == "torchvision":
        fit(description, Backbone, place, remedy)
    check_weights(checkpoint.state_dict, place, remedy)


def check_training(content: dict[str, Any], place: str, remedy: str) -> None:
    """Refuse a training state that no training of this package has written; raises DamagedRecord."""
    training = fit(content["training"], Training, place, remedy)
    if training.progress.epoch != content["epoch"]:
        damaged(place, f"epoch {content['epoch']} with the progress of {training.progress.epoch}", remedy)
    if training.weights is not None:
        check_weights(training.weights, place, remedy)
    if training.so_far is not None:
        for name in ("loss_sum", "right", "bad_step"):
            value = getattr(training.so_far, name)
            if not is_plain(value) or value.shape or value.is_complex() or not math.isfinite(value):
                damaged(place, f"training.so_far.{name}: it is no number", remedy)
    if any(not math.isfinite(value) or value < 0 for value in training.scaler.values()):
        damaged(place, "training.scaler: it holds no scale", remedy)
    for number, parameter in training.optimizer.state.items():
        for name, value in parameter.items():
            if isinstance(value, Tensor) and (not is_plain(value) or bool(value.isnan().any())):
                damaged(place, f"training.optimizer: {name} of parameter {number} is not made of numbers", remedy)


def check_weights(state: dict[str, Any], place: str, remedy: str) -> None:
    """Refuse weights that are no plain tensors of finite numbers; raises DamagedRecord."""
    fault = first_fault(state)
    if fault is not None:
        damaged(place, ": ".join(fault), remedy)
