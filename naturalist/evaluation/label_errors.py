"""Which labels are probably wrong, by what a model says of images that it was not trained on.

Confident learning: Northcutt, Jiang & Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels" (2021).
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naturalist.evaluation.classifier import load_classifier
from naturalist.evaluation.looks import describe_looks, record_look
from naturalist.evaluation.split_images import SplitImages, images_of_split
from naturalist.progress import progress_bar
from naturalist.runs.checkpoint import load_checkpoint
from naturalist.settings.verbs import Split

BATCH = 64


@dataclass(frozen=True)
class LabelErrors:
    """Images of a split that a run would label otherwise, the surest first."""

    run: str
    split: Split
    images: SplitImages
    probabilities: NDArray[np.float64]
    """Of all images, ``[N, C]``."""
    suspects: NDArray[np.int64]
    """int64 ``[E]``, which of the images."""
    suggested: NDArray[np.int64]
    """int64 ``[E]``, the labels that they should have had."""
    looks: str
    """A sentence on earlier looks at a test set; empty otherwise."""

    @property
    def accuracy(self) -> float:
        """Share of the images that the run puts into the class that they are labelled with."""
        return float((self.probabilities.argmax(axis=1) == self.images.labels).mean())

    @property
    def confidence(self) -> NDArray[np.float64]:
        """Of the suggestions, ``[E]``."""
        confidence: NDArray[np.float64] = self.probabilities[self.suspects, self.suggested]
        return confidence

    def record(self) -> dict[str, Any]:
        """In plain numbers: of which labels images are suspected, and what they should have been."""
        names, labels = self.images.cache.class_names, self.images.labels
        pairs: dict[tuple[int, int], int] = {}
        for i, suggested in zip(self.suspects.tolist(), self.suggested.tolist(), strict=True):
            pairs[int(labels[i]), suggested] = pairs.get((int(labels[i]), suggested), 0) + 1
        return {
            "run": self.run,
            "split": self.split,
            "images": len(labels),
            "accuracy": round(self.accuracy, 4),
            "suspects": len(self.suspects),
            "pairs": [
                {"label": names[label], "suggested": names[suggested], "images": count}
                for (label, suggested), count in sorted(pairs.items(), key=lambda pair: -pair[1])
            ],
        }


def find_label_errors(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Images that are confidently of another class than their label says.

    A class's threshold is the mean probability of that class among the images labelled so. An image counts as
    confidently of the class whose probability reaches its threshold, the most probable of these; where that is not its
    label, it is off the diagonal of the confident joint. It is suspected if it is also more probable than the label.

    Args:
        labels: int64 ``[N]``.
        probabilities: by a model that was not trained on the images, ``[N, C]``.

    Returns:
        Which images, by falling margin of the other class's probability over the label's, and the other classes; int64
        ``[E]`` both.
    """
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    own = probabilities[np.arange(len(labels)), labels]
    sums = np.bincount(labels, weights=own, minlength=len(counts))
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)  # of no image, nothing is known of a class
    reached = np.where(probabilities >= thresholds, probabilities, -1)
    confident = reached.argmax(axis=1)
    margins = reached.max(axis=1) - own  # negative where no threshold is reached, 0 where the label's is
    suspects = np.flatnonzero(margins > 0)
    suspects = suspects[np.argsort(-margins[suspects], kind="stable")]
    return suspects, confident[suspects]


def label_errors_of(run: Path, split: Split, data: str, *, cache_dir: str | None, device: str) -> LabelErrors:
    """Look for wrong labels among images that a run was not trained on.

    Args:
        run: run folder, or a checkpoint file in one.
        split: ``"val"``, the images that the run was validated with; or ``"test"``, which is remembered as a look.
        data: the data set.
        cache_dir: folder for decoded images, if not the run's own.
        device: see :func:`naturalist.device.choose_device`.

    Raises:
        UserError: for a run that cannot be read, or data that does not fit it.
    """
    checkpoint = load_checkpoint(run)
    folder = run if run.is_dir() else run.parent
    images = images_of_split(folder, checkpoint, split, data=data, cache_dir=cache_dir)
    classifier = load_classifier(run, device, checkpoint=checkpoint)
    rows = []
    with progress_bar(f"Asking {classifier.name} about {split}", len(images.indices)) as bar:
        for start in range(0, len(images.indices), BATCH):
            rows.append(classifier.probabilities(images.cache.read(images.indices[start : start + BATCH])))
            bar.advance(len(rows[-1]))
    probabilities = np.concatenate(rows)
    found = LabelErrors(
        classifier.name, split, images, probabilities, *find_label_errors(images.labels, probabilities), looks=""
    )
    if split == "val":
        return found
    return replace(found, looks=describe_looks(record_look(run, images.files, checkpoint["epoch"], found.accuracy)))
