"""``python -m naturalist soup RUN RUN …``: the weights of several runs, averaged as validation likes it best.

The greedy soup is that of Wortsman et al. 2022a ("Model soups"), the line between two runs that of 2022b ("Robust
fine-tuning of zero-shot models"). The test set is not touched.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from msgspec import Struct
from rich.table import Table
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from naturalist.data.loader import BatchLoader
from naturalist.device import Compute
from naturalist.evaluation.classifier import Classifier, load_classifier
from naturalist.evaluation.split_images import images_of_split
from naturalist.ingredients import Ingredient, of_all_learnt, read_ingredient, refuse_others
from naturalist.models.state_dict import plain_state_dict
from naturalist.printable import printable
from naturalist.progress import print_numbers, print_table, progress_bar
from naturalist.reading import fit, read_json
from naturalist.runs.checkpoint import BEST, fill_model, save_checkpoint
from naturalist.runs.environment import shell_path
from naturalist.runs.folder import create_run_folder, read_metrics, write_json
from naturalist.runs.identity import hash_of
from naturalist.runs.records import merit
from naturalist.runs.schemas import Summary
from naturalist.runs.tracking import Tracker
from naturalist.settings.groups import SelectBy
from naturalist.settings.resume import IDENTITY
from naturalist.training.epoch import Evaluation, evaluate
from naturalist.wording import percent

STATISTICS_IMAGES, STATISTICS_BATCH = 4096, 64
"""Training images, at most, that batch normalisation's statistics are taken from, and how many at a time."""

LINE = tuple(step / 10 for step in range(11))
"""Shares of the second run on the line from the first to it."""

State = dict[str, Tensor]


@dataclass(frozen=True)
class Tasted:
    """Weights, and what they make of the validation images."""

    shares: dict[str, float]
    """Of each run, by its name; they sum to 1."""
    metrics: dict[str, float]
    merit: tuple[float, float]
    """By the rule that the first run's ``best.pt`` was chosen by."""
    renewed: bool
    """Whether batch normalisation's statistics were measured anew, with the averaged weights."""


def make_soup(
    runs: Sequence[Path],
    *,
    interpolate: bool = False,
    data: str | None = None,
    cache_dir: str | None = None,
    batch_size: int = 128,
    device: str = "auto",
    name: str = "soup",
) -> Path:
    """Average runs, and write the result as a run's folder beside that of the first.

    Args:
        runs: run folders, or checkpoint files; at least two.
        interpolate: of two runs take the best point on the line between them, instead of a greedy soup.
        data: data set to use instead of the first run's own.
        cache_dir: folder for decoded images, if not the first run's own.
        batch_size: images per batch.
        device: see :func:`naturalist.device.choose_device`.
        name: of the new run.

    Returns:
        The new folder.

    Raises:
        UserError: for runs that have no weights to average, or not those of one network, beginning, split and classes.
    """
    ingredients = [read_ingredient(run) for run in runs]
    refuse_others(ingredients, interpolate=interpolate)
    kitchen = _Kitchen(ingredients, data, cache_dir, batch_size, device)
    best, tasted = (_on_the_line if interpolate else _greedily)(kitchen, ingredients)
    _print(tasted, best)
    kept = [ingredient for ingredient in ingredients if best.shares.get(ingredient.name)]
    if len(kept) == 1:
        print(f"Only one ingredient is left, {printable(kept[0].name)}: no average was better on validation.")
    folder = _write(name, kept, best, kitchen, sum(_seconds(item.folder) for item in ingredients))
    anew = ", batch normalisation's statistics measured anew" if best.renewed else ""
    print_numbers(f"Validation accuracy {percent(best.metrics['val_accuracy'])} with {_recipe(best)}{anew}.")
    print(f"Run: {printable(folder)}")
    print(f"Test it once with: python -m naturalist evaluate {shell_path(folder)}", flush=True)
    return folder


def _greedily(kitchen: "_Kitchen", ingredients: Sequence[Ingredient]) -> tuple[Tasted, list[Tasted]]:
    """The greedy soup, and all that was tasted for it."""
    alone = [kitchen.taste({item.name: 1.0}) for item in ingredients]
    alone.sort(key=lambda tasted: tasted.merit, reverse=True)
    best, tasted = alone[0], list(alone)
    for candidate in alone[1:]:
        names = [*best.shares, *candidate.shares]
        tasted.append(kitchen.taste(dict.fromkeys(names, 1 / len(names))))
        if tasted[-1].merit > best.merit:
            best = tasted[-1]
    return best, tasted


