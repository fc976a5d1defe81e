"""What a model's confidence is good for: accuracy of the surest images, and a temperature that makes it honest."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from naturalist.evaluation.metrics import calibration, wilson_interval
from naturalist.files import write_table
from naturalist.reading import Count, read_json
from naturalist.wording import percent

Array = NDArray[Any]

THRESHOLDS = (*(i / 20 for i in range(20)), 0.99)
"""Of confidence, as for ``predict --threshold``."""

COOLEST, HOTTEST = 0.05, 20.0
"""Temperatures that are tried: beyond them a model that is always right, or never, would have none."""


class Temperature(Struct):
    """What probabilities' logarithms are divided by, and what of."""

    value: Annotated[float, Meta(ge=COOLEST, le=HOTTEST)]
    fitted_on: str
    """The split."""


class _Fitted(Struct):
    """``evaluation/val/metrics.json``, as far as it is read back here."""

    epoch: Count
    temperature: Temperature | None = None
    """Earlier versions had none."""


def coverage(probabilities: Array, labels: Array) -> list[dict[str, Any]]:
    """How right a model is when it may be silent below a threshold of confidence (El-Yaniv & Wiener 2010).

    Args:
        probabilities: ``[N, C]``.
        labels: ``[N]`` integers.

    Returns:
        ``{threshold, images, coverage, accuracy, accuracy_95_interval}`` for each of :data:`THRESHOLDS`: coverage is
        the share of images with that confidence or more; the last two are None where there are none.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    rows = []
    for threshold in THRESHOLDS:
        answered = confidence >= threshold
        images, hits = int(answered.sum()), int(right[answered].sum())
        rows.append(
            {
                "threshold": threshold,
                "images": images,
                "coverage": images / len(labels),
                "accuracy": hits / images if images else None,
                "accuracy_95_interval": wilson_interval(hits, images) if images else None,
            }
        )
    return rows


def write_coverage_csv(rows: list[dict[str, Any]], path: Path) -> None:
    """Write what :func:`coverage` returns as a table; ``risk`` is the share of the answers that is wrong."""
    heading = ["threshold", "images", "coverage", "accuracy", "risk", "accuracy_low", "accuracy_high"]
    table = []
    for row in rows:
        numbers = ["", "", "", ""]
        if row["images"]:
            numbers = [row["accuracy"], 1 - row["accuracy"], *row["accuracy_95_interval"]]
        table.append([row["threshold"], row["images"], row["coverage"], *numbers])
    write_table(path, [heading, *table])


def fit_temperature(probabilities: Array, labels: Array) -> float:
    """The temperature with the lowest cross-entropy (Guo et al. 2017, "On calibration of modern neural networks").

    Cross-entropy is convex in its reciprocal, so there is one lowest. It lies in [:data:`COOLEST`, :data:`HOTTEST`].

    Args:
        probabilities: ``[N, C]``, of images that the model was not trained on.
        labels: ``[N]`` integers.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return _cross_entropy(tempered(probabilities, float(np.exp(log_temperature))), labels)

    found = minimize_scalar(loss, bounds=(np.log(COOLEST), np.log(HOTTEST)), method="bounded")
    return float(np.exp(found.x).clip(COOLEST, HOTTEST))


def tempered(probabilities: Array, temperature: float) -> NDArray[np.float64]:
    """Probabilities ``[N, C]`` of the logits divided by a temperature; the order of the classes stays.

    Softmax forgets what logits have in common, so that the logarithms of the probabilities do as well.
    """
    if temperature == 1:
        return probabilities
    logits = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny)) / temperature
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: NDArray[np.float64] = exponents / exponents.sum(axis=1, keepdims=True)
    return result


def with_temperature(probabilities: Array, labels: Array, temperature: Temperature) -> dict[str, Any]:
    """Loss and expected calibration error before and after a temperature, in plain numbers."""
    result: dict[str, Any] = {"value": temperature.value, "fitted_on": temperature.fitted_on}
    for when, values in (("before", probabilities), ("after", tempered(probabilities, temperature.value))):
        result[f"loss_{when}"] = _cross_entropy(values, labels)
        result[f"calibration_error_{when}"] = calibration(values, labels)["expected_calibration_error"]
    return result


def measure_confidence(
    evaluations: Path, split: str, epoch: int, probabilities: Array, labels: Array
) -> dict[str, Any]:
    """``coverage``, and what the ``temperature`` changes that was fitted on validation images, here or earlier.

    Args:
        evaluations: folder of a run's evaluations.
        split: ``"val"``, where it is fitted, or ``"test"``.
        epoch: of the checkpoint.
        probabilities: ``[N, C]``.
        labels: ``[N]`` integers.
    """
    if split == "val":
        temperature: Temperature | None = Temperature(fit_temperature(probabilities, labels), "val")
    else:
        temperature = temperature_of(evaluations, epoch)
    said = None if temperature is None else with_temperature(probabilities, labels, temperature)
    return {"coverage": coverage(probabilities, labels), "temperature": said}


def say_temperature(said: dict[str, Any] | None) -> str:
    """A sentence on what :func:`with_temperature` returned, or on there being none."""
    if said is None:
        return "No temperature is known for this checkpoint: evaluate it with --split val first to fit one."
    return (
        f"With a temperature of {said['value']:.3f}, fitted on {said['fitted_on']}: loss {said['loss_after']:.4f}, "
        f"calibration error {percent(said['calibration_error_after'])}; predict --temperature {said['value']:.3f} "
        "uses it"
    )


def temperature_of(evaluations: Path, epoch: int) -> Temperature | None:
    """What was fitted on the validation images for a checkpoint's epoch; None where that was not evaluated.

    Raises :class:`UserError` for a record that is damaged.
    """
    record = evaluations / "val" / "metrics.json"
    if not record.is_file():
        return None
    fitted = read_json(record, _Fitted, "evaluate the run again with --split val")
    return fitted.temperature if fitted.epoch == epoch else None


def _cross_entropy(probabilities: Array, labels: Array) -> float:
    own = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(own, np.finfo(np.float64).tiny)).mean())
