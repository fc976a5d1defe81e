"""What can be set: one dataclass per script, filled from defaults < ``--config`` YAML < command line.

This module must not import torch: ``--help`` answers in well under a second.
"""

import difflib
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, TypeVar, get_args, get_origin, get_type_hints

from naturalist.errors import UserError


@dataclass
class RunSettings:
    """Settings that every training run has, whatever the model."""

    # Data
    data: str = "sample"
    """'sample' (small, drawn by the project), 'nature_12K' (downloaded once) or a folder of photographs."""
    datasets_dir: str = "datasets"
    """Folder that 'sample' and 'nature_12K' are stored in."""
    cache_dir: str | None = None
    """Folder for decoded images; by default 'cache' beside runs_dir."""
    on_corrupt: Literal["skip", "error"] = "skip"
    """Leave unreadable files out and name them, or stop."""
    val_fraction: float = 0.2
    """Share of every class held out for validation, in (0, 1)."""
    train_fraction: float = 1.0
    """Share of the training images that is used, the same of every class, in (0, 1]: less is for cheap first looks."""
    image_size: int = 128
    """Side of the square images that the model sees, in pixels."""
    cache_size: int | None = None
    """Side of the cached images, in pixels, at least image_size; by default image_size. A larger cache, up to
    1.5 times, gives augmentation sharper crops; validation sees it scaled down (squash) or its centre (crop)."""
    resize_mode: Literal["squash", "crop", "crop-bicubic"] = "squash"
    """Squash the whole photograph to a square, or scale its short side and crop the centre; bilinear unless said."""
    normalization: Literal["dataset", "imagenet", "half"] = "dataset"
    """Mean and deviation per channel: of the training images, of ImageNet, or 0.5 and 0.5."""

    # Augmentation of training batches, drawn anew for every image; validation and test never see it
    data_augmentation: bool = True
    """Augment training images; without it none of the settings below has an effect."""
    crop_scale: float = 0.4
    """Smallest share of the area that a random resized crop keeps, in (0, 1]; 1 keeps the whole image."""
    horizontal_flip: float = 0.5
    """Probability of a mirror image, in [0, 1]."""
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
    mixup: float = 0.0
    """MixUp's alpha, 0 for none; with CutMix too, every batch gets one of the two."""
    cutmix: float = 0.0
    """CutMix's alpha, 0 for none."""

    # Training
    epochs: int = 30
    """Passes over the training images."""
    batch_size: int = 64
    """Images per step."""
    optimizer: Literal["Adam", "AdamW", "SGD", "NAdam"] = "AdamW"
    """Optimiser; SGD uses Nesterov momentum."""
    learning_rate: float = 0.002
    """Peak learning rate."""
    weight_decay: float = 0.05
    """Weight decay (decoupled for AdamW); norms and biases are exempt."""
    momentum: float = 0.9
    """Momentum of SGD, in [0, 1)."""
    schedule: Literal["none", "cosine", "one-cycle", "plateau"] = "cosine"
    """Course of the learning rate after warm-up; plateau divides it by ten when val_loss stalls."""
    warmup_epochs: float = 1.0
    """Epochs, or a part of one, in which the learning rate rises to its peak."""
    plateau_patience: int = 3
    """Epochs without a better val_loss before schedule=plateau lowers the learning rate."""
    label_smoothing: float = 0.1
    """Label smoothing in the training loss, in [0, 1)."""
    ema_decay: float = 0.0
    """Decay per step of an exponential moving average of the weights, which is then what is evaluated and
    kept; 0 for none, else in (0, 1)."""
    gradient_clip: float = 0.0
    """Largest norm of the gradient; 0 for no clipping."""
    accumulate: int = 1
    """Batches whose gradients are averaged before a step of the optimiser."""
    patience: int = 0
    """Stop after this many epochs without a better val_accuracy; 0 never stops early."""
    seed: int = 0
    """Seed of split, weights, order, augmentation and dropout."""

    # Machine
    device: str = "auto"
    """'auto' (the GPU if CUDA has one, else the CPU), 'cpu', 'cuda', 'cuda:1', 'mps'."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic; auto is bf16 where the hardware multiplies it natively, else fp32."""
    channels_last: bool = True
    """Store images and filters channels last, which is faster nearly everywhere."""

    # Record
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
    resume: str | None = None
    """Run folder to go on with from its last finished epoch, with its own settings."""

    def validate(self) -> None:
        """Refuse values that no run can have; raises :class:`UserError` naming the setting."""
        positive = ("image_size", "epochs", "batch_size", "learning_rate", "accumulate")
        not_negative = (
            "weight_decay",
            "warmup_epochs",
            "gradient_clip",
            "mixup",
            "cutmix",
            "patience",
            "plateau_patience",
            "seed",
        )
        unit_interval = ("horizontal_flip", "brightness", "contrast", "saturation", "random_erasing")
        below_one = ("momentum", "label_smoothing", "ema_decay")
        for name in positive:  # image_size may be left to pre-trained weights
            self._require(name, getattr(self, name) is None or getattr(self, name) > 0, "must be greater than 0")
        for name in not_negative:
            self._require(name, getattr(self, name) >= 0, "must not be negative")
        for name in unit_interval:
            self._require(name, 0 <= getattr(self, name) <= 1, "must lie between 0 and 1")
        for name in below_one:
            self._require(name, 0 <= getattr(self, name) < 1, "must be at least 0 and less than 1")
        self._require("val_fraction", 0 < self.val_fraction < 1, "must lie between 0 and 1, both excluded")
        self._require("train_fraction", 0 < self.train_fraction <= 1, "must be greater than 0 and at most 1")
        self._require("crop_scale", 0 < self.crop_scale <= 1, "must be greater than 0 and at most 1")
        self._require("rotation", 0 <= self.rotation <= 180, "must lie between 0 and 180 degrees")
        self._require(
            "cache_size",
            self.cache_size is None or self.cache_size >= (self.image_size or 1),
            f"must be at least image_size ({self.image_size})",
        )
        self._require(
            "device",
            re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device) is not None,
            "must be auto, cpu, mps, cuda or cuda:N",
        )

    def _require(self, name: str, holds: bool, rule: str) -> None:
        # A comparison with nan is false, so nan is refused by every rule.
        if not holds:
            raise UserError(f"{name} {rule}, but it is {getattr(self, name)!r}.")

    @property
    def cache_folder(self) -> Path:
        """Where decoded images are kept."""
        return Path(self.cache_dir) if self.cache_dir else Path(self.runs_dir).parent / "cache"


