"""What every training run can be told, a small dataclass for each subject.

On the command line, in YAML and for W&B all settings are flat; in code a room gets the group that is its own. The
groups are also those of ``--help``.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from naturalist.errors import UserError
from naturalist.memory import DeviceMemory
from naturalist.settings.arguments import option
from naturalist.settings.rules import (
    require,
    require_below_one,
    require_device,
    require_not_negative,
    require_positive,
    require_positive_share,
    require_project,
    require_seed,
    require_share,
)

ResizeMode = Literal["squash", "crop", "crop-bicubic"]
Normalization = Literal["dataset", "imagenet", "half"]
ClassWeights = Literal["none", "balanced", "sqrt"]
Sampling = Literal["shuffle", "balanced"]
OptimizerName = Literal["Adam", "AdamW", "SGD", "NAdam", "Muon"]
ScheduleName = Literal["none", "cosine", "one-cycle", "plateau"]
SelectBy = Literal["val_accuracy", "val_balanced_accuracy", "val_loss"]


@dataclass(frozen=True)
class DataSettings:
    """Which photographs, and which pixels of them."""

    TITLE: ClassVar[str] = "Data"

    data: str = option("sample", path=True)
    """'sample' (small, drawn by the project), 'nature_12K' (downloaded once) or a folder of photographs."""
    datasets_dir: str = "datasets"
    """Folder that 'sample' and 'nature_12K' are stored in."""
    cache_dir: str | None = None
    """Folder for decoded images; by default 'cache' beside runs_dir."""
    on_corrupt: Literal["skip", "error"] = "skip"
    """Leave unreadable files out and name them, or stop."""
    exclude: str | None = option(None, path=True, metavar="FILE")
    """CSV file whose column 'path' names images to leave out of training and validation, by their place in the data
    folder, such as leaks.csv of naturalist audit."""
    val_fraction: float = 0.2
    """Share of every class held out for validation, in (0, 1)."""
    split_seed: int = 0
    """Seed of the choice of validation images, and of those that train_fraction leaves; runs with different seeds
    train on one split."""
    train_fraction: float = 1.0
    """Share of the training images that is used, the same of every class, in (0, 1]: less is for cheap first looks."""
    image_size: int = 128
    """Side of the square images that the model sees, in pixels."""
    cache_size: int | None = None
    """Side of the cached images, in pixels, at least image_size; by default image_size. A larger cache, up to
    1.5 times, gives augmentation sharper crops; validation sees it scaled down (squash) or its centre (crop)."""
    resize_mode: ResizeMode = "squash"
    """Squash the whole photograph to a square, or scale its short side and crop the centre; bilinear unless said."""
    normalization: Normalization = "dataset"
    """Mean and deviation per channel: of the training images, of ImageNet, or 0.5 and 0.5."""

    def validate(self) -> None:
        """Refuse values that no run can have; raises :class:`UserError` naming the setting."""
        require_positive(self, ["image_size"])
        require_seed(self, ["split_seed"])
        require("val_fraction", self.val_fraction, 0 < self.val_fraction < 1, "must lie between 0 and 1, both excluded")
        require_positive_share(self, ["train_fraction"])
        self._validate_cache_size(self.image_size)

    def _validate_cache_size(self, at_least: int) -> None:
        holds = self.cache_size is None or self.cache_size >= at_least
        require("cache_size", self.cache_size, holds, f"must be at least image_size ({at_least})")


@dataclass(frozen=True)
class AugmentationSettings:
    """How training batches are varied, drawn anew for every image; validation and test never see it."""

    TITLE: ClassVar[str] = "Augmentation"

    data_augmentation: bool = True
    """Augment training images; without it none of the settings below has an effect."""
    crop_scale: float = 0.4
    """Smallest share of the area that a random resized crop keeps, in (0, 1]; 1 keeps the whole image."""
    horizontal_flip: float = 0.5
    """Probability of a mirror image, in [0, 1]."""
    alternating_flip: bool = False
    """Mirror every image in every other epoch, beginning with the first or the second by chance, instead of by
    horizontal_flip; not with a teacher, whose views are few."""
    rotation: float = 10.0
    """Largest rotation either way, in degrees, in [0, 180]."""
    brightness: float = 0.2
    """Largest relative change of brightness, in [0, 1]."""
    contrast: float = 0.2
    """Largest relative change of contrast, in [0, 1]."""
    saturation: float = 0.2
    """Largest relative change of saturation, in [0, 1]."""
    random_erasing: float = 0.1
    """Probability that a rectangle of the image is blanked, in [0, 1]."""
    trivial_augment: bool = False
    """TrivialAugment: one more change for each image, of a random kind (of fourteen, such as shear, rotation, contrast,
    equalizing) and strength; for long runs."""
    mixup: float = 0.0
    """MixUp's alpha, 0 for none; with CutMix too, every batch gets one of the two."""
    cutmix: float = 0.0
    """CutMix's alpha, 0 for none."""

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are mixed with each other."""
        return self.mixup > 0 or self.cutmix > 0

    def validate(self) -> None:
        """Refuse values that no run can have; raises :class:`UserError` naming the setting."""
        require_not_negative(self, ["mixup", "cutmix"])
        require_share(self, ["horizontal_flip", "brightness", "contrast", "saturation", "random_erasing"])
        require_positive_share(self, ["crop_scale"])
        require("rotation", self.rotation, 0 <= self.rotation <= 180, "must lie between 0 and 180 degrees")


WEIGHT_DECAY = {"AdamW": 0.05, "Muon": 0.05, "SGD": 5e-4, "Adam": 0.0, "NAdam": 0.0}
"""What each optimiser is used with: only AdamW's and Muon's are decoupled from the gradient, so that no
other may inherit them."""


@dataclass(frozen=True)
class TrainingSettings:
    """How the model learns."""

    TITLE: ClassVar[str] = "Training"

    epochs: int = 30
    """Passes over the training images."""
    batch_size: int = 64
    """Images per step."""
    optimizer: OptimizerName = "AdamW"
    """Optimiser; SGD uses Nesterov momentum. Muon makes the steps of convolutions' filters orthogonal, as long as
    AdamW's, which takes all other steps."""
    learning_rate: float = 0.002
    """Peak learning rate."""
    weight_decay: float | None = None
    """Weight decay; norms and biases are exempt. By default the optimiser's own: 0.05 for AdamW and Muon
    (decoupled), 0.0005 for SGD, none for Adam and NAdam."""
    momentum: float = 0.9
    """Momentum of SGD and Muon, in [0, 1)."""
    schedule: ScheduleName = "cosine"
    """Course of the learning rate after warm-up; plateau divides it by ten when val_loss stalls."""
    warmup_epochs: float = 1.0
    """Epochs, or a part of one, in which the learning rate rises to its peak."""
    plateau_patience: int = 3
    """Epochs without a better val_loss before schedule=plateau lowers the learning rate."""
    label_smoothing: float = 0.1
    """Label smoothing in the training loss, in [0, 1)."""
    class_weights: ClassWeights = "none"
    """Weight of an image in the training loss, for classes of unequal size: the same for all, by one over the images of
    its class (balanced), or by the root of that (sqrt); 1 on average. val_loss stays unweighted."""
    sampling: Sampling = "shuffle"
    """Images of an epoch: each once, or from every class equally many (balanced), as many as there are in all."""
    ema_decay: float = 0.0
    """Decay per step of an exponential moving average of the weights and batch normalisation's statistics, which is
    then what is evaluated and kept; 0 for none, else in (0, 1). It is smaller in the first steps."""
    gradient_clip: float = 0.0
    """Largest norm of the gradient; 0 for no clipping."""
    accumulate: int = 1
    """Batches whose gradients are averaged before a step of the optimiser."""
    sync_batch_norm: bool = False
    """Under torchrun on GPUs: batch normalisation by the images of all processes, not of each its own."""
    select_by: SelectBy = "val_accuracy"
    """What best.pt is chosen by: the highest accuracy, the highest balanced accuracy (mean over the classes), or the
    lowest loss on validation; of equal accuracies the lower loss."""
    patience: int = 0
    """Stop after this many epochs without a better one by select_by; 0 never stops early."""
    seed: int = 0
    """Seed of weights, order, augmentation and dropout; --split_seed is that of the split."""

    @property
    def decay(self) -> float:
        """The weight decay that is used."""
        return WEIGHT_DECAY[self.optimizer] if self.weight_decay is None else self.weight_decay

    def validate(self) -> None:
        """Refuse values that no run can have; raises :class:`UserError` naming the setting."""
        require_positive(self, ["epochs", "batch_size", "learning_rate", "accumulate"])
        require("weight_decay", self.weight_decay, self.decay >= 0, "must not be negative")
        require_not_negative(self, ["warmup_epochs", "gradient_clip", "patience", "plateau_patience"])
        require_seed(self, ["seed"])
        require_below_one(self, ["momentum", "label_smoothing", "ema_decay"])
        if self.sampling == "balanced" and self.class_weights != "none":
            raise UserError(
                "sampling balanced shows all classes equally often already, so that with class_weights "
                f"{self.class_weights} rare ones would count twice; give one of the two."
            )


