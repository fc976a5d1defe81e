"""Settings of ``partB/finetune.py``: a backbone pre-trained on ImageNet, adapted."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from naturalist.errors import UserError
from naturalist.settings.arguments import option
from naturalist.settings.groups import DataSettings, Normalization, ResizeMode, TrainingSettings
from naturalist.settings.rules import (
    require,
    require_below_one,
    require_not_negative,
    require_positive,
    require_positive_share,
    require_seed,
)
from naturalist.settings.run_settings import RunSettings
from naturalist.wording import counted

PROBE_SHARE = 0.3
"""Of the epochs, the share of probe-then-full's first phase when head_epochs does not say."""


@dataclass(frozen=True)
class BackboneDataSettings(DataSettings):
    """Which photographs, and which pixels of them; by default as the weights were made for.

    Three settings may be left open. :func:`naturalist.models.weights.settings_from_weights` fills them before anything
    else reads them, hence their types.
    """

    image_size: int = None  # type: ignore[assignment]
    """Side of the square images that the model sees, in pixels; by default what the weights were made for."""
    resize_mode: ResizeMode = None  # type: ignore[assignment]
    """By default as the weights were made for: scale the short side, with their interpolation, and crop the centre."""
    normalization: Normalization = None  # type: ignore[assignment]
    """Mean and deviation per channel; by default those the weights were made for."""
    train_image_size: int | None = None
    """Side of the training images, in pixels, at most image_size, which validation and test see: smaller ones are
    cheaper, and cropped, which shows things larger (Touvron et al. 2019). By default image_size."""

    OPEN: ClassVar[tuple[str, ...]] = ("image_size", "resize_mode", "normalization")
    """What may be left to the weights."""

    @property
    def smaller_side(self) -> int | None:
        """Side of the training images, None where they are as large as the others."""
        return None if self.train_image_size == self.image_size else self.train_image_size

    def validate(self) -> None:
        """Refuse values that no run can have; raises :class:`UserError` naming the setting."""
        require("val_fraction", self.val_fraction, 0 < self.val_fraction < 1, "must lie between 0 and 1, both excluded")
        require_seed(self, ["split_seed"])
        require_positive_share(self, ["train_fraction"])
        if self.image_size is not None:
            require_positive(self, ["image_size"])
        if self.train_image_size is not None:
            require_positive(self, ["train_image_size"])
        side, largest = self.smaller_side, self.image_size
        is_possible = side is None or largest is None or side < largest
        require("train_image_size", side, is_possible, f"must be at most image_size ({largest})")
        self._validate_cache_size(self.image_size or 1)


@dataclass(frozen=True)
class FinetuneTrainingSettings(TrainingSettings):
    """How the model learns; fewer epochs and a lower rate than from scratch."""

    epochs: int = 10
    learning_rate: float = 0.001
    """Peak learning rate of the new head."""


@dataclass(frozen=True)
class BackboneSettings:
    """Which network, with which weights."""

    TITLE: ClassVar[str] = "Model"

    backbone: str = "resnet50"
    """Any classification model of torchvision; --help_backbones lists them."""
    weights: str = option("DEFAULT", path=True)
    """Name of official weights (DEFAULT is the best), a file (.pth, .safetensors), or 'none' for random ones."""
    dropout: float = 0.2
    """Probability of dropping an input of the new head's linear layer, in [0, 1)."""

    def validate(self) -> None:
        """Refuse values that no run can have; raises :class:`UserError` naming the setting."""
        require_below_one(self, ["dropout"])


