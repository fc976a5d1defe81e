"""What a report says of the data: what the audit found, and how the images were split."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

from naturalist.audit.words import sentences
from naturalist.data.dataset import describe_data
from naturalist.reading import Count, Share, read_json
from naturalist.report.blocks import Missing, Picture, Section, Sentences, Table, Text
from naturalist.report.found import Found
from naturalist.runs.environment import shell_word
from naturalist.settings.display_names import Called

RECORD = "audit.json"
Kind = Literal["leaks", "conflicts", "copies"]
SHEETS: dict[Kind, str] = {
    "leaks": "Images that are in two splits, pair by pair.",
    "conflicts": "Images that look alike and have two labels, pair by pair.",
    "copies": "Images that are twice in one class, pair by pair.",
}
REMEDY = "audit the data again"


class Part(Struct):
    """Of ``audit.json``: a split."""

    files: Count


class ClassRow(Struct, rename={"name": "class"}):
    """Of ``audit.json``: a class in a split."""

    name: str
    split: str
    files: Count


class LabelErrors(Struct):
    """Of ``audit.json``: labels that a run finds wrong."""

    suspects: Count
    images: Count
    split: str
    run: str
    accuracy: Share
    pairs: list[dict[str, Any]]


class Audit(Struct):
    """``audit.json``, as far as it is relied on."""

    data: str
    splits: dict[str, Part]
    classes: list[ClassRow]
    missing_in_test: list[str]
    unknown_in_test: dict[str, Any]
    suspicious: dict[str, Count]
    duplicates: dict[Kind, dict[Literal["images", "same_bytes", "other_class"], Count]]
    with_place: Count
    guessed_by: dict[str, Share]
    label_errors: LabelErrors | None = None
    pictures: str = "png"
    """Of which kind they are."""


def about_data(found: Found, audit: Path) -> Section:
    """The section on the photographs; ``audit`` is the folder that ``naturalist audit`` wrote to."""
    section, runs = Section("data", "Data"), found.all
    if runs and (known := runs[0].known) is not None:
        section.blocks.append(
            Text(
                f"{describe_data(runs[0].part('data'))}: {len(known.class_names)} classes, {known.images.train:,} "
                f"images to train on and {known.images.val:,} to validate with; every run has this split on record."
            )
        )
    path = audit / RECORD
    data = runs[0].part("data") if runs else None
    if not path.is_file():
        section.blocks.append(
            Missing("No audit was found.", f"python -m naturalist audit {shell_word(data or 'FOLDER')} -o {audit}")
        )
        return section
    content = read_json(path, Audit, REMEDY)
    if data is not None and describe_data(data) != content.data:
        section.blocks.append(
            Text(f"The audit in {audit.name} is of {content.data}, not of what the runs were trained on.")
        )
        return section
    place = Path(audit.name)  # a page may go far from here
    said = sentences(read_json(path, dict[str, Any], REMEDY), place, found.called)
    section.blocks += [_classes(content, found.called), Sentences(said)]
    if content.pictures == "png":
        section.blocks += _sheets(content, audit)
    else:
        command = f"python -m naturalist audit {shell_word(data or 'FOLDER')} -o {audit}"
        section.blocks.append(
            Missing(f"The audit's pictures are {content.pictures.upper()}, and this page takes PNG alone.", command)
        )
    return section


def audited_classes(audit: Path) -> tuple[str, ...]:
    """The classes of what was audited, by their folders; none where nothing was."""
    path = audit / RECORD
    return tuple({row.name: row for row in read_json(path, Audit, REMEDY).classes}) if path.is_file() else ()


def _sheets(content: Audit, audit: Path) -> Iterator[Picture]:
    """Pictures of what was found; the audit draws those of nothing too."""
    for name, words in SHEETS.items():
        if content.duplicates[name]["images"] and (audit / f"{name}.png").is_file():
            yield Picture(audit / f"{name}.png", words, words)
    if content.suspicious and (audit / "suspicious.png").is_file():
        yield Picture(audit / "suspicious.png", "Suspicious images: small, blurred, dark and the like.", "Suspicious.")
    if content.label_errors is not None and (audit / "label_errors.png").is_file():
        yield Picture(
            audit / "label_errors.png", "Images whose label a network doubts, with its own.", "Doubted labels."
        )


def _classes(audit: Audit, called: Called) -> Table:
    splits = list(audit.splits)
    rows: dict[str, dict[str, str]] = {}
    for row in audit.classes:
        rows.setdefault(row.name, dict.fromkeys(splits, "0"))[row.split] = f"{row.files:,}"
    totals = ["all", *(f"{part.files:,}" for part in audit.splits.values())]
    return Table(
        f"Files of {audit.data} by class and split.",
        ["class", *splits],
        [*([called(name), *counts.values()] for name, counts in rows.items()), totals],
    )
