"""What stands before the model is built: device and data."""

from dataclasses import dataclass, replace
from pathlib import Path

from naturalist.data.balance import describe_balance
from naturalist.data.dataset import DataPlan, Scan, TrainingData, load_training_data, plan_training_data
from naturalist.data.loader import batch_bounds
from naturalist.data.recorded_split import RecordedSplit
from naturalist.device import Compute, choose_device
from naturalist.errors import UserError
from naturalist.ranks import in_turn, join, this_rank
from naturalist.runs.checkpoint import LAST, goes_on, load_checkpoint
from naturalist.runs.identity import read_identity
from naturalist.settings.run_settings import RunSettings
from naturalist.training.epoch import optimizer_steps
from naturalist.wording import counted


@dataclass(frozen=True)
class Start:
    """Where a training computes, and on what."""

    compute: Compute
    plan: DataPlan
    data: TrainingData | None
    """None in a dry run, which only counts files."""
    steps: str
    """Device, arithmetic and steps, in two lines for people."""


def start_training(settings: RunSettings, scan: Scan | None = None) -> Start:
    """Meet the other ranks, choose the device, and load the data or, in a dry run, count them.

    Args:
        settings: all of them, for this is where they part.
        scan: see :func:`naturalist.data.dataset.load_training_data`.

    Raises:
        UserError: for a device that is not there, or data that cannot be used.
    """
    if settings.record.find_lr and not this_rank().is_alone:
        raise UserError("find_lr works in one process: run it without torchrun, with batch_size as it is to be.")
    if settings.machine.compile and not this_rank().is_alone:
        raise UserError("compile works in one process: give --no_compile under torchrun.")
    machine, training, rank = settings.machine, settings.training, join()
    compute = Compute(
        choose_device(machine.device),
        machine.precision,
        channels_last=machine.channels_last,
        device_memory=machine.device_memory,
        cuda_graphs=machine.cuda_graphs,
        compiles=machine.compile,
    )
    if machine.cuda_graphs and compute.device.type != "cuda":
        print(f"--cuda_graphs has no effect on {compute.device}: only a CUDA GPU replays steps.", flush=True)
    if training.sync_batch_norm and compute.device.type != "cuda":
        raise UserError(f"sync_batch_norm works between GPUs only, not on {compute.device}; leave it out.")
    if settings.record.dry_run:
        data, plan = None, plan_training_data(settings.data)
    else:
        with in_turn(rank):
            data = load_training_data(settings.data, settings.cache_folder, scan, _recorded_split(settings))
        plan = data.plan
    balance = describe_balance(plan.counts, training.class_weights, training.sampling)
    plan = replace(plan, description="\n".join(filter(None, [plan.description, balance])))
    steps = optimizer_steps(len(batch_bounds(plan.num_train, training.batch_size)), training.accumulate)
    layout = "channels last" if compute.channels_last else "channels first"
    ranks = "" if rank.is_alone else f", each of {rank.count} ranks"
    words = (
        f"Device: {compute.device}, {compute.precision}, {layout}{ranks}\n"
        f"Steps: {steps:,} an epoch, {steps * training.epochs:,} in {counted(training.epochs, 'epoch')} of "
        f"{counted(plan.num_train, 'image')}, {training.batch_size} at a time"
    )
    return Start(compute, plan, data, words)


def _recorded_split(settings: RunSettings) -> RecordedSplit | None:
    """The split of the run that goes on, as its last checkpoint knows it."""
    run = settings.record.resume
    if run is None or not goes_on(run):
        return None
    return read_identity(Path(run), load_checkpoint(Path(run), LAST)).split
