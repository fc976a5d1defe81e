"""What an audit found, in plain numbers and as tables."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from naturalist.data.audit import Images, Oddity, describe_classes, giveaways
from naturalist.data.dataset import describe_data
from naturalist.data.duplicates import SAME_BYTES, Duplicates, Twins
from naturalist.data.layout import Folders
from naturalist.data.metadata import Header
from naturalist.evaluation.label_errors import LabelErrors
from naturalist.files import write_table
from naturalist.settings.audit import AuditOptions, Limits

VERSION = 1
"""Of ``audit.json``; to be raised when something in it means something else."""
SPREADS = ("width", "height", "aspect")


@dataclass(frozen=True)
class Findings:
    """Everything that an audit found."""

    options: AuditOptions
    folders: Folders
    images: Images
    headers: list[Header]
    duplicates: Duplicates
    oddities: list[Oddity]
    label_errors: LabelErrors | None
    names: Mapping[str, str]
    """What people read instead of the name of a class's folder."""

    def called(self, class_name: str) -> str:
        """What a class is called where people read it."""
        return self.names.get(class_name, class_name)

    def twins(self) -> dict[str, Twins]:
        """The name of each table of duplicates → what is in it."""
        return {item.name: getattr(self.duplicates, item.name) for item in fields(self.duplicates)}

    def record(self) -> dict[str, Any]:
        """The content of ``audit.json``: counts, and no names of files."""
        images = self.images
        splits = {part.name: part for part in images.parts}
        test = splits.get("test")
        missing = [name for name, count in test.split.counts().items() if not count] if test else []
        return {
            "version": VERSION,
            "data": describe_data(self.options.data),
            "pictures": self.options.format,
            "splits": {
                name: {
                    "folder": part.prefix,
                    "files": len(part.split.files),
                    "readable": len(part.cache),
                    "ignored": len(part.split.ignored),
                }
                for name, part in splits.items()
            },
            "classes": describe_classes(images, self.headers),
            "missing_in_test": missing,
            "unknown_in_test": test.split.unknown if test else {},
            "limits": {item.name: getattr(self.options, item.name) for item in fields(Limits)},
            "suspicious": dict(Counter(oddity.problem.partition(":")[0] for oddity in self.oddities)),
            "duplicates": {name: self._count(twins) for name, twins in self.twins().items()},
            "with_place": sum(header.has_place for header in self.headers),
            "guessed_by": giveaways(images, self.headers),
            "label_errors": None if self.label_errors is None else self.label_errors.record(),
        }

    def _count(self, twins: Twins) -> dict[str, int]:
        labels = self.images.labels
        return {
            "images": len(twins),
            "same_bytes": int((twins.distances == SAME_BYTES).sum()),
            "other_class": int((labels[twins.files] != labels[twins.others]).sum()),
        }

    def prefix_of_errors(self) -> str:
        """Of the images among which labels were looked for."""
        test = self.label_errors is not None and self.label_errors.split == "test"
        folder = self.folders.test if test else self.folders.val
        return self.folders.prefix(folder or self.folders.train)


def write_tables(findings: Findings, record: dict[str, Any], output: Path) -> None:
    """Write every table as CSV, those without rows too: an earlier audit's would be taken for this one's."""
    for name, twins in findings.twins().items():
        write_table(output / f"{name}.csv", _twin_rows(findings.images, twins))
    odd = ([item.path, item.class_name, item.split, item.problem, item.value] for item in findings.oddities)
    write_table(output / "suspicious.csv", [("path", "class", "split", "problem", "value"), *odd])
    write_table(output / "places.csv", _place_rows(findings.images, findings.headers))
    write_table(output / "classes.csv", _class_rows(record["classes"]))
    if findings.label_errors is not None:
        rows = _label_rows(findings.label_errors, findings.prefix_of_errors())
        write_table(output / "label_errors.csv", rows)


def _twin_rows(images: Images, twins: Twins) -> Iterator[Sequence[Any]]:
    yield "path", "class", "other", "other_class", "same_bytes", "distance"
    names, labels, paths = images.class_names, images.labels, images.paths
    for file, other, distance in zip(twins.files, twins.others, twins.distances.tolist(), strict=True):
        is_same = distance == SAME_BYTES
        classes = names[labels[file]], names[labels[other]]
        yield paths[file], classes[0], paths[other], classes[1], "yes" if is_same else "no", 0 if is_same else distance


def _place_rows(images: Images, headers: Sequence[Header]) -> Iterator[Sequence[Any]]:
    yield "path", "class", "split"
    for i, header in enumerate(headers):
        if header.has_place:
            yield images.paths[i], images.class_names[images.labels[i]], images.parts[images.splits[i]].name


def _class_rows(classes: list[dict[str, Any]]) -> Iterator[Sequence[Any]]:
    plain = ("class", "split", "files", "readable")
    counted, last = ("modes", "formats"), ("with_camera", "cameras", "with_place")
    yield *plain, *(f"{name}_{end}" for name in SPREADS for end in ("min", "median", "max")), *counted, *last
    for row in classes:
        spreads = (value for name in SPREADS for value in row[name] or ("", "", ""))
        counts = (", ".join(f"{name} {count}" for name, count in row[column].items()) for column in counted)
        yield *(row[name] for name in plain), *spreads, *counts, *(row[name] for name in last)


def _label_rows(errors: LabelErrors, prefix: str) -> Iterator[Sequence[Any]]:
    yield "path", "class", "suggested", "probability", "probability_of_class"
    names, files, labels = errors.images.cache.class_names, errors.images.files, errors.images.labels
    for i, suggested in zip(errors.suspects.tolist(), errors.suggested.tolist(), strict=True):
        shares = (round(float(errors.probabilities[i, label]), 4) for label in (suggested, labels[i]))
        yield prefix + files[i], names[labels[i]], names[suggested], *shares