@dataclass
class CnnSettings(RunSettings):
    """Settings of ``partA/train.py``: the five-block CNN, trained from scratch."""

    num_filters: int | list[int] = 32
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
    dropout: float = 0.3
    """Probability of dropping an input of the dense layer, in [0, 1)."""
    dense_units: int = 128
    """Neurons of the dense layer."""

    def validate(self) -> None:
        """Refuse values that no run can have; raises :class:`UserError` naming the setting."""
        super().validate()
        for name in ("num_filters", "kernel_size"):
            value = getattr(self, name)
            values = value if isinstance(value, list) else [value]
            self._require(name, min(values, default=0) > 0, "must be greater than 0")
            self._require(
                name, len(values) in (1, 5) or not isinstance(value, list), "must be one number or a list of five"
            )
        self._require("dense_units", self.dense_units > 0, "must be greater than 0")
        self._require("dropout", 0 <= self.dropout < 1, "must be at least 0 and less than 1")

    def describe(self) -> str:
        """A name that tells the settings that a sweep varies: ``ep-5_nf-64_fo-doubling_ac-SiLU_…``."""
        filters = "-".join(map(str, self.num_filters)) if isinstance(self.num_filters, list) else self.num_filters
        return (
            f"ep-{self.epochs}_nf-{filters}_fo-{self.filter_organization}_ac-{self.activation}"
            f"_da-{self.data_augmentation:d}_bn-{self.batch_norm:d}_do-{self.dropout:g}_bs-{self.batch_size}"
            f"_lr-{self.learning_rate:g}"
        )


