"""Labels that a run doubts are found by confident learning, among images that it was not trained on."""

import json

import numpy as np
import pytest
from quick_runs import SIZE, make_run

from naturalist.data.catalog import scan
from naturalist.data.images import open_cache
from naturalist.data.recorded_split import RecordedSplit
from naturalist.evaluation import label_errors
from naturalist.evaluation.label_errors import find_label_errors, label_errors_of


def test_confident_learning_finds_what_was_worked_out_by_hand():
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2])
    probabilities = np.array(
        [
            [0.9, 0.1, 0.0],
            [0.8, 0.2, 0.0],
            [0.3, 0.7, 0.0],  # 1 reaches its threshold
            [0.5, 0.05, 0.45],  # 2 does, too, but 0 is more probable
            [0.2, 0.8, 0.0],
            [0.4, 0.6, 0.0],
            [0.85, 0.15, 0.0],  # 0 does, by more
            [0.4, 0.2, 0.4],
            [0.5, 0.1, 0.4],  # 0 is more probable, but not for a 0: 0.5 < 0.625
        ]
    )  # thresholds: 0.625, 0.517, 0.4
    suspects, suggested = find_label_errors(labels, probabilities)
    assert suspects.tolist() == [6, 2] and suggested.tolist() == [0, 1]


def test_a_class_without_images_is_suggested_for_none():
    suspects, _ = find_label_errors(np.array([0, 1]), np.array([[0.1, 0.1, 0.8], [0.1, 0.1, 0.8]]))
    assert not len(suspects)


class Oracle:
    """In place of a classifier: knows the pixels of every class."""

    name = "oracle"

    def __init__(self, cache):
        self.pixels, self.labels = cache.read(np.arange(len(cache))).astype(int), cache.labels

    def probabilities(self, pixels):
        nearest = [np.abs(self.pixels - image).sum(axis=(1, 2, 3)).argmin() for image in pixels]
        return np.where(np.eye(4)[self.labels[nearest]] > 0, 0.85, 0.05)


@pytest.fixture
def flipped(own_photographs, photographs, tmp_path, monkeypatch):
    """A run on photographs of which three in every class are of the class before it."""
    classes = scan(own_photographs / "train").class_names
    for label, name in enumerate(classes):
        for number in (3, 5, 7):
            source = photographs / "train" / classes[label - 1] / f"{number:02}.jpg"
            (own_photographs / "train" / name / f"flipped {number}.jpg").write_bytes(source.read_bytes())
            (own_photographs / "train" / name / f"{number:02}.jpg").unlink()
    truth = open_cache(scan(photographs / "train"), SIZE, "squash", tmp_path / "truth")
    monkeypatch.setattr(label_errors, "load_classifier", lambda *_, **__: Oracle(truth))
    return make_run(tmp_path / "runs" / "a", own_photographs)


def test_flipped_labels_are_found_and_no_others_and_never_among_training_images(flipped, own_photographs):
    errors = label_errors_of(flipped, "val", str(own_photographs), cache_dir=None, device="cpu")
    validated = {file.path for file in RecordedSplit.read(flipped, "held out").of("val")}
    suspects = {errors.images.files[i] for i in errors.suspects}
    assert suspects == {path for path in validated if "flipped" in path} and suspects
    classes = errors.images.cache.class_names
    for i, suggested in zip(errors.suspects, errors.suggested, strict=True):
        assert classes[suggested] == classes[errors.images.labels[i] - 1]
    assert sum(pair["images"] for pair in errors.record()["pairs"]) == len(suspects)
    assert not (flipped.parent / "test_looks.jsonl").exists()


def test_looking_for_wrong_labels_in_the_test_set_is_a_look_at_it(flipped, own_photographs):
    errors = label_errors_of(flipped, "test", str(own_photographs), cache_dir=None, device="cpu")
    look = json.loads((flipped.parent / "test_looks.jsonl").read_text())
    assert look["run"] == "a" and look["accuracy"] == pytest.approx(errors.accuracy)
