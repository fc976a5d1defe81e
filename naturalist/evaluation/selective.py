"""When a model is unsure: the confidence below which its answers had better not be believed.

Selective classification (Geifman & El-Yaniv 2017, "Selective classification for deep neural networks"): whoever may
leave some photographs unanswered errs less on the others.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALLOWED = 0.5
"""Share of the errors of all answers that sure ones may make: half."""

LEAST_SURE = 30
"""Fewer sure answers tell too little of how often such answers are right."""


@dataclass(frozen=True)
class Threshold:
    """A confidence, and what it meant on the images that it was fitted on."""

    confidence: float
    """From it on, an answer is sure; in [0, 1]."""
    images: int
    coverage: float
    """Share of them with sure answers."""
    accuracy: float
    """Of the sure answers."""
    accuracy_below: float | None
    """Of the others; None where there are none."""


def fit_threshold(probabilities: NDArray[Any], labels: NDArray[Any]) -> Threshold | None:
    """The lowest confidence from which on answers are wrong at most half as often as they are on the whole.

    Args:
        probabilities: ``[N, C]`` of at least one image, of validation: what is fitted on the test set flatters it.
        labels: int64 ``[N]``.

    Returns:
        None when there is no such confidence with :data:`LEAST_SURE` answers, as it does not tell right from wrong.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    order = np.argsort(-confidence, kind="stable")
    confidence, right = confidence[order], right[order]
    answered = np.arange(1, len(right) + 1)
    is_cut = np.append(confidence[1:] < confidence[:-1], True)  # equal confidence is on one side
    is_good = (answered - np.cumsum(right)) / answered <= ALLOWED * (1 - right.mean())
    cuts = np.flatnonzero(is_cut & is_good & (answered >= LEAST_SURE))
    if not len(cuts):
        return None
    sure = int(answered[cuts[-1]])
    return Threshold(
        confidence=float(confidence[sure - 1]),
        images=len(right),
        coverage=sure / len(right),
        accuracy=float(right[:sure].mean()),
        accuracy_below=float(right[sure:].mean()) if sure < len(right) else None,
    )
