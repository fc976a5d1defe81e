"""Settings of ``partA/train.py``: the five-block CNN, trained from scratch or distilled."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from naturalist.errors import UserError
from naturalist.settings.arguments import option
from naturalist.settings.groups import (
    AugmentationSettings,
    DataSettings,
    OptimizerName,
    ScheduleName,
    TrainingSettings,
)
from naturalist.settings.rules import require, require_below_one, require_positive, require_positive_share
from naturalist.settings.run_settings import RunSettings


@dataclass(frozen=True)
class CnnDataSettings(DataSettings):
    """Which photographs, and which pixels of them; small ones, so that a CPU will do."""

    image_size: int = 96


@dataclass(frozen=True)
class CnnAugmentationSettings(AugmentationSettings):
    """How training batches are varied: as little as a few epochs bear."""

    crop_scale: float = 0.8
    alternating_flip: bool = True
    rotation: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    random_erasing: float = 0.0


@dataclass(frozen=True)
class CnnTrainingSettings(TrainingSettings):
    """How the model learns: about ten minutes on two CPU cores for 8,000 photographs."""

    epochs: int = 8
    optimizer: OptimizerName = "Muon"
    learning_rate: float = 0.006
    schedule: ScheduleName = "one-cycle"


@dataclass(frozen=True)
class CnnModelSettings:
    """What the five-block CNN looks like."""

    TITLE: ClassVar[str] = "Model"

    num_filters: int | list[int] = 24
    """Filters of the first block, or a list of five."""
    filter_organization: Literal["same", "doubling", "halving"] = "doubling"
    """How the number of filters goes on from block to block; a list of five overrides it."""
    kernel_size: int | list[int] = 3
    """Side of the convolution kernels, or a list of five."""
    padding: Literal["valid", "same"] = "same"
    """Convolutions without padding, or padded to keep the size (odd kernels)."""
    activation: Literal["ReLU", "GELU", "SiLU", "Mish"] = "SiLU"
    """Activation after every convolution and after the dense layer."""
    batch_norm: bool = True
    """Batch normalisation between convolution and activation."""
    pooling: Literal["flatten", "average"] = "flatten"
    """Between the fifth block and the dense layer: every pixel, or the average over all pixels."""
    dropout: float = 0.0
    """Probability of dropping an input of the dense layer, in [0, 1)."""
    dense_units: int = 128
    """Neurons of the dense layer."""

    def validate(self) -> None:
        """Refuse values that no run can have; raises :class:`UserError` naming the setting."""
        for name in ("num_filters", "kernel_size"):
            value = getattr(self, name)
            values = value if isinstance(value, list) else [value]
            require(name, value, min(values, default=0) > 0, "must be greater than 0")
            is_whole = len(values) in (1, 5) or not isinstance(value, list)
            require(name, value, is_whole, "must be one number or a list of five")
        require_positive(self, ["dense_units"])
        require_below_one(self, ["dropout"])


@dataclass(frozen=True)
class TeacherSettings:
    """A finished run to learn from as well; the network is then distilled, no more trained from scratch."""

    TITLE: ClassVar[str] = "Teacher"

    teacher: str | None = option(None, path=True)
    """Run folder, or name of a run in runs/, of the same classes: its probabilities are learnt as well, from the same
    views of the training images. Usually what partB/finetune.py made."""
    teacher_weight: float = 0.9
    """Share of the loss that is the teacher's, in (0, 1]; the rest is that of the true classes."""
    teacher_temperature: float = 2.0
    """What both networks' outputs are divided by, before they are compared: more shows more of the unlikely classes."""
    teacher_views: int = 8
    """Fixed augmented views per image that the teacher is asked about, once; epochs show one after the other."""

    def validate(self) -> None:
        """Refuse values that no run can have; raises :class:`UserError` naming the setting."""
        require_positive_share(self, ["teacher_weight"])
        require_positive(self, ["teacher_temperature", "teacher_views"])
        for name in ("teacher_weight", "teacher_temperature", "teacher_views") if self.teacher is None else ():
            value = getattr(self, name)
            require(name, value, value == getattr(TeacherSettings, name), "has no effect without a teacher")


