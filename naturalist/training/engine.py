"""The one loop: ``train_one_epoch``, ``evaluate``, ``fit``, for both parts."""

import copy
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from naturalist.data.augment import Augmentation
from naturalist.data.dataset import TrainingData
from naturalist.data.loader import BatchLoader
from naturalist.device import Precision, peak_memory_mb
from naturalist.errors import UserError
from naturalist.plots.curves import plot_curves
from naturalist.progress import ProgressBar, progress_bar
from naturalist.runs.checkpoint import BEST, LAST, load_checkpoint, save_checkpoint
from naturalist.runs.tracking import Tracker
from naturalist.seeding import derive_seed
from naturalist.settings.config import RunSettings, stop_requested
from naturalist.training.optim import Schedule, make_optimizer, parameter_groups

SYNC_SECONDS = 0.5
"""How often the loss is fetched from the device for the bar; never per step."""

DRAW_SECONDS = 5
"""``curves.png`` is drawn at most so often while training goes on: drawing takes as long as a short epoch."""


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


@dataclass
class Progress:
    """How far a fit has come; all of it is kept in ``last.pt``."""

    epoch: int = 0
    """Epochs finished."""
    best_val_accuracy: float = -1.0
    best_val_loss: float = math.inf
    best_epoch: int = 0
    history: list[dict] = field(default_factory=list)


