"""Which stages of a pre-trained network learn, from which epoch on, and how fast."""

from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from naturalist.errors import UserError
from naturalist.models.backbones import HEAD, StagedNetwork
from naturalist.models.parameter_groups import LATER, Group, Release, split_parameters
from naturalist.progress import print_table
from naturalist.settings.groups import TrainingSettings
from naturalist.settings.part_b import StrategySettings
from naturalist.wording import counted

PARTIAL_FREEZE_FRACTION = 0.6
"""Share of the backbone's stages that ``partial`` freezes when nothing else is said."""


@dataclass(frozen=True)
class StagePlan:
    """What becomes of one stage."""

    name: str
    parameters: int
    release_epoch: int | None
    """Epoch, counted from 0, from which on the stage learns; None for never."""
    learning_rate: float
    """Peak learning rate."""
    later_learning_rate: float
    """The same after a probe; where there is none, no other."""


class Strategy:
    """Freezes stages, and releases them epoch by epoch with their learning rates.

    - ``head``: only the new head learns, a linear probe.
    - ``partial``: the head and the upper stages learn.
    - ``full``: everything learns.
    - ``gradual``: stages are released one after the other from the top (Howard & Ruder 2018, "Universal language model
      fine-tuning for text classification").
    - ``probe-then-full``: first the head alone, a linear probe, then everything, in a course of its own (Kumar et al.
      2022, "Fine-tuning can distort pretrained features and underperform out-of-distribution"). A random head's
      gradients would spoil what the weights know; those of a probed head change little of it.

    In the first ``head_epochs`` epochs only the head learns, whatever the strategy. The head's learning rate is
    ``learning_rate``; that of the i-th stage below it, i from 0, is
    ``learning_rate · backbone_lr_scale · layer_decay^i``. Once probed, the head learns at the rate of the stage below.

    Args:
        model: whose stages to freeze.
        settings: what learns, from when on.
        training: how fast, and how many epochs.
        planned_epochs: of the run that is resumed: what it has released does not wait again when it gets more epochs.
        side: of the training images, in pixels; by default the model's ``image_size``.

    Raises:
        UserError: for a stage that there is not, when no stage is left to freeze or to train, or when batches of one
            image leave a stage that learns a single value to normalise over.
    """

    def __init__(
        self,
        model: StagedNetwork,
        settings: StrategySettings,
        training: TrainingSettings,
        planned_epochs: int | None = None,
        side: int | None = None,
    ) -> None:
        self.model, self._weight_decay = model, training.decay
        epochs = planned_epochs or training.epochs
        releases = release_epochs(list(model.stages), settings, epochs, model.backbone)
        self.probe_epochs = settings.probe_epochs(epochs)
        """Epochs in which the head is probed, 0 for none; after them the learning rate takes a second course."""
        top_down = list(reversed(releases))
        rates = {
            stage: training.learning_rate * settings.backbone_lr_scale * settings.layer_decay**depth
            for depth, stage in enumerate(top_down[1:])
        }
        rates[HEAD] = training.learning_rate
        later = rates | ({HEAD: training.learning_rate * settings.backbone_lr_scale} if self.probe_epochs else {})
        self.plan = tuple(
            StagePlan(
                stage,
                sum(parameter.numel() for parameter in parameters),
                releases[stage],
                rates[stage],
                later[stage],
            )
            for stage, parameters in model.parameters_by_stage().items()
        )
        if training.batch_size == 1:  # no other batch is of one image, see batch_bounds
            self._refuse_single_images(side or model.image_size)

    def _refuse_single_images(self, size: int) -> None:
        """Raise :class:`UserError` where batch normalisation that learns would get one value for a channel."""
        with torch.device("meta"), torch.no_grad():
            blank = StagedNetwork(self.model.backbone, 2, self.model.image_size)
            blank.freeze(frozenset(stage.name for stage in self.plan if stage.release_epoch is None))
            try:
                blank.train()(torch.empty(1, 3, size, size))
            except ValueError as error:  # torch's, of the size that it got
                raise UserError(
                    f"batch_size must be at least 2: a single image of {size} px leaves {self.model.backbone}'s batch "
                    "normalisation one value for each channel; take larger batches, or larger images."
                ) from error

    def release(self, epoch: int) -> list[Group]:
        """Freeze what does not learn in ``epoch``; returns the parameter groups that begin to learn in it.

        The head's come first, then those of the other stages from the top.
        """
        parameters = self.model.parameters_by_stage()
        self.model.freeze(
            frozenset(stage.name for stage in self.plan if stage.release_epoch is None or stage.release_epoch > epoch)
        )
        return [
            {**group, "lr": stage.learning_rate, LATER: stage.later_learning_rate}
            for stage in reversed(self.plan)
            if stage.release_epoch == epoch
            for group in split_parameters(parameters[stage.name], self._weight_decay)
        ]

    @property
    def course(self) -> Release:
        """What begins to learn when, and whether the learning rate has a second course."""
        last = max(stage.release_epoch for stage in self.plan if stage.release_epoch is not None)
        return Release(self.release, self.probe_epochs, last)

    @property
    def first_trained_stage(self) -> str:
        """The lowest stage that ever learns, or does while the head is probed; what lies below can be computed once."""
        return HEAD if self.probe_epochs else next(s.name for s in self.plan if s.release_epoch is not None)

    @property
    def keeps_features(self) -> bool:
        """Whether anything lies below :attr:`first_trained_stage`."""
        return self.first_trained_stage != self.plan[0].name

    @property
    def trainable_parameters(self) -> int:
        """Parameters that learn at some time."""
        return sum(stage.parameters for stage in self.plan if stage.release_epoch is not None)

    @property
    def frozen_parameters(self) -> int:
        """Parameters that never learn."""
        return sum(stage.parameters for stage in self.plan if stage.release_epoch is None)

    def describe(self) -> str:
        """How much learns, in a few words."""
        words = f"{self.trainable_parameters:,} parameters learn, {self.frozen_parameters:,} are frozen"
        return (
            f"{words}; the head is probed for {counted(self.probe_epochs, 'epoch')} first"
            if self.probe_epochs
            else words
        )

    def summary(self) -> dict[str, Any]:
        """The plan in plain values, for the run's summary."""
        return {
            "parameters": self.trainable_parameters + self.frozen_parameters,
            "trainable_parameters": self.trainable_parameters,
            "frozen_parameters": self.frozen_parameters,
            "probe_epochs": self.probe_epochs,
            "stages": [vars(stage) for stage in self.plan],
        }

    def show(self) -> None:
        """Print stages with their parameters, release and learning rate."""
        print_table(self._table())

    def __str__(self) -> str:
        """What :meth:`show` prints, as text."""
        console = Console(width=100)
        with console.capture() as capture:
            console.print(self._table())
        return capture.get().rstrip()

    def _table(self) -> Table:
        table = Table("stage")
        for heading in ("parameters", "learns from epoch", "learning rate"):
            table.add_column(heading, justify="right")
        for stage in self.plan:
            learns = ("frozen", "")
            if stage.release_epoch is not None:
                rates = dict.fromkeys(f"{rate:.2g}" for rate in (stage.learning_rate, stage.later_learning_rate))
                learns = (str(stage.release_epoch + 1), ", then ".join(rates))
            table.add_row(stage.name, f"{stage.parameters:,}", *learns)
        table.add_section()
        table.add_row("trainable", f"{self.trainable_parameters:,}", "", "")
        table.add_row("frozen", f"{self.frozen_parameters:,}", "", "")
        return table


