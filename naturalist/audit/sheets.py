"""The pictures of an audit: contact sheets of pairs, of suspicious photographs, and of labels that are doubted."""

from collections import defaultdict
from pathlib import Path

import numpy as np

from naturalist.audit.findings import Findings
from naturalist.data.dataset import describe_data
from naturalist.data.duplicates import SAME_BYTES, Twins
from naturalist.data.photographs import describe_missing
from naturalist.plots.audit import ROW, Shown, plot_findings
from naturalist.wording import counted, percent

PAIRS, ERRORS = 24, 24
"""On a sheet, at most."""

TITLES = {
    "leaks": "in two splits",
    "conflicts": "one picture, two labels",
    "copies": "twice in one class",
}


def draw_sheets(findings: Findings, output: Path) -> None:
    """Draw every sheet, those of nothing too: an earlier audit's would be taken for this one's."""
    note, format = describe_data(findings.options.data), findings.options.format
    for name, twins in findings.twins().items():
        _draw_pairs(findings, twins, output / f"{name}.{format}", TITLES[name], note)
    _draw_oddities(findings, output / f"suspicious.{format}", note)
    errors = findings.label_errors
    if errors is None:
        return
    chosen, names, labels = errors.suspects[:ERRORS], errors.images.cache.class_names, errors.images.labels
    pictures, missing = errors.images.photographs(chosen)
    prefix = findings.prefix_of_errors()
    plot_findings(
        [
            [Shown(own, findings.called(names[labels[i]]), prefix + errors.images.files[i])]
            for i, own in zip(chosen, pictures, strict=True)
        ],
        [f"{percent(share, 0)}: rather" for share in errors.confidence[:ERRORS]],
        output / f"label_errors.{format}",
        f"{errors.run} doubts {counted(len(errors.suspects), 'label')} of {errors.split}; the surest {len(chosen)}",
        "; ".join(filter(None, (note, describe_missing(missing)))),
        [findings.called(names[suggested]) for suggested in errors.suggested[:ERRORS]],
    )


def _draw_pairs(findings: Findings, twins: Twins, path: Path, title: str, note: str) -> None:
    """Pairs from the most alike to the least, each once, spread over all there are."""
    order = np.argsort(twins.distances, kind="stable")
    pairs: dict[tuple[int, int], int] = {}
    for file, other, distance in zip(twins.files[order], twins.others[order], twins.distances[order], strict=True):
        pairs.setdefault((min(int(file), int(other)), max(int(file), int(other))), int(distance))
    found = list(pairs.items())
    chosen = [found[i] for i in np.linspace(0, len(found) - 1, min(PAIRS, len(found))).astype(int)]
    few = f"; {len(chosen)} of them, from the most alike to the least" * (len(chosen) < len(found))
    plot_findings(
        [_shown(findings, pair) for pair, _ in chosen],
        [_likeness(distance) for _, distance in chosen],
        path,
        f"{counted(len(found), 'pair')}: {title}{few}",
        note,
    )


def _likeness(distance: int) -> str:
    return "the same bytes" if distance == SAME_BYTES else counted(distance, "bit differs", "bits differ")


def _draw_oddities(findings: Findings, path: Path, note: str) -> None:
    """The worst of every problem."""
    by_problem: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for oddity in findings.oddities:
        if oddity.index is not None:
            by_problem[oddity.problem].append((oddity.index, f"{oddity.problem}: {oddity.value:g}"))
    chosen = [item for found in by_problem.values() for item in found[:ROW]]
    plot_findings(
        [_shown(findings, (index,)) for index, _ in chosen],
        [said for _, said in chosen],
        path,
        f"The most suspicious photographs of each kind, {ROW} at most",
        note,
    )


def _shown(findings: Findings, indices: tuple[int, ...]) -> list[Shown]:
    images = findings.images
    return [
        Shown(pixels, findings.called(images.class_names[images.labels[i]]), images.paths[i])
        for i, pixels in zip(indices, images.pixels(indices), strict=True)
    ]