@dataclass
class FinetuneSettings(RunSettings):
    """Settings of ``partB/finetune.py``: a backbone pre-trained on ImageNet, adapted."""

    # Defaults that differ from training from scratch
    image_size: int | None = None
    """Side of the square images that the model sees, in pixels; by default what the weights were made for."""
    resize_mode: Literal["squash", "crop", "crop-bicubic"] | None = None
    """By default as the weights were made for: scale the short side, with their interpolation, and crop the centre."""
    normalization: Literal["dataset", "imagenet", "half"] | None = None
    """Mean and deviation per channel; by default those the weights were made for."""
    epochs: int = 10
    """Passes over the training images."""
    learning_rate: float = 0.001
    """Peak learning rate of the new head."""

    # Model
    backbone: str = "resnet50"
    """Any classification model of torchvision."""
    weights: str = "DEFAULT"
    """Name of official weights (DEFAULT is the best), a file, or 'none' for random ones."""
    dropout: float = 0.2
    """Probability of dropping an input of the new head's linear layer, in [0, 1)."""

    # Strategy
    strategy: Literal["head", "partial", "full", "gradual"] = "head"
    """What learns: the new head; it and the upper stages; everything; everything, released from the top."""
    unfreeze_from: str | None = None
    """partial: the lowest stage that learns; --help_stages BACKBONE lists them."""
    freeze_fraction: float | None = None
    """partial: share of the backbone's stages that is frozen, in [0, 1]; 0.6 when none of the three is given."""
    freeze_stages: int | None = None
    """partial: how many stages, from the image on, are frozen."""
    head_epochs: int = 0
    """Epochs in which the head learns alone, before anything else moves."""
    gradual_share: float = 0.5
    """gradual: share of the epochs after which every stage is released, in (0, 1]."""
    backbone_lr_scale: float = 0.1
    """Learning rate of the highest stage below the head, relative to the head's."""
    layer_decay: float = 1.0
    """Factor on the learning rate from each stage of the backbone to the one below, in (0, 1]."""

    # Features of the frozen part
    cache_features: bool = True
    """Compute what never learns once per image, not in every epoch."""
    views: int = 4
    """With augmentation: fixed augmented views per image whose features are kept; 0 augments anew in every epoch,
    through the whole network."""

    def validate(self) -> None:
        """Refuse values that no run can have; raises :class:`UserError` naming the setting."""
        super().validate()
        for name in ("head_epochs", "views", "freeze_stages", "backbone_lr_scale"):
            self._require(name, getattr(self, name) is None or getattr(self, name) >= 0, "must not be negative")
        for name in ("gradual_share", "layer_decay"):
            self._require(name, 0 < getattr(self, name) <= 1, "must be greater than 0 and at most 1")
        self._require("dropout", 0 <= self.dropout < 1, "must be at least 0 and less than 1")
        self._require(
            "freeze_fraction",
            self.freeze_fraction is None or 0 <= self.freeze_fraction <= 1,
            "must lie between 0 and 1",
        )
        given = [
            name for name in ("unfreeze_from", "freeze_fraction", "freeze_stages") if getattr(self, name) is not None
        ]
        if given and self.strategy != "partial":
            raise UserError(f"{given[0]} belongs to --strategy partial, but the strategy is {self.strategy}.")
        if len(given) > 1:
            raise UserError(f"{' and '.join(given)} say the same thing twice; give one of them.")

    @property
    def uses_features(self) -> bool:
        """Whether what never learns is computed once; MixUp and CutMix mix images, so they need the slow way."""
        mixes = self.mixup > 0 or self.cutmix > 0
        return self.cache_features and (not self.data_augmentation or (self.views > 0 and not mixes))

    def describe(self) -> str:
        """A name that tells the settings that a sweep varies: ``resnet50_head_ep-10_…``."""
        return (
            f"{self.backbone}_{self.strategy}_ep-{self.epochs}_da-{self.data_augmentation:d}_do-{self.dropout:g}"
            f"_bs-{self.batch_size}_lr-{self.learning_rate:g}"
        )


Settings = TypeVar("Settings", bound=RunSettings)


def parse_settings(settings_class: type[Settings], description: str, argv: Sequence[str] | None = None) -> Settings:
    """Fill ``settings_class`` from defaults, then ``--config`` files, then flags.

    With ``--resume RUN`` the run's own ``config.yaml`` stands where ``--config`` files would.
    Raises :class:`UserError` for an unknown setting (naming the nearest) or an impossible value. ``--help`` and
    ``--print_config`` print and exit with code 0.
    """
    from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    description += (
        " Settings come from the defaults, then --config, then the flags. A boolean is written --flag, "
        "--no_flag, --flag=true or --flag=false; hyphens may stand for underscores."
    )
    parser = ArgumentParser(description=description, exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML file of settings; flags override it.")
    parser.add_class_arguments(settings_class, as_group=False)
    arguments = _normalize(list(sys.argv[1:] if argv is None else argv), settings_class)
    try:
        values = parser.parse_args(arguments).as_dict()
    except ArgumentError as error:
        raise UserError(_one_sentence(str(error), settings_class)) from None
    settings = settings_class(**{field.name: values[field.name] for field in fields(settings_class)})
    settings.validate()
    return settings


BOOKKEEPING = (
    "name",
    "runs_dir",
    "cache_dir",
    "datasets_dir",
    "device",
    "wandb",
    "wandb_project",
    "validation_pictures",
    "resume",
)
"""Settings that say where and how a run is made and recorded, not what is tried."""

IN_SWEEP = "WANDB_SWEEP_ID"
"""Environment variable that a W&B agent sets for the runs that it starts."""

_stop_requested = threading.Event()


def stop_requested() -> bool:
    """Whether a signal asked this process to stop.

    Python drops a KeyboardInterrupt that is raised while it collects garbage, and agents send their signal only once.
    """
    return _stop_requested.is_set()


@contextmanager
def entry_point() -> Iterator[None]:
    """Around a script's main: a :class:`UserError` is one line on standard error and exit code 2.

    SIGTERM, by which a W&B agent or a cluster stops a run, is made a KeyboardInterrupt, so that both end training the
    same way; where nothing handles that, the exit code is 130.
    """

    def interrupt(signal_number: int, frame: object) -> None:
        _stop_requested.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    if IN_SWEEP in os.environ:
        # An agent that a script started in the background hands on an ignored SIGINT, by which W&B stops runs too.
        signal.signal(signal.SIGINT, interrupt)
    for stream in (sys.stdout, sys.stderr):  # a file's name may be no text that the terminal can show
        stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(0 if IN_SWEEP in os.environ else 130)  # for an agent, a run that it stopped has not failed
    except BrokenPipeError:  # whoever read the output, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def nearest(name: str, valid: Sequence[str]) -> str:
    """``'; did you mean X?'`` for the valid name most like ``name``, or all of them when none is."""
    by_lower_case = {candidate.lower(): candidate for candidate in valid}
    matches = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.5)
    if matches:
        return f"; did you mean {by_lower_case[matches[0]]}?"
    return f"; valid are {', '.join(valid)}." if len(valid) <= 12 else "; --help lists all settings."


