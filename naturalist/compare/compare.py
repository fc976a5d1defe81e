"""``python -m naturalist compare RUN RUN …``: finished runs side by side, in a table, pictures and words."""

import csv
import json
from math import sqrt
from pathlib import Path
from statistics import mean

import yaml
from rich.console import Console
from rich.table import Table

from naturalist.errors import UserError
from naturalist.plots.comparison import plot_accuracy_over_parameters, plot_accuracy_over_time, plot_learning_curves
from naturalist.runs.folder import read_metrics
from naturalist.runs.records import COLUMNS, Group, Run
from naturalist.settings.groups import BOOKKEEPING

NOT_COMPARED = ("seed", *BOOKKEEPING)
"""Settings in which runs of one group may differ."""
TERMINAL_COLUMNS = ("total_seconds", "val_accuracy", "test_accuracy", "test_balanced_accuracy")
"""What 80 characters have room for; the files hold all columns."""
SHARES = ("train_accuracy", "val_accuracy", "gap", "test_accuracy", "test_balanced_accuracy")
CHEAP_ENOUGH = 0.02
"""How much less accurate than the best a strategy may be to be named as the cheap alternative."""


def compare_runs(folders: list[Path], output: Path | None = None) -> Path:
    """Set finished runs side by side; runs that differ only in their seed are averaged.

    Test accuracies are those that ``python -m naturalist evaluate RUN`` has written; nothing is evaluated here.

    Args:
        folders: run folders.
        output: folder for ``comparison.md``, ``comparison.csv``, ``runs.csv`` and three pictures; by default
            ``comparison`` beside the folder of the first run.

    Returns:
        The output folder.

    Raises:
        UserError: for fewer than two runs, a folder that is no finished run, or runs on different data.
    """
    if len(folders) < 2:
        raise UserError("compare needs at least two runs.")
    runs = [read_run(folder) for folder in folders]
    data_sets = sorted({Path(run.config["data"]).name for run in runs})
    if len(data_sets) > 1:
        raise UserError(f"runs on different data cannot be compared: {', '.join(data_sets)}.")
    groups = group_runs(runs)
    output = output or folders[0].resolve().parent.parent / "comparison"
    output.mkdir(parents=True, exist_ok=True)
    sentences = inferences(groups)
    _write_csv(groups, output / "comparison.csv")
    _write_runs_csv(runs, output / "runs.csv")
    plot_accuracy_over_time(groups, output / "accuracy_over_time.png")
    plot_accuracy_over_parameters(groups, output / "accuracy_over_parameters.png")
    plot_learning_curves(groups, output / "learning_curves.png")
    (output / "comparison.md").write_text(_markdown(groups, sentences, data_sets[0]), encoding="utf-8")
    _print(groups, sentences, output)
    untested = [run.name for run in runs if run.values["test_accuracy"] is None]
    if untested:
        print(f"Without test accuracy: {', '.join(untested)}; python -m naturalist evaluate RUN measures it.")
    return output


def read_run(folder: Path) -> Run:
    """Read a run folder; raises :class:`UserError` when it holds no run with at least one epoch."""
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        raise UserError(
            f"{str(folder)!r} is no finished run: it lacks a readable config.yaml or summary.json."
        ) from None
    history = read_metrics(folder)
    if not history:
        raise UserError(f"the run {str(folder)!r} has not finished an epoch.")
    best = max(history, key=lambda epoch: (epoch["val_accuracy"] or 0, -(epoch["val_loss"] or 0)))
    test_file = folder / "evaluation" / "test" / "metrics.json"
    test = json.loads(test_file.read_text(encoding="utf-8")) if test_file.is_file() else {}
    feature_seconds = summary.get("feature_seconds", 0.0)
    values = {
        "trainable_parameters": summary.get("trainable_parameters", summary.get("parameters")),
        "epochs": len(history),
        "epoch_seconds": mean(epoch["epoch_seconds"] for epoch in history),
        "total_seconds": feature_seconds + sum(epoch["epoch_seconds"] for epoch in history),
        "peak_memory_mb": summary.get("peak_memory_mb"),
        "train_accuracy": best["train_accuracy"],
        "val_accuracy": best["val_accuracy"],
        "gap": best["train_accuracy"] - best["val_accuracy"],
        "test_accuracy": test.get("accuracy"),
        "test_balanced_accuracy": test.get("balanced_accuracy"),
    }
    label = f"{config['backbone']}, {config['strategy']}" if "backbone" in config else "CNN from scratch"
    return Run(folder.resolve().name, label, config["seed"], config, history, feature_seconds, values)


def group_runs(runs: list[Run]) -> list[Group]:
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