@dataclass(frozen=True)
class RecipeSettings:
    """How the five-block CNN begins, and what it learns by; none of it changes what the network is."""

    TITLE: ClassVar[str] = "Recipe"

    initialization: Literal["noise", "identity", "patches"] = "patches"
    """First weights of the convolutions: random; or blocks 2 to 5 pass on what they get (Dirac); or, with that, the
    first block's filters are the whitened directions in which patches of the training images vary, and their
    negatives."""
    batch_norm_momentum: float = 0.1
    """Weight of a new batch in batch normalisation's running statistics, in (0, 1]."""
    bias_lr_scale: float = 1.0
    """Learning rate of batch normalisation's biases, relative to that of the other parameters."""
    first_image_size: int | None = None
    """Side of the training images in the first epoch, from which it grows; by default that of the last. Needs
    pooling=average, and is scaled down from image_size after augmentation."""
    train_image_size: int | None = None
    """Side of the training images at the end, in pixels, at most image_size, which validation and test see; by
    default image_size. Needs pooling=average."""
    growing_share: float = 0.6
    """Share of the epochs after which training images have grown from first_image_size, in (0, 1]."""

    def validate(self) -> None:
        """Refuse values that no run can have; raises :class:`UserError` naming the setting."""
        require_positive(self, ["bias_lr_scale"])
        require_positive_share(self, ["batch_norm_momentum", "growing_share"])


@dataclass(frozen=True)
class CnnSettings(RunSettings):
    """Everything that ``partA/train.py`` can be told."""

    SCRIPT: ClassVar[str] = "partA/train.py"

    data: CnnDataSettings = field(default_factory=CnnDataSettings)
    augmentation: CnnAugmentationSettings = field(default_factory=CnnAugmentationSettings)
    training: CnnTrainingSettings = field(default_factory=CnnTrainingSettings)
    model: CnnModelSettings = field(default_factory=CnnModelSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    recipe: RecipeSettings = field(default_factory=RecipeSettings)

    def validate(self) -> None:
        """Refuse values that no run can have; raises :class:`UserError` naming the setting."""
        super().validate()
        kernels, size = self.model.kernel_size, self.data.image_size
        largest = max(kernels) if isinstance(kernels, list) else kernels
        require("kernel_size", kernels, largest <= size, f"must not be larger than the image ({size} px)")
        if not self.model.batch_norm:
            for name in ("batch_norm_momentum", "bias_lr_scale"):
                value = getattr(self.recipe, name)
                is_default = value == getattr(RecipeSettings, name)
                require(name, value, is_default, "has no effect without batch_norm, so it must be left out")
        at_most, limit = size, "image_size"
        for name in ("train_image_size", "first_image_size"):
            side = getattr(self.recipe, name)
            if side is None:
                continue
            require(name, side, 0 < side <= at_most, f"must be at most {limit} ({at_most}) and greater than 0")
            needs = "needs pooling=average, because flattening ties the dense layer to one size"
            require(name, side, side == size or self.model.pooling == "average", needs)
            at_most, limit = side, name
        if self.teacher.teacher and self.augmentation.data_augmentation and self.augmentation.mixes:
            raise UserError("mixup and cutmix show images that no teacher has seen; leave them out, or the teacher.")

    @property
    def beginning(self) -> str:
        """What the network learns from, in words."""
        teacher = self.teacher.teacher
        return f"distilled from {Path(teacher).name}" if teacher else "from scratch"

    def describe(self) -> str:
        """A name that tells the settings that a sweep varies: ``ep-5_nf-64_fo-doubling_ac-SiLU_…``, or distilled_…."""
        model, training = self.model, self.training
        filters = "-".join(map(str, model.num_filters)) if isinstance(model.num_filters, list) else model.num_filters
        distilled = "distilled_" if self.teacher.teacher else ""
        return (
            f"{distilled}ep-{training.epochs}_nf-{filters}_fo-{model.filter_organization}_ac-{model.activation}"
            f"_da-{self.augmentation.data_augmentation:d}_bn-{model.batch_norm:d}_do-{model.dropout:g}"
            f"_bs-{training.batch_size}_lr-{training.learning_rate:g}"
        )