@dataclass(frozen=True)
class MachineSettings:
    """Where and in which arithmetic to compute."""

    TITLE: ClassVar[str] = "Machine"

    device: str = "auto"
    """'auto' (the GPU if CUDA has one, else the CPU), 'cpu', 'cuda', 'cuda:1', 'mps'."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic; auto is bf16 where the hardware multiplies it natively, else fp32."""
    channels_last: bool = True
    """Store images and filters channels last, which is faster nearly everywhere."""
    cuda_graphs: bool = False
    """On a CUDA GPU, record a step once and replay it, so that no kernel waits for Python. Results are the same. A
    backbone's step that cannot be recorded is refused; where steps differ from each other, a line says that they are
    not replayed."""
    compile: bool = False
    """Have torch.compile make fewer, larger kernels of the training's passes, which takes up to a minute first and is
    meant for GPUs: what it makes for a CPU is slower. Results are the same to rounding. Needs a compiler such
    as clang, and Triton for a GPU."""
    device_memory: DeviceMemory = "auto"
    """Where decoded images, or features, lie: resident keeps all of them in the GPU's memory (without a GPU, as many as
    the system can in the machine's), stream reads each batch from the disk ahead of its turn; auto streams what would
    take more than half of the memory. Results are the same."""

    def validate(self) -> None:
        """Refuse values that no run can have; raises :class:`UserError` naming the setting."""
        require_device(self.device)


