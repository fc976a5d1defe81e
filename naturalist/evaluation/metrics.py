"""How good predictions are: numbers that are plain JSON, the confusion matrix, and the images of the grid."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naturalist.files import write_table
from naturalist.reading import damaged, read_csv
from naturalist.wording import counted

# SciPy and scikit-learn take seconds to import, which a training should not pay before its first step.

Array = NDArray[Any]

ABOUT = ["file", "truth", "prediction", "confidence", "right"]
"""Columns of ``predictions.csv`` before those of the classes."""

SUM_TOLERANCE = 0.02
"""How far a row of probabilities may be from 1; rounding them to bfloat16 moves the sum by up to 0.004."""


def classification_metrics(probabilities: Array, labels: Array, class_names: Sequence[str]) -> dict[str, Any]:
    """Summarise predictions in numbers that ``json.dumps`` takes as they are.

    ``probabilities`` are ``[N, C]`` softmax outputs, ``labels`` ``[N]`` integers from 0 to C - 1, and
    ``class_names`` C names, at least two. Returns

    - ``n``, the number of images, and ``loss``, their mean cross-entropy in nats;
    - ``accuracy``, ``top3_accuracy`` and ``balanced_accuracy`` (mean recall), in 0 to 1;
    - ``accuracy_95_interval``, see :func:`wilson_interval`;
    - ``per_class``, ``{name: {precision, recall, f1, support}}``, and ``macro``, the means over classes.

    A class without images has ``None`` for precision, recall and F1 and stays out of the means. A class that
    has images but was never predicted has precision 0. Equal probabilities rank in the order of
    ``class_names``, for the prediction as for the top three.

    Raises ValueError for no images, shapes that do not fit, labels out of range, and rows that are not finite
    or not probabilities.
    """
    from sklearn import metrics

    probabilities = np.asarray(probabilities, dtype=np.float64)
    labels = np.asarray(labels)
    classes = np.arange(len(class_names))
    _check(probabilities, labels, len(classes))

    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
    ranking = np.argsort(-probabilities, axis=1, kind="stable")
    predicted = ranking[:, 0]
    right = int((predicted == labels).sum())
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, predicted, labels=classes, zero_division=0.0
    )
    present = support > 0
    scores = {"precision": precision, "recall": recall, "f1": f1}
    return {
        "n": len(labels),
        "loss": float(metrics.log_loss(labels, probabilities, labels=classes)),
        "accuracy": right / len(labels),
        "accuracy_95_interval": wilson_interval(right, len(labels)),
        "top3_accuracy": float((ranking[:, :3] == labels[:, None]).any(axis=1).mean()),
        "balanced_accuracy": float(recall[present].mean()),
        "macro": {score: float(values[present].mean()) for score, values in scores.items()},
        "per_class": {
            name: {score: float(values[i]) if present[i] else None for score, values in scores.items()}
            | {"support": int(support[i])}
            for i, name in enumerate(class_names)
        },
    }


def wilson_interval(right: int, images: int) -> list[float]:
    """``[low, high]``, the 95 % interval of a share of one image or more; good for few images and near 0 and 1 too.

    Wilson's score interval (E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    1927).
    """
    from scipy.stats import binomtest

    interval = binomtest(right, images).proportion_ci(confidence_level=0.95, method="wilson")
    return [float(interval.low), float(interval.high)]


def confusion_matrix(labels: Array, predicted: Array, num_classes: int) -> Array:
    """Count images by true class (rows) and predicted class (columns).

    Both arrays are ``[N]`` integers from 0 to ``num_classes - 1``; the counts are ``[C, C]``.
    """
    from sklearn import metrics

    matrix: Array = metrics.confusion_matrix(labels, predicted, labels=np.arange(num_classes))
    return matrix


def most_confused(matrix: Array, class_names: Sequence[str], count: int = 5) -> list[dict[str, Any]]:
    """Which classes are most often taken for which, by the number of images: the pairs of a ``[C, C]`` matrix.

    Each is ``{truth, prediction, images, share}``, the share being that of the true class.
    """
    wrong = matrix * (1 - np.eye(len(matrix), dtype=matrix.dtype))
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    return [
        {
            "truth": class_names[true],
            "prediction": class_names[predicted],
            "images": int(wrong[true, predicted]),
            "share": float(wrong[true, predicted] / matrix[true].sum()),
        }
        for true, predicted in zip(*np.unravel_index(order, matrix.shape), strict=True)
        if wrong[true, predicted]
    ]


def similarity_order(matrix: Array) -> list[int]:
    """The classes of a ``[C, C]`` confusion matrix in an order that has those side by side that are confused.

    The leaves of a tree of average linkage, ordered optimally (Bar-Joseph, Gifford & Jaakkola 2001), by the mean of the
    shares in which either class is taken for the other.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    shares = matrix / matrix.sum(axis=1, keepdims=True).clip(min=1)
    distances = 1 - (shares + shares.T) / 2
    np.fill_diagonal(distances, 0)
    order: list[int] = leaves_list(linkage(squareform(distances), "average", optimal_ordering=True)).tolist()
    return order


