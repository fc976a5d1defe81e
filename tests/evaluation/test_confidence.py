"""What confidence is good for is counted as one would by hand, and a planted temperature is found again."""

import csv

import numpy as np
import pytest
from matplotlib.figure import Figure

from naturalist.evaluation.confidence import (
    COOLEST,
    HOTTEST,
    THRESHOLDS,
    Temperature,
    coverage,
    fit_temperature,
    tempered,
    with_temperature,
    write_coverage_csv,
)
from naturalist.plots.coverage import plot_coverage


def softmax(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def drawn(logits: np.ndarray) -> np.ndarray:
    """Labels that are as probable as logits say."""
    chance = np.random.default_rng(1).random((len(logits), 1))
    return (softmax(logits).cumsum(axis=1) < chance).sum(axis=1)


@pytest.mark.parametrize("planted", [0.4, 1.0, 2.5])
def test_a_planted_temperature_is_found_and_makes_confidence_honest(planted):
    logits = 2 * np.random.default_rng(0).normal(size=(20_000, 5))
    labels, probabilities = drawn(logits), softmax(planted * logits)
    found = fit_temperature(probabilities, labels)
    assert found == pytest.approx(planted, rel=0.03)
    said = with_temperature(probabilities, labels, Temperature(found, "val"))
    assert said["calibration_error_after"] < 0.015
    assert said["loss_after"] <= said["loss_before"] + 1e-9
    assert tempered(probabilities, planted) == pytest.approx(softmax(logits))


@pytest.mark.parametrize(("labels", "bound"), [([0, 1], COOLEST), ([1, 0], HOTTEST)])
def test_of_a_model_that_is_always_or_never_right_the_temperature_is_finite(labels, bound):
    probabilities = np.array([[1.0, 0.0], [0.4, 0.6]])
    assert fit_temperature(probabilities, np.array(labels)) == pytest.approx(bound, rel=0.01)


def test_a_temperature_of_one_changes_nothing_and_no_temperature_the_order():
    probabilities = softmax(np.random.default_rng(0).normal(size=(50, 6)))
    assert (tempered(probabilities, 1.0) == probabilities).all()
    assert (tempered(probabilities, 3.0).argsort(axis=1) == probabilities.argsort(axis=1)).all()


def test_coverage_and_accuracy_by_hand(tmp_path):
    confidence = np.array([0.95, 0.8, 0.8, 0.55])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    rows = coverage(probabilities, np.array([0, 0, 1, 1]))
    by_threshold = {row["threshold"]: (row["images"], row["coverage"], row["accuracy"]) for row in rows}
    assert by_threshold[0.0] == (4, 1.0, 0.5)
    assert by_threshold[0.6] == (3, 0.75, pytest.approx(2 / 3))
    assert by_threshold[0.8] == (3, 0.75, pytest.approx(2 / 3))  # that confidence itself counts
    assert by_threshold[0.85] == (1, 0.25, 1.0)
    assert by_threshold[0.99] == (0, 0.0, None)
    # Wilson's interval of 2 of 3.
    assert rows[12]["accuracy_95_interval"] == [pytest.approx(0.20766, abs=1e-5), pytest.approx(0.93851, abs=1e-5)]
    write_coverage_csv(rows, tmp_path / "coverage.csv")
    with (tmp_path / "coverage.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(THRESHOLDS)
    assert float(table[12]["risk"]) == pytest.approx(1 / 3) and table[-1]["accuracy"] == table[-1]["risk"] == ""


def test_the_picture_of_coverage_has_a_point_for_each_threshold_that_is_reached(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: (figures.append(self), path.touch()))
    confidence = np.linspace(0.5, 1, 60)
    rows = coverage(np.stack([confidence, 1 - confidence], axis=1), (np.arange(60) % 3 == 0).astype(int))
    plot_coverage(rows, tmp_path / "coverage.png", "first")
    (ax,) = figures[0].axes
    assert len(ax.lines[0].get_xdata()) == sum(row["images"] > 0 for row in rows)
    boxes = [text.get_window_extent() for text in ax.texts]
    assert len(boxes) > 3 and not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