@dataclass(frozen=True)
class RecordSettings:
    """Where and how the run is recorded."""

    TITLE: ClassVar[str] = "Record"

    runs_dir: str = "runs"
    """Folder that run folders are made in."""
    name: str | None = None
    """Name of the run; by default made from the settings. A name that is taken gets a number."""
    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """Weights & Biases; auto is online when logged in and offline otherwise."""
    wandb_project: str = "naturalist"
    """Project on Weights & Biases."""
    validation_pictures: bool = True
    """After training, measure and draw the validation images with the best checkpoint, to evaluation/val."""
    checkpoint_seconds: float = 60.0
    """How often last.pt is written within an epoch, in seconds; 0 for only at the end of each. A stop always does.
    Saving takes 2 % of the time at most: epochs that are too short for that wait for a later one."""
    resume: str | None = option(None, path=True)
    """Run folder to go on with, with its own settings; auto, with --name N, goes on with N where it exists."""
    dry_run: bool = False
    """Say what would be trained (data, model, device, precision, steps), and stop."""
    find_lr: bool = False
    """Try rising learning rates for 100 steps, draw the loss over them (in runs_dir), propose one, and stop."""

    def validate(self) -> None:
        """Refuse values that no run can have; raises :class:`UserError` naming the setting."""
        require_not_negative(self, ["checkpoint_seconds"])
        require_project("wandb_project", self.wandb_project)
        others = [name for name in NOT_RECORDED if name != "find_lr" and getattr(self, name)]
        if self.find_lr and others:
            raise UserError(f"find_lr tries learning rates and trains no run, so {others[0]} cannot be given with it.")


NOT_RECORDED = ("resume", "dry_run", "find_lr")
"""Settings that ask for something now, and so are no part of a run's ``config.yaml``."""

BOOKKEEPING = (
    "name",
    "runs_dir",
    "cache_dir",
    "datasets_dir",
    "device",
    "device_memory",
    "cuda_graphs",
    "compile",
    "wandb",
    "wandb_project",
    "validation_pictures",
    "checkpoint_seconds",
    *NOT_RECORDED,
)
"""Settings that say where and how a run is made and recorded, not what is tried."""