def write_confusion_csv(matrix: Array, class_names: Sequence[str], path: str | Path) -> None:
    """Write a ``[C, C]`` confusion matrix as a table: a row per true class, a column per predicted class."""
    rows = ([name, *row] for name, row in zip(class_names, matrix.tolist(), strict=True))
    write_table(Path(path), [["true \\ predicted", *class_names], *rows])


def calibration(probabilities: Array, labels: Array, bins: int = 15) -> dict[str, Any]:
    """Whether confidence can be believed: of predictions made with 70 % confidence, are 70 % right?

    Predictions are sorted into ``bins`` equally wide intervals ``(low, high]`` of confidence. The expected
    calibration error is the mean gap between confidence and accuracy, weighted by the images in each bin
    (Naeini et al. 2015; Guo et al. 2017, "On calibration of modern neural networks", with 15 bins).

    Args:
        probabilities: ``[N, C]``.
        labels: ``[N]`` integers.
        bins: how many.

    Returns:
        ``expected_calibration_error`` and ``bins``, a list of ``{low, high, images, confidence, accuracy,
        accuracy_95_interval}``; the last three are None for an empty bin.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    images = np.bincount(bin_of, minlength=bins)
    confidence_sum = np.bincount(bin_of, weights=confidence, minlength=bins)
    right_sum = np.bincount(bin_of, weights=right, minlength=bins)
    return {
        "expected_calibration_error": float(np.abs(confidence_sum - right_sum).sum() / len(labels)),
        "bins": [
            {
                "low": i / bins,
                "high": (i + 1) / bins,
                "images": int(images[i]),
                "confidence": float(confidence_sum[i] / images[i]) if images[i] else None,
                "accuracy": float(right_sum[i] / images[i]) if images[i] else None,
                "accuracy_95_interval": wilson_interval(int(right_sum[i]), int(images[i])) if images[i] else None,
            }
            for i in range(bins)
        ],
    }


def mcnemar(first_right: Array, second_right: Array) -> dict[str, Any]:
    """Whether two models differ on the same images by more than chance: McNemar's exact test.

    Only images that one model gets right and the other wrong tell anything; if the models were equally good, each of
    those would go either way with probability one half (McNemar 1947; Dietterich 1998, "Approximate statistical tests
    for comparing supervised classification learning algorithms"). The test is two-sided, by the binomial distribution.

    Args:
        first_right: ``[N]`` of bool.
        second_right: ``[N]`` of bool, for the same images in the same order.

    Returns:
        ``only_first_right`` and ``only_second_right``, counts, and ``p_value``.
    """
    from scipy.stats import binomtest

    only_first = int((first_right & ~second_right).sum())
    only_second = int((second_right & ~first_right).sum())
    discordant = only_first + only_second
    p_value = binomtest(only_first, discordant, 0.5).pvalue if discordant else 1.0
    return {"only_first_right": only_first, "only_second_right": only_second, "p_value": float(p_value)}


def paired_interval(first_right: Array, second_right: Array) -> tuple[float, float]:
    """The 95 % interval of how much more accurate the first is, over the same images.

    Paired, so that hard images count for both; with Agresti and Min's half image in every cell ("Simple improved
    confidence intervals for comparing matched proportions", 2005), good for few images.

    Args:
        first_right: ``[N]``, whether each image was right; of several runs, the share of them.
        second_right: of the same images.
    """
    apart = np.asarray(first_right, dtype=np.float64) - np.asarray(second_right, dtype=np.float64)
    count = len(apart) + 2
    centre = apart.sum() / count
    margin = 1.96 * np.sqrt(((np.square(apart).sum() + 1) / count - centre**2) / count)
    return float(centre - margin), float(centre + margin)


def write_predictions_csv(
    files: Sequence[str], labels: Array, probabilities: Array, class_names: Sequence[str], path: str | Path
) -> None:
    """Write a row per image: :data:`ABOUT` it, and the probability of every class, in full precision.

    ``right`` is ``yes`` or ``no``.
    """
    predicted = probabilities.argmax(axis=1).tolist()
    rows = (
        [
            name,
            class_names[label],
            class_names[best],
            repr(row[best]),
            "yes" if best == label else "no",
            *map(repr, row),
        ]
        for name, label, best, row in zip(files, labels.tolist(), predicted, probabilities.tolist(), strict=True)
    )
    write_table(Path(path), [[*ABOUT, *class_names], *rows])


def read_predictions_csv(path: str | Path) -> tuple[list[str], list[str], Array, list[str]]:
    """What :func:`write_predictions_csv` wrote: files, true classes, probabilities ``[N, C]``, class names.

    Raises :class:`UserError` when it is missing or damaged.
    """
    remedy = "evaluate the run again"
    heading, rows = read_csv(Path(path), remedy)
    first = len(ABOUT) if heading[: len(ABOUT)] == ABOUT else 2  # earlier versions had two columns before the classes
    names = heading[first:]
    if heading[:2] != ABOUT[:2] or not rows or len(set(names)) != max(2, len(names)):
        damaged(str(path), "it is no table of predictions", remedy)
    try:
        probabilities = np.array([row[first:] for row in rows], dtype=np.float64)
    except ValueError:
        damaged(str(path), "a probability is no number", remedy)
    sums = probabilities.sum(axis=1)
    for number, row in enumerate(rows):
        # Written so that NaN does not get through.
        if not (row[1] in names and probabilities[number].min() >= 0 and abs(sums[number] - 1) <= SUM_TOLERANCE):
            damaged(f"{path}, row {number + 2},", "its class or probabilities are impossible", remedy)
    return [row[0] for row in rows], [row[1] for row in rows], probabilities, names


def choose_grid(labels: Array, per_class: int = 3, seed: int = 0) -> list[int]:
    """Draw the images of the prediction grid: ``per_class`` of every class at random, or all it has.

    The choice sees no predictions, so it cannot flatter. Returns indices into ``labels`` (``[N]`` integers),
    class after class.
    """
    labels = np.asarray(labels)
    rng = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        chosen += rng.choice(members, min(per_class, len(members)), replace=False).tolist()
    return chosen


def _check(probabilities: Array, labels: Array, num_classes: int) -> None:
    if num_classes < 2:
        raise ValueError(f"metrics need at least two classes, got {num_classes}")
    if labels.ndim != 1 or probabilities.shape != (len(labels), num_classes):
        raise ValueError(
            f"probabilities {probabilities.shape} and labels {labels.shape} do not fit "
            f"{num_classes} classes: expected [N, {num_classes}] and [N]"
        )
    if len(labels) == 0:
        raise ValueError("no images to compute metrics of")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"labels run from {labels.min()} to {labels.max()}; expected 0 to {num_classes - 1}")
    broken = np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
    if len(broken):
        raise ValueError(
            f"probabilities of {len(broken)} of {counted(len(labels), 'image')} are not finite, "
            f"the first of them image {broken[0]}"
        )
    if probabilities.min() < 0 or np.abs(probabilities.sum(axis=1) - 1).max() > SUM_TOLERANCE:
        raise ValueError("rows must be probabilities that sum to 1: apply softmax to logits first")