def _normalize(arguments: list[str], settings_class: type[RunSettings]) -> list[str]:
    """Accept hyphens and every spelling of a boolean; put ``--config`` first; refuse unknown names."""
    hints = get_type_hints(settings_class)
    booleans = {name for name, hint in hints.items() if hint is bool}
    known = {*hints, "config", "print_config", "help"}
    first, rest = [], []
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        position += 1
        if not argument.startswith("--"):
            rest.append(argument)
            continue
        name, equals, value = argument[2:].partition("=")
        name = name.replace("-", "_")
        if name.startswith("no_") and name[3:] in booleans and not equals:
            rest.append(f"--{name[3:]}=false")
        elif name not in known:
            raise UserError(f"there is no setting --{name}{nearest(name, sorted(hints))}")
        elif name in booleans and not equals:
            spelled_out = position < len(arguments) and arguments[position].lower() in ("true", "false")
            rest.append(f"--{name}={arguments[position].lower() if spelled_out else 'true'}")
            position += spelled_out
        elif name in ("config", "resume"):
            if not equals:
                if position == len(arguments):
                    raise UserError(f"--{name} needs a {'file' if name == 'config' else 'run folder'} after it.")
                value = arguments[position]
                position += 1
            if name == "config":
                _check_config_file(Path(value), hints)
                first.append(f"--config={value}")
            else:
                run_config = Path(value) / "config.yaml"
                if not run_config.is_file():
                    raise UserError(f"{value!r} is no run folder to resume: it has no config.yaml.")
                _check_config_file(run_config, hints)
                first.append(f"--config={run_config}")
                rest.append(f"--resume={value}")
        else:
            rest.append(f"--{name}{equals}{value.lower() if name in booleans else value}")
    return first + rest


def _check_config_file(path: Path, hints: dict) -> None:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot read the configuration file {str(path)!r}: {getattr(error, 'strerror', None) or 'it is no text'}."
        ) from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        raise UserError(f"{path} is not valid YAML" + (f" (line {where.line + 1})." if where else ".")) from None
    if content is not None and not isinstance(content, dict):
        raise UserError(f"{path} must hold lines of the form 'setting: value'.")
    for name in content or {}:
        if name not in hints:
            raise UserError(f"{path}: there is no setting {name!r}{nearest(str(name), sorted(hints))}")


def _one_sentence(message: str, settings_class: type[RunSettings]) -> str:
    """Rewrite jsonargparse's multi-line complaint as one sentence, with the nearest value for a choice."""
    match = re.search(r'Parser key "(\w+)":.*(?:Got|Given) value: (.*)', message, flags=re.DOTALL)
    hint = get_type_hints(settings_class).get(match[1]) if match else None
    if hint is None:
        return " ".join(message.split())
    name, value = match[1], match[2].strip().splitlines()[0]
    if get_origin(hint) is Literal:
        return f"{name} cannot be {value!r}{nearest(value, get_args(hint))}"
    kinds = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        int | list[int]: "a whole number or a list of five",
    }
    kind = kinds.get(hint, str(hint))
    return f"{name} must be {kind}, but it is {value!r}."
