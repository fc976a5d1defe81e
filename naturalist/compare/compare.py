"""``python -m naturalist compare RUN RUN …``: finished runs side by side, in a table, pictures and words."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from msgspec import Struct

from naturalist.compare.tables import print_comparison, write_csv, write_markdown, write_runs_csv
from naturalist.errors import UserError
from naturalist.evaluation.metrics import read_predictions_csv
from naturalist.plots.comparison import plot_accuracy_over_parameters, plot_accuracy_over_time, plot_learning_curves
from naturalist.printable import printable
from naturalist.reading import Count, Finite, NotNegative, Ordinal, Share, fit, read_json
from naturalist.runs.folder import read_config, read_metrics
from naturalist.runs.identity import read_identity_file
from naturalist.runs.records import Group, Run, best_of
from naturalist.runs.schemas import Summary, TestMetrics
from naturalist.settings.groups import BOOKKEEPING, SelectBy
from naturalist.settings.resume import IDENTITY

NOT_COMPARED = ("seed", "data", *BOOKKEEPING)
"""Settings in which runs of one group may differ."""


PICTURES = {
    "accuracy_over_time": plot_accuracy_over_time,
    "accuracy_over_parameters": plot_accuracy_over_parameters,
    "learning_curves": plot_learning_curves,
}


class ComparedSettings(Struct):
    """What the settings of a compared run must say."""

    data: str
    seed: Count
    backbone: str | None = None
    strategy: str | None = None
    soup: list[str] = []
    """Names of the runs that it is an average of."""
    teacher: str | None = None
    select_by: SelectBy = "val_accuracy"

    def __post_init__(self) -> None:
        """Raise ValueError for a backbone without a strategy."""
        if (self.backbone is None) != (self.strategy is None):
            raise ValueError("backbone and strategy go together")


class ComparedEpoch(Struct):
    """What an epoch of a compared run must say."""

    epoch: Ordinal
    train_accuracy: Share
    val_accuracy: Share
    epoch_seconds: NotNegative
    val_loss: Finite | None = None


def compare_runs(folders: Sequence[Path], output: Path | None = None, format: str = "png") -> Path:
    """Set finished runs side by side; runs that differ only in their seed are averaged.

    Test accuracies are those that ``python -m naturalist evaluate RUN`` has written; nothing is evaluated here.

    Args:
        folders: run folders.
        output: folder for ``comparison.md``, ``comparison.csv``, ``runs.csv`` and three pictures; by default
            ``comparison`` beside the folder of the first run.
        format: of the pictures: ``"png"``, ``"svg"`` or ``"pdf"``.

    Returns:
        The output folder.

    Raises:
        UserError: for fewer than two runs, a folder that is no finished run, or runs on different data.
    """
    if len(folders) < 2:
        raise UserError("compare needs at least two runs.")
    runs = [read_run(folder) for folder in folders]
    _require_same_data(runs, folders)
    groups = group_runs(runs)
    output = output or folders[0].resolve().parent.parent / "comparison"
    output.mkdir(parents=True, exist_ok=True)
    write_csv(groups, output / "comparison.csv")
    write_runs_csv(runs, output / "runs.csv")
    pictures = {f"{name}.{format}": plot for name, plot in PICTURES.items()}
    for name, plot in pictures.items():
        plot(groups, output / name)
    write_markdown(groups, Path(runs[0].config["data"]).name, output / "comparison.md", list(pictures))
    print_comparison(groups)
    print(f"In {printable(output)}: {', '.join(['comparison.md', 'comparison.csv', 'runs.csv', *pictures])}")
    untested = [run.name for run in runs if run.values["test_accuracy"] is None]
    if untested:
        print(
            f"Without test accuracy: {printable(', '.join(untested))}; python -m naturalist evaluate RUN measures it."
        )
    return output


def _require_same_data(runs: Sequence[Run], folders: Sequence[Path]) -> None:
    """Refuse runs whose images, or test images, are not the same; by content, for names tell nothing."""
    for kind, keys in (
        ("trained on", [_fingerprint(run, folder) for run, folder in zip(runs, folders, strict=True)]),
        ("tested on", [run.test_fingerprint for run in runs]),
    ):
        first: dict[str, Run] = {}
        for run, key in zip(runs, keys, strict=True):
            if key is not None:
                first.setdefault(key, run)
        if len(first) > 1:
            names = sorted({Path(run.config["data"]).name for run in first.values()})
            shown = names if len(names) > 1 else sorted(run.config["data"] for run in first.values())
            who = " and ".join(run.name for run in first.values())
            raise UserError(
                f"runs on different data cannot be compared: {', '.join(shown)}; {who} were {kind} different images."
            )


def _fingerprint(run: Run, folder: Path) -> str:
    """Of a run's images; of one that an earlier version made, the name of its data has to do."""
    if (folder / IDENTITY).is_file():
        return read_identity_file(folder).fingerprint
    return f"data {run.config['data']}"


