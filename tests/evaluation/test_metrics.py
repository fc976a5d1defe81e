"""The numbers of an evaluation are the ones scikit-learn and a pocket calculator give."""

import csv
import json
import warnings

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from naturalist.evaluation.metrics import (
    choose_grid,
    classification_metrics,
    confusion_matrix,
    most_confused,
    similarity_order,
    write_confusion_csv,
)

NAMES = ["Amphibia", "Aves", "Fungi", "Insecta", "Plantae"]


def softmax(logits):
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 200)
    return softmax(rng.normal(size=(200, 5)) + 1.5 * np.eye(5)[labels]), labels


def test_numbers_equal_those_of_sklearn(predictions):
    probabilities, labels = predictions
    predicted = probabilities.argmax(axis=1)
    result = classification_metrics(probabilities, labels, NAMES)
    report = sklearn_metrics.classification_report(labels, predicted, target_names=NAMES, output_dict=True)

    assert result["n"] == 200
    assert result["loss"] == pytest.approx(sklearn_metrics.log_loss(labels, probabilities))
    assert result["accuracy"] == pytest.approx(report["accuracy"])
    assert result["top3_accuracy"] == pytest.approx(sklearn_metrics.top_k_accuracy_score(labels, probabilities, k=3))
    assert result["balanced_accuracy"] == pytest.approx(sklearn_metrics.balanced_accuracy_score(labels, predicted))
    for ours, theirs in [(result["macro"], "macro avg"), *((result["per_class"][n], n) for n in NAMES)]:
        expected = {key.replace("f1-score", "f1"): value for key, value in report[theirs].items()}
        assert ours == pytest.approx({key: expected[key] for key in ours})


def test_result_is_plain_json(predictions):
    result = classification_metrics(*predictions, NAMES)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_interval_is_wilsons():
    labels = np.zeros(10, dtype=int)
    probabilities = np.array([[0.9, 0.1]] * 8 + [[0.2, 0.8]] * 2)
    low, high = classification_metrics(probabilities, labels, ["a", "b"])["accuracy_95_interval"]
    # (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n) with p = 0.8, n = 10, z = 1.95996
    assert (low, high) == (pytest.approx(0.49016, abs=1e-5), pytest.approx(0.94332, abs=1e-5))


def test_class_without_images_is_null_and_out_of_the_averages():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8], [0.1, 0.8, 0.1]])
    result = classification_metrics(probabilities, np.array([0, 0, 1]), ["a", "b", "never there"])
    absent = {"precision": None, "recall": None, "f1": None, "support": 0}
    assert result["per_class"]["never there"] == absent
    assert result["balanced_accuracy"] == result["macro"]["recall"] == 0.75


def test_class_never_predicted_counts_as_zero_precision():
    result = classification_metrics(np.array([[0.9, 0.1], [0.9, 0.1]]), np.array([0, 1]), ["a", "b"])
    assert result["per_class"]["b"] == {"precision": 0, "recall": 0, "f1": 0, "support": 1}
    assert result["macro"]["precision"] == 0.25


def test_ties_rank_in_class_order_in_top1_and_top3():
    result = classification_metrics(np.full((5, 5), 0.2), np.arange(5), NAMES)
    assert (result["accuracy"], result["top3_accuracy"]) == (0.2, pytest.approx(0.6))


def test_top3_of_two_classes_is_one():
    assert classification_metrics(np.array([[0.9, 0.1]]), np.array([1]), ["a", "b"])["top3_accuracy"] == 1


def test_confident_mistakes_have_a_finite_loss():
    result = classification_metrics(np.array([[1.0, 0.0]], dtype=np.float32), np.array([1]), ["a", "b"])
    assert 30 < result["loss"] < 100


def test_single_precision_probabilities_are_taken(predictions):
    probabilities, labels = predictions
    assert classification_metrics(probabilities.astype(np.float16), labels, NAMES)["loss"] == pytest.approx(
        classification_metrics(probabilities, labels, NAMES)["loss"], abs=1e-3
    )


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        ([[0.5, np.nan]], [0], "1 of 1 image are not finite"),
        ([[0.5, np.inf]], [0], "not finite"),
        ([[3.0, -1.0]], [0], "softmax"),
        ([[0.5, 0.5]], [2], "expected 0 to 1"),
        ([[0.5, 0.5]], [0, 1], "do not fit"),
        (np.empty((0, 2)), [], "no images"),
    ],
)
def test_impossible_input_is_refused(probabilities, labels, message):
    with pytest.raises(ValueError, match=message):
        classification_metrics(np.array(probabilities), np.array(labels), ["a", "b"])


def test_confusion_rows_are_true_and_columns_predicted(tmp_path):
    matrix = confusion_matrix(np.array([0, 0, 1]), np.array([1, 0, 1]), num_classes=3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]

    write_confusion_csv(matrix, ["a", "b, with comma", "c"], tmp_path / "confusion.csv")
    with (tmp_path / "confusion.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["true \\ predicted", "a", "b, with comma", "c"],
            ["a", "1", "1", "0"],
            ["b, with comma", "0", "1", "0"],
            ["c", "0", "0", "0"],
        ]


def test_grid_has_three_images_of_every_class():
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(10), 20))
    chosen = choose_grid(labels, seed=5)
    assert labels[chosen].tolist() == np.repeat(np.arange(10), 3).tolist()
    assert len(set(chosen)) == 30


def test_grid_is_the_same_for_the_same_seed_only():
    labels = np.repeat(np.arange(10), 20)
    assert choose_grid(labels, seed=5) == choose_grid(labels, seed=5) != choose_grid(labels, seed=6)


def test_grid_takes_what_there_is_of_a_small_class():
    chosen = choose_grid(np.array([0, 2, 2, 2, 2, 0]))
    assert sorted(chosen[:2]) == [0, 5]
    assert len(chosen) == 5


def test_most_confused_classes_are_counted_with_their_share_of_the_true_class():
    matrix = np.array([[5, 3, 0], [0, 4, 0], [1, 7, 2]])
    assert most_confused(matrix, ["a", "b", "c"], count=2) == [
        {"truth": "c", "prediction": "b", "images": 7, "share": 0.7},
        {"truth": "a", "prediction": "b", "images": 3, "share": 0.375},
    ]
    assert (
        len(most_confused(matrix, ["a", "b", "c"])) == 3 and most_confused(np.eye(3, dtype=int), ["a", "b", "c"]) == []
    )


def test_order_by_similarity_puts_confused_classes_side_by_side():
    blocks = np.kron(np.eye(4, dtype=int), np.array([[6, 4], [3, 7]]))
    shuffled = np.random.default_rng(0).permutation(8)
    order = [int(shuffled[i]) for i in similarity_order(blocks[np.ix_(shuffled, shuffled)])]
    assert all(order[i] // 2 == order[i + 1] // 2 for i in range(0, 8, 2))
    assert sorted(similarity_order(np.array([[1, 0, 2], [0, 0, 0], [2, 0, 1]]))) == [0, 1, 2]  # one without images
    assert sorted(similarity_order(np.eye(2, dtype=int))) == [0, 1]
