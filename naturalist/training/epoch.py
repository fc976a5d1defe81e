"""The one loop: ``train_one_epoch`` and ``evaluate``, for both parts."""

import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from naturalist.data.dataset import Batches, Transform, Varied
from naturalist.data.distillation import distillation_of
from naturalist.data.share import Part, Share
from naturalist.device import Compute
from naturalist.errors import UserError
from naturalist.progress import ProgressBar
from naturalist.ranks import Agreement, Rank
from naturalist.seeding import derive_seed
from naturalist.settings.groups import TrainingSettings
from naturalist.training.average import WeightAverage
from naturalist.training.captured import CapturedStep
from naturalist.training.compiled import Compiled, failures_told
from naturalist.training.optim import Schedule
from naturalist.training.parallel import Parallel
from naturalist.training.state import EpochSoFar
from naturalist.wording import percent

SYNC_SECONDS = 0.5
"""How often the loss is fetched from the device for the bar; never per step."""


class NonFiniteLoss(UserError):
    """The training loss is infinite or no number; the message names the step and the likely cause."""


@dataclass(frozen=True)
class Evaluation:
    """What a model says about every image of a loader, in the loader's order."""

    loss: float
    accuracy: float
    logits: Tensor
    """float32 ``[N, classes]``, on the CPU."""
    labels: Tensor
    """int64 ``[N]``, on the CPU."""

    def metrics(self) -> dict[str, float]:
        """``val_loss``, ``val_accuracy`` and ``val_balanced_accuracy``, the mean over the classes that have images."""
        images = torch.bincount(self.labels).double()
        right = torch.bincount(self.labels[self.logits.argmax(dim=1) == self.labels], minlength=len(images))
        balanced = float((right / images)[images > 0].mean())
        return {"val_loss": self.loss, "val_accuracy": self.accuracy, "val_balanced_accuracy": balanced}