def read_run(folder: Path) -> Run:
    """Read a run folder; raises :class:`UserError` when it holds no run with at least one epoch."""
    if not all((folder / name).is_file() for name in ("config.yaml", "summary.json")):
        raise UserError(f"{str(folder)!r} is no finished run: it lacks a config.yaml or summary.json.")
    remedy = "leave the run out, or mend the file"
    config = read_config(folder)
    about = fit(config, ComparedSettings, str(folder / "config.yaml"), remedy)
    summary = read_json(folder / "summary.json", Summary, remedy)
    history = read_metrics(folder)
    if not history:
        raise UserError(f"the run {str(folder)!r} has not finished an epoch.")
    epochs = [fit(epoch, ComparedEpoch, f"{folder / 'metrics.jsonl'}, an epoch,", remedy) for epoch in history]
    best = epochs[best_of(history, about.select_by)]
    test_file = folder / "evaluation" / "test" / "metrics.json"
    test = read_json(test_file, TestMetrics, "evaluate the run again") if test_file.is_file() else None
    feature_seconds = summary.feature_seconds or 0.0
    has_own_count = summary.trainable_parameters is not None
    values = {
        "trainable_parameters": summary.trainable_parameters if has_own_count else summary.parameters,
        "epochs": len(history),
        "epoch_seconds": mean(epoch.epoch_seconds for epoch in epochs),
        "total_seconds": feature_seconds + sum(epoch.epoch_seconds for epoch in epochs),
        "peak_memory_mb": summary.peak_memory_mb,
        "train_accuracy": best.train_accuracy,
        "val_accuracy": best.val_accuracy,
        "gap": best.train_accuracy - best.val_accuracy,
        "test_accuracy": test.accuracy if test else None,
        "test_balanced_accuracy": test.balanced_accuracy if test else None,
    }
    label = _label(about)
    fingerprint = test.fingerprint if test else None
    right = _right_on_test(test_file.with_name("predictions.csv")) if test else {}
    name = folder.resolve().name
    return Run(name, label, about.seed, dict(config), history, feature_seconds, values, fingerprint, right)


def _right_on_test(predictions: Path) -> dict[str, bool]:
    """Whether each image's class was recognised, by file; empty where no predictions were kept."""
    if not predictions.is_file():
        return {}
    files, truth, probabilities, names = read_predictions_csv(predictions)
    chosen = (names[i] for i in probabilities.argmax(axis=1))
    return {file: name == said for file, name, said in zip(files, truth, chosen, strict=True)}


def _label(about: ComparedSettings) -> str:
    """What a run is called beside others."""
    label = f"{about.backbone}, {about.strategy}" if about.backbone else "CNN from scratch"
    if about.teacher:
        label = f"CNN distilled from {Path(about.teacher).name}"
    return f"{label}, soup of {len(about.soup)}" if about.soup else label


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Gather runs that differ only in their seed; groups of one label are told apart by what differs between them."""
    gathered: dict[str, list[Run]] = {}
    for run in runs:
        key = json.dumps(
            {name: value for name, value in run.config.items() if name not in NOT_COMPARED}, sort_keys=True
        )
        gathered.setdefault(key, []).append(run)
    groups = []
    for members in gathered.values():
        first = members[0]
        rivals = [
            others[0].config for others in gathered.values() if others is not members and others[0].label == first.label
        ]
        differences = sorted(
            name
            for name in first.config
            if name not in NOT_COMPARED and any(rival.get(name) != first.config[name] for rival in rivals)
        )
        told_apart = "".join(f", {name} {first.config[name]}" for name in differences[:3])
        groups.append(Group(first.label + told_apart, tuple(members)))
    return groups