def _on_the_line(kitchen: "_Kitchen", ingredients: Sequence[Ingredient]) -> tuple[Tasted, list[Tasted]]:
    """The best point between two runs, and all points that were tasted."""
    first, second = (item.name for item in ingredients)
    tasted = [kitchen.taste({first: 1 - share, second: share}) for share in LINE]
    return max(tasted, key=lambda point: point.merit), tasted


class _Choice(Struct):
    """Of a run's settings, what its best epoch was chosen by."""

    select_by: SelectBy = "val_accuracy"


class _Kitchen:
    """Averages weights and measures them on the validation images."""

    def __init__(
        self, ingredients: Sequence[Ingredient], data: str | None, cache_dir: str | None, batch_size: int, device: str
    ) -> None:
        first = ingredients[0]
        self.states: dict[str, State] = {item.name: item.checkpoint["state_dict"] for item in ingredients}
        self.classifier: Classifier = load_classifier(first.run, device, checkpoint=first.checkpoint)
        self.compute = Compute(self.classifier.device, "fp32")
        place, remedy = str(first.folder / "config.yaml"), "mend or delete that line"
        self.select_by = fit(first.config, _Choice, place, remedy).select_by
        val, train = (
            images_of_split(first.folder, first.checkpoint, split, data=data, cache_dir=cache_dir)
            for split in ("val", "train")
        )
        some, device_used = train.indices[:: -(-len(train.indices) // STATISTICS_IMAGES)], self.compute.device
        self.val = BatchLoader(val.cache, val.indices, batch_size, device_used)
        # Shuffled, for the variance within a batch of one class is less than that of all.
        self.train = BatchLoader(train.cache, some, STATISTICS_BATCH, device_used, shuffle_seed=0)
        self.moved = {  # what was frozen has the same statistics in all runs, and keeps them
            name
            for name, module in self.classifier.model.named_modules()
            if isinstance(module, _BatchNorm)
            and any(self._differs(f"{name}.{statistic}") for statistic in ("running_mean", "running_var"))
        }

    def _differs(self, name: str) -> bool:
        values = [state[name] for state in self.states.values() if name in state]
        return any(not torch.equal(value, values[0]) for value in values[1:])

    def taste(self, shares: dict[str, float]) -> Tasted:
        """Average by shares and measure; of an average also with batch normalisation's statistics taken anew.

        Where a network was frozen, what follows has learnt on its old statistics, and the average of the runs' is
        better; where all of it learnt, those of the averaged weights often are. The model is left as the last of them.
        """
        ways = [self.prepare(shares, renewed=False)]
        if len([share for share in shares.values() if share]) > 1 and self.moved:
            ways.append(self.prepare(shares, renewed=True))
        return max(ways, key=lambda way: way.merit)

    def prepare(self, shares: dict[str, float], *, renewed: bool) -> Tasted:
        """Fill the model with an average, and measure it."""
        shares = {name: share for name, share in shares.items() if share}
        model = self.classifier.model
        fill_model(model, average({name: self.states[name] for name in shares}, shares))
        if renewed:
            self._renew_statistics(model)
        words = " + ".join(map(printable, shares))
        with progress_bar(f"Validating {words}", self.val.num_images) as bar:
            result = evaluate(model, self.val, self.classifier.preprocessing, self.compute, bar)
        return Tasted(shares, result.metrics(), merit(result.metrics(), self.select_by), renewed)

    @torch.no_grad()
    def _renew_statistics(self, model: nn.Module) -> None:
        """Mean and variance over training images, as validation shows them; without dropout."""
        model.eval()
        modules = [model.get_submodule(name) for name in self.moved]
        momenta = [module.momentum for module in modules]
        for module in modules:
            module.reset_running_stats()  # type: ignore[operator]  # of batch normalisation
            module.train()
            module.momentum = None  # type: ignore[assignment]  # the average over all batches
        with progress_bar("Statistics of batch normalisation", self.train.num_images) as bar:
            for images, _ in self.train.epoch():
                model(self.compute.lay_out(self.classifier.preprocessing(images)))
                bar.advance(len(images))
        for module, momentum in zip(modules, momenta, strict=True):
            module.momentum = momentum
        model.eval()

    def of_training(self) -> Evaluation:
        """What the weights that were tasted last make of the same training images."""
        return evaluate(self.classifier.model, self.train, self.classifier.preprocessing, self.compute)


def average(states: dict[str, State], shares: dict[str, float]) -> State:
    """The mean of weights of one network by shares; counters, which are no weights, are the first's."""
    (_, first), *_ = states.items()
    return {
        name: (
            sum(state[name].double() * shares[run] for run, state in states.items()).to(value.dtype)  # type: ignore[union-attr]
            if value.is_floating_point() and len(states) > 1
            else value
        )
        for name, value in first.items()
    }


def _seconds(folder: Path) -> float:
    """What training a run took, so that nobody takes a soup for cheap."""
    summary = read_json(folder / "summary.json", Summary, "leave the run out, or mend the file")
    epochs = sum(epoch.get("epoch_seconds") or 0.0 for epoch in read_metrics(folder))
    return epochs + (summary.feature_seconds or 0.0)


def _write(name: str, kept: Sequence[Ingredient], best: Tasted, kitchen: _Kitchen, seconds: float) -> Path:
    """The folder of a run like any other, or none."""
    soup = kitchen.prepare(best.shares, renewed=best.renewed)  # again, for nobody kept the weights
    state, train = plain_state_dict(kitchen.classifier.model), kitchen.of_training()
    leading = max(kept, key=lambda item: soup.shares[item.name])
    shares = [{"run": item.name, "share": soup.shares[item.name]} for item in kept]
    names = [item.name for item in kept]
    row = {"epoch": 1, "train_loss": train.loss, "train_accuracy": train.accuracy, **soup.metrics}
    row |= {"best_val_accuracy": soup.metrics["val_accuracy"], "epoch_seconds": seconds}
    identity = read_json(leading.folder / IDENTITY, dict[str, Any], "without it nobody knows what this run is")
    identity["settings"] |= of_all_learnt(kept)
    checkpoint = leading.checkpoint
    folder = create_run_folder(leading.folder.resolve().parent, name)
    try:
        shutil.copy(leading.folder / "split.csv", folder / "split.csv")
        write_json(folder / IDENTITY, {**identity, "soup": names})
        config = {**leading.config, "name": folder.name, "soup": names}
        tracker = Tracker(folder, config, "disabled", project="", name=folder.name, job_type="soup")
        save_checkpoint(
            folder / BEST,
            state_dict=state,
            description=checkpoint["model"],
            class_names=tuple(checkpoint["class_names"]),
            preprocessing=kitchen.classifier.preprocessing,
            data=checkpoint["data"],
            seed=checkpoint.get("seed"),
            epoch=1,
            metrics=row,
            identity=hash_of(folder),
        )
        tracker.log(row)
        parameters = sum(parameter.numel() for parameter in kitchen.classifier.model.parameters())
        result = {"best_epoch": 1, **{f"best_{key}": value for key, value in soup.metrics.items()}}
        told = {"parameters": parameters, "soup": shares, "seconds": seconds}
        tracker.conclude({"status": "finished", "epochs": 1, **result, **told})
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _recipe(tasted: Tasted) -> str:
    if len(set(tasted.shares.values())) == 1:
        return " + ".join(map(printable, tasted.shares))
    return " + ".join(f"{percent(share, 0)} {printable(name)}" for name, share in tasted.shares.items())


def _print(tasted: Sequence[Tasted], best: Tasted) -> None:
    table = Table("weights of")
    for heading in ("validation accuracy", "balanced", "loss"):
        table.add_column(heading, justify="right")
    for point in tasted:
        star = " *" if point is best else ""
        accuracy, balanced = (point.metrics[name] for name in ("val_accuracy", "val_balanced_accuracy"))
        loss = point.metrics["val_loss"]
        table.add_row(_recipe(point), f"{percent(accuracy)}{star}", f"{percent(balanced)}", f"{loss:.4f}")
    print_table(table)