@dataclass(frozen=True)
class Learner:
    """What learns, and by which rules."""

    model: nn.Module
    """On the device."""
    optimizer: Optimizer
    """Of the model's trainable parameters."""
    schedule: Schedule
    """Of the optimiser's learning rate."""
    settings: TrainingSettings
    compute: Compute
    average: WeightAverage | None = None
    """Moving average of the weights, updated after every step."""
    parallel: Parallel | None = None
    """Around the model, where several ranks teach it."""
    class_weights: Tensor | None = None
    """What each class weighs in the loss, ``[classes]``, on the device; None where all weigh the same."""

    @cached_property
    def network(self) -> Callable[[Tensor], Tensor]:
        """The model as it is called to learn from one process' batches."""
        return Compiled(self.model, self.settings.batch_size) if self.compute.compiles else self.model

    @property
    def evaluated(self) -> nn.Module:
        """The network that is measured and kept: the average where there is one."""
        return self.model if self.average is None else self.average.model

    def captured_step(self, *, is_taught: bool = False) -> CapturedStep | None:
        """A step that a GPU replays, for as long as the same weights learn.

        None where its steps differ or must wait, which is said.
        """
        if not self.compute.captures:
            return None
        reasons = {
            "ranks wait for each other": self.parallel is not None,
            "batches of accumulate wait for each other": self.settings.accumulate > 1,
            "NAdam's depend on their number": self.settings.optimizer == "NAdam",
            "fp16's depend on each other's overflows": self.compute.scaler.is_enabled(),
            "a teacher's lessons change from epoch to epoch": is_taught,
        }
        if reason := next((reason for reason, holds in reasons.items() if holds), None):
            print(f"--cuda_graphs has no effect: steps cannot be replayed, for {reason}.", flush=True)
            return None

        def learn(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            loss, logits = _loss(self, inputs, targets)
            loss.backward()  # type: ignore[no-untyped-call]  # of torch
            _update(self)
            return loss.detach(), logits.detach()

        return CapturedStep(learn, self.optimizer)


@failures_told()
def train_one_epoch(
    learner: Learner,
    loader: Batches,
    augment: Varied | Transform,
    *,
    epoch: int,
    so_far: EpochSoFar | None = None,
    after_step: Callable[[], None] | None = None,
    bar: ProgressBar | None = None,
    captured: CapturedStep | None = None,
) -> dict[str, float]:
    """Train on every batch of one epoch that it has not been trained on; of several ranks, each on its part of them.

    Loss and accuracy stay on the device and are fetched every half second for the bar and once at the end. The loss is
    smoothed and weighted as it is learnt from; accuracy is measured while training, on augmented images and with
    dropout. Under MixUp and CutMix the class with the larger share counts as the truth.

    Args:
        learner: model, optimiser and their settings.
        loader: training batches.
        augment: turns a batch into the model's input.
        epoch: counted from 0.
        so_far: where to begin, and what the batches before came to; kept up to date. By default the beginning.
        after_step: called after every step of the optimiser, when learner and ``so_far`` are all there is to save.
        bar: told about every batch.
        captured: the learner's step, to be replayed.

    Returns:
        ``train_loss``, ``train_accuracy``, ``learning_rate`` (at the last step), ``images_per_second``.

    Raises:
        NonFiniteLoss: when the loss became infinite or no number.
        UserError: when it is to be compiled, and cannot be.
    """
    learner.model.train()
    so_far, accumulate, share = so_far or EpochSoFar(loader.device), learner.settings.accumulate, loader.share
    rank = Rank() if share is None else share.rank
    sizes, asked, last_sync = loader.batches, Agreement(rank), time.perf_counter()
    start = last_sync - so_far.seconds
    for step, batch in enumerate(loader.epoch(epoch, so_far.batches), so_far.batches):
        group_size = min(accumulate, len(loader) - (step - step % accumulate))
        ends_group = step % accumulate + 1 == group_size
        part = None if share is None else share.part(sizes[step])
        if ends_group:
            number = epoch * optimizer_steps(len(loader), accumulate) + step // accumulate
            so_far.learning_rate = learner.schedule.set_learning_rate(number)
        placed = _Batch(*batch, epoch, step, part)
        learnt = _learn(learner, augment, placed, captured, group_size / rank.count, ends_group=ends_group)
        so_far.add(*learnt, sizes[step])
        so_far.seconds = time.perf_counter() - start
        if bar is not None:
            (is_due,) = asked.soon(time.perf_counter() - last_sync >= SYNC_SECONDS)
            last_sync = time.perf_counter() if is_due else last_sync
            bar.advance(sizes[step], _note(learner, so_far, share, epoch) if is_due else None)
        if ends_group and after_step is not None:
            after_step()
    total = so_far if share is None else so_far.of_all_ranks()
    refuse_non_finite(total, epoch, learner)
    so_far.seconds = total.seconds = time.perf_counter() - start  # the device may have been behind
    return total.metrics()


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loader: Batches,
    preprocessing: Transform,
    compute: Compute,
    bar: ProgressBar | None = None,
    after_batch: Callable[[], None] | None = None,
) -> Evaluation:
    """Loss and accuracy on every image of a loader, without augmentation, dropout, label smoothing or class weights.

    Of several ranks each sees its part of every batch, and all return the same.
    """
    model.eval()
    all_logits, all_labels = [], []
    share, sizes = loader.share, loader.batches
    for size, (images, labels) in zip(sizes, loader.epoch(), strict=True):
        own = None if share is None else share.part(size).own
        with compute.autocast():
            logits = model(compute.lay_out(preprocessing(images)))
        all_logits.append(logits[:own].float())
        all_labels.append(labels[:own])
        if bar is not None:
            bar.advance(size)
        if after_batch is not None:
            after_batch()
    logits, labels = torch.cat(all_logits), torch.cat(all_labels)
    if share is not None:
        logits, labels = share.gather(logits, sizes), share.gather(labels, sizes)
    loss = cross_entropy(logits, labels)
    accuracy = (logits.argmax(dim=1) == labels).float().mean()
    return Evaluation(float(loss), float(accuracy), logits.cpu(), labels.cpu())