@dataclass(frozen=True)
class StrategySettings:
    """What learns, from when on, how fast."""

    TITLE: ClassVar[str] = "Strategy"

    strategy: Literal["head", "partial", "full", "gradual", "probe-then-full"] = "head"
    """What learns: the new head; it and the upper stages; everything; everything, released from the top; or first the
    head, on features computed once, and then everything at a small rate (Kumar et al. 2022)."""
    unfreeze_from: str | None = None
    """partial: the lowest stage that learns; --help_stages BACKBONE lists them."""
    freeze_fraction: float | None = None
    """partial: share of the backbone's stages that is frozen, in [0, 1]; 0.6 when none of the three is given."""
    freeze_stages: int | None = None
    """partial: how many stages, from the image on, are frozen."""
    head_epochs: int = 0
    """Epochs in which the head learns alone, before anything else moves; probe-then-full: 0 is three tenths of all."""
    gradual_share: float = 0.5
    """gradual: share of the epochs after which every stage is released, in (0, 1]."""
    backbone_lr_scale: float = 0.1
    """Learning rate of the highest stage below the head, relative to the head's; after a probe it is the head's."""
    layer_decay: float = 1.0
    """Factor on the learning rate from each stage of the backbone to the one below, in (0, 1]."""
    cache_features: bool = True
    """Compute what never learns once per image, not in every epoch."""
    views: int = 4
    """With augmentation: fixed augmented views per image whose features are kept; 0 augments anew in every epoch,
    through the whole network."""

    def validate(self) -> None:
        """Refuse values that no run can have; raises :class:`UserError` naming the setting."""
        require_not_negative(self, ["head_epochs", "views", "backbone_lr_scale"])
        if self.freeze_stages is not None:
            require_not_negative(self, ["freeze_stages"])
        require_positive_share(self, ["gradual_share", "layer_decay"])
        fraction = self.freeze_fraction
        require("freeze_fraction", fraction, fraction is None or 0 <= fraction <= 1, "must lie between 0 and 1")
        ways = ("unfreeze_from", "freeze_fraction", "freeze_stages")
        given = [name for name in ways if getattr(self, name) is not None]
        if given and self.strategy != "partial":
            raise UserError(f"{given[0]} belongs to --strategy partial, but the strategy is {self.strategy}.")
        if len(given) > 1:
            raise UserError(f"{' and '.join(given)} say the same thing twice; give one of them.")

    def probe_epochs(self, epochs: int) -> int:
        """Of so many epochs, those of probe-then-full's first phase; 0 for other strategies."""
        if self.strategy != "probe-then-full":
            return 0
        return self.head_epochs or max(1, round(PROBE_SHARE * epochs))


@dataclass(frozen=True)
class FinetuneSettings(RunSettings):
    """Everything that ``partB/finetune.py`` can be told."""

    SCRIPT: ClassVar[str] = "partB/finetune.py"

    data: BackboneDataSettings = field(default_factory=BackboneDataSettings)
    training: FinetuneTrainingSettings = field(default_factory=FinetuneTrainingSettings)
    model: BackboneSettings = field(default_factory=BackboneSettings)
    strategy: StrategySettings = field(default_factory=StrategySettings)

    @property
    def uses_features(self) -> bool:
        """Whether what never learns is computed once; MixUp and CutMix mix images, so they need the slow way."""
        augments = self.augmentation.data_augmentation
        fixed_views = self.strategy.views > 0 and not self.augmentation.mixes
        return self.strategy.cache_features and (not augments or fixed_views)

    def validate(self) -> None:
        """Refuse values that no run can have; raises :class:`UserError` naming the setting."""
        super().validate()
        epochs, probe = self.training.epochs, self.strategy.probe_epochs(self.training.epochs)
        if probe >= epochs:
            raise UserError(
                f"probe-then-full probes for {counted(probe, 'epoch')} and then trains everything, for which epochs "
                f"({epochs}) leaves nothing; give it more epochs, or fewer head_epochs."
            )

    def describe(self) -> str:
        """A name that tells the settings that a sweep varies: ``resnet50_head_ep-10_…``."""
        return (
            f"{self.model.backbone}_{self.strategy.strategy}_ep-{self.training.epochs}"
            f"_da-{self.augmentation.data_augmentation:d}_do-{self.model.dropout:g}"
            f"_bs-{self.training.batch_size}_lr-{self.training.learning_rate:g}"
        )
