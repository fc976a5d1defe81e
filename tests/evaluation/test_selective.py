"""When a model is unsure."""

import numpy as np
import pytest

from naturalist.evaluation.selective import fit_threshold


def answers(confidence: list[float], right: list[bool]):
    """Of two classes the first, with some confidence; and the labels."""
    first = np.array(confidence)
    return np.stack([first, 1 - first], axis=1), np.where(right, 0, 1)


@pytest.mark.parametrize(
    ("confidence", "right", "expected"),
    [
        # 20 errors of 80 answers: of the sure ones an eighth might be wrong, and equal confidence stays together
        ([0.9] * 40 + [0.6] * 40, [True] * 40 + [True, False] * 20, (0.9, 0.5, 1.0, 0.5)),
        ([0.9] * 30 + [0.8] * 10, [True] * 40, (0.8, 1.0, 1.0, None)),  # all right: unsure below the least seen
        ([0.9] * 40, [True, False] * 20, None),  # equal confidence tells nothing apart
        ([0.9] * 29 + [0.6] * 29, [True] * 29 + [False] * 29, None),  # too few to tell
        ([0.9] * 40, [False] * 40, None),
        ([0.9], [True], None),
    ],
)
def test_the_threshold_halves_the_errors_of_as_many_answers_as_it_can(confidence, right, expected):
    threshold = fit_threshold(*answers(confidence, right))
    if expected is None:
        assert threshold is None
    else:
        found = (threshold.confidence, threshold.coverage, threshold.accuracy, threshold.accuracy_below)
        assert found == expected