def optimizer_steps(batches: int, accumulate: int) -> int:
    """Steps of the optimiser in an epoch of ``batches`` batches, the last group being smaller."""
    return -(-batches // accumulate)


def refuse_non_finite(so_far: EpochSoFar, epoch: int, learner: Learner) -> None:
    """Raise :class:`NonFiniteLoss` if the loss was infinite or no number; waits for the device."""
    step = int(so_far.bad_step)
    if step < 0:
        return
    if learner.compute.precision == "fp16":
        cause = "fp16 overflows easily; use --precision bf16 or fp32"
    elif epoch == 0 and step == 0:
        cause = (
            "it was so before any training, so the weights or the images are at fault, not the learning rate; "
            "try --precision fp32"
        )
    else:
        cause = (
            f"most likely the learning rate ({learner.settings.learning_rate:g}) is too high; lower it, or set "
            "--gradient_clip 1 or a longer --warmup_epochs"
        )
    raise NonFiniteLoss(f"the training loss was not finite at step {step + 1} of epoch {epoch + 1}: {cause}.")


def _note(learner: Learner, so_far: EpochSoFar, share: Share | None, epoch: int) -> str:
    """How it goes, in a few words; waits for the device and for all ranks."""
    total = so_far if share is None else so_far.of_all_ranks()
    refuse_non_finite(total, epoch, learner)
    metrics = total.metrics()
    return f"loss {metrics['train_loss']:.3f} {percent(metrics['train_accuracy'])}"


@dataclass(frozen=True)
class _Batch:
    """Images or features, and where they stand in a training."""

    images: Tensor
    labels: Tensor
    epoch: int
    step: int
    """Batches before it in its epoch."""
    part: Part | None
    """Which of the rows are this rank's; None for all."""


def _learn(
    learner: Learner,
    augment: Varied | Transform,
    batch: _Batch,
    captured: CapturedStep | None,
    parts: float,
    *,
    ends_group: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Learn from one batch, whose gradients are those of the loss over ``parts``; returns :func:`_forward`'s results.

    DistributedDataParallel averages over the ranks, whose losses are shares of one sum, so that each rank's is a part
    the less. The last batch of a group takes the optimiser's step, at the rate that is set.
    """
    if captured is not None:
        inputs, targets = _vary(learner, augment, batch)
        loss, logits = captured(inputs, targets)
    else:
        with nullcontext() if learner.parallel is None else learner.parallel.gradients(ends_group=ends_group):
            loss, logits, targets = _forward(learner, augment, batch)
            learner.compute.scaler.scale(loss / parts).backward()  # type: ignore[no-untyped-call]
        if ends_group:
            _update(learner)
    if ends_group and learner.average is not None:
        learner.average.update(learner.model)
    return loss.detach(), logits.detach(), targets


def _forward(learner: Learner, augment: Varied | Transform, batch: _Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, logits in float32 and targets of one batch.

    Of a part, logits and targets are those of the rank's own rows, and the loss is their share of the batch's mean.
    """
    (inputs, targets), part = _vary(learner, augment, batch), batch.part
    places = targets if part is None else targets[: part.own]
    taught = distillation_of(augment)
    if taught is None:
        return *_loss(learner, inputs, places, part), places
    targets = taught.labels_of(places)
    loss, logits = _loss(learner, inputs, targets, part)
    loss = taught.blend(loss, logits, places, batch.epoch, len(places) if part is None else part.batch)
    return loss, logits, targets


def _vary(learner: Learner, augment: Varied | Transform, batch: _Batch) -> tuple[Tensor, Tensor]:
    """A batch's inputs and targets; all chance, the dropout's too, comes from (seed, purpose, epoch, step)."""
    images, labels, epoch, step = batch.images, batch.labels, batch.epoch, batch.step
    torch.manual_seed(derive_seed(learner.settings.seed, "dropout", epoch, step))
    if not isinstance(augment, Varied):
        inputs, targets = augment(images), labels
    elif batch.part is None:
        inputs, targets = augment(images, labels, epoch, step)
    else:
        inputs, targets = augment(images, labels, epoch, step, batch.part)
    return learner.compute.lay_out(inputs), targets


def _loss(learner: Learner, inputs: Tensor, targets: Tensor, part: Part | None = None) -> tuple[Tensor, Tensor]:
    """Loss, and logits in float32; of a part's inputs, and of the targets of the rank's own rows."""
    with learner.compute.autocast():
        if learner.parallel is None or part is None:
            logits = learner.network(inputs)
        else:
            logits = learner.parallel(inputs, part)
    logits, smoothing = logits.float(), learner.settings.label_smoothing
    # Divided by images and not by their weights: a batch with many rare ones counts for more, whoever shares it.
    loss = cross_entropy(logits, targets, learner.class_weights, label_smoothing=smoothing, reduction="sum")
    return loss / (len(targets) if part is None else part.batch), logits


def _update(learner: Learner) -> None:
    """Change the weights by their gradients, which are used up."""
    optimizer, scaler = learner.optimizer, learner.compute.scaler
    if learner.settings.gradient_clip:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(_parameters(optimizer), learner.settings.gradient_clip)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)


def _parameters(optimizer: Optimizer) -> Iterable[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
