"""What an audit says on the screen: a table of the classes, and a sentence for each thing that was found."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from naturalist.printable import printable
from naturalist.progress import print_numbers, print_table
from naturalist.wording import percent

GIVES_AWAY = 0.1
"""How much more of the classes something must tell than always guessing one does, to be mentioned."""
CLASSES_SHOWN = 5


def print_findings(record: dict[str, Any], output: Path) -> None:
    """Print what ``audit.json`` holds, for people."""
    print_table(_table(record))
    for sentence in sentences(record, output):
        print_numbers(printable(sentence))


def sentences(record: dict[str, Any], output: Path) -> list[str]:
    """What ``audit.json`` holds, and in which files of the folder ``output`` more of it stands."""
    return [
        *_about_files(record, output),
        *_about_duplicates(record, output),
        *_about_headers(record, output),
        *_about_labels(record, output),
    ]


def _table(record: dict[str, Any]) -> Table:
    splits = list(record["splits"])
    table = Table("class", title=printable(record["data"]), title_justify="left")
    for heading in (*splits, "median size", "aspect", "not RGB", "GPS"):
        table.add_column(heading, justify="right")
    for name in dict.fromkeys(row["class"] for row in record["classes"]):
        rows = {row["split"]: row for row in record["classes"] if row["class"] == name}
        first = rows[splits[0]]
        table.add_row(
            printable(name),
            *(f"{rows[split]['files']:,}" for split in splits),
            f"{first['width'][1]:.0f}×{first['height'][1]:.0f}",
            f"{first['aspect'][0]:.2f}–{first['aspect'][2]:.2f}",
            f"{sum(row['readable'] - row['modes'].get('RGB', 0) for row in rows.values()):,}",
            f"{sum(row['with_place'] for row in rows.values()):,}",
        )
    table.add_section()
    table.add_row("all", *(f"{split['files']:,}" for split in record["splits"].values()))
    return table


def _about_files(record: dict[str, Any], output: Path) -> Iterator[str]:
    odd = [f"{count:,} {problem}" for problem, count in record["suspicious"].items()]
    yield f"Suspicious: {', '.join(odd)} ({output / 'suspicious.csv'})." if odd else "Suspicious: nothing."
    missing, unknown = record["missing_in_test"], record["unknown_in_test"]
    if missing:
        yield f"Of {_some(missing)} there are training images and no test images."
    if unknown:
        yield f"Of {_some(list(unknown))} there are test images and no training images; they were left out."


def _about_duplicates(record: dict[str, Any], output: Path) -> Iterator[str]:
    leaks, conflicts, copies = (record["duplicates"][name] for name in ("leaks", "conflicts", "copies"))
    if len(record["splits"]) == 1:
        yield "Leaks: there is one split only, so nothing can leak into another."
    elif leaks["images"]:
        yield (
            f"Leaks: {leaks['images']:,} image(s) are in a later split, too{_of_these(leaks)}, which flatters the "
            f"result on it. Leave them out of training with --exclude {output / 'leaks.csv'}"
        )
    else:
        yield "Leaks: no image is in two splits."
    if conflicts["images"]:
        yield (
            f"Two labels for one picture: {conflicts['images']:,} image(s) look like one of another class"
            f"{_of_these(conflicts)} ({output / 'conflicts.csv'})."
        )
    if copies["images"]:
        yield (
            f"Copies: {copies['images']:,} image(s) are in the same class and split already{_of_these(copies)} "
            f"({output / 'copies.csv'})."
        )


def _of_these(counts: dict[str, int]) -> str:
    return f", {counts['same_bytes']:,} of them with the same bytes" if counts["same_bytes"] else ""


def _about_headers(record: dict[str, Any], output: Path) -> Iterator[str]:
    if record["with_place"]:
        yield (
            f"Places: {record['with_place']:,} file(s) say where they were taken, which may be somebody's home "
            f"({output / 'places.csv'}); strip them before you pass the data on."
        )
    chance = record["guessed_by"]["largest class"]
    for name, share in record["guessed_by"].items():
        if share >= chance + GIVES_AWAY:
            yield (
                f"The {name} alone gives the class of {percent(share, 0)} of the images away (guessing the largest "
                f"class: {percent(chance, 0)}): a network may learn that instead of what is in the picture."
            )


def _about_labels(record: dict[str, Any], output: Path) -> Iterator[str]:
    errors = record["label_errors"]
    if errors is None:
        return
    yield (
        f"Labels: {errors['suspects']:,} of {errors['images']:,} {errors['split']} images are probably labelled wrong, "
        f"says {errors['run']}, which is right about {percent(errors['accuracy'])} of them; look at "
        f"{output / 'label_errors.png'} before you believe it."
    )
    if errors["pairs"]:
        pairs = (f"{pair['label']} → {pair['suggested']} {pair['images']:,}" for pair in errors["pairs"])
        yield f"Most often: {_some(list(pairs))}."


def _some(names: list[str]) -> str:
    more = f" and {len(names) - CLASSES_SHOWN:,} more" if len(names) > CLASSES_SHOWN else ""
    return ", ".join(names[:CLASSES_SHOWN]) + more
