"""What an audit says on the screen: a table of the classes, and a sentence for each thing that was found."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from naturalist.printable import printable
from naturalist.progress import print_numbers, print_table
from naturalist.settings.display_names import Called
from naturalist.wording import counted, percent

GIVES_AWAY = 0.1
"""How much more of the classes something must tell than always guessing one does, to be mentioned."""
CLASSES_SHOWN = 5


def print_findings(record: dict[str, Any], output: Path, called: Called) -> None:
    """Print what ``audit.json`` holds, for people."""
    print_table(_table(record, called))
    for sentence in sentences(record, output, called):
        print_numbers(printable(sentence))


def sentences(record: dict[str, Any], output: Path, called: Called) -> list[str]:
    """What ``audit.json`` holds, and in which files of the folder ``output`` more of it stands."""
    return [
        *_about_files(record, output, called),
        *_about_duplicates(record, output),
        *_about_headers(record, output),
        *_about_labels(record, output, called),
    ]


def _table(record: dict[str, Any], called: Called) -> Table:
    splits = list(record["splits"])
    table = Table("class", title=printable(record["data"]), title_justify="left")
    for heading in (*splits, "median size", "aspect", "not RGB", "GPS"):
        table.add_column(heading, justify="right")
    for name in dict.fromkeys(row["class"] for row in record["classes"]):
        rows = {row["split"]: row for row in record["classes"] if row["class"] == name}
        first = rows[splits[0]]
        table.add_row(
            printable(called(name)),
            *(f"{rows[split]['files']:,}" for split in splits),
            f"{first['width'][1]:.0f}×{first['height'][1]:.0f}",
            f"{first['aspect'][0]:.2f}–{first['aspect'][2]:.2f}",
            f"{sum(row['readable'] - row['modes'].get('RGB', 0) for row in rows.values()):,}",
            f"{sum(row['with_place'] for row in rows.values()):,}",
        )
    table.add_section()
    table.add_row("all", *(f"{split['files']:,}" for split in record["splits"].values()))
    return table


def _about_files(record: dict[str, Any], output: Path, called: Called) -> Iterator[str]:
    odd = [f"{count:,} {problem}" for problem, count in record["suspicious"].items()]
    yield f"Suspicious: {', '.join(odd)} ({output / 'suspicious.csv'})." if odd else "Suspicious: nothing."
    missing, unknown = record["missing_in_test"], record["unknown_in_test"]
    if missing:
        yield f"Of {_some(list(map(called, missing)))} there are training images and no test images."
    if unknown:
        yield f"Of {_some(list(unknown))} there are test images and no training images; they were left out."


def _about_duplicates(record: dict[str, Any], output: Path) -> Iterator[str]:
    leaks, conflicts, copies = (record["duplicates"][name] for name in ("leaks", "conflicts", "copies"))
    if len(record["splits"]) == 1:
        yield "Leaks: there is one split only, so nothing can leak into another."
    elif leaks["images"]:
        yield (
            f"Leaks: {counted(leaks['images'], 'image is', 'images are')} in a later split, too{_of_these(leaks)}, "
            f"which flatters the result on it. Leave {'it' if leaks['images'] == 1 else 'them'} out of training with "
            f"--exclude {output / 'leaks.csv'}"
        )
    else:
        yield "Leaks: no image is in two splits."
    if conflicts["images"]:
        yield (
            f"Two labels for one picture: {counted(conflicts['images'], 'image looks', 'images look')} like one of "
            f"another class{_of_these(conflicts)} ({output / 'conflicts.csv'})."
        )
    if copies["images"]:
        yield (
            f"Copies: {counted(copies['images'], 'image is', 'images are')} in the same class and split already"
            f"{_of_these(copies)} ({output / 'copies.csv'})."
        )


def _of_these(counts: dict[str, int]) -> str:
    if not counts["same_bytes"]:
        return ""
    some = f"{counts['same_bytes']:,} of them " if counts["images"] > 1 else ""
    return f", {some}with the same bytes"


def _about_headers(record: dict[str, Any], output: Path) -> Iterator[str]:
    if record["with_place"]:
        yield (
            f"Places: {counted(record['with_place'], 'file says where it was', 'files say where they were')} taken, "
            f"which may be somebody's home ({output / 'places.csv'}); strip that before you pass the data on."
        )
    chance = record["guessed_by"]["largest class"]
    for name, share in record["guessed_by"].items():
        if share >= chance + GIVES_AWAY:
            yield (
                f"The {name} alone gives the class of {percent(share, 0)} of the images away (guessing the largest "
                f"class: {percent(chance, 0)}): a network may learn that instead of what is in the picture."
            )


def _about_labels(record: dict[str, Any], output: Path, called: Called) -> Iterator[str]:
    errors = record["label_errors"]
    if errors is None:
        return
    split, picture = errors["split"], f"label_errors.{record.get('pictures', 'png')}"
    yield (
        f"Labels: {errors['suspects']:,} of {counted(errors['images'], f'{split} image')} "
        f"{'is' if errors['suspects'] == 1 else 'are'} probably labelled wrong, says {errors['run']}, which is right "
        f"about {percent(errors['accuracy'])} of them; look at {output / picture} before you believe it."
    )
    if errors["pairs"]:
        pairs = [
            f"{called(pair['label'])} → {called(pair['suggested'])} {pair['images']:,}" for pair in errors["pairs"]
        ]
        yield f"Most often: {_some(pairs)}."


def _some(names: list[str]) -> str:
    more = f" and {len(names) - CLASSES_SHOWN:,} more" if len(names) > CLASSES_SHOWN else ""
    return ", ".join(names[:CLASSES_SHOWN]) + more