class WeightAverage:
    """Exponential moving average of weights and buffers (Polyak & Juditsky 1992).

    The decay is ``min(decay, (1 + t) / (10 + t))`` at update t, so that the first weights are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model, self.decay, self.updates = copy.deepcopy(model).eval(), decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after one step of the optimiser."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        averages, values = self.model.state_dict().values(), model.state_dict().values()
        for average, value in zip(averages, values, strict=True):
            if average.is_floating_point():
                average.lerp_(value, 1 - decay)
            else:
                average.copy_(value)


def train_one_epoch(
    model: nn.Module,
    loader: BatchLoader,
    augment: Augmentation | Callable[[Tensor], Tensor],
    optimizer: Optimizer,
    schedule: Schedule,
    settings: RunSettings,
    precision: Precision,
    *,
    epoch: int,
    average: WeightAverage | None = None,
    bar: ProgressBar | None = None,
) -> dict:
    """Train on every batch of one epoch.

    Loss and accuracy stay on the device and are fetched every half second for the bar and once at the end. Accuracy is
    measured while training, on augmented images and with dropout; under MixUp and CutMix the class with the larger
    share counts as the truth.

    Args:
        model: on the device.
        loader: training batches.
        augment: :class:`Augmentation`, or what else turns a batch into the model's input.
        optimizer: of the model's trainable parameters.
        schedule: its learning rate.
        settings: ``seed``, ``label_smoothing``, ``gradient_clip``, ``accumulate``, ``channels_last``.
        precision: arithmetic of forward and backward pass.
        epoch: counted from 0.
        average: moving average of the weights to update.
        bar: told about every batch.

    Returns:
        ``train_loss``, ``train_accuracy``, ``learning_rate`` (at the last step), ``images_per_second``.

    Raises:
        NonFiniteLoss: when the loss became infinite or no number.
    """
    model.train()
    device = loader.device
    loss_sum, correct = torch.zeros((), device=device), torch.zeros((), device=device)
    first_bad_step = torch.full((), -1, device=device)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    steps_per_epoch = optimizer_steps(len(loader), settings.accumulate)
    learning_rate, seen = 0.0, 0
    start = last_sync = time.perf_counter()
    for step, (images, labels) in enumerate(loader.epoch(epoch)):
        torch.manual_seed(derive_seed(settings.seed, "dropout", epoch, step))
        if isinstance(augment, Augmentation):
            inputs, targets = augment(images, labels, epoch, step)
        else:
            inputs, targets = augment(images), labels
        with precision.autocast():
            logits = model(_laid_out(inputs, settings))
            loss = cross_entropy(logits.float(), targets, label_smoothing=settings.label_smoothing)
        first_in_group = step - step % settings.accumulate
        group_size = min(settings.accumulate, len(loader) - first_in_group)
        precision.scaler.scale(loss / group_size).backward()
        if step + 1 == first_in_group + group_size:
            learning_rate = schedule.set_learning_rate(epoch * steps_per_epoch + step // settings.accumulate)
            _step(optimizer, parameters, precision, settings.gradient_clip)
            if average is not None:
                average.update(model)
        with torch.no_grad():
            truth = targets if targets.ndim == 1 else targets.argmax(dim=1)
            correct += (logits.argmax(dim=1) == truth).sum()
            loss_sum += loss.detach() * len(labels)
            is_bad = (first_bad_step < 0) & ~torch.isfinite(loss)
            first_bad_step = torch.where(is_bad, step, first_bad_step)
        seen += len(labels)
        if bar is not None:
            now = time.perf_counter()
            note = None
            if now - last_sync >= SYNC_SECONDS:
                last_sync = now
                _refuse_non_finite(first_bad_step, epoch, settings, precision)
                note = f"loss {float(loss_sum) / seen:.3f}  accuracy {float(correct) / seen:.1%}"
            bar.advance(len(labels), note)
    _refuse_non_finite(first_bad_step, epoch, settings, precision)
    return {
        "train_loss": float(loss_sum) / seen,
        "train_accuracy": float(correct) / seen,
        "learning_rate": learning_rate,
        "images_per_second": seen / (time.perf_counter() - start),
    }


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loader: BatchLoader,
    preprocessing: Callable[[Tensor], Tensor],
    precision: Precision,
    settings: RunSettings,
    bar: ProgressBar | None = None,
) -> Evaluation:
    """Loss and accuracy on every image of a loader, without augmentation, dropout or label smoothing."""
    model.eval()
    all_logits, all_labels = [], []
    for images, labels in loader.epoch():
        with precision.autocast():
            logits = model(_laid_out(preprocessing(images), settings))
        all_logits.append(logits.float())
        all_labels.append(labels)
        if bar is not None:
            bar.advance(len(labels))
    logits, labels = torch.cat(all_logits), torch.cat(all_labels)
    loss = cross_entropy(logits, labels)
    accuracy = (logits.argmax(dim=1) == labels).float().mean()
    return Evaluation(float(loss), float(accuracy), logits.cpu(), labels.cpu())


def fit(
    model: nn.Module,
    description: dict,
    data: TrainingData,
    settings: RunSettings,
    tracker: Tracker,
    device: torch.device,
    should_stop: Callable[[dict], bool] | None = None,
    release: Callable[[int], list[dict]] | None = None,
) -> dict:
    """Train, validate and record epoch by epoch; keep the best checkpoint and the last.

    The best has the highest validation accuracy and, of equals, the lowest loss. A KeyboardInterrupt ends the fit
    after the last finished epoch, whose state lies in ``last.pt``. With ``settings.resume`` the fit goes on
    from there and ends with the weights that an uninterrupted one would have.

    Args:
        model: the network, on any device.
        description: see :func:`naturalist.models.build_model`.
        data: images and their split.
        settings: everything that can be set.
        tracker: takes the metrics; its folder takes the checkpoints and ``curves.png``.
        device: where to train.
        should_stop: asked after every epoch with its metrics; True ends the fit.
        release: asked before every epoch, counted from 0, for the parameter groups that begin to learn in it; by
            default all that is trainable does in the first. See :meth:`naturalist.models.strategies.Strategy.release`.

    Returns:
        The summary: ``status`` (``"finished"``, ``"stopped early"`` by ``patience``, ``"pruned"`` by ``should_stop`` or
        ``"stopped"`` from outside), ``epochs``, ``best_epoch``, ``best_val_accuracy``, ``best_val_loss``,
        ``precision``, ``device``, ``seconds``, ``peak_memory_mb``.

    Raises:
        NonFiniteLoss: see :func:`train_one_epoch`.
    """
    start = time.perf_counter()
    memory_format = torch.channels_last if settings.channels_last else torch.contiguous_format
    model = model.to(device, memory_format=memory_format)
    precision = Precision(settings.precision, device)
    train_loader, val_loader = data.loaders(settings, device)
    augment, prepare = data.transforms(settings)
    if release is None:
        groups = parameter_groups(model, settings.weight_decay)
    else:
        groups = release(0)
    optimizer = make_optimizer(groups, settings, device)
    schedule = Schedule(optimizer, settings, optimizer_steps(len(train_loader), settings.accumulate), settings.epochs)
    average = WeightAverage(model, settings.ema_decay) if settings.ema_decay else None
    progress = Progress()
    if settings.resume:
        content = load_checkpoint(tracker.folder, LAST)
        for epoch in range(1, content["epoch"]):
            _add_groups(schedule, release, epoch)
        _restore(content, model, optimizer, schedule, precision, average, progress)

    def save(name: str, kept: nn.Module, **more: object) -> None:
        save_checkpoint(
            tracker.folder / name,
            model=kept,
            description=description,
            class_names=data.class_names,
            preprocessing=data.preprocessing,
            data=settings.data,
            seed=settings.seed,
            val_fraction=settings.val_fraction,
            epoch=progress.epoch,
            metrics=progress.history[-1],
            **more,
        )

    def draw() -> None:
        if progress.history:
            plot_curves(progress.history, tracker.folder / "curves.png", tracker.folder.name)

    status, last_drawn = "finished", start
    evaluated = average.model if average else model
    try:
        while progress.epoch < settings.epochs:
            if stop_requested():
                raise KeyboardInterrupt
            if settings.patience and progress.epoch - progress.best_epoch >= settings.patience:
                status = "stopped early"
                break
            epoch_start = time.perf_counter()
            if progress.epoch > 0:
                _add_groups(schedule, release, progress.epoch)
            label = f"epoch {progress.epoch + 1}/{settings.epochs}"
            with progress_bar(label, train_loader.num_images) as bar:
                metrics = train_one_epoch(
                    model,
                    train_loader,
                    augment,
                    optimizer,
                    schedule,
                    settings,
                    precision,
                    epoch=progress.epoch,
                    average=average,
                    bar=bar,
                )
            validation = evaluate(evaluated, val_loader, prepare, precision, settings)
            schedule.end_epoch(validation.loss)
            is_best = _take_in(progress, metrics, validation, epoch_start)
            if is_best:
                save(BEST, evaluated)
            save(LAST, evaluated, training=_training_state(model, optimizer, schedule, precision, average, progress))
            tracker.log(progress.history[-1])
            if time.perf_counter() - last_drawn >= DRAW_SECONDS:
                draw()
                last_drawn = time.perf_counter()
            print(_epoch_line(label, progress.history[-1], is_best), flush=True)
            if should_stop is not None and should_stop(progress.history[-1]) and progress.epoch < settings.epochs:
                status = "pruned"
                break
    except KeyboardInterrupt:
        status = "stopped"
    except Exception:
        with suppress(Exception):  # the picture must not stand before what went wrong
            draw()
        raise
    with suppress(KeyboardInterrupt):  # a stop that comes now costs the picture, not the result
        draw()
    return {
        "status": status,
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "best_val_accuracy": progress.best_val_accuracy if progress.epoch else None,
        "best_val_loss": progress.best_val_loss if progress.epoch else None,
        "precision": precision.name,
        "device": device.type,
        "seconds": time.perf_counter() - start,
        "peak_memory_mb": peak_memory_mb(device),
    }


def optimizer_steps(batches: int, accumulate: int) -> int:
    """Steps of the optimiser in an epoch of ``batches`` batches, the last group being smaller."""
    return -(-batches // accumulate)


def _add_groups(schedule: Schedule, release: Callable[[int], list[dict]] | None, epoch: int) -> None:
    """Hand the parameters that begin to learn in ``epoch`` to the optimiser."""
    for group in release(epoch) if release is not None else ():
        schedule.add_group(group)


def _laid_out(inputs: Tensor, settings: RunSettings) -> Tensor:
    # Features of a frozen prefix may be vectors or tokens.
    memory_format = torch.channels_last if settings.channels_last and inputs.ndim == 4 else torch.contiguous_format
    return inputs.contiguous(memory_format=memory_format)


def _step(optimizer: Optimizer, parameters: list[Tensor], precision: Precision, gradient_clip: float) -> None:
    if gradient_clip:
        precision.scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(parameters, gradient_clip)
    precision.scaler.step(optimizer)
    precision.scaler.update()
    optimizer.zero_grad(set_to_none=True)


def _refuse_non_finite(first_bad_step: Tensor, epoch: int, settings: RunSettings, precision: Precision) -> None:
    step = int(first_bad_step)
    if step < 0:
        return
    if precision.name == "fp16":
        cause = "fp16 overflows easily; use --precision bf16 or fp32"
    elif epoch == 0 and step == 0:
        cause = (
            "it was so before any training, so the weights or the images are at fault, not the learning rate; "
            "try --precision fp32"
        )
    else:
        cause = (
            f"most likely the learning rate ({settings.learning_rate:g}) is too high; lower it, or set "
            "--gradient_clip 1 or a longer --warmup_epochs"
        )
    raise NonFiniteLoss(f"the training loss was not finite at step {step + 1} of epoch {epoch + 1}: {cause}.")


def _take_in(progress: Progress, metrics: dict, validation: Evaluation, epoch_start: float) -> bool:
    """Add a finished epoch; returns whether it is the best so far."""
    is_best = (validation.accuracy, -validation.loss) > (progress.best_val_accuracy, -progress.best_val_loss)
    progress.epoch += 1
    if is_best:
        progress.best_val_accuracy, progress.best_val_loss = validation.accuracy, validation.loss
        progress.best_epoch = progress.epoch
    progress.history.append(
        {
            "epoch": progress.epoch,
            "train_loss": metrics["train_loss"],
            "train_accuracy": metrics["train_accuracy"],
            "val_loss": validation.loss,
            "val_accuracy": validation.accuracy,
            "best_val_accuracy": progress.best_val_accuracy,
            "learning_rate": metrics["learning_rate"],
            "images_per_second": metrics["images_per_second"],
            "epoch_seconds": time.perf_counter() - epoch_start,
        }
    )
    return is_best


def _epoch_line(label: str, metrics: dict, is_best: bool) -> str:
    return (
        f"{label}  train loss {metrics['train_loss']:.3f} accuracy {metrics['train_accuracy']:.1%}  "
        f"val loss {metrics['val_loss']:.3f} accuracy {metrics['val_accuracy']:.1%}{' *' if is_best else '  '}  "
        f"lr {metrics['learning_rate']:.2g}  {metrics['images_per_second']:,.0f} images/s  "
        f"{metrics['epoch_seconds']:.1f} s"
    )


def _training_state(
    model: nn.Module,
    optimizer: Optimizer,
    schedule: Schedule,
    precision: Precision,
    average: WeightAverage | None,
    progress: Progress,
) -> dict:
    """What ``last.pt`` holds beyond the weights that are evaluated."""
    return {
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "scaler": precision.scaler.state_dict(),
        "progress": vars(progress),
        # With an average, the checkpoint's own state_dict is the average.
        "weights": model.state_dict() if average else None,
        "average_updates": average.updates if average else 0,
    }


def _restore(
    content: dict,
    model: nn.Module,
    optimizer: Optimizer,
    schedule: Schedule,
    precision: Precision,
    average: WeightAverage | None,
    progress: Progress,
) -> None:
    training = content.get("training")
    if training is None or (average is not None) != (training["weights"] is not None):
        raise UserError(
            "this checkpoint cannot be resumed: it holds no training state, or was trained with another ema_decay."
        )
    model.load_state_dict(training["weights"] if average else content["state_dict"])
    if average:
        average.model.load_state_dict(content["state_dict"])
        average.updates = training["average_updates"]
    optimizer.load_state_dict(training["optimizer"])
    schedule.load_state_dict(training["schedule"])
    precision.scaler.load_state_dict(training["scaler"])
    vars(progress).update(training["progress"])