def release_epochs(
    stages: list[str], settings: StrategySettings, epochs: int, backbone_name: str
) -> dict[str, int | None]:
    """Stage → epoch, counted from 0, from which on it learns; None for never.

    Args:
        stages: names from the image to the head.
        settings: ``strategy``, ``unfreeze_from``, ``freeze_fraction``, ``freeze_stages``, ``head_epochs``,
            ``gradual_share``.
        epochs: of the whole training.
        backbone_name: for messages.
    """
    backbone = [stage for stage in stages if stage != HEAD]
    frozen = {
        "head": len(backbone),
        "partial": _frozen_by_partial(backbone, settings, backbone_name),
        "full": 0,
        "gradual": 0,
        "probe-then-full": 0,
    }[settings.strategy]
    releases: dict[str, int | None] = dict.fromkeys(stages, None)
    for stage in backbone[frozen:]:
        releases[stage] = settings.probe_epochs(epochs) or settings.head_epochs
    if settings.strategy == "gradual":
        # The head alone first; the lowest stage is released when gradual_share of the epochs have passed.
        first = max(1, settings.head_epochs)
        last = max(first, round(settings.gradual_share * epochs))
        for depth, stage in enumerate(reversed(backbone)):
            releases[stage] = first + round((last - first) * depth / max(1, len(backbone) - 1))
    releases[HEAD] = 0
    return releases


def describe_stages(model: StagedNetwork) -> str:
    """Names of a network's stages with their parameters, a line for each."""
    return "\n".join(
        f"{stage:36}{sum(parameter.numel() for parameter in parameters):>14,} parameters"
        for stage, parameters in model.parameters_by_stage().items()
    )


def _frozen_by_partial(backbone: list[str], settings: StrategySettings, name: str) -> int:
    """Number of the backbone's stages, from the image on, that ``partial`` freezes."""
    if settings.strategy != "partial":
        return 0
    if settings.unfreeze_from is not None:
        if settings.unfreeze_from not in backbone:
            raise UserError(
                f"{name} has no stage {settings.unfreeze_from!r} to unfreeze from; its stages "
                f"are {', '.join(backbone)}."
            )
        return backbone.index(settings.unfreeze_from)
    if settings.freeze_stages is not None:
        if settings.freeze_stages > len(backbone):
            raise UserError(
                f"freeze_stages is {settings.freeze_stages}, but {name} has only "
                f"{counted(len(backbone), 'stage')} before the head: {', '.join(backbone)}."
            )
        return settings.freeze_stages
    fraction = PARTIAL_FREEZE_FRACTION if settings.freeze_fraction is None else settings.freeze_fraction
    return round(fraction * len(backbone))
