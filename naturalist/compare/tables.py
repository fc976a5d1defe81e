"""The numbers of a comparison as Markdown, as CSV and on the terminal."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.table import Table

from naturalist.compare.sentences import inferences, share
from naturalist.files import write_atomically, write_table
from naturalist.printable import in_markdown, printable
from naturalist.progress import print_numbers, print_table
from naturalist.runs.records import COLUMNS, Group, Run

TERMINAL_COLUMNS = ("total_seconds", "val_accuracy", "test_accuracy", "test_balanced_accuracy")
"""What 80 characters have room for; the files hold all columns."""
SHARES = ("train_accuracy", "val_accuracy", "gap", "test_accuracy", "test_balanced_accuracy")
"""Columns that are written in per cent."""

KINDS = ("mean", "std")


def write_markdown(groups: Sequence[Group], data: str, path: Path, pictures: Sequence[str]) -> None:
    """Write the table of groups with what it supports, and below it pictures, by the names of their files."""
    groups = [replace(group, label=in_markdown(group.label)) for group in groups]
    lines = [
        f"# Comparison on {in_markdown(data)}",
        "",
        "Mean ± standard deviation over the runs; accuracies in per cent, train and validation at the best epoch.",
        "",
        f"| | runs | {' | '.join(COLUMNS.values())} |",
        f"|---|--:|{'--:|' * len(COLUMNS)}",
    ]
    for group in groups:
        cells = " | ".join(_cell(group, column) for column in COLUMNS)
        lines.append(f"| {group.label} | {len(group.runs)} | {cells} |")
    lines += ["", *(f"- {sentence}" for sentence in inferences(groups, emphasis="**")), ""]
    lines += [f"![{Path(name).stem.replace('_', ' ').capitalize()}]({name})\n" for name in pictures]
    write_atomically(path, "\n".join(lines))


def write_csv(groups: Sequence[Group], path: Path) -> None:
    """Write a row for each group: mean and standard deviation of every column, in full precision."""
    rows: list[list[object]] = [["label", "runs", *(f"{column}_{kind}" for column in COLUMNS for kind in KINDS)]]
    for group in groups:
        values = [value for column in COLUMNS for value in (group.average(column), group.deviation(column))]
        rows.append([group.label, len(group.runs), *values])
    write_table(path, rows)


def write_runs_csv(runs: Sequence[Run], path: Path) -> None:
    """Write a row for each run."""
    rows = ([run.name, run.label, run.seed, *run.values.values()] for run in runs)
    write_table(path, [["run", "label", "seed", *COLUMNS], *rows])


def print_comparison(groups: Sequence[Group]) -> None:
    """Show the most telling columns, and what the numbers support, on the terminal."""
    table = Table("")
    for heading in ("runs", *(COLUMNS[column] for column in TERMINAL_COLUMNS)):
        table.add_column(heading, justify="right")
    for group in groups:
        cells = (_cell(group, column) for column in TERMINAL_COLUMNS)
        table.add_row(printable(group.label), str(len(group.runs)), *cells)
    print_table(table)
    for sentence in inferences(groups):
        print_numbers(f"- {printable(sentence)}")


def _cell(group: Group, column: str) -> str:
    average = group.average(column)
    if average is None:
        return "–"
    if column in SHARES:
        return share(group, column).removesuffix(" %")
    return f"{average:,.2f}" if average < 10 and column != "epochs" else f"{average:,.0f}"
