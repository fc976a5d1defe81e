"""What the files of a run folder must hold to be believed; see :mod:`naturalist.reading`."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from naturalist.reading import Count, Finite, NotNegative, Ordinal, Share


class Epoch(Struct):
    """A line of ``metrics.jsonl``; null is what was not finite."""

    epoch: Ordinal
    train_loss: Finite | None = None
    train_accuracy: Share | None = None
    val_loss: Finite | None = None
    val_accuracy: Share | None = None
    val_balanced_accuracy: Share | None = None
    best_val_accuracy: Share | None = None
    learning_rate: NotNegative | None = None
    images_per_second: NotNegative | None = None
    epoch_seconds: NotNegative | None = None


class Stage(Struct):
    """Of ``summary.json``: a stage of a backbone."""

    name: str
    parameters: Count
    release_epoch: Count | None = None
    """From which epoch on, counted from 0, it learns; None for never."""


class Summary(Struct):
    """``summary.json``: how a run ended."""

    status: str = ""
    reason: str = ""
    seconds: NotNegative | None = None
    epochs: Count | None = None
    best_epoch: Count | None = None
    best_val_accuracy: Share | None = None
    best_val_balanced_accuracy: Share | None = None
    best_val_loss: Finite | None = None
    parameters: Count | None = None
    trainable_parameters: Count | None = None
    multiply_accumulates: Count | None = None
    stages: tuple[Stage, ...] = ()
    peak_memory_mb: NotNegative | None = None
    feature_seconds: NotNegative | None = None
    sweep: Any = None
    """Of which the run was a trial that was stopped by an agent; None for none."""


class TestMetrics(Struct):
    """``evaluation/test/metrics.json``, as far as it is read back."""

    accuracy: Share
    balanced_accuracy: Share
    fingerprint: str | None = None


class Environment(Struct):
    """``environment.json``, as far as it is read back."""

    started: Annotated[str, Meta(max_length=40)] | None = None
    """In ISO 8601."""


class WandbRecord(Struct):
    """``wandb.json``: which run it is at W&B."""

    id: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    url: str | None = None