def inferences(groups: list[Group]) -> list[str]:
    """What the numbers support, in sentences with the numbers."""
    tested = all(group.average("test_accuracy") is not None for group in groups)
    column, where = ("test_accuracy", "test") if tested else ("val_accuracy", "validation")
    ranking = sorted(groups, key=lambda group: -group.average(column))
    if len(ranking) < 2:
        return [f"All runs share their settings: {where} accuracy {_share(ranking[0], column)}."]
    best, second = ranking[:2]
    sentences = [
        f"Best on {where} is **{best.label}** with {_share(best, column)}, ahead of {second.label} with "
        f"{_share(second, column)}; the {_points(best.average(column) - second.average(column))} between them "
        f"are {_verdict(best, second, column)}."
    ]
    scratch = [group for group in ranking if group.label.startswith("CNN from scratch")]
    adapted = [group for group in ranking if group.runs[0].config.get("weights", "none") != "none"]
    if scratch and adapted:
        gain = adapted[0].average(column) - scratch[0].average(column)
        worst_gain = adapted[-1].average(column) - scratch[0].average(column)
        sentences.append(
            f"Pre-training {'is worth' if gain > 0 else 'costs'} {_points(abs(gain))} here: {adapted[0].label} against "
            f"the CNN from scratch ({_share(scratch[0], column)}); even the weakest adapted network, "
            f"{adapted[-1].label}, is {_points(abs(worst_gain))} {'above' if worst_gain > 0 else 'below'} it."
        )
    sentences += _against_linear_probe(groups, column)
    cheapest = min(
        (group for group in groups if group.average(column) >= best.average(column) - CHEAP_ENOUGH),
        key=lambda group: group.average("total_seconds"),
    )
    if cheapest is not best:
        sentences.append(
            f"Cheapest within {_points(CHEAP_ENOUGH)} of the best is {cheapest.label}: "
            f"{cheapest.average('total_seconds'):.0f} s instead of "
            f"{best.average('total_seconds'):.0f} s."
        )
    by_gap = sorted(groups, key=lambda group: group.average("gap"))
    sentences.append(
        f"Training accuracy exceeds validation accuracy most for {by_gap[-1].label} "
        f"({_points(by_gap[-1].average('gap'))}) and least for {by_gap[0].label} "
        f"({_points(by_gap[0].average('gap'))}); it is measured on augmented images and with dropout, so "
        "the gap understates overfitting."
    )
    if tested:
        tilt = best.average("test_accuracy") - best.average("test_balanced_accuracy")
        if tilt > 0.02:
            sentences.append(
                f"The balanced accuracy of {best.label} is {_points(tilt)} lower than its accuracy: "
                "frequent classes are recognised better than rare ones."
            )
    return sentences


def _against_linear_probe(groups: list[Group], column: str) -> list[str]:
    """For each backbone that has a head run, what its best other strategy adds."""
    sentences = []
    for probe in groups:
        config = probe.runs[0].config
        if config.get("strategy") != "head":
            continue
        others = [
            group
            for group in groups
            if group.runs[0].config.get("backbone") == config["backbone"] and group.runs[0].config["strategy"] != "head"
        ]
        if others:
            best = max(others, key=lambda group: group.average(column))
            gain = best.average(column) - probe.average(column)
            sentences.append(
                f"With {config['backbone']}, {best.runs[0].config['strategy']} "
                f"{'adds' if gain > 0 else 'loses'} {_points(abs(gain))} to the head alone and takes "
                f"{best.average('total_seconds') / probe.average('total_seconds'):.1f} times as long; "
                f"that is {_verdict(best, probe, column) if gain > 0 else _verdict(probe, best, column)}."
            )
    return sentences


def _verdict(better: Group, worse: Group, column: str) -> str:
    """Whether the difference of two groups is more than chance between seeds."""
    difference = better.average(column) - worse.average(column)
    if len(better.runs) < 2 or len(worse.runs) < 2:
        return "from single runs, so the order may be chance"
    error = sqrt(sum(group.deviation(column) ** 2 / len(group.runs) for group in (better, worse)))
    if difference > 2 * error:
        return f"more than two standard errors ({_points(2 * error)}) between seeds"
    return f"within two standard errors ({_points(2 * error)}) between seeds, so no sure difference"


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"


def _share(group: Group, column: str) -> str:
    deviation = group.deviation(column)
    return f"{100 * group.average(column):.1f}" + (f" ± {100 * deviation:.1f}" if deviation is not None else "") + " %"


def _cell(group: Group, column: str) -> str:
    average = group.average(column)
    if average is None:
        return "–"
    if column in SHARES:
        return _share(group, column).removesuffix(" %")
    return f"{average:,.2f}" if average < 10 and column != "epochs" else f"{average:,.0f}"


def _markdown(groups: list[Group], sentences: list[str], data: str) -> str:
    lines = [
        f"# Comparison on {data}",
        "",
        "Mean ± standard deviation over the runs; accuracies in per cent, train and validation at the best epoch.",
        "",
        f"| | runs | {' | '.join(COLUMNS.values())} |",
        f"|---|--:|{'--:|' * len(COLUMNS)}",
    ]
    lines += [
        f"| {group.label} | {len(group.runs)} | {' | '.join(_cell(group, column) for column in COLUMNS)} |"
        for group in groups
    ]
    lines += [
        "",
        *(f"- {sentence}" for sentence in sentences),
        "",
        "![Accuracy over time](accuracy_over_time.png)",
        "",
        "![Accuracy over trainable parameters](accuracy_over_parameters.png)",
        "",
        "![Learning curves](learning_curves.png)",
        "",
    ]
    return "\n".join(lines)


def _write_csv(groups: list[Group], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "runs", *(f"{column}_{kind}" for column in COLUMNS for kind in ("mean", "std"))])
        for group in groups:
            writer.writerow(
                [
                    group.label,
                    len(group.runs),
                    *(value for column in COLUMNS for value in (group.average(column), group.deviation(column))),
                ]
            )


def _write_runs_csv(runs: list[Run], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "label", "seed", *COLUMNS])
        writer.writerows([run.name, run.label, run.seed, *run.values.values()] for run in runs)


def _print(groups: list[Group], sentences: list[str], output: Path) -> None:
    console = Console(highlight=False)
    table = Table("", "runs")
    for column in TERMINAL_COLUMNS:
        table.add_column(COLUMNS[column], justify="right")
    for group in groups:
        table.add_row(group.label, str(len(group.runs)), *(_cell(group, column) for column in TERMINAL_COLUMNS))
    console.print(table)
    for sentence in sentences:
        console.print(f"- {sentence.replace('**', '')}", soft_wrap=True)
    console.print(
        f"In {output}: comparison.md, comparison.csv, runs.csv, accuracy_over_time.png, "
        "accuracy_over_parameters.png, learning_curves.png",
        soft_wrap=True,
    )
